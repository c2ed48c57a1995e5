"""The rows of a table played in few engines: memory modes and lengths whose contexts are of like length share one.

Played one after the other, each row ends with a few long episodes that leave the other slots idle. Together they fill
each other's: the longest tasks begin first, and whoever ends makes room for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_mem1.context.modes.recorded import Recorded
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.evaluation.player import Player
from lightning_mem1.rollout.turn_loop import Play
from lightning_mem1.types import Task, Trajectory

ALIKE = 2.0  # the longest context of an engine to that of its row with the shortest; a pool has fewer of longer slots


@dataclass(frozen=True)
class UnplayedRow:
    """What a row of a table still lacks.

    Attributes:
        player: Plays it, in its memory mode.
        tasks: What is to be played.
        settings: An engine that fits it.
        on_end: Called with the place in `tasks` and the trajectory as soon as an episode is over.
    """

    player: Player
    tasks: Sequence[Task]
    settings: EngineSettings
    on_end: Callable[[int, Trajectory], None]


def play_rows(rows: Sequence[UnplayedRow]) -> None:
    """Play the rows of a table, whose players have the same module; the first has all engines, one at a time."""
    for row in rows:
        if isinstance(row.player.memory, Recorded):  # agents come with a loop of their own, a few at a time
            for start in range(0, len(row.tasks), row.settings.num_slots):
                _play_agents(row, rows[0].player, start)
    rest = [row for row in rows if row.tasks and not isinstance(row.player.memory, Recorded)]
    for group in groups([row.settings.max_context_tokens for row in rest]):
        sharing = [rest[number] for number in group]
        plays = [
            Play(row.player.episodes(row.tasks), row.player.settings, row.player.memory, None, row.on_end)
            for row in sharing
        ]
        rows[0].player.together(plays, sharing[0].settings)


def groups(lengths: Sequence[int]) -> list[list[int]]:
    """Which rows share an engine, by the longest context of each; the longest first, in and among groups.

    >>> groups([100, 900, 150, 800, 210])
    [[1, 3], [4, 2], [0]]
    """
    found: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        if found and lengths[found[-1][0]] <= ALIKE * lengths[number]:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def _play_agents(row: UnplayedRow, host: Player, start: int) -> None:
    tasks = row.tasks[start : start + row.settings.num_slots]
    engine = host.engine(row.settings)
    row.player.play(tasks, engine, on_end=lambda place, trajectory: row.on_end(start + place, trajectory))
