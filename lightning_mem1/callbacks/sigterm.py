"""The scheduler's SIGTERM: the run ends after the rl_step or the validation that is under way, on every rank at once.

Lightning's own handler talks to the other ranks from within the signal, whatever they are at: where one of them is in
another collective call by then, both may wait for ever or take each other's numbers.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from lightning_mem1.training.lightning_internals import end_by_sigterm, replace_sigterm_handler


class Sigterm:
    """Remembers the signal until the ranks can talk about it.

    Attributes:
        received: Whether this rank got one.
    """

    def __init__(self) -> None:
        self.received = False

    def listen(self, trainer: Trainer) -> None:
        """Take the place of Lightning's handler; to be called before it is installed, in `setup`."""
        self.received = False
        replace_sigterm_handler(trainer, self._remember)

    def leave(self, trainer: Trainer) -> bool:
        """Whether any rank got the signal; if so Lightning ends the run as soon as this hook is over.

        Every rank has to call it.
        """
        received = bool(trainer.strategy.reduce_boolean_decision(self.received, all=False))
        if received:
            end_by_sigterm(trainer)
        return received

    def _remember(self, *_: Any) -> None:
        self.received = True
