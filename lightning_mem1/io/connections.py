"""Connections that were left open by an exchange with a server, for the next one with it.

A turn on a server is a request: a new connection for each would cost it an address look-up, a handshake and a thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

MAX_IDLE_S = 20.0  # less than servers wait for the next request, 30 s here
MAX_IDLE = 256  # connections to one server


@dataclass(frozen=True)
class Server:
    """Where a connection goes to."""

    host: str
    port: int
    secure: bool


class Connection(Protocol):
    """What is kept."""

    @property
    def is_connected(self) -> bool:
        """Whether the other side has neither closed it nor sent anything."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


AnyConnection = TypeVar("AnyConnection", bound=Connection)


class IdleConnections(Generic[AnyConnection]):
    """Open connections by server; safe in threads, and empty in a forked process, which must not share them."""

    def __init__(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()
        self._idle: dict[Server, deque[tuple[float, AnyConnection]]] = defaultdict(deque)

    def take(self, server: Server) -> AnyConnection | None:
        """The connection to a server that was left last and is still open; None when there is none."""
        while True:
            with self._lock:
                idle = self._of(server)
                if not idle:
                    return None
                since, connection = idle.pop()
            if time.monotonic() - since < MAX_IDLE_S and connection.is_connected:
                return connection
            connection.close()

    def leave(self, server: Server, connection: AnyConnection) -> None:
        """Keep a connection on which nothing is under way; the oldest one goes where there are too many."""
        with self._lock:
            idle = self._of(server)
            idle.append((time.monotonic(), connection))
            oldest = idle.popleft()[1] if len(idle) > MAX_IDLE else None
        if oldest is not None:
            oldest.close()

    def _of(self, server: Server) -> deque[tuple[float, AnyConnection]]:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._idle.clear()
        return self._idle[server]
