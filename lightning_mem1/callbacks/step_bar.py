"""How far an rl_step has come: a bar on a terminal, a plain line now and then where there is none."""

from __future__ import annotations

import sys
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

REDRAW_S = 0.1  # a bar is drawn no more often


class StepBar:
    """Shows what is done of the stage that runs now; may be called from any thread.

    Args:
        console: Where lines are printed too, so that they stay above the bar.
        plain_every_s: Where that is no terminal: seconds without a line before one says how far the stage is.
    """

    def __init__(self, console: Console, plain_every_s: float) -> None:
        self.console, self.plain_every_s = console, plain_every_s
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._stage = ""
        self._shown_at = time.monotonic()

    def show(self, stage: str, done: int, total: int, unit: str) -> None:
        """Say how far a stage is.

        Args:
            stage: E.g. "step 3/60  playing".
            done: How many of its `total` units are done.
            total: Number of units.
            unit: What they are, and whatever else is to be said: "episodes, 231 turns".
        """
        with self._lock:
            late = time.monotonic() - self._shown_at
            if not self.console.is_terminal or self.console.is_dumb_terminal:
                if late >= self.plain_every_s:
                    self.console.print(Text(f"{stage}  {done}/{total} {unit}"))
                    self._shown_at = time.monotonic()
            elif stage != self._stage or done == total or late >= REDRAW_S:
                self._draw(stage, done, total, unit)
                self._stage, self._shown_at = stage, time.monotonic()

    def clear(self) -> None:
        """Take the bar away: a line follows, or nothing any more."""
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
            self._progress, self._stage, self._shown_at = None, "", time.monotonic()

    def _draw(self, stage: str, done: int, total: int, unit: str) -> None:
        if self._progress is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
            )
            self._progress = Progress(
                *columns,
                console=self.console,
                transient=True,
                auto_refresh=False,  # no thread of its own
                redirect_stderr=sys.stderr.isatty(),
            )
            self._task = self._progress.add_task(stage, total=total, unit=unit)
            self._progress.start()
        self._progress.update(self._task, description=stage, completed=done, total=total, unit=unit, refresh=True)
