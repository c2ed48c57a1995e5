"""Rows of a table in few engines."""

import pytest

from lightning_mem1.evaluation.player import Player
from lightning_mem1.evaluation.shared_engine import UnplayedRow, groups, play_rows
from tiny_tasks import EvenTasks


@pytest.mark.parametrize(
    "lengths, expected",
    [([], []), ([5], [[0]]), ([10, 20, 21], [[2, 1], [0]]), ([7, 7, 7], [[0, 1, 2]])],
)
def test_rows_share_an_engine_while_the_longest_is_at_most_twice_the_shortest(lengths, expected):
    assert groups(lengths) == expected


def test_rows_of_unlike_modes_are_played_as_each_alone_and_in_one_engine(make_module, monkeypatch):
    module, source, made = make_module(), EvenTasks(), []
    tasks = [source.task("test", number) for number in range(5)]
    alone = {mode: Player(module, source, mode).play(tasks) for mode in ("mem1", "full")}
    make = "lightning_mem1.evaluation.player.make_engine"
    original = __import__(make.rpartition(".")[0], fromlist=["make_engine"]).make_engine
    monkeypatch.setattr(make, lambda *args, **kwargs: made.append(args[1]) or original(*args, **kwargs))
    found = {mode: {} for mode in alone}
    rows = []
    for mode in alone:
        player = Player(module, source, mode)
        rows.append(UnplayedRow(player, tasks, player.engine_settings(tasks), found[mode].__setitem__))
    play_rows(rows)
    assert len(made) == 1
    for mode, trajectories in alone.items():
        ids = [[turn.action_ids for turn in each.turns] for each in trajectories]
        assert [[turn.action_ids for turn in found[mode][place].turns] for place in range(5)] == ids
