"""Sockets whose every call ends by one deadline: a peer that sends a byte now and then holds nobody up.

A time-out of the operating system begins again with each byte. Here all calls of an exchange share the seconds that
remain, and the bytes that may come.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Allowance:
    """What an exchange may still use; several sockets may share one.

    Attributes:
        until: When it ends, in seconds of `time.monotonic`.
        num_bytes: Bytes that may still come.
        what: What did not end in time, for the message.
    """

    until: float
    num_bytes: float = float("inf")
    what: str = "the exchange"

    def seconds(self) -> float:
        """The seconds that remain, more than 0.

        Raises:
            TimeoutError: none remain.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            raise self.late()
        return left

    def late(self) -> TimeoutError:
        """The error of an exchange that did not end in time."""
        return TimeoutError(f"timed out: {self.what} did not end in time")

    def take(self, num_bytes: int) -> None:
        """Count bytes that came.

        Raises:
            ValueError: more came than may.
        """
        self.num_bytes -= num_bytes
        if self.num_bytes < 0:
            raise ValueError(f"too long: {self.what} has more bytes than expected")


class _Bounded:
    """Puts an allowance before the calls of a socket."""

    allowance: Allowance | None = None

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Receive; see `socket.socket.recv_into`."""
        with self._allowed():
            count = int(super().recv_into(*args, **kwargs))  # type: ignore[misc]
        if self.allowance is not None:
            self.allowance.take(count)
        return count

    def send(self, *args: Any, **kwargs: Any) -> int:
        """Send a part; see `socket.socket.send`."""
        with self._allowed():
            return int(super().send(*args, **kwargs))  # type: ignore[misc]

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        """Send everything; see `socket.socket.sendall`, whose time-out is for all of it."""
        with self._allowed():
            super().sendall(*args, **kwargs)  # type: ignore[misc]

    @contextlib.contextmanager
    def _allowed(self) -> Iterator[None]:
        if self.allowance is None:
            yield
            return
        self.settimeout(self.allowance.seconds())  # type: ignore[attr-defined]
        try:
            yield
        except TimeoutError:
            raise self.allowance.late() from None


class BoundedSocket(_Bounded, socket.socket):
    """A socket with an allowance."""


class BoundedTLSSocket(_Bounded, ssl.SSLSocket):
    """A socket with TLS and an allowance."""


def taken_over(sock: socket.socket, allowance: Allowance | None = None) -> BoundedSocket:
    """The same connection as a socket with an allowance; the one given must not be used any more."""
    bounded = BoundedSocket(fileno=sock.detach())
    bounded.allowance = allowance
    with contextlib.suppress(OSError):  # no TCP: nothing waits there for what was sent to be confirmed
        bounded.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bounded


def with_tls(sock: BoundedSocket, host: str, allowance: Allowance) -> BoundedTLSSocket:
    """Shake hands, and check the certificate against `host`.

    Raises:
        OSError: no handshake in time, or a certificate that cannot be trusted.
    """
    context = ssl.create_default_context()
    context.sslsocket_class = BoundedTLSSocket
    sock.settimeout(allowance.seconds())
    secure = context.wrap_socket(sock, server_hostname=host)
    assert isinstance(secure, BoundedTLSSocket)
    secure.allowance = allowance
    return secure
