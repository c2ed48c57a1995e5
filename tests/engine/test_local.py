import random
import shutil
from dataclasses import replace

import pytest
import torch

from generation import request, run
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.engine.local.slots import SlotPool, Span, StepPlan
from lightning_mem1.engine.local.static_decode import lengths
from lightning_mem1.engine.sampling import sample
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.policy.scores import Scores
from tiny import random_ids, tiny_policy, tiny_tokenizer

POLICY = tiny_policy(LoraSettings(r=4))


def engine(num_slots=2, **settings):
    return LocalEngine(POLICY, EngineSettings(num_slots=num_slots, max_context_tokens=128, **settings))


def slow_greedy(context, n):
    """The oracle: one whole forward pass per token, no cache."""
    ids = list(context)
    for _ in range(n):
        tokens = torch.tensor([ids])
        hidden = POLICY.hidden(tokens, torch.arange(len(ids))[None], attention_mask=torch.ones_like(tokens))
        ids.append(int(POLICY.head(hidden[0, -1:]).argmax()))
    return ids[len(context) :]


def test_greedy_turns_equal_generation_without_a_cache():
    rng = random.Random(0)
    contexts = [random_ids(rng, n) for n in (3, 17, 9, 30, 1)]
    done = run(engine(), [request(i, c, temperature=0.0) for i, c in enumerate(contexts)])
    with torch.no_grad():
        for i, context in enumerate(contexts):
            expected = slow_greedy(context, 8)
            end = expected.index(POLICY.tokenizer.eos_token_id) + 1 if POLICY.tokenizer.eos_token_id in expected else 8
            assert done[i].ids == expected[:end]


def test_the_same_seed_gives_the_same_turn_whatever_the_batch_and_the_number_of_slots():
    rng = random.Random(1)
    contexts = [random_ids(rng, rng.randrange(1, 40)) for _ in range(9)]
    alone = [run(engine(1), [request(0, c, seed=i)])[0].ids for i, c in enumerate(contexts)]
    for slots in (2, 5, 16):
        done = run(engine(slots), [request(i, c, seed=i) for i, c in enumerate(contexts)])
        assert [done[i].ids for i in range(9)] == alone


def test_a_freed_slot_starts_the_next_turn_while_the_others_still_decode():
    eng = engine(2)
    for i, n in enumerate((20, 2, 3)):
        eng.submit(request(i, [5, 6, 7], seed=i, n=n, temperature=1.0))
    ended = []
    steps = 0
    while eng.pending:
        ended += [(completion.session, steps) for completion in eng.step()]
        steps += 1
    order = [session for session, _ in ended]
    assert order.index(2) < order.index(0)  # the third turn ran beside the long one
    assert steps <= 20


def test_keys_kept_in_a_slot_do_not_change_what_is_generated():
    rng = random.Random(2)
    prompt = random_ids(rng, 12)
    eng = engine(1)
    first = run(eng, [request(0, prompt, seed=1)])[0]
    follow_up = [*prompt, *random_ids(rng, 6)]
    warm = run(eng, [request(0, follow_up, seed=2)])[0]
    eng.reset()
    cold = run(eng, [request(0, follow_up, seed=2)])[0]
    assert warm.ids == cold.ids
    assert warm.logprobs == pytest.approx(cold.logprobs, abs=1e-5)
    assert len(first.ids) == len(first.logprobs)


def test_contexts_that_begin_alike_are_run_once_and_copied():
    shared = random_ids(random.Random(3), 40)
    contexts = [shared, shared, [*shared, 7, 8], [*shared, 9]]
    eng = engine(4)
    done = run(eng, [request(i, c, seed=i, n=1) for i, c in enumerate(contexts)])
    # 40 tokens once; then the last token of the equal context, and what follows the 40 in the other two
    assert eng.num_run == 40 + 1 + 2 + 1
    for i, context in enumerate(contexts):
        alone = run(engine(1), [request(0, context, seed=i, n=1)])[0]
        assert done[i].ids == alone.ids
        assert done[i].logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_a_short_beginning_in_common_is_not_waited_for():
    rng = random.Random(4)
    shared = random_ids(rng, 10)
    eng = engine(2)
    for i in range(2):
        eng.submit(request(i, [*shared, *random_ids(rng, 20)], seed=i, n=1))
    eng.step()
    assert eng.num_run == 60


def test_a_stop_string_ends_the_turn_and_stays_in_it():
    stop = "</answer>"
    for seed in range(300):
        done = run(engine(1), [request(0, [5, 6, 7], seed=seed, n=100, stop=(stop,))])[0]
        text = POLICY.tokenizer.decode(done.ids)
        assert text.count(stop) <= 1
        if stop in text:
            assert text.endswith(stop)
            return
    pytest.fail("the random policy never wrote the stop string")


def test_a_stop_string_may_be_spread_over_several_tokens():
    eng = engine(1)
    free = run(eng, [request(0, [5, 6, 7], seed=3, n=40)])[0].ids
    pieces = [POLICY.tokenizer.decode([token]) for token in free]
    first = next(i for i in range(1, 39) if (pieces[i] + pieces[i + 1]).isascii())
    stop = pieces[first][-1] + pieces[first + 1][0]  # its characters belong to two tokens
    assert stop not in POLICY.tokenizer.decode(free[: first + 1])
    stopped = run(eng, [request(0, [5, 6, 7], seed=3, n=40, stop=("never written", stop))])[0].ids
    assert stopped == free[: first + 2]


def test_a_turn_that_cannot_fit_is_refused_with_the_setting_to_change():
    with pytest.raises(ValueError, match=r"expected 1..128 tokens.* got 125 \+ 8; raise model.engine.max_context"):
        engine().submit(request(0, [1] * 125))
    with pytest.raises(ValueError, match=r"got 0 \+ 8"):
        engine().submit(request(0, []))


def test_the_pool_has_a_fixed_size_that_is_told():
    eng = engine(4)
    before = eng.pool.num_bytes
    run(eng, [request(i, [3] * 20, seed=i) for i in range(12)])
    assert eng.pool.num_bytes == before == 2 * 2 * 4 * 2 * 128 * 8 * 4  # keys+values, layers, slots, heads, tokens, dim


@pytest.mark.parametrize("apart", [True, False])
def test_every_way_to_attend_over_the_pool_sees_a_slots_own_keys_and_no_others(apart):
    torch.manual_seed(0)
    pool = SlotPool(POLICY.architecture.layers, 6, 16, torch.float32, torch.device("cpu"))
    for kept in (*pool.keys, *pool.values):
        kept.normal_()
    decode = [Span(0, 3, 1), Span(1, 7, 1), Span(4, 5, 1)]  # slots 2, 3 and 5 are idle or start
    plan = StepPlan(pool, decode, [Span(2, 4, 5), Span(5, 0, 2)], apart)
    query, key, value = torch.randn(1, 4, 10, 8), torch.randn(1, 2, 10, 8), torch.randn(1, 2, 10, 8)
    out = plan.attend(1, query, key, value, Scores())[0]
    places = [(0, 3), (1, 7), (4, 5), *((2, 4 + i) for i in range(5)), (5, 0), (5, 1)]
    for row, (slot, position) in enumerate(places):
        for head in range(4):
            keys, values = (each[1][slot, head // 2, : position + 1] for each in (pool.keys, pool.values))
            weights = (keys @ query[0, head, row] / 8**0.5).softmax(0)
            torch.testing.assert_close(out[row, head], weights @ values, atol=1e-6, rtol=1e-5)


NO_COMPILER = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here")


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=[NO_COMPILER, pytest.mark.slow])])
def test_decode_steps_of_fixed_shapes_write_the_same_turns_and_compile_nothing_again(backend, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    policy, rng = tiny_policy(LoraSettings(r=4)), random.Random(5)
    settings = EngineSettings(num_slots=4, max_context_tokens=600)
    plain, static = LocalEngine(policy, settings), LocalEngine(policy, replace(settings, compile=backend))
    rounds = [
        [request(i, random_ids(rng, length), seed=i, n=5) for i, length in enumerate(contexts)]
        for contexts in ([20, 290, 299], [7, 310, 40, 3, 298, 80, 302])
    ]
    graphs = []
    for asked in rounds:  # both look back 300 tokens at first and 600 in the end
        here, there = run_again(static, asked), run_again(plain, asked)
        for session, turn in there.items():
            assert here[session].ids == turn.ids
            assert here[session].logprobs == pytest.approx(turn.logprobs, abs=1e-5)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data.neg_()  # a step of training: the weights change, the shapes do not
    assert graphs == [2, 2]  # one for each length


def test_turns_that_start_in_bunches_are_the_same_turns():
    rng = random.Random(2)
    asked = [request(i, random_ids(rng, 10 + i), seed=i, n=3 + i % 4) for i in range(12)]
    every = LocalEngine(POLICY, EngineSettings(num_slots=4, max_context_tokens=64))
    bunches = LocalEngine(POLICY, EngineSettings(num_slots=4, max_context_tokens=64, prefill_interval=5))
    started: list[int] = []
    admit = bunches._admit
    bunches._admit = lambda: started.append(len(found := admit())) or found
    expected, got = run(every, asked), run(bunches, asked)
    assert [got[i].ids for i in range(12)] == [expected[i].ids for i in range(12)]
    assert any(a and not any(started[n + 1 : n + 5]) for n, a in enumerate(started[:-5]))


def test_how_far_back_steps_look_takes_few_values():
    assert lengths(128) == [128]
    assert lengths(1536) == [384, 768, 1536]
    assert lengths(32768) == [1024, 2048, 4096, 8192, 16384, 32768]


def run_again(engine, asked):
    engine.reset()
    return run(engine, asked)


def test_sampled_frequencies_follow_the_distribution():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).repeat(20000, 1)
    uniforms = torch.rand(20000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(20000)
    ids, logprobs = sample(logits, ones, ones.double(), uniforms)
    assert torch.bincount(ids).div(20000).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert logprobs[0].exp().item() == pytest.approx([0.5, 0.3, 0.2][int(ids[0])], abs=1e-6)


def test_a_draw_inverts_the_cumulative_distribution_and_never_lands_on_an_impossible_id():
    generator = torch.Generator().manual_seed(0)
    for vocabulary in (1, 2, 3, 17, 320, 5003):
        logits = 4 * torch.randn(64, vocabulary, generator=generator)
        logits[:, torch.rand(vocabulary, generator=generator) < 0.6] = -torch.inf
        logits[:, vocabulary // 2] = 0.0
        uniforms = torch.rand(64, dtype=torch.float64, generator=generator)
        uniforms[0], uniforms[1] = 0.0, 1 - 2.0**-53
        ids, _ = sample(logits, torch.ones(64), torch.ones(64).double(), uniforms)
        cumulative = torch.softmax(logits, -1).double().cumsum(-1)
        expected = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)[:, 0]
        assert ids[2:].tolist() == expected[2:].tolist()
        assert torch.isfinite(logits.gather(1, ids[:, None])).all()


def test_top_p_never_draws_outside_the_nucleus_but_stores_the_whole_distributions_log_prob():
    logits = torch.log(torch.tensor([0.2, 0.5, 0.3])).repeat(1000, 1)
    uniforms = torch.linspace(0, 0.999, 1000, dtype=torch.float64)
    ids, logprobs = sample(logits, torch.ones(1000), torch.full((1000,), 0.6).double(), uniforms)
    assert set(ids.tolist()) == {1, 2}
    assert (ids == 1).double().mean().item() == pytest.approx(0.5 / 0.8, abs=0.01)
    assert logprobs[ids == 1][0].exp().item() == pytest.approx(0.5, abs=1e-6)


def test_temperature_shapes_both_the_draw_and_the_log_prob_and_zero_is_greedy():
    logits = torch.tensor([[0.0, 1.0, 2.0]] * 2)
    ids, logprobs = sample(logits, torch.tensor([0.0, 2.0]), torch.ones(2).double(), torch.tensor([0.0, 0.0]).double())
    assert ids.tolist() == [2, 0]
    assert logprobs[0].item() == pytest.approx(torch.log_softmax(logits[0], 0)[2].item(), abs=1e-6)
    assert logprobs[1].item() == pytest.approx(torch.log_softmax(logits[1] / 2, 0)[0].item(), abs=1e-6)


def test_a_script_runs_through_the_same_interface():
    scripted = ScriptedEngine(tiny_tokenizer(), [lambda context: context[-3:] + "!"])
    scripted.submit(request(0, tiny_tokenizer().encode("the red", add_special_tokens=False)))
    (completion,) = scripted.step()
    assert tiny_tokenizer().decode(completion.ids) == "red!"
    assert scripted.pending == 0
