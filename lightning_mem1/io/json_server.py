"""A small JSON server: bounded bodies, one-line errors, nothing logged.

A request has to come, and its reply to be taken, in time: a client that drips is dropped, and one that leaves is no
error.
It has no encryption: it is meant for this machine, or for a network that is trusted.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lightning_mem1.io.deadline import Allowance, BoundedSocket, taken_over

MAX_CONNECTIONS = 1024
MAX_DRAINED = 64 << 20  # bytes of a body that is not wanted
MAX_DIGITS = 18

Answers = Mapping[str, Callable[[Any], Any]]


class Refused(ValueError):
    """A request that is not carried out, with the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class TimedHandler(BaseHTTPRequestHandler):
    """Takes a whole request in time, and so its reply is taken; says nothing.

    Attributes:
        timeout: Seconds for the request, from the wait for it to its last byte, and again for its reply.
    """

    timeout = 30

    def version_string(self) -> str:
        """The name of the server alone: versions are nobody's business."""
        return "lightning_mem1"

    def handle_one_request(self) -> None:
        """Read a request and answer it."""
        self.allow()
        super().handle_one_request()

    def allow(self) -> None:
        """Restart the seconds."""
        if isinstance(self.connection, BoundedSocket):
            self.connection.allowance = Allowance(time.monotonic() + self.timeout, what="the request")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests are the user's."""


class JsonHandler(TimedHandler):
    """Answers the paths of `posts` and `gets`; anything else gets an error that says what was expected."""

    protocol_version = "HTTP/1.1"
    max_body = 1 << 20

    def posts(self) -> Answers:
        """What is answered, by path: functions of the body."""
        return {}

    def gets(self) -> Answers:
        """What is answered, by path: functions of None."""
        return {}

    def refusal(self, status: int, message: str) -> Any:
        """What an error looks like."""
        return {"error": message}

    def check(self) -> None:
        """Raise `Refused` for a request that may not be answered, whatever its path."""

    def do_POST(self) -> None:
        """Answer a question."""
        self._answer("POST", self.posts(), self._body)

    def do_GET(self) -> None:
        """Answer a question without a body; one that has a body all the same is not the next question."""
        self.close_connection |= self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        self._answer("GET", self.gets(), lambda: None)

    def _answer(self, method: str, answers: Answers, body: Callable[[], Any]) -> None:
        answer, self._is_read = answers.get(self.path), False
        try:
            self.check()
            if answer is None:
                raise Refused(404, f"expected {method} {' or '.join(answers)}, got {self.path[:100]}")
            content = json.dumps(answer(body())).encode()
        except ClientLeft:
            self.close_connection = True
            return
        except BaseException as error:  # whatever a hostile body raises is the client's answer, not our end
            self.close_connection = True  # the rest of the body may still be on the way
            self._drain()
            status = status_of(error)
            message = str(error) if status < 500 else type(error).__name__
            self._send(status, json.dumps(self.refusal(status, message)).encode())
            return
        self._send(200, content)

    def _body(self) -> Any:
        length, given = self._length(), self.headers.get("Content-Length", "")
        if length is None or length > self.max_body:
            raise ValueError(
                f"expected a body of at most {self.max_body} bytes with its length, got {given[:40] or 'none'}"
            )
        self._is_read = True
        try:
            body = self.rfile.read(length)
        except ConnectionError as error:
            raise ClientLeft from error
        if len(body) < length:
            raise ClientLeft
        return json.loads(body)

    def _length(self) -> int | None:
        """Bytes of the body, None where that is not said."""
        given = self.headers.get("Content-Length", "")
        return int(given) if given.isascii() and given.isdigit() and len(given) < MAX_DIGITS else None

    def _drain(self) -> None:
        """Read away what nobody wants: a client that still sends would not see the answer."""
        left = 0 if self._is_read else min(self._length() or 0, MAX_DRAINED)
        with contextlib.suppress(OSError):
            while left > 0 and (part := self.rfile.read(min(left, 65536))):
                left -= len(part)

    def _send(self, status: int, body: bytes) -> None:
        self.allow()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def status_of(error: BaseException) -> int:
    """The status that says what an error means to the client."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, TimeoutError):
        return 408
    return 400 if isinstance(error, ValueError | RecursionError) else 500


class TimedServer(ThreadingHTTPServer):
    """A thread for each connection, and no more than `MAX_CONNECTIONS`: who comes then is not served.

    Closing it ends its connections too: one that a client kept would otherwise be served for ever.
    """

    daemon_threads = True
    request_queue_size = 256  # a whole batch of clients may connect at once

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        self._open: set[socket.socket] = set()
        super().__init__(*args, **kwargs)

    def get_request(self) -> tuple[socket.socket, Any]:
        """A connection whose calls can be given a deadline."""
        connection, address = super().get_request()
        return taken_over(connection), address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, or close it when there are too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._open.add(request)
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread was started
            self._open.discard(request)
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.discard(request)
            self._free.release()

    def server_close(self) -> None:
        """Take no more connections, and end those that are open."""
        super().server_close()
        for connection in [*self._open]:
            with contextlib.suppress(OSError):  # it has just ended
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left, or was too slow, is no error; anything else is one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(f"request failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}", file=sys.stderr)


class JsonServer(TimedServer):
    """Serves a `JsonHandler`."""

    def serve_until_interrupted(self) -> int:
        """Serve until Ctrl-C; returns the exit code."""
        try:
            self.serve_forever()
        except KeyboardInterrupt:
            return 130
        finally:
            self.server_close()
        return 0


def server(handler: type[JsonHandler], host: str = "127.0.0.1", port: int = 0, **shared: Any) -> JsonServer:
    """A server that is ready to `serve_forever`; port 0 takes a free one, see its `server_port`.

    Args:
        handler: Answers.
        host: Address to listen on.
        port: Port to listen on.
        shared: What the handlers of all connections have as attributes.
    """
    return JsonServer((host, port), type("Handler", (handler,), shared))
