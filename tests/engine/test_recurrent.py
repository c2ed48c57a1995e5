"""The local engine plays models with recurrent layers as they are: states of slots, shared prompts, reused slots."""

import random

import pytest
import torch

from generation import request, run
from lightning_mem1.context.contexts import drift
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.local.recurrent import PassStates, StatePool
from lightning_mem1.engine.local.slots import Span
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.policy.recurrent import LayerStates
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from tiny import WordEnv, random_ids, task
from tiny_recurrent import FAMILIES, limit, plain_logprobs, recurrent_policy

MODES = ["mem1", "full", "summary"]


def played(policy, mode, num_slots=3, num_episodes=5, compile=None):
    """Two groups of episodes that begin alike, in fewer slots than there are episodes; (trajectories, tokens run)."""
    rng = random.Random(0)
    engine = LocalEngine(policy, EngineSettings(num_slots=num_slots, max_context_tokens=384, compile=compile))
    plans = [["red " * rng.randrange(9) for _ in range(3)] for _ in range(num_episodes)]
    episodes = [Episode(task(i % 2), WordEnv(plan), i % 2, i) for i, plan in enumerate(plans)]
    settings = RolloutSettings(max_new_tokens=7, prompt="brief", max_information_tokens=24)
    trajectories = collect(episodes, engine, policy.tokenizer, settings, mode)
    assert [drift(t, mode) for t in trajectories] == [0] * num_episodes
    return trajectories, engine.num_run


def assert_rollout_is_the_model(policy, plain, mode, nats, **how):
    trajectories, _ = played(policy, mode, **how)
    with torch.no_grad():
        for layout in ("tree", "rows"):
            batch = collate(trajectories, layout, mode)
            assert float((policy.logprobs(batch)[0] - batch.rollout_logprobs).abs().max()) <= nats
    if plain is not None:
        expected = plain_logprobs(plain, trajectories, mode)
        assert float((expected - batch.rollout_logprobs).abs().max()) <= nats


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_rollout_training_and_plain_transformers_agree(family, mode):
    policy, plain = recurrent_policy(family)
    assert_rollout_is_the_model(policy, plain, mode, limit(family))


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_so_do_rollout_and_training_with_an_adapter(family, merge):
    targets = {} if family not in ("falcon_h1", "nemotron_h") else {"target_modules": ["in_proj", "q_proj", "o_proj"]}
    policy, _ = recurrent_policy(family, LoraSettings(r=4, alpha=4, **targets))
    engine = LocalEngine(policy, EngineSettings(num_slots=2, max_context_tokens=256, merge_lora=merge))
    episodes = [Episode(task(), WordEnv(["red red", "red", ""]), 0, i) for i in range(3)]
    settings = RolloutSettings(max_new_tokens=7, prompt="brief", max_information_tokens=24)
    with torch.no_grad():
        batch = collate(collect(episodes, engine, policy.tokenizer, settings))
        assert float((policy.logprobs(batch)[0] - batch.rollout_logprobs).abs().max()) <= limit(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_of_fixed_shapes_leave_the_states_of_idle_slots_alone(family):
    policy, plain = recurrent_policy(family)
    assert_rollout_is_the_model(policy, plain, "mem1", limit(family), num_slots=4, compile="eager")


def test_a_group_runs_its_prompt_once_and_later_turns_start_from_it():
    policy, _ = recurrent_policy("lfm2")
    trajectories, num_run = played(policy, "mem1", num_slots=5, num_episodes=5)
    (length,) = {len(t.prompt_ids) for t in trajectories}  # of both prompts
    expected = 2 * (length - 1)  # each up to its last token, once
    for trajectory in trajectories:
        first, second, third = trajectory.turns
        expected += 1 + len(first.action_ids) - 1  # the prompt's last token; a turn's last token does not run
        expected += 1 + len(first.information_ids) + len(second.action_ids) - 1  # goes on where turn 0 ended
        expected += (
            1 + len(second.action_ids) + len(second.information_ids) + len(third.action_ids) - 1
        )  # dropped turn 0
    assert num_run == expected


def test_a_turn_is_the_same_whatever_ran_in_its_slot_before_and_beside_it():
    policy, _ = recurrent_policy("qwen3_5")
    rng = random.Random(1)
    lengths = [37, 5, 1, 64, 23, 19, 50, 2, 41, 11]
    asked = [request(n, random_ids(rng, length), seed=n, n=6) for n, length in enumerate(lengths)]

    def alone(each):
        engine = LocalEngine(policy, EngineSettings(num_slots=1, max_context_tokens=128))
        return run(engine, [each])[each.session]

    engine = LocalEngine(policy, EngineSettings(num_slots=10, max_context_tokens=128))
    for _ in range(2):  # ten unlike lengths start in one pass, then again in slots that hold others' states
        together = run(engine, asked)
        for each in asked:
            expected = alone(each)
            assert together[each.session].ids == expected.ids
            assert together[each.session].logprobs == pytest.approx(expected.logprobs, abs=1e-5)
        asked = [request(each.session + 10, each.context_ids[::-1], seed=each.seed, n=6) for each in asked]


def test_a_context_that_continues_what_its_slot_holds_runs_only_what_is_new():
    policy, plain = recurrent_policy("granite_hybrid")
    engine = LocalEngine(policy, EngineSettings(num_slots=2, max_context_tokens=128))
    context = random_ids(random.Random(2), 30)
    first = run(engine, [request(0, context, n=5)])[0]
    assert engine.num_run == 30 + 4
    longer = [*context, *first.ids, 7, 8, 9]
    second = run(engine, [request(0, longer, seed=1, n=2)])[0]
    assert engine.num_run == 34 + 4 + 1  # the last sampled token, three new ones, and one sampled
    third = run(engine, [request(0, [*context, 4, 5], seed=1, n=1)])[0]
    assert engine.num_run == 39 + 3  # from the state that was saved before the context's last token
    fresh = LocalEngine(policy, EngineSettings(num_slots=2, max_context_tokens=128))
    for completion, asked in (
        (second, request(0, longer, seed=1, n=2)),
        (third, request(0, [*context, 4, 5], seed=1, n=1)),
    ):
        expected = run(fresh, [asked])[0]
        assert completion.ids == expected.ids
        assert completion.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
        fresh.reset()


def test_weights_that_change_leave_no_state_behind():
    policy, _ = recurrent_policy("lfm2")
    engine = LocalEngine(policy, EngineSettings(num_slots=2, max_context_tokens=128))
    asked = request(0, random_ids(random.Random(3), 30), n=5)
    run(engine, [asked])
    with torch.no_grad():
        for parameter in policy.causal_lm.model.layers[0].parameters():
            parameter.mul_(1.5)
    engine.reset()
    again = run(engine, [asked])[0]
    fresh = run(LocalEngine(policy, EngineSettings(num_slots=2, max_context_tokens=128)), [asked])[0]
    assert again == fresh


def test_the_pool_counts_its_states_and_never_grows():
    policy, _ = recurrent_policy("lfm2")
    engine = LocalEngine(policy, EngineSettings(num_slots=2, max_context_tokens=64))
    keys = engine.pool.num_bytes
    run(engine, [request(0, [5, 6, 7], n=3)])
    # two layers, two slots with a current and a saved state, 48 channels, the last 3 inputs, 4 bytes
    assert engine.pool.num_bytes - keys == 2 * 2 * 2 * 48 * 3 * 4
    run(engine, [request(n, random_ids(random.Random(n), 40), n=9) for n in range(6)])
    assert engine.pool.num_bytes - keys == 2 * 2 * 2 * 48 * 3 * 4


def counting(hidden, states):
    """A layer whose state is the sum of the tokens it has read, and whose output is that sum after each token."""
    start = states.conv_states[0] if states.conv_states else hidden.new_zeros(len(hidden), 1)
    out = start[:, None] + hidden.cumsum(1)
    states.conv_states[0] = out[:, -1]
    return out


@pytest.mark.parametrize("counts", [[3, 4], [1, 2, 3, 5, 6, 7, 9, 11]])  # one group a length; powers of two
def test_spans_continue_their_slots_and_save_on_the_way(counts):
    pool = StatePool(9, torch.device("cpu"))
    started = [Span(slot, 0, count, saves=max(1, count - 1)) for slot, count in enumerate(counts)]
    total = sum(counts)
    hidden = torch.arange(1.0, total + 1)[None, :, None]
    out = PassStates(pool, [], started).recur(0, hidden, counting)[0, :, 0]
    expected = torch.cat([part.cumsum(0) for part in hidden[0, :, 0].split(counts)])
    assert torch.equal(out, expected)
    ends = torch.tensor(counts).cumsum(0) - 1
    current, saved = (pool.read(0, torch.arange(len(counts)) + first).conv_states[0][:, 0] for first in (0, 9))
    assert torch.equal(current, expected[ends])
    assert torch.equal(saved[1:], expected[ends - 1][1:])  # slot 0 may have saved after its only token
    more = PassStates(pool, [Span(1, counts[1], 1)], [Span(0, counts[0], 2)])
    assert more.recur(0, torch.tensor([[[10.0], [100.0], [1000.0]]]), counting)[0, :, 0].tolist() == [
        float(current[1]) + 10,
        float(current[0]) + 100,
        float(current[0]) + 1100,
    ]


def test_a_step_that_is_tried_changes_no_state():
    pool = StatePool(2, torch.device("cpu"))
    pool.write(0, torch.tensor([0, 1]), LayerStates({0: torch.tensor([[5.0], [3.0]])}))
    active, tokens = torch.tensor([True, False]), torch.ones(1, 2, 1)
    with pool.unchanged():
        assert pool.step(0, tokens, counting, active)[0, :, 0].tolist() == [6.0, 4.0]
    assert pool.step(0, tokens, counting, active)[0, :, 0].tolist() == [6.0, 4.0]
    assert pool.read(0, torch.tensor([0, 1])).conv_states[0].tolist() == [[6.0], [3.0]]  # slot 1 is idle


def test_a_slot_reaches_as_far_as_a_state_stands_for_the_same_ids():
    pool = StatePool(3, torch.device("cpu"))
    pool.write(0, torch.tensor([0, 3]), LayerStates({0: torch.tensor([[5.0], [3.0]])}))  # slot 0: current and saved
    pool.saved[0] = 3
    held = [1, 2, 3, 4, 5]
    assert pool.reach(0, held, [1, 2, 3, 4, 5, 6]) == 5
    assert pool.reach(0, held, [1, 2, 3, 4, 5, 6], running=True) == 3
    assert pool.reach(0, held, [1, 2, 3, 4, 5]) == 3  # the last token has to run
    assert pool.reach(0, held, [1, 2, 3, 9]) == 3
    assert pool.reach(0, held, [1, 2, 9, 9]) == 0
    pool.begin(1, donor=0, known=3, held=5)
    assert [pool.read(0, torch.tensor([row])).conv_states[0].item() for row in (1, 4)] == [3.0, 3.0]
    pool.begin(2, donor=0, known=5, held=5)
    assert [pool.read(0, torch.tensor([row])).conv_states[0].item() for row in (2, 5)] == [5.0, 5.0]
    assert pool.saved == [3, 3, 5]
    pool.begin(0, donor=0, known=3, held=5)  # back to its own prompt
    assert pool.read(0, torch.tensor([0])).conv_states[0].item() == 3.0


def test_a_turn_saves_the_end_of_its_prompt_and_keeps_it():
    pool = StatePool(1, torch.device("cpu"))
    assert pool.save_at(0, [1, 2, 3, 4], known=0, stable=0) == 3  # all but the token that has to run
    assert pool.save_at(0, [1, 2, 3, 9, 9], known=3, stable=3) is None  # it is of use
    assert pool.save_at(0, [1, 7, 7, 7, 7], known=0, stable=1) == 1  # what the slot's turns have in common
    assert pool.save_at(0, [8, 7, 7], known=0, stable=0) == 2
