"""Our JSON server against clients that drip, cut, flood and leave: each loses its own request, nobody else's."""

import json
import os
import random
import socket
import struct
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from lightning_mem1.io.http_client import StatusError, fetch
from lightning_mem1.io.json_server import JsonHandler, server

NUM_REQUESTS = int(os.environ.get("LIGHTNING_MEM1_FUZZ", "100"))


class Echo(JsonHandler):
    """Answers with what it was asked."""

    release = threading.Event()

    def posts(self):
        return {
            "/echo": lambda body: body,
            "/fail": self._fail,
            "/wait": self._wait,
            "/big": lambda body: "x" * 5_000_000,
        }

    def gets(self):
        return {"/": lambda _: "up"}

    def _fail(self, body):
        raise SystemExit(3) if body == "exit" else RuntimeError("secret path /etc/x")

    def _wait(self, body):
        self.release.wait(30)
        return body


@pytest.fixture
def port():
    running = server(Echo)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield running.server_port
    running.shutdown()
    running.server_close()


@pytest.fixture
def hasty():
    """A server that gives a request half a second."""
    running = server(type("Hasty", (Echo,), {"timeout": 0.5}))
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield running.server_port
    running.shutdown()
    running.server_close()


def post(body, path="/echo", more=b""):
    start = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n".encode()
    return start + more + b"\r\n" + body


def raw(port, content, leaves=False):
    """What comes back of bytes that are sent."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(content)
        if leaves:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        connection.settimeout(20)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def status(reply):
    return int(reply.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (post(b'{"a": 1}'), 200),
        (post(b"{", path="/echo"), 400),
        (post(b"[" * 100_000), 400),
        (post(b'["\xff"]'), 400),
        (post(b"9" * 5000), 400),
        (post(b""), 400),
        (post(b"1", path="/fail"), 500),
        (post(b'"exit"', path="/fail"), 500),
        (post(b"1", path="/../../etc/passwd"), 404),
        (b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST /echo HTTP/1.1\r\nContent-Length: ²\r\n\r\n".encode("latin-1"), 400),
        (b"POST /echo HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", 400),
        (b"PUT / HTTP/1.1\r\n\r\n", 501),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_a_request_that_is_none_gets_its_status(port, content, expected, capsys):
    reply = raw(port, content)
    assert status(reply) == expected
    assert b"/etc/x" not in reply and capsys.readouterr().err == ""


def test_a_body_that_is_too_long_is_refused_in_words_that_arrive(port):
    with pytest.raises(StatusError, match="status 400") as told:
        fetch(f"http://127.0.0.1:{port}/echo", "x" * 3_000_000, timeout_s=60.0, max_bytes=10_000)
    assert b"expected a body of at most 1048576 bytes with its length, got 3000002" in told.value.said


def test_a_second_request_hidden_in_the_body_of_a_get_is_not_answered(port):
    reply = raw(
        port, b"GET / HTTP/1.1\r\nContent-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    assert reply.count(b"HTTP/1.1") == 1 and status(reply) == 200


def test_clients_that_leave_in_the_middle_cost_no_word(port, capsys):
    Echo.release.clear()
    for content in (post(b'"x"', "/wait"), post(b"1", "/big"), post(b"12345")[:-2], b"POST /echo HT", b""):
        raw(port, content, leaves=True)
    Echo.release.set()
    for _ in range(3):
        assert status(raw(port, post(b"1", "/big"))) == 200
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "start", [b"", b"G", b"GET / HTTP/1.1\r\nX: ", b"POST /echo HTTP/1.1\r\nContent-Length: 500\r\n\r\n"]
)
def test_a_client_that_drips_is_dropped_and_holds_nobody_up(hasty, start):
    with socket.create_connection(("127.0.0.1", hasty)) as dripping:
        dripping.sendall(start)
        ended = False
        for _ in range(100):
            assert fetch(f"http://127.0.0.1:{hasty}/echo", 5, timeout_s=60.0, max_bytes=100) == b"5"
            try:
                dripping.sendall(b"a")
            except OSError:
                ended = True
                break
            threading.Event().wait(0.05)
        assert ended


def test_64_clients_at_once_are_served(port):
    with ThreadPoolExecutor(64) as pool:
        asked = [f"é\u202e😀{number}" for number in range(64)]
        found = pool.map(
            lambda text: fetch(f"http://127.0.0.1:{port}/echo", text, timeout_s=60.0, max_bytes=999), asked
        )
        assert list(map(json.loads, found)) == asked


PIECES = [b"GET", b"POST", b" ", b"/echo", b"/", b" HTTP/1.1", b" HTTP/0.9", b"\r\n", b"\n", b"\x00", b"\xff" * 9]
PIECES += [b"Content-Length: 3\r\n", b"Content-Length: 3", b"Expect: 100-continue\r\n", b"Connection: close\r\n"]
PIECES += [b"Transfer-Encoding: chunked\r\n", b"{}", b'{"a":', b"NaN", b"1e999", b"\r\n\r\n", b": x\r\n", b"a" * 3000]


def test_whatever_is_sent_the_next_client_is_served(port, capsys):
    rng = random.Random(0)
    for number in range(NUM_REQUESTS):
        content = b"".join(rng.choices(PIECES, k=rng.randint(0, 14)))
        content = post(content, rng.choice(["/echo", "/fail", "/"])) if rng.random() < 0.5 else content
        raw(port, content[: rng.randint(0, len(content))], leaves=True)
        if number % 20 == 0:
            assert fetch(f"http://127.0.0.1:{port}/echo", number, timeout_s=60.0, max_bytes=99) == str(number).encode()
    assert Counter(capsys.readouterr().err.splitlines()) == {}
