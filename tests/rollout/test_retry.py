"""Malformed turns that are written again (`rollout.malformed`), and sampling where greedy play goes in a circle."""

import random
from dataclasses import replace

import pytest
import torch

from lightning_mem1.context.contexts import contexts, drift, next_kind
from lightning_mem1.context.internal_state import state_turns
from lightning_mem1.context.modes import MODES
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.turn_loop import turn_temperature
from lightning_mem1.tracking.pyfunc_agent import Agent
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.layouts.single_copy import official, stitched
from lightning_mem1.training.plain_settings import plain
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import WordEnv, random_ids, random_trajectory, task, tiny_policy, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
RETRY = RolloutSettings(prompt="brief", max_new_tokens=40, malformed="retry")
GOOD, OTHER = (f"<summary>{word}</summary><answer>click[{word}]</answer>" for word in ("red", "blue"))
CUT = "<summary>red red red red"
MEMORY = "red</summary>"


class Heard(ScriptedEngine):
    """A scripted engine that keeps the temperatures it was asked for."""

    def __init__(self, script):
        lines = iter(script)
        super().__init__(TOKENIZER, [self.write])
        self.lines, self.seen, self.temperatures = lines, [], []

    def write(self, context):
        self.seen.append(context.split("<|im_start|>assistant\n")[1])
        return next(self.lines)

    def submit(self, request):
        self.temperatures.append(request.temperature)
        super().submit(request)


def play(script, words=None, settings=RETRY, mode="mem1", max_turns=8):
    engine, env = Heard(script), WordEnv(words or ["one", "two", "three", ""])
    (trajectory,) = collect([Episode(task(max_turns=max_turns), env)], engine, TOKENIZER, settings, mode)
    assert drift(trajectory, mode) == 0
    return trajectory, engine, env


def test_a_malformed_turn_costs_its_turn_and_leaves_the_internal_state_where_it_was():
    trajectory, engine, env = play([GOOD, CUT, OTHER, GOOD])
    known = f"{GOOD}<state>7 turns left\none</state>"
    assert engine.seen == ["", known, known, f"{OTHER}<state>5 turns left\nthree</state>"]
    assert [turn.retried for turn in trajectory.turns] == [False, True, False, False]
    assert env.actions == ["click[red]", "", "click[blue]", "click[red]"]
    assert "expected exactly one" in trajectory.turns[1].information


def test_kept_as_it_is_it_takes_the_place_of_the_internal_state():
    _, engine, _ = play([GOOD, CUT, OTHER, GOOD], settings=replace(RETRY, malformed="keep"))
    assert engine.seen[2].startswith(CUT) and GOOD not in engine.seen[2]


def test_the_full_history_is_without_it_too():
    _, engine, _ = play([GOOD, CUT, OTHER, GOOD], mode="full")
    assert CUT not in engine.seen[3] and engine.seen[3].startswith(GOOD) and OTHER in engine.seen[3]


def test_a_first_turn_is_written_again_below_the_prompt_alone():
    _, engine, _ = play([CUT, GOOD, OTHER, GOOD])
    assert engine.seen[:2] == ["", ""]


def test_turns_run_out_for_a_policy_that_writes_nothing_else():
    trajectory, _, _ = play([CUT] * 3, max_turns=3)
    assert trajectory.stop_reason == StopReason.MAX_TURNS
    assert [turn.retried for turn in trajectory.turns] == [True, True, False]  # no turn comes behind the last


def test_a_refused_action_that_is_well_formed_stands():
    class Refusing(WordEnv):
        def step(self, action):
            return replace(super().step(action), valid=False)

    engine = Heard([GOOD, OTHER])
    (trajectory,) = collect([Episode(task(), Refusing(["no", ""]))], engine, TOKENIZER, RETRY)
    assert [turn.valid for turn in trajectory.turns] == [False, False]
    assert engine.seen[1] == f"{GOOD}<state>7 turns left\nno</state>"


def test_a_memory_without_an_end_is_written_again_once():
    act = "<answer>click[red]</answer>"
    trajectory, engine, _ = play([act, "red red", "blue blue", act, MEMORY, act, MEMORY, act], mode="summary")
    assert [(turn.kind, turn.retried) for turn in trajectory.turns[:4]] == [
        ("act", False),
        ("memory", True),
        ("memory", False),  # as malformed as the one before: nothing would end it
        ("act", False),
    ]
    assert engine.seen[1] == engine.seen[2]
    assert engine.seen[3].startswith("<summary>blue blue<state>")
    assert state_turns(trajectory) == [2, 4, 6]


def test_no_memory_is_due_behind_an_act_that_is_written_again():
    act = "<answer>click[red]</answer>"
    trajectory, engine, _ = play([act, MEMORY, "lost", act, MEMORY, act], mode="summary")
    assert [turn.kind for turn in trajectory.turns] == ["act", "memory", "act", "act", "memory", "act"]
    assert engine.seen[2] == engine.seen[3]
    assert next_kind([Turn([1], [0.0], retried=True)], "summary") == "act"


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("seed", range(4))
def test_retried_turns_are_scored_and_change_no_other_turn_in_any_layout(mode, seed):
    policy, rng = tiny_policy().double(), random.Random(seed)
    plain_ones = [
        random_trajectory(rng, [(3, 4), (2, 5), (4, 3), (2, 0)], random_ids(rng, 5), number, MODES[mode]().staged)
        for number in range(3)
    ]
    with_more = [with_retries(each, rng) for each in plain_ones]
    for before, after in zip(plain_ones, with_more, strict=True):
        seen = zip(after.turns, contexts(after, mode), strict=True)
        assert [context for turn, context in seen if not turn.retried] == contexts(before, mode)
    expected = scored(policy, plain_ones, "rows", mode)
    for layout in ("tree", "rows"):
        found = scored(policy, with_more, layout, mode)
        assert sum(map(len, found)) == sum(len(each.turns) for each in with_more)
        for each, old, new in zip(with_more, expected, found, strict=True):
            standing = [logprobs for turn, logprobs in zip(each.turns, new, strict=True) if not turn.retried]
            torch.testing.assert_close(torch.cat(standing), torch.cat(old), atol=1e-9, rtol=0)


def with_retries(trajectory, rng):
    """The same with malformed turns before some of its own, of their kinds."""
    turns = []
    for turn in trajectory.turns:
        if rng.random() < 0.5:
            ids, reply = random_ids(rng, 3), random_ids(rng, 2 * (turn.kind == "act"))
            turns.append(replace(turn, action_ids=ids, action_logprobs=[0.0] * 3, information_ids=reply, retried=True))
        turns.append(turn)
    return replace(trajectory, turns=turns)


def scored(policy, trajectories, layout, mode):
    """Log-probs of each turn, by trajectory."""
    batch = collate(trajectories, layout, mode)
    parts = iter(policy.logprobs(batch)[0].split([len(t.action_ids) for each in trajectories for t in each.turns]))
    return [[next(parts) for _ in each.turns] for each in trajectories]


@pytest.mark.parametrize("mode", list(MODES))
def test_log_probs_of_a_rollout_with_retries_are_those_of_training(mode):
    policy = tiny_policy().double()
    engine = LocalEngine(policy, EngineSettings(num_slots=3, max_context_tokens=512))
    settings = RolloutSettings(max_new_tokens=8, prompt="brief", malformed="retry")
    episodes = [Episode(task(i), WordEnv(["red"] * 4), i, i) for i in range(3)]
    trajectories = collect(episodes, engine, policy.tokenizer, settings, mode)
    assert any(turn.retried for each in trajectories for turn in each.turns)
    assert [drift(each, mode) for each in trajectories] == [0, 0, 0]
    batch = collate(trajectories, "tree", mode)
    assert (policy.logprobs(batch)[0] - batch.rollout_logprobs).abs().max() <= 1e-6


def test_the_single_copies_hide_it_from_every_later_turn():
    turns = [Turn([10], [0.0], [20]), Turn([11], [0.0], [21], valid=False, retried=True), Turn([12], [0.0])]
    played = Trajectory(task(), [1, 2], turns, StopReason.DONE)
    for (copy,) in (stitched([played]), official([played], state_end=lambda ids: 0)):
        assert copy.ids == [1, 2, 10, 20, 11, 21, 12]
        seen = {run.start: list(run.sees) for run in copy.runs}
        assert seen[4] == seen[6] == [0, 1, 2, 3]


def act(ids, information="page", valid=True, kind="act"):
    return Turn(ids, [0.0] * len(ids), information=information, valid=valid, kind=kind)


GREEDY = RolloutSettings(temperature=0.0, retry_temperature=0.7)


@pytest.mark.parametrize(
    ("turns", "kind", "expected"),
    [
        ([], "act", 0.0),
        ([act([1])], "act", 0.0),
        ([act([1]), act([2], valid=False)], "act", 0.7),
        ([act([1]), act([1])], "act", 0.7),
        ([act([1]), act([2]), act([1])], "act", 0.7),  # a circle of two
        ([act([1]), act([1], "next page")], "act", 0.0),  # the same action led on
        ([act([1], valid=False), act([2])], "act", 0.0),
        ([act([1], valid=False), act([3], kind="memory")], "act", 0.7),
        ([act([1], valid=False)], "memory", 0.0),
        ([act([1]), act([3], kind="memory", valid=False)], "memory", 0.7),
        ([act([1]), act([3], kind="memory"), act([1]), act([3], kind="memory")], "memory", 0.0),
    ],
)
def test_greedy_play_samples_where_it_would_go_in_a_circle(turns, kind, expected):
    assert turn_temperature(turns, kind, GREEDY) == expected


def test_training_samples_at_one_temperature():
    stuck = [act([1], valid=False)]
    assert turn_temperature(stuck, "act", replace(GREEDY, temperature=0.6)) == 0.6
    assert turn_temperature(stuck, "act", RolloutSettings(temperature=0.0)) == 0.0


def test_the_engine_is_asked_for_it():
    _, engine, _ = play([GOOD, CUT, OTHER, GOOD], settings=replace(RETRY, temperature=0.0, retry_temperature=0.5))
    assert engine.temperatures == [0.0, 0.0, 0.5, 0.0]


def test_an_agent_writes_a_malformed_turn_again_as_a_rollout_does(make_module):
    module = make_module()
    rollout = {**plain(module.hparams["rollout"]), "malformed": "retry", "retry_temperature": 0.9}
    agent = Agent(module.policy, {**module.hparams, "rollout": rollout})
    before = [{"text": GOOD, "information": "one"}]
    cut = {"text": CUT, "information": "x"}
    first, again = (agent._request(0, {"prompt": "count to 3", "turns": turns}) for turns in (before, [*before, cut]))
    assert list(again.context_ids) == list(first.context_ids)
    assert (first.temperature, again.temperature, first.seed == again.seed) == (0.0, 0.9, False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"malformed": "drop"}, "expected one of keep, retry, got 'drop'; set model.rollout.malformed"),
        ({"retry_temperature": -0.1}, "model.rollout.retry_temperature too small: expected at least 0, got -0.1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        RolloutSettings(**given)
