"""Decode steps that draw their tokens write what they would write with the draw outside."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from generation import request, run
from lightning_mem1.engine.local import static_decode
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.engine.local.static_decode import Captured
from lightning_mem1.policy.policy import LoraSettings
from tiny import random_ids, tiny_policy
from tiny_recurrent import recurrent_policy

POLICY = tiny_policy(LoraSettings(r=4))
OUTSIDE = EngineSettings(num_slots=3, max_context_tokens=600, compile="eager")
INSIDE = replace(OUTSIDE, capture_sampling=True)


def asked(**options):
    """More turns than slots, whose contexts need both lengths that steps look back, and of unlike limits."""
    rng = random.Random(7)
    contexts = [random_ids(rng, n) for n in (20, 295, 7, 310, 40, 3, 60)]
    return [request(i, context, seed=i, n=4 + 3 * (i % 4), **options) for i, context in enumerate(contexts)]


def mixed():
    """A turn of every kind of sampling, side by side."""
    kinds = [{"temperature": 0.0}, {"temperature": 0.7}, {"top_p": 0.5}, {}, {"temperature": 1.3, "top_p": 0.8}]
    return [replace(each, **kinds[i % len(kinds)]) for i, each in enumerate(asked())]


KINDS = {
    "greedy": asked(temperature=0.0),
    "temperature": asked(temperature=0.7),
    "top_p": asked(top_p=0.5),
    "a stop string": asked(stop=("e", "ed")),
    "stop ids": asked(stop_ids=tuple(range(0, 320, 5))),
    "mixed": mixed(),
}


def written(engine, requests):
    """Ids and log-probs by session, how many passes it took, and how many tokens were run."""
    engine.reset()
    for each in requests:
        engine.submit(each)
    found, passes = {}, 0
    while engine.pending:
        found |= {each.session: (each.ids, each.logprobs) for each in engine.step()}
        passes += 1
    return found, passes, engine.num_run


@pytest.fixture(scope="module")
def engines():
    return LocalEngine(POLICY, OUTSIDE), LocalEngine(POLICY, INSIDE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_within_the_step_changes_no_token_and_no_digit(engines, kind):
    outside, inside = (written(engine, KINDS[kind]) for engine in engines)
    assert inside == outside
    lengths = [len(ids) for ids, _ in inside[0].values()]
    assert min(lengths) < max(lengths)  # turns ended while others ran on


def test_the_tokens_are_those_of_steps_without_fixed_shapes(engines):
    plain = LocalEngine(POLICY, replace(OUTSIDE, compile=""))
    for requests in KINDS.values():
        expected, got = written(plain, requests)[0], written(engines[1], requests)[0]
        for session, (ids, logprobs) in expected.items():
            assert got[session][0] == ids
            assert got[session][1] == pytest.approx(logprobs, abs=1e-5)


def test_a_step_that_started_ahead_of_the_end_of_a_turn_leaves_nothing_in_its_slot(engines):
    first = [request(i, random_ids(random.Random(i), 12), seed=i, n=9, stop_ids=tuple(range(100))) for i in range(3)]
    for engine in engines:
        engine.reset()
    played = [run(engine, first) for engine in engines]
    assert min(len(done.ids) for done in played[0].values()) < 9  # ended by an id, which the host alone looks at
    longer = [
        request(i, [*first[i].context_ids, *played[0][i].ids, *random_ids(random.Random(9), 4)], seed=50 + i)
        for i in range(3)
    ]
    again = [run(engine, longer) for engine in engines]  # from the keys that the first turns left
    assert again[0] == again[1]


def test_turns_that_are_forgotten_while_a_step_runs_ahead_are_no_turns_of_the_next_rollout(engines):
    inside = engines[1]
    inside.reset()
    for each in KINDS["temperature"]:
        inside.submit(each)
    for _ in range(3):
        inside.step()
    assert written(inside, KINDS["top_p"]) == written(engines[0], KINDS["top_p"])


def test_all_running_turns_may_end_while_others_start():
    settings = EngineSettings(num_slots=1, max_context_tokens=64, compile="eager")
    requests = [request(i, random_ids(random.Random(i), 5), seed=i, n=6, stop_ids=tuple(range(150))) for i in range(6)]
    inside = LocalEngine(POLICY, replace(settings, capture_sampling=True))
    assert written(inside, requests) == written(LocalEngine(POLICY, settings), requests)


def test_steps_that_are_tried_before_they_are_captured_move_no_turn_on(monkeypatch):
    class Replayed:
        """What a graph does, without a GPU: the same call, into the same result."""

        def __init__(self, step, result):
            self.step, self.result = step, result

        def replay(self):
            self.result.copy_(self.step())

    def tried(step, memory):
        result = [step() for _ in range(3)][-1]
        return Replayed(step, result), result

    monkeypatch.setattr(static_decode, "_captured", tried)
    inside = LocalEngine(POLICY, INSIDE)
    steps = inside._sampled
    steps._runs = {cut: Captured(step, inside.pool) for cut, step in steps._runs.items()}
    for kind in ("mixed", "greedy", "top_p"):
        assert written(inside, KINDS[kind]) == written(LocalEngine(POLICY, OUTSIDE), KINDS[kind])


def test_recurrent_layers_keep_the_states_of_turns_that_ended():
    policy, _ = recurrent_policy("lfm2")
    settings = EngineSettings(num_slots=2, max_context_tokens=64, compile="eager")
    rng = random.Random(3)
    first = [request(i, random_ids(rng, 10), seed=i, n=20, stop_ids=tuple(range(0, 320, 9))) for i in range(2)]
    found = []
    for inside in (False, True):
        engine = LocalEngine(policy, replace(settings, capture_sampling=inside))
        played = run(engine, first)
        assert all(1 < len(done.ids) < 20 for done in played.values())
        longer = [request(i, [*first[i].context_ids, *played[i].ids, 5, 6], seed=9 + i) for i in range(2)]
        found.append((played, run(engine, longer)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("settings", "got"),
    [({"compile": ""}, "compile empty"), ({"kind": "transformers"}, "kind"), ({"replay_routing": True}, "replay_rout")],
)
def test_an_engine_without_such_steps_is_refused_with_the_setting_to_change(make_module, settings, got):
    with pytest.raises(ValueError, match=f"no decode steps .* got {got}.*; set capture_sampling false"):
        make_module(engine=EngineSettings(capture_sampling=True, **settings))


def test_nan_logits_are_refused_as_elsewhere():
    broken = tiny_policy()
    engine = LocalEngine(broken, INSIDE)
    engine.submit(request(0, [5, 6, 7]))
    engine.step()
    torch.nn.init.constant_(broken.causal_lm.model.norm.weight, float("nan"))
    engine._merged.update()
    with pytest.raises(ValueError, match="the policy's probabilities are no numbers"):
        for _ in range(3):
            engine.step()
