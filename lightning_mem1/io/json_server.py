"""A small JSON server: bounded bodies, one-line errors, nothing logged.

It has no encryption: it is meant for this machine, or for a network that is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answers = Mapping[str, Callable[[Any], Any]]


class Refused(ValueError):
    """A request that is not carried out, with the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class JsonHandler(BaseHTTPRequestHandler):
    """Answers the paths of `posts` and `gets`; anything else is told what was expected."""

    timeout = 30
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
        """Answer a question without a body."""
        self._answer("GET", self.gets(), lambda: None)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests are the user's."""

    def _answer(self, method: str, answers: Answers, body: Callable[[], Any]) -> None:
        answer = answers.get(self.path)
        try:
            self.check()
            if answer is None:
                raise Refused(404, f"expected {method} {' or '.join(answers)}, got {self.path[:100]}")
            self._send(200, answer(body()))
        except Exception as error:  # whatever a hostile body raises is the client's answer, not our end
            self.close_connection = True  # the rest of the body may still be on the way
            status = error.status if isinstance(error, Refused) else 400 if isinstance(error, ValueError) else 500
            self._send(status, self.refusal(status, str(error) if status < 500 else type(error).__name__))

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > self.max_body:
            raise ValueError(
                f"expected a body of at most {self.max_body} bytes with its length, got {length or 'none'}"
            )
        return json.loads(self.rfile.read(int(length)))

    def _send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class JsonServer(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 256  # a whole batch of clients may connect at once

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
