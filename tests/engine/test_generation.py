import random
from dataclasses import replace

import pytest
import torch

from architectures import FAMILIES, save
from generation import request, run
from lightning_mem1.engine.factory import make_engine
from lightning_mem1.engine.generation import TransformersEngine
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.policy import LoraSettings, Policy
from tiny import random_ids, tiny_policy

POLICY = tiny_policy(LoraSettings(r=4))
SETTINGS = EngineSettings(num_slots=4, max_context_tokens=128)


def asked(count=6):
    rng = random.Random(3)
    return [request(n, random_ids(rng, 20 + n % 3), seed=n, n=4 + n) for n in range(count)]


def test_turns_are_those_of_the_local_engine():
    here, there = run(TransformersEngine(POLICY, SETTINGS), asked()), run(LocalEngine(POLICY, SETTINGS), asked())
    for session, turn in there.items():
        assert here[session].ids == turn.ids
        assert here[session].logprobs == pytest.approx(turn.logprobs, abs=1e-5)


def test_the_same_seed_gives_the_same_turn_whatever_the_batch():
    alone = {each.session: run(TransformersEngine(POLICY, SETTINGS), [each])[each.session] for each in asked()}
    together = run(TransformersEngine(POLICY, replace(SETTINGS, num_slots=2)), asked())
    assert {session: turn.ids for session, turn in together.items()} == {s: turn.ids for s, turn in alone.items()}


def test_turns_of_one_length_run_together_and_as_many_as_there_are_slots():
    engine = TransformersEngine(POLICY, SETTINGS)
    for each in asked(9):  # three lengths, three turns each
        engine.submit(each)
    assert [sorted(done.session for done in engine.step()) for _ in range(3)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert engine.pending == 0 and engine.step() == []


def test_a_stop_string_and_the_limit_end_turns():
    stop = POLICY.tokenizer.decode([40])
    done = run(
        TransformersEngine(POLICY, SETTINGS), [request(n, [7, 8, 9 + n], n=60, seed=n, stop=(stop,)) for n in range(8)]
    )
    texts = [POLICY.tokenizer.decode(turn.ids) for turn in done.values()]
    assert any(stop in text for text in texts)
    for turn, text in zip(done.values(), texts, strict=True):
        assert stop not in POLICY.tokenizer.decode(turn.ids[:-1]) and len(turn.ids) <= 60
        assert stop in text or len(turn.ids) == 60 or turn.ids[-1] == POLICY.tokenizer.eos_token_id


def test_greedy_turns_take_the_most_likely_token_whatever_the_model_asks_of_generation():
    policy = tiny_policy()
    policy.causal_lm.generation_config.repetition_penalty = 5.0
    policy.causal_lm.generation_config.suppress_tokens = list(range(100))
    (turn,) = run(TransformersEngine(policy, SETTINGS), [request(0, [5, 6, 7], temperature=0.0)]).values()
    ids = [5, 6, 7]
    for token in turn.ids:
        with torch.no_grad():
            logits = policy.causal_lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        assert token == int(logits.argmax())
        ids.append(token)
    assert policy.causal_lm.generation_config.repetition_penalty == 5.0


def test_a_cache_that_does_not_give_what_the_forward_pass_gives_is_not_used(tmp_path):
    from transformers import RwkvConfig, RwkvForCausalLM

    from tiny import tiny_tokenizer

    torch.manual_seed(0)
    config = RwkvConfig(vocab_size=320, hidden_size=16, num_hidden_layers=2, bos_token_id=1, eos_token_id=0)
    RwkvForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    policy = Policy.load(str(tmp_path)).eval()
    engine = TransformersEngine(policy, SETTINGS)
    if not engine.cached:  # by the version of transformers
        (turn,) = run(engine, [request(0, list(range(5, 30)), seed=1)]).values()
        ids = torch.tensor([[*range(5, 30), *turn.ids]])
        with torch.no_grad():
            logps = torch.log_softmax(policy.causal_lm(input_ids=ids, use_cache=False).logits[0], -1)
        expected = [float(logps[24 + n, token]) for n, token in enumerate(turn.ids)]
        assert turn.logprobs == pytest.approx(expected, abs=1e-5)
    assert TransformersEngine(POLICY, SETTINGS).cached


def test_kind_local_becomes_transformers_where_layers_are_unknown_and_kind_transformers_always_is(tmp_path):
    save(FAMILIES["BLOOM"], str(tmp_path))
    unknown = Policy.load(str(tmp_path)).eval()
    made = [
        type(make_engine(policy, replace(SETTINGS, kind=kind), lambda: 0, training=True)).__name__
        for policy in (unknown, POLICY)
        for kind in ("local", "transformers")
    ]
    assert made == ["TransformersEngine", "TransformersEngine", "LocalEngine", "TransformersEngine"]


def test_a_turn_that_cannot_fit_is_refused_with_the_setting_to_change():
    with pytest.raises(ValueError, match="raise model.engine.max_context_tokens"):
        TransformersEngine(POLICY, SETTINGS).submit(request(0, [1] * 125))
