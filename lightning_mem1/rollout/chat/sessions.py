"""The sessions of a chat server: found by their ids, one call at a time, forgotten when nobody has used them."""

from __future__ import annotations

import itertools
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lightning_mem1.rollout.chat.agent import Talk
from lightning_mem1.rollout.gateway.refused import Refused

MAX_ENDED = 100_000  # ids of sessions that are over, kept so that none begins again by a reply to what is forgotten


@dataclass
class Session:
    """A session that is kept.

    Attributes:
        id: Its id.
        talk: Where it is.
        used: When it was used last, by the clock, in seconds.
        busy: Whether a call is being answered.
    """

    id: str
    talk: Talk
    used: float
    busy: bool = False


class Sessions:
    """Sessions by id. All methods are called by one thread, the server's.

    Args:
        max_sessions: Most sessions at once.
        timeout_s: A session that nobody has used for so long is over.
        clock: Seconds.
    """

    def __init__(self, max_sessions: int, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_sessions, self.timeout_s, self._clock = max_sessions, timeout_s, clock
        self._kept: OrderedDict[str, Session] = OrderedDict()  # the one that was used last at the end
        self._ended: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        self._expire()
        return len(self._kept)

    @contextmanager
    def entered(self, name: str | None, begin: Callable[[], Talk]) -> Iterator[Session]:
        """A session for one call; it stays where it was unless the call sets its `talk`.

        Args:
            name: Its id; None for a new one.
            begin: Makes a session of an id that was never used, or refuses to.

        Raises:
            Refused: it is over, another call is being answered, or there are too many.
        """
        self._expire()
        session = self._kept.get(name) if name is not None else None
        new = session is None
        if session is None:
            session = self._begun(name, begin)
        elif session.busy:
            raise Refused(
                409,
                "another call of this session is being answered: expected one at a time; send it after that answer",
                "session_busy",
            )
        session.busy, before = True, session.talk
        try:
            yield session
        finally:
            session.busy, session.used = False, self._clock()
            if new and session.talk is before:  # nothing was answered: the client may begin again
                self._kept.pop(session.id, None)
            elif session.id in self._kept:
                self._kept.move_to_end(session.id)

    def end(self, name: str) -> bool:
        """Forget a session; False when there is none of that id."""
        found = self._kept.pop(name, None)
        if found is not None:
            self._ended[name] = None
        return found is not None

    def _begun(self, name: str | None, begin: Callable[[], Talk]) -> Session:
        if name in self._ended:
            raise Refused(
                410, "this session is over: expected one that is open; begin another with another id", "session_over"
            )
        talk = begin()
        if len(self._kept) >= self.max_sessions:
            raise Refused(
                429, f"there are {self.max_sessions} sessions, as many as may be; come back later", "too_many_sessions"
            )
        session = Session(name or f"session-{secrets.token_urlsafe(16)}", talk, self._clock())
        self._kept[session.id] = session
        return session

    def _expire(self) -> None:
        oldest = self._clock() - self.timeout_s
        unused = itertools.takewhile(lambda each: each.used < oldest, self._kept.values())
        for session in [each for each in unused if not each.busy]:
            self.end(session.id)
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
