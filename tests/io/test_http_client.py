"""One exchange over HTTP: it ends by its deadline wherever the server drips, and takes no more than it may."""

import json
import os
import random
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lightning_mem1.io.http_client import TROUBLES, StatusError, exchange, fetch, one_line
from raw_server import dripping, flooding, raw_server, saying

NUM_REPLIES = int(os.environ.get("LIGHTNING_MEM1_FUZZ", "100"))
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "status line": dripping(b"", b"H"),
    "headers": dripping(OK + b"X-A: ", b"a"),
    "many headers": dripping(OK, b"X: y\r\n", 0.2),
    "100 continue": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": dripping(OK + b"Content-Length: 1000\r\n\r\n", b"a"),
    "body without length": dripping(OK + b"\r\n", b"a"),
    "chunks": dripping(CHUNKED, b"1\r\na\r\n"),
    "chunk line": dripping(CHUNKED + b"5;x=", b"a"),
    "trailers": dripping(CHUNKED + b"1\r\na\r\n0\r\nX: ", b"a"),
    "many trailers": dripping(CHUNKED + b"1\r\na\r\n0\r\n", b"X: y\r\n"),
    "nothing": dripping(b"", b""),
}
FLOODS = {
    "body": flooding(OK + b"\r\n", b"a"),
    "100 continue": flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "header": flooding(OK + b"X-A: ", b"a"),
    "headers": flooding(OK, b"X: y\r\n"),
    "chunk line": flooding(CHUNKED + b"5;x=", b"a"),
    "empty chunks' trailers": flooding(CHUNKED + b"0\r\n", b"X: y\r\n"),
    "one-byte chunks": flooding(CHUNKED, b"1\r\na\r\n"),
}


@pytest.mark.parametrize("place", DRIPS)
def test_a_server_that_drips_anywhere_is_cut_off_at_the_deadline(place):
    with raw_server(DRIPS[place]) as address, pytest.raises(TimeoutError, match="the reply did not end in time"):
        fetch(address, {"q": 1}, timeout_s=0.3, max_bytes=1 << 20)


def test_an_error_whose_body_drips_is_known_by_its_status():
    drip = dripping(b"HTTP/1.1 500 X\r\nContent-Length: 4000\r\n\r\n", b"a")
    with raw_server(drip) as address, pytest.raises(StatusError, match="status 500") as told:
        fetch(address, timeout_s=0.3, max_bytes=1 << 20)
    assert told.value.said.strip(b"a") == b""


@pytest.mark.parametrize("place", FLOODS)
def test_a_server_that_floods_anywhere_is_left_when_it_has_sent_what_it_may(place):
    with raw_server(FLOODS[place]) as address, pytest.raises(TROUBLES) as told:
        fetch(address, timeout_s=60.0, max_bytes=1000)
    assert "did not end in time" not in str(told.value)
    assert re.search("too long|got more than|too many|at most", one_line(told.value)), one_line(told.value)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"", "RemoteDisconnected"),
        (b"nonsense\r\n\r\n", "BadStatusLine"),
        (OK + b"Content-Length: 50\r\n\r\nabc", "IncompleteRead"),
        (OK + b"Content-Length: 3\r\nContent-Length: 50\r\n\r\nabc", "multiple unmatching values"),
        (CHUNKED + b"zz\r\nabc", "IncompleteRead|InvalidChunkLength"),
        (CHUNKED + b"5\r\nab", "IncompleteRead"),
        (OK + b"X: y\r\n" * 200 + b"\r\n", "more than 100 headers"),
        (b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", "status 302"),
    ],
)
def test_a_reply_that_is_none_says_why(reply, reason):
    with raw_server(saying(reply)) as address, pytest.raises(TROUBLES) as told:
        fetch(address, timeout_s=60.0, max_bytes=1000)
    assert re.search(reason, one_line(told.value))


def test_what_a_server_says_reaches_no_terminal_and_holds_no_key(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "k3y-0123456789")
    reply = b"HTTP/1.1 \x1b[2J k3y-0123456789 " + b"x" * 500 + b"\r\n\r\n"
    with raw_server(saying(reply)) as address, pytest.raises(TROUBLES) as told:
        fetch(address, timeout_s=60.0, max_bytes=1000)
    assert "\x1b" not in one_line(told.value) and "k3y" not in one_line(told.value) and "***" in one_line(told.value)


@pytest.mark.parametrize("address", ["http://me:pa55@127.0.0.1/", "ftp://a/", "file:///etc/passwd", "http:///x", "x"])
def test_an_address_that_is_none_is_refused_and_its_password_is_not_said(address):
    with pytest.raises(ValueError, match="expected an address of http or https without a password") as told:
        fetch(address, timeout_s=1.0, max_bytes=10)
    assert "pa55" not in str(told.value)


def test_the_connection_goes_to_the_address_that_was_chosen_and_the_name_to_the_server():
    asked = []

    def tell(connection):
        connection.sendall(OK + b"Content-Length: 2\r\n\r\nhi")

    with raw_server(tell) as origin:
        port = int(origin.rpartition(":")[2])

        def choose(host, port, found):
            asked.append((host, port))
            return ["127.0.0.1"]

        until = time.monotonic() + 60
        with exchange(f"http://localhost:{port}/x", until=until, max_bytes=10, choose=choose) as reply:
            assert (reply.status, reply.read()) == (200, b"hi")
    assert asked == [("localhost", port)]


def test_where_one_address_of_a_host_refuses_the_next_one_is_tried():
    with raw_server(saying(OK + b"Content-Length: 2\r\n\r\nhi")) as origin:
        port = int(origin.rpartition(":")[2])
        several = {"until": time.monotonic() + 60, "max_bytes": 10, "choose": lambda *_: ["127.0.0.2", "127.0.0.1"]}
        with exchange(f"http://localhost:{port}/", **several) as reply:
            assert reply.read() == b"hi"


def test_proxies_of_the_environment_are_not_asked(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with raw_server(saying(OK + b"Content-Length: 2\r\n\r\nhi")) as origin:
        assert fetch(origin, timeout_s=60.0, max_bytes=10) == b"hi"


def test_a_path_that_is_no_ascii_is_asked_for_as_an_address():
    seen = []

    def read(connection):
        connection.sendall(OK + b"Content-Length: 0\r\n\r\n")

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with ThreadPoolExecutor() as pool:
            asking = pool.submit(
                fetch, f"http://127.0.0.1:{listening.getsockname()[1]}/wiki/Köln?q=a b", timeout_s=60.0, max_bytes=10
            )
            connection = listening.accept()[0]
            seen.append(connection.recv(1000).split(b"\r\n")[0])
            read(connection)
            connection.close()
            assert asking.result() == b""
    assert seen == [b"GET /wiki/K%C3%B6ln?q=a%20b HTTP/1.1"]


PIECES = [
    OK,
    b"HTTP/1.1 200 \xff\r\n",
    b"HTTP/1.0 404 no\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/9.9 200\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: -5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Type: text/html; charset=punycode\r\n",
    b"Location: http://[::1\r\n",
    b": \r\n",
    b"no colon\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"\x00\x1b[2J",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"-1\r\n",
    b"fffffffffffffffff\r\n",
    b'{"a": [1, 2]}',
    b"[" * 5000,
]


def hostile(rng):
    """A server that sends some pieces in some order, cut somewhere, at once or slowly, and closes or stays."""
    content = b"".join(rng.choices(PIECES, k=rng.randint(0, 12)))
    content = (OK if rng.random() < 0.5 else b"") + content[: rng.randint(0, len(content))]
    slow, stays = rng.random() < 0.2, rng.random() < 0.2

    def send(connection):
        for start in range(0, len(content), 7 if slow else 10_000):
            connection.sendall(content[start : start + (7 if slow else 10_000)])
            time.sleep(0.02 if slow else 0)
        if stays:
            time.sleep(1)

    return send


def test_whatever_a_server_sends_ends_in_bytes_or_in_an_error_that_callers_expect():
    rng = random.Random(0)

    def one(number):
        with raw_server(hostile(random.Random(number))) as address:
            try:
                return fetch(address, {"q": 1}, timeout_s=0.3, max_bytes=10_000)
            except TROUBLES as error:
                return one_line(error)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, (rng.randrange(2**32) for _ in range(NUM_REPLIES))))
    assert len(found) == NUM_REPLIES and all(isinstance(each, bytes) or each for each in found)
    assert all("\x1b" not in each and len(each) < 300 for each in found if isinstance(each, str))
    json.dumps([each for each in found if isinstance(each, str)]).encode()
