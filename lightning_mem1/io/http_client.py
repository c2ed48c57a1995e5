"""One try to get a reply from an HTTP service, by urllib3: one deadline over the whole exchange, no redirects, no
proxies.

The deadline holds for everything: finding the address, connecting, TLS, sending, the status line, headers, interim
replies, the body and what follows it. What may come is bounded too. It raises one of `TROUBLES` when no whole reply
came in time; whoever calls decides what is worth another try.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3
from urllib3.connection import HTTPConnection

from lightning_mem1.io.connections import IdleConnections, Server
from lightning_mem1.io.deadline import Allowance, BoundedSocket, BoundedTLSSocket, taken_over, with_tls
from lightning_mem1.io.redaction import redacted, shown

# refused, reset, too slow, a status other than 200; no JSON or not to the point; broken HTTP; nested too deep
TROUBLES = (OSError, ValueError, HTTPException, RecursionError)
FINAL = range(400, 500)  # the request itself is wrong: asking again would not help
AGAIN = (408, 429)
PORTS = {"http": 80, "https": 443}
MAX_SAID_BYTES = 4096  # of what a server says about an error
MAX_SHOWN = 200  # characters of it in a message
MAX_HOST_CHARS = 253  # of DNS
MAX_ADDRESSES = 8  # tried of one host
ROOM_BYTES = 1 << 20  # for a status line, headers and trailers
WIRE_BYTES = 8  # at most so many bytes on the wire for a byte of content, however small its chunks

LEFT = (ConnectionError, HTTPException)  # of a connection that its server closed while nothing was asked

Choose = Callable[[str, int, Sequence[str]], Sequence[str]]


class StatusError(OSError):
    """A status other than success.

    Attributes:
        status: The status.
        said: The first bytes of the reply.
    """

    def __init__(self, status: int, said: bytes = b"") -> None:
        super().__init__(f"status {status}")
        self.status, self.said = status, said


def fetch(
    address: str, question: Any = None, headers: Mapping[str, str] | None = None, *, timeout_s: float, max_bytes: int
) -> bytes:
    """The whole reply; a server that drips is cut off like one that sends nothing.

    Args:
        address: Where to.
        question: Plain values, posted as JSON; None to get.
        headers: Further headers, e.g. a key.
        timeout_s: Of the whole exchange.
        max_bytes: Of the reply.

    Raises:
        StatusError: a status other than success.
        OSError, ValueError, HTTPException: see `TROUBLES`.
    """
    body = None if question is None else json.dumps(question).encode()
    sent = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
    with exchange(address, body, sent, until=time.monotonic() + timeout_s, max_bytes=max_bytes, keep=True) as reply:
        if not 200 <= reply.status < 300:
            raise StatusError(reply.status, reply.start(MAX_SAID_BYTES))
        return reply.read()


class Reply:
    """A reply whose body has not been read yet.

    Attributes:
        status: Its status.
        headers: Its headers; names in any case.
        is_read: Whether the whole body was read.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, max_bytes: int) -> None:
        self._response, self._max_bytes = response, max_bytes
        self.status, self.headers, self.is_read = response.status, response.headers, False

    def read(self) -> bytes:
        """The body.

        Raises:
            ValueError: it is longer than it may be, or shorter than it promised.
            TimeoutError: the deadline has passed.
        """
        parts, length = [], 0
        while part := self._part():
            parts.append(part)
            length += len(part)
            if length > self._max_bytes:
                raise ValueError(f"reply too long: expected at most {self._max_bytes} bytes")
        self.is_read = True
        return b"".join(parts)

    def start(self, max_bytes: int) -> bytes:
        """The first bytes of the body, as far as they come in time; never raises for what is wrong with it."""
        body = b""
        with contextlib.suppress(*TROUBLES):
            while len(body) < max_bytes and (part := self._part(max_bytes)):
                body += part
        return body[:max_bytes]

    def _part(self, max_bytes: int = 65536) -> bytes:
        with _plain_errors():
            return self._response.read1(max_bytes, decode_content=False)


@contextlib.contextmanager
def exchange(
    address: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    until: float,
    max_bytes: int,
    choose: Choose = lambda host, port, found: found,
    keep: bool = False,
) -> Iterator[Reply]:
    """Ask, and give the reply as soon as its headers are there.

    Args:
        address: Of http or https, without a password.
        body: Posted; None to get.
        headers: Of the request.
        until: Deadline of everything, in seconds of `time.monotonic`.
        max_bytes: Of the reply's body.
        choose: Takes host, port and the addresses found for them, and returns those that may be connected to, or raises
            ValueError. The connection goes to one of them, whatever the name points to by then.
        keep: Use a connection that an earlier exchange with the same server left, and leave it for the next one; else
            it is closed at the end. For servers that the user named: `choose` is asked about new connections alone.

    Raises:
        OSError, ValueError, HTTPException: see `TROUBLES`.
    """
    parts = urlsplit(address)
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None or parts.password is not None:
        raise ValueError(f"expected an address of http or https without a password, got {redacted(address)[:100]!r}")
    allowance = Allowance(until, WIRE_BYTES * max_bytes + ROOM_BYTES, "the reply")
    host, port = parts.hostname, parts.port or PORTS[parts.scheme]
    server = Server(host, port, parts.scheme == "https")
    path = quote(f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}", safe="%/:=&?~#+!$,;'@()*[]|")
    sent = {"Accept-Encoding": "identity", "User-Agent": "lightning_mem1", **(headers or {})}
    if not keep:
        sent = {"Connection": "close", **sent}
    method = "GET" if body is None else "POST"
    connection = IDLE.take(server) if keep else None
    with contextlib.ExitStack() as ended:
        response = None
        if connection is not None:
            ended.callback(connection.close)
            connection.renew(allowance)
            with contextlib.suppress(*LEFT), _plain_errors():  # the server may have closed it meanwhile
                response = _asked(connection, method, path, body, sent)
        if response is None:
            connection = _Connection(server, allowance, choose)
            ended.callback(connection.close)
            with _plain_errors():
                response = _asked(connection, method, path, body, sent)
        reply = Reply(response, max_bytes)
        yield reply
        assert connection is not None
        if keep and reply.is_read and connection.is_connected:
            ended.pop_all()
            IDLE.leave(server, connection)


def _asked(
    connection: _Connection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> urllib3.BaseHTTPResponse:
    connection.request(method, path, body, headers, preload_content=False, decode_content=False)
    return connection.getresponse()


class _Connection(HTTPConnection):
    """A connection to an address that was chosen; the name is for the server and its certificate."""

    def __init__(self, server: Server, allowance: Allowance, choose: Choose) -> None:
        super().__init__(server.host, server.port)
        self.default_port = PORTS["https" if server.secure else "http"]  # type: ignore[misc]
        self.secure, self.allowance, self.choose = server.secure, allowance, choose

    def renew(self, allowance: Allowance) -> None:
        """Begin another exchange, with an allowance of its own."""
        self.allowance = allowance
        if self.sock is not None:
            self.sock.allowance = allowance  # type: ignore[union-attr]

    def connect(self) -> None:
        """Open the socket."""
        found = addresses_of(self.host, self.port, self.allowance)
        sock: BoundedSocket | BoundedTLSSocket
        sock = _connected(list(self.choose(self.host, self.port, found)), self.port, self.allowance)
        self.sock = with_tls(sock, self.host, self.allowance) if self.secure else sock


IDLE: IdleConnections[_Connection] = IdleConnections()


def addresses_of(host: str, port: int, allowance: Allowance) -> list[str]:
    """The addresses of a host, in the order of the system.

    Raises:
        OSError, ValueError: it has none, is no name, or nobody says in time.
    """
    if len(host) > MAX_HOST_CHARS:
        raise ValueError(f"no name of a host: expected at most {MAX_HOST_CHARS} characters, got {len(host)}")
    done: Future[list[Any]] = Future()

    def look() -> None:  # the system's own search has no deadline
        try:
            done.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=look, daemon=True, name="addresses").start()
    try:
        found = done.result(allowance.seconds())
    except TimeoutError:
        raise allowance.late() from None
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _connected(addresses: Sequence[str], port: int, allowance: Allowance) -> BoundedSocket:
    """A connection to the first address that takes one; the later ones have their share of the seconds too."""
    problem: OSError = OSError("the host has no address")
    for place, address in enumerate(addresses := addresses[:MAX_ADDRESSES]):
        share_s = allowance.seconds() / (len(addresses) - place)
        try:
            return taken_over(socket.create_connection((address, port), share_s), allowance)
        except OSError as error:
            problem = error
    raise allowance.late() if isinstance(problem, TimeoutError) else problem


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """urllib3's errors as those of `TROUBLES`: the first cause where there is one."""
    try:
        yield
    except urllib3.exceptions.IncompleteRead as error:
        raise ValueError(f"reply cut short: {error}") from None
    except urllib3.exceptions.HTTPError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, TROUBLES):
            raise cause from None
        raise HTTPException(f"{type(error).__name__}: {error}") from error


def is_final(status: int) -> bool:
    """Whether a status says that the request itself is wrong."""
    return status in FINAL and status not in AGAIN


def one_line(error: BaseException) -> str:
    """What went wrong, for a message: without secrets and control characters, bounded."""
    if isinstance(error, StatusError):
        return f"status {error.status}"
    return f"{type(error).__name__}: {shown(str(error))[:MAX_SHOWN]}"
