"""A loopback server that answers as it is told: right, wrong, late, half or not at all."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[BaseHTTPRequestHandler, Any], None]


def whole(content: Any, status: int = 200, kind: str = "application/json", **headers: str) -> Reply:
    """A proper reply of JSON, text or bytes."""
    body = (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )

    def send(handler: BaseHTTPRequestHandler, question: Any) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def half(handler: BaseHTTPRequestHandler, question: Any) -> None:
    """Promises more than it sends."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"result": [[')


def dead(handler: BaseHTTPRequestHandler, question: Any) -> None:
    """Closes without a word."""
    handler.close_connection = True


def slow(handler: BaseHTTPRequestHandler, question: Any) -> None:
    """Says nothing for longer than anybody waits here."""
    time.sleep(2.5)
    with contextlib.suppress(OSError):
        whole({"result": [[]]})(handler, question)


def drip(handler: BaseHTTPRequestHandler, question: Any) -> None:
    """Sends a byte now and then, for ever as far as anybody here can tell."""
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(30):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)


class Faulty:
    """What a server got, and what it is going to answer: the last reply again and again."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.replies: list[Reply] = []
        self.questions: list[Any] = []
        self.headers: list[dict[str, str]] = []

    def next(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextlib.contextmanager
def faulty() -> Iterator[Faulty]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.questions.append(json.loads(body))
            state.headers.append(dict(self.headers))
            state.next()(self, state.questions[-1])

        def do_GET(self) -> None:
            state.questions.append(self.path)
            state.next()(self, self.path)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Faulty(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
