"""An episode in a terminal, turn by turn.

Whatever a policy, an environment or a person wrote is shown as it is: it is never read as markup, and its control
characters are written out.
"""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from lightning_mem1.context.contexts import context_ids
from lightning_mem1.context.tags import parse_turn, printable
from lightning_mem1.evaluation.view import View
from lightning_mem1.types import Task, Trajectory, Turn

METER_WIDTH = 24


class Screen:
    """Shows one episode.

    Args:
        console: Where; without a terminal it writes plain text.
        view: How it is played.
        max_lines: Lines of a reply that are shown.
    """

    def __init__(self, console: Console, view: View, max_lines: int = 12) -> None:
        self.console, self.view, self.max_lines = console, view, max_lines
        self.memory = view.contexts.memory
        self._largest = 1  # whole history so far, in tokens: the length of the meter
        self._num_turns = 0

    def begin(self, task: Task, observation: str = "") -> None:
        """Show what is asked, and what the environment shows before the first turn."""
        title = f"{task.id}, {task.max_turns} turns, memory {self.memory}"
        self._print(Panel(_plain(task.prompt), title=_plain(title), box=box.SQUARE))
        if observation:
            self._labelled("information", clipped(observation, self.max_lines))

    def turn(self, trajectory: Trajectory, turn: Turn) -> None:
        """Show a turn that has ended; in a staged memory mode, one that writes the memory too."""
        self._num_turns = len(trajectory.acts)
        text, tags = self.view.decode(turn.ids), self.view.tags
        apart = turn.kind == "act" and self.memory.staged
        state = parse_turn(text, tags).internal_state or ("(apart)" if apart else "(none)")
        what = "turn" if turn.kind == "act" else "memory after turn"
        self._print(Rule(_plain(f"{what} {self._num_turns} of {trajectory.task.max_turns}"), align="left"))
        grid = Table.grid(padding=(0, 2))
        grid.add_row(self._meter(trajectory), _plain(f"{tags.internal_state}: {state}"))
        self._print(grid)
        if turn.kind == "memory":
            return
        note = "(invalid, retried)" if turn.retried else "(invalid)"
        self._labelled("action", turn.action or text, "" if turn.valid else note)
        if turn.information:
            self._labelled("information", clipped(turn.information, self.max_lines))

    def end(self, trajectory: Trajectory) -> None:
        """Show how it ended."""
        reason = trajectory.stop_reason.replace("_", " ")
        line = f"reward {trajectory.reward:.2f}, success {trajectory.success:.0f}, {self._turns()}, ended by {reason}"
        self._print(Rule())
        self._print(_plain(line, "bold"))
        if trajectory.error:
            self._print(_plain(f"error: {trajectory.error}"))

    def left(self) -> None:
        """Say that whoever typed has left."""
        self._print(_plain(f"\nleft after {self._turns()}"))

    def _turns(self) -> str:
        return "1 turn" if self._num_turns == 1 else f"{self._num_turns} turns"

    def _meter(self, trajectory: Trajectory) -> Text:
        """Tokens in the window at the end of the turn, against what the whole history would be."""
        *before, last = trajectory.turns
        now, full = (len(context_ids(trajectory.prompt_ids, before, mode, last.kind)) for mode in (self.memory, "full"))
        now, full = (tokens + len(last.ids) for tokens in (now, full))
        self._largest = max(self._largest, full)
        filled = max(1, round(METER_WIDTH * now / self._largest))
        rest = max(0, round(METER_WIDTH * full / self._largest) - filled)
        bar = f"[{'#' * filled}{'.' * rest}{' ' * (METER_WIDTH - filled - rest)}]"
        return Text(f"context {bar}\n{now:,} tokens, {full:,} with the whole history", no_wrap=True)

    def _labelled(self, label: str, text: str, note: str = "") -> None:
        line = Text(f"{label}: ", style="bold")
        line.append(_plain(text, "not bold"))
        if note:
            line.append(f" {note}", "red")
        self._print(line)

    def _print(self, shown: object) -> None:
        self.console.print(shown)


def clipped(text: str, max_lines: int, max_chars: int = 200) -> str:
    """The first lines of a text and how many are left out; long lines lose their ends.

    >>> clipped("a\\nb\\nc\\nd", 2)
    'a\\nb\\n... 2 more lines'
    """
    lines = [line if len(line) <= max_chars else line[:max_chars] + "..." for line in text.splitlines()]
    if len(lines) <= max_lines:
        return "\n".join(lines)
    return "\n".join([*lines[:max_lines], f"... {len(lines) - max_lines} more lines"])


def _plain(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)
