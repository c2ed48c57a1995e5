"""The scheduler's SIGTERM: the run ends after the rl_step or the validation that is under way, on every rank at once.

Lightning's own handler talks to the other ranks from within the signal, whatever they are at: where one of them is in
another collective call by then, both may wait for ever or take each other's numbers.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

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


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Inside, a SIGTERM that comes before or after the training ends the run too as an exception does.

    Left to itself it would kill the process: MLflow's run would stay RUNNING for good.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    received = threading.Event()

    def leave(signum: int, _: Any) -> None:
        if signal.getsignal(signal.SIGTERM) is leave:  # else Lightning has put a handler of its own around this one
            received.set()
            print("ended by SIGTERM outside of the training", file=sys.stderr)
            raise SIGTERMException

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except Exception as error:
        if received.is_set():  # a parser has made an error of it
            raise SIGTERMException from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
