"""Connections are kept for the next exchange with the same server, and only those that are fit for it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from lightning_mem1.io import connections
from lightning_mem1.io.connections import IdleConnections, Server
from lightning_mem1.io.http_client import StatusError, fetch
from lightning_mem1.io.json_server import JsonHandler, server
from raw_server import raw_server, saying

TIME = {"timeout_s": 20.0, "max_bytes": 1 << 20}


class Counting(JsonHandler):
    opened: list[int]

    def setup(self):
        self.opened.append(self.client_address[1])
        super().setup()

    def posts(self):
        return {"/double": lambda body: 2 * body, "/fails": lambda body: 1 / 0}


@contextmanager
def running(handler=Counting):
    opened: list[int] = []
    serving = server(handler, opened=opened)
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{serving.server_port}", opened
    finally:
        serving.shutdown()
        serving.server_close()
        thread.join()


def test_one_connection_serves_one_exchange_after_another():
    with running() as (url, opened):
        assert [fetch(f"{url}/double", number, **TIME) for number in range(20)] == [b"%d" % (2 * n) for n in range(20)]
        assert len(opened) == 1


def test_exchanges_at_once_have_a_connection_each_and_never_a_reply_of_another():
    with running() as (url, opened), ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(lambda number: int(fetch(f"{url}/double", number, **TIME)), range(400)))
        assert replies == [2 * number for number in range(400)] and 1 <= len(opened) <= 16


def test_an_error_ends_its_connection_and_the_next_exchange_has_another():
    with running() as (url, opened):
        fetch(f"{url}/double", 1, **TIME)
        with pytest.raises(StatusError, match="status 500"):
            fetch(f"{url}/fails", 1, **TIME)
        assert fetch(f"{url}/double", 3, **TIME) == b"6" and len(opened) == 2


class Leaving(Counting):
    """Ends every connection at its second request, without a word."""

    def setup(self):
        super().setup()
        self.num_asked = 0

    def _answer(self, *args):
        self.num_asked += 1
        if self.num_asked == 2:
            self.close_connection = True
        else:
            super()._answer(*args)


def test_a_kept_connection_that_ends_without_a_reply_is_replaced_by_a_new_one():
    with running(Leaving) as (url, opened):
        assert [fetch(f"{url}/double", number, **TIME) for number in range(4)] == [b"0", b"2", b"4", b"6"]
        assert len(opened) == 4


def test_a_server_that_is_closed_ends_the_connections_that_were_kept():
    with running() as (url, _):
        assert fetch(f"{url}/double", 1, **TIME) == b"2"
    with pytest.raises(ConnectionError):
        fetch(f"{url}/double", 1, **TIME)


def test_what_a_server_sends_unasked_is_no_reply_to_the_next_exchange():
    two = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2"
    with raw_server(saying(two)) as address:
        assert [fetch(address, 0, **TIME) for _ in range(3)] == [b"1"] * 3


class Line:
    def __init__(self):
        self.is_connected, self.is_closed = True, False

    def close(self):
        self.is_closed = True


def test_a_connection_that_is_old_closed_or_one_too_many_is_closed_and_not_used(monkeypatch):
    idle, here, lines = IdleConnections(), Server("a", 1, False), [Line() for _ in range(4)]
    for line in lines[:2]:
        idle.leave(here, line)
    lines[1].is_connected = False
    assert idle.take(Server("a", 2, False)) is None and idle.take(Server("a", 1, True)) is None
    assert idle.take(here) is lines[0] and lines[1].is_closed and idle.take(here) is None
    monkeypatch.setattr(connections, "MAX_IDLE", 1)
    idle.leave(here, lines[2])
    idle.leave(here, lines[3])
    assert lines[2].is_closed and not lines[3].is_closed
    monkeypatch.setattr(connections, "MAX_IDLE_S", 0.0)
    assert idle.take(here) is None and lines[3].is_closed
