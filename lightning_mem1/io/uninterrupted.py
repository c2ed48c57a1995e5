"""Steps that a signal must not part: it is handled when they are over."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, SIGTERM and Ctrl-C wait until the end; handlers run in the main thread, so elsewhere nothing is to do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[tuple[int, Any]] = []
    before = {each: signal.signal(each, lambda *given: waiting.append(given)) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number, frame in waiting:
            handler = before[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)
            elif handler != signal.SIG_IGN:
                os.kill(os.getpid(), number)
