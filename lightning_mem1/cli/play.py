"""``mem1 play CONFIG [--ckpt_path PATH] [--split val] [--index 0] [--human]``: watch one episode.

Turn by turn: how full the context is against the whole history, what was kept in mind, what was done, what came back.
Texts are data: neither control characters nor markup in them reaches the terminal as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from lightning_mem1.checks import check_least
from lightning_mem1.cli import commands, startup
from lightning_mem1.cli.lightning_cli import PlayingCommandLine
from lightning_mem1.context.call_tags import CallTags
from lightning_mem1.context.tags import escape_tags, read_action
from lightning_mem1.data.source_checks import checked_task, split_size
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.evaluation.player import Player
from lightning_mem1.evaluation.report.terminal import Screen
from lightning_mem1.types import Engine


def main(argv: Sequence[str] | None = None) -> int:
    """Play; returns the exit code (0 done, 1 a mistake, 130 interrupted)."""
    return commands.run("play", argv)


def run(given: startup.Opened) -> int:
    """Play as an opened command line says; returns the exit code."""
    with startup.quiet():
        cli = startup.built(WatchingCommandLine, given)
        return 0 if cli is None else _play(cli)


class WatchingCommandLine(PlayingCommandLine):
    """The settings, and which episode is played."""

    command = "play"
    about = "Play one episode and show it turn by turn."

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add which episode, and how it is shown."""
        super().add_arguments_to_parser(parser)
        add = parser.add_argument
        add("--split", type=Literal["train", "val", "test"], default="val", help="Where the task is taken from.")
        add("--index", type=int, default=0, help="Number of the task in its split, from 0.")
        add("--temperature", type=float, default=0.0, help="Of the sampling; 0 is greedy.")
        add("--max_lines", type=int, default=12, help="Lines of a reply that are shown.")
        add("--human", action="store_true", help="Type the turns yourself.")

    def before_instantiate_classes(self) -> None:
        """Check the numbers."""
        for name in ("temperature", "index", "max_lines"):
            check_least(f"--{name}", self.config[name], 0)
        super().before_instantiate_classes()


def _play(cli: Any) -> int:
    module, config = cli.loaded_module(), cli.config
    source = cli.datamodule.source
    size = split_size(source, config.split)
    if not 0 <= config.index < size:
        raise ValueError(
            f"no such task: expected --index from 0 to {size - 1} in split {config.split}, got {config.index}"
            if size
            else f"no {config.split} tasks: expected at least 1 from {type(source).__name__}, got 0; set --split"
        )
    task = checked_task(source, source.task(config.split, config.index))
    player = Player(module, source, module.memory, config.temperature)
    screen = Screen(Console(highlight=False), player.view, config.max_lines)
    screen.begin(task, player.observation(task))
    try:
        engine = _typed(player) if config.human else player.engine(player.engine_settings([task]))
        (trajectory,) = player.play([task], engine, on_turn=screen.turn)
    except EOFError:  # whoever typed has left
        screen.left()
        return 0
    screen.end(trajectory)
    return 0


def _typed(player: Player) -> Engine:
    """An engine whose turns are typed."""
    typist = Typist(player.settings.tags, player.memory.staged)
    return ScriptedEngine(player.module.policy.tokenizer, [typist])


class Typist:
    """Writes turns from what somebody types: the memory, which stays as it was when nothing is typed, and the action.

    Args:
        tags: Names of the blocks.
        staged: Whether a turn of its own writes the memory: when its opening ends the context.
    """

    def __init__(self, tags: Any, staged: bool = False) -> None:
        self.tags, self.staged, self.memory = tags, staged, ""

    def __call__(self, context: str) -> str:
        """The next turn; raises EOFError when the input has ended."""
        if not self.staged:
            return self.tags.state_opening + self._state() + self._action()
        return self._state() if context.endswith(self.tags.state_opening) else self._action()

    def _state(self) -> str:
        """What is kept in mind, and its closing tag."""
        typed = input(f"{self.tags.internal_state} (enter keeps it)> ").strip()
        self.memory = escape_tags(typed, self.tags) or self.memory
        return self.memory + str(self.tags.state_closing)

    def _action(self) -> str:
        return self._block(escape_tags(input(f"{self._actions()}> ").strip(), self.tags))

    def _actions(self) -> str:
        return " or ".join(f"{name}[...]" for name in self.tags.actions) or "action"

    def _block(self, action: str) -> str:
        """The action inside its tag; where tags name the actions, ``search[x]`` becomes ``<search>x</search>``.

        Where actions are tool calls, it becomes one.
        """
        named = read_action(action)
        if not self.tags.actions and not isinstance(self.tags, CallTags):
            return f"<{self.tags.action}>{action}</{self.tags.action}>"
        if named is None or (self.tags.actions and named[0] not in self.tags.actions):
            return action  # the environment says what was expected
        return str(self.tags.written(*named))
