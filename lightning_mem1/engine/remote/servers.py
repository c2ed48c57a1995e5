"""Servers: which one takes the next turn, which are unhealthy, and what they said.

An unhealthy server (no reply, a bad one, an error) gets no turns while another one is healthy. It is looked at again
before the next rollout. The API key travels in a header and is cut out of whatever a server says.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lightning_mem1.engine.protocol.client import MODELS, OWNER
from lightning_mem1.engine.remote.server_list import addresses
from lightning_mem1.engine.settings import ServerSettings
from lightning_mem1.io.http_client import MAX_SHOWN, TROUBLES, StatusError, fetch, one_line
from lightning_mem1.io.redaction import HIDDEN, shown

MAX_REPLY_BYTES = 64 << 20
MAX_SAID_BYTES = 4096
LOOK_S = 10.0  # longest wait for a server that is only asked whether it is there


class Trouble(Exception):
    """A try that failed; `status` when the server said so itself."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Server:
    """One server.

    Attributes:
        url: Its base address.
        in_flight: Turns that it is writing.
        troubles: Failed tries since its last good turn.
        base: Its name for the policy's base; None while it was not asked.
        max_tokens: Longest context that it takes, None when it does not say.
        is_own: Whether it is this package's.
        uploads: Whether it takes the files of an adapter.
        adapter: Name of the adapter, or of the whole weights, that its turns are asked of; None for the base.
        version: rl_step of the weights it has; None when that is not known.
        naming: Turns under way by the adapter that they name.
        retired: Adapters that it still has and that no further turn names.
        has_numbers: Whether it has ever given a log-probability other than 0.
        lock: Held while it is given weights.
    """

    url: str
    in_flight: int = 0
    troubles: int = 0
    base: str | None = None
    max_tokens: int | None = None
    is_own: bool = False
    uploads: bool = False
    adapter: str | None = None
    version: int | None = None
    naming: Counter[str | None] = field(default_factory=Counter)
    retired: set[str] = field(default_factory=set)
    has_numbers: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class ServerPool:
    """All servers of an engine; its methods may be called from any thread.

    Raises:
        ValueError: no address, or one that cannot be.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.servers = [Server(url) for url in addresses(settings)]
        self.answered = 0  # good turns of all servers
        self._lock = threading.Lock()

    @property
    def urls(self) -> str:
        """The addresses, for messages."""
        return ", ".join(server.url for server in self.servers)

    @property
    def look_s(self) -> float:
        """Seconds that a small request may take."""
        return min(LOOK_S, self.settings.timeout_s)

    @contextmanager
    def taking(self, failed: Server | None = None) -> Iterator[Server]:
        """The server for one try: healthy before unhealthy, another than the one that failed, the least busy one."""
        with self._lock:
            server = min(self.servers, key=lambda each: (each.troubles > 0, each is failed, each.in_flight))
            server.in_flight += 1
        try:
            yield server
        finally:
            with self._lock:
                server.in_flight -= 1

    def well(self, server: Server) -> None:
        """Note a good turn."""
        with self._lock:
            server.troubles = 0
            self.answered += 1

    def bad(self, server: Server) -> None:
        """Note a failed try."""
        with self._lock:
            server.troubles += 1

    def read_again(self) -> str:
        """Take in a list of servers that has changed; returns why it cannot be read, and then keeps those there are.

        A server that is no longer listed gets no further turn; those it is writing are waited for.
        """
        try:
            wanted = addresses(self.settings)
        except ValueError as error:
            return f"the servers stay as they are: {error}"
        with self._lock:
            known = {server.url: server for server in self.servers}
            self.servers = [known.get(url) or Server(url) for url in wanted]
        return ""

    def look_again(self) -> None:
        """Ask the unhealthy servers whether they are there; those that answer are healthy again."""
        for server in self.servers:
            if server.troubles and self._is_there(server):
                server.troubles = 0

    def any_there(self) -> bool:
        """Whether some server answers at all."""
        return any(map(self._is_there, self.servers))

    def _is_there(self, server: Server) -> bool:
        try:
            self.call(server, MODELS, timeout_s=self.look_s)
        except Trouble:
            return False
        return True

    def introduce(self, server: Server) -> None:
        """Find out what a server calls the base, and how long its contexts may be.

        Raises:
            Trouble: it does not say.
            ValueError: it does not offer the model that it should.
        """
        reply = self.call(server, MODELS, timeout_s=self.look_s)
        data = reply.get("data") if isinstance(reply, dict) else None
        offered = [each for each in data or [] if isinstance(each, dict) and isinstance(each.get("id"), str)]
        wanted = self.settings.model
        bases = [each for each in offered if (each["id"] == wanted if wanted else not each.get("parent"))]
        if not bases and wanted and offered:
            names = ", ".join(each["id"] for each in offered[:8])
            raise ValueError(
                f"model is not served: expected '{wanted}' at {server.url}, got {names}; set model.engine.server.model"
            )
        if not bases:
            raise Trouble(f"expected 'data' with a model from {server.url}{MODELS}, got {str(reply)[:80]}")
        longest = bases[0].get("max_model_len")
        server.base, server.max_tokens = bases[0]["id"], longest if isinstance(longest, int) else None
        server.is_own = bases[0].get("owned_by") == OWNER
        server.uploads = server.is_own and bases[0].get("uploads") is True

    def call(self, server: Server, path: str, question: Any = None, timeout_s: float | None = None) -> Any:
        """The reply to a question, as JSON, or as text where it is none.

        Raises:
            Trouble: there was no whole reply in time, or it was an error.
        """
        key = os.environ.get(self.settings.key_variable, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout_s = timeout_s or self.settings.timeout_s
        try:
            whole = fetch(server.url + path, question, headers, timeout_s=timeout_s, max_bytes=MAX_REPLY_BYTES)
        except StatusError as error:
            said = _said(_without(error.said.decode(errors="replace"), key))
            raise Trouble(f"status {error.status} from {server.url}{said}", error.status) from None
        except TROUBLES as error:
            raise Trouble(_without(f"{one_line(error)} from {server.url}", key)) from None
        try:
            return json.loads(whole)
        except (ValueError, RecursionError):
            return whole[:MAX_SAID_BYTES].decode(errors="replace")


def _said(text: str) -> str:
    """What an error's body says, bounded, on one line."""
    try:
        content = json.loads(text)
        inner = content.get("error", content) if isinstance(content, dict) else content
        text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except (ValueError, RecursionError):
        pass
    return f" ('{shown(text)[:MAX_SHOWN]}')" if text.strip() else ""


def _without(message: str, key: str) -> str:
    return message.replace(key, HIDDEN) if key else message
