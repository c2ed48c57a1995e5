"""A loopback server that writes whatever bytes it is told to, as fast or slow as it is told."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Behaviour = Callable[[socket.socket], None]


def dripping(start: bytes, piece: bytes, pause_s: float = 0.05) -> Behaviour:
    """Sends `start`, and then a piece now and then for as long as anybody listens."""

    def send(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            threading.Event().wait(pause_s)

    return send


def flooding(start: bytes, piece: bytes) -> Behaviour:
    """Sends `start`, and then pieces without an end."""
    return dripping(start, piece * (65536 // len(piece)), 0.0)


def saying(content: bytes) -> Behaviour:
    """Sends some bytes and closes."""
    return lambda connection: connection.sendall(content)


@contextlib.contextmanager
def raw_server(behave: Behaviour) -> Iterator[str]:
    """The address of a server that treats every connection like this, whatever it is asked."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(256)

        def serve(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                connection.recv(65536)
                behave(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
