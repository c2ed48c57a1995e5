"""Plays that share an engine."""

from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.rollout.collect import Episode, collect, collect_together
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.turn_loop import Play
from tiny import WordEnv, task, tiny_policy

POLICY = tiny_policy()
SETTINGS = RolloutSettings(max_new_tokens=8, prompt="brief", max_information_tokens=24)
PLANS = [[0] * 4, [0, 0], [1], [0, 1, 0], [0, 0, 0]]


def engine():
    return LocalEngine(POLICY, EngineSettings(num_slots=2, max_context_tokens=512))


def episodes(begun=None):
    for number, plan in enumerate(PLANS):
        if begun is not None:
            begun.append(number)
        yield Episode(task(number % 2), WordEnv(["red " * n for n in plan]), number, seed=number)


def told(trajectory):
    return [(turn.action_ids, turn.information_ids) for turn in trajectory.turns], trajectory.stop_reason


def test_what_is_played_together_is_what_each_plays_alone():
    modes = ("mem1", "full", "none")
    alone = {mode: collect([*episodes()], engine(), POLICY.tokenizer, SETTINGS, mode) for mode in modes}
    found = {mode: {} for mode in modes}
    plays = [Play(episodes(), SETTINGS, mode, on_end=found[mode].__setitem__) for mode in modes]
    collect_together(plays, engine(), POLICY.tokenizer, at_once=2)
    for mode in modes:
        assert sorted(found[mode]) == [*range(len(PLANS))]
        assert [told(found[mode][place]) for place in range(len(PLANS))] == [*map(told, alone[mode])]


def test_an_episode_is_made_when_it_begins_and_no_more_are_under_way_than_allowed():
    begun, ended, most = [], [], 0

    def on_end(place, trajectory):
        ended.append(place)

    def on_turn(trajectory, turn):
        nonlocal most
        most = max(most, len(begun) - len(ended))

    plays = [Play(episodes(begun), SETTINGS, mode, on_turn, on_end) for mode in ("mem1", "full")]
    collect_together(plays, engine(), POLICY.tokenizer, at_once=3)
    assert len(begun) == len(ended) == 2 * len(PLANS) and most == 3


class Broken(WordEnv):
    def observe(self):
        raise RuntimeError("no page")


def test_episodes_that_end_before_their_first_turn_make_room_for_the_next():
    broken = [Episode(task(), Broken([]), n, n) for n in range(3)]
    found = {}
    collect_together([Play([*broken, *episodes()], SETTINGS, on_end=found.__setitem__)], engine(), POLICY.tokenizer, 1)
    assert len(found) == 3 + len(PLANS) and all("no page" in found[n].error for n in range(3))
