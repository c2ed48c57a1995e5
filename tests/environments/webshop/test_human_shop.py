"""The shop as web pages: the agent's pages and reward over real HTTP, and in a real browser."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest

from chromium import Chromium, find_chromium
from lightning_mem1.environments.webshop import Shop, WebShopEnv, products_from
from lightning_mem1.environments.webshop.server import MAX_BODY_BYTES, MAX_VISITS, ShopServer

ROOT = Path(__file__).parents[3]
EVIL = 'Lamp <script>alert(1)</script> " onclick="x" & \x00\ud800 ★'


@contextmanager
def serving(shop: Shop) -> Iterator[ShopServer]:
    with ShopServer(shop, range(len(shop.goals))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(tiny_shop: Shop) -> Iterator[ShopServer]:
    with serving(tiny_shop) as server:
        yield server


class Browser:
    """A browser of a few lines: follows redirects, sends forms."""

    def __init__(self, server: ShopServer, start: str = "/") -> None:
        self.server, self.path, self.html, self.status = server, "", "", 0
        self.go("GET", start)

    def go(self, method: str, path: str, fields: dict[str, str] | None = None, headers: dict[str, str] | None = None):
        connection = HTTPConnection(*self.server.server_address[:2], timeout=10)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request(method, path, urlencode(fields) if fields else None, {**form, **(headers or {})})
        answer = connection.getresponse()
        self.status, self.path, self.html, self.headers = answer.status, path, answer.read().decode(), answer.headers
        connection.close()
        if self.status == 303:
            self.go("GET", answer.headers["Location"])
        return self

    def act(self, **fields: str) -> str:
        return self.go("POST", self.path, fields).html

    def buttons(self) -> list[str]:
        return [unescape(each) for each in re.findall(r'name="action"[^>]* value="([^"]*)"', self.html)]

    def text(self) -> str:
        return unescape(re.sub(r"<[^>]*>", " ", self.html))


def goal_index(shop: Shop, **options: str) -> int:
    return next(goal.index for goal in shop.goals if goal.options == options)


def test_a_visit_offers_what_an_agent_is_offered_and_ends_with_its_reward(server: ShopServer) -> None:
    shop, index = server.shop, goal_index(server.shop, color="black", size="x-large")
    env, browser = WebShopEnv(shop, shop.goals[index]), Browser(server, f"/?goal={index}")
    assert shop.goals[index].instruction in browser.text()
    for action in (
        "search[trail shoes]", "click[b0shoe0001]", "click[black]", "click[features]", "click[< prev]", "click[large]",
        "click[buy now]",
    ):  # fmt: skip
        result = env.step(action)
        words = action.removeprefix("search[").rstrip("]")
        browser.act(**({"words": words} if action.startswith("search") else {"action": action}))
        assert sorted(browser.buttons()) == sorted(env.available_actions)
    assert result.reward == 0.8
    assert '<strong id="score">0.8000</strong>, success: no' in browser.html
    assert "options: 0.50" in browser.html


def test_a_page_shows_titles_prices_and_what_is_selected(server: ShopServer) -> None:
    browser = Browser(server)
    browser.act(words="road shoes")
    assert "Roadster road shoes $100.00" in browser.text() and "$56.89" in browser.text()
    browser.act(action="click[b0shoe0001]")
    assert '<p id="selected">Selected: nothing</p>' in browser.html
    browser.act(action="click[blue | red]")
    assert '<p id="selected">Selected: color: blue | red</p>' in browser.html
    assert browser.html.count('class="chosen"') == 1


def test_a_purchase_counts_once(server: ShopServer) -> None:
    browser = Browser(server)
    for fields in ({"words": "lamp"}, {"action": "click[b0lamp0001]"}, {"action": "click[buy now]"}):
        browser.act(**fields)
    score = browser.html
    assert browser.act(action="click[buy now]") == score == browser.act(words="shoes")


def test_what_cannot_be_done_is_said_on_the_page(server: ShopServer) -> None:
    browser = Browser(server)
    assert "Invalid action: expected one action" in browser.act(action="dance")
    assert "Invalid action: there is no &#x27;&lt;b&gt;&#x27; to click" in browser.act(action="click[<b>]")


def test_everything_from_a_product_is_escaped() -> None:
    item = {
        "asin": "B000000001", "name": EVIL, "full_description": EVIL, "small_description": [EVIL],
        "customization_options": {EVIL: [{"value": EVIL}]}, "category": EVIL, "query": "q", "product_category": EVIL,
    }  # fmt: skip
    ins = {"B000000001": {"attributes": [EVIL], "instruction": EVIL, "instruction_attributes": [EVIL]}}
    with serving(Shop(products_from([item], ins), nouns="rule")) as server:
        browser, pages = Browser(server), []
        for fields in (
            {"words": "lamp"}, {"action": "click[b000000001]"}, {"action": "click[description]"},
            {"action": "click[< prev]"}, {"action": "click[features]"}, {"action": "click[< prev]"},
        ):  # fmt: skip
            pages.append(browser.act(**fields))
        option = next(action for action in browser.buttons() if "script" in action)
        pages += [browser.act(action=option), browser.act(action="click[buy now]")]
        assert "Selected: nothing" not in pages[-2]
        for html in pages:
            assert "<script" not in html and 'onclick="' not in html and "\x00" not in html
        assert 'id="score">1.0000' in pages[-1]


def test_pages_run_nothing_and_are_kept_nowhere(server: ShopServer) -> None:
    headers = Browser(server).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "fields", "headers", "status"),
    [
        ("GET", "/visit/guess", None, {}, 404),
        ("GET", "/elsewhere", None, {}, 404),
        ("GET", "/?goal=99999", None, {}, 400),
        ("GET", "/?goal=-1", None, {}, 400),
        ("GET", "/", None, {"Host": "evil.example"}, 403),
        ("POST", "/visit/guess", {"action": "click[buy now]"}, {}, 404),
        ("POST", None, {}, {}, 400),
        ("POST", None, {"action": "a", "words": "b"}, {}, 400),
        ("POST", None, {"action": "x" * MAX_BODY_BYTES}, {}, 413),
        ("POST", None, {"action": "a"}, {"Content-Length": "-5"}, 411),
        ("PUT", "/", None, {}, 501),
    ],
)
def test_requests_out_of_bounds_are_refused(
    server: ShopServer, method: str, path: str | None, fields: Any, headers: dict[str, str], status: int
) -> None:
    browser = Browser(server)
    assert browser.go(method, path or browser.path, fields, headers).status == status
    assert browser.go("GET", "/").status == 200  # and the shop goes on


def test_the_oldest_visits_go_when_there_are_too_many(server: ShopServer) -> None:
    first = Browser(server)
    names = [server.open_visit(0) for _ in range(MAX_VISITS)]
    assert first.go("GET", first.path).status == 404
    assert first.go("GET", f"/visit/{names[-1]}").status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "shop.example", ""])
def test_the_shop_is_served_on_this_machine_only(tiny_shop: Shop, host: str) -> None:
    with pytest.raises(ValueError, match="expected a loopback address"):
        ShopServer(tiny_shop, [0], host)


@contextmanager
def command(*arguments: str) -> Iterator[str]:
    """The real command in a process of its own; yields the address that it prints."""
    line = [sys.executable, "-m", "lightning_mem1", "serve-shop", "--human", "--port", "0", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(line, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        try:
            assert found
            yield found[0]
        finally:
            process.terminate()


def test_the_command_serves_a_generated_shop_on_loopback() -> None:
    with command("--num-products", "50") as url:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        connection = HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().status == 303


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "lightning_mem1", "serve-shop", "--human", "--catalogue", str(tmp_path)]
    done = subprocess.run(line, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "must hold items_shuffle*.json" in done.stderr


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    if (program := find_chromium()) is None:
        pytest.skip("no chromium on the PATH: install one to play the shop in a browser")
    browser = Chromium(program, tmp_path / "profile")
    yield browser
    browser.close()


@pytest.mark.slow
def test_a_person_shops_in_a_browser(server: ShopServer, chromium: Chromium, tmp_path: Path) -> None:
    index = goal_index(server.shop, color="black", size="x-large")
    chromium.load("Page.navigate", url=f"{server.url}?goal={index}")
    assert server.shop.goals[index].instruction == chromium.run("document.querySelector('#instruction').innerText")
    chromium.run("document.querySelector('#words').focus()")
    chromium("Input.insertText", text="trail shoes")
    chromium.press("form button")
    assert "Acme trail running shoes, waterproof $56.89" in chromium.run("document.body.innerText")
    chromium.press('button[value="click[b0shoe0001]"]')
    chromium.press('button[value="click[black]"]')
    chromium.press('button[value="click[x-large]"]')
    assert chromium.run("document.querySelector('#selected').innerText") == "Selected: color: black, size: x-large"
    chromium.screenshot(Path(os.environ.get("WEBSHOP_SCREENSHOTS", tmp_path)) / "item.png")
    chromium.press('button[value="click[buy now]"]')
    assert chromium.run("document.querySelector('#score').innerText") == "1.0000"
    assert "success: yes" in chromium.run("document.body.innerText")
    chromium.screenshot(Path(os.environ.get("WEBSHOP_SCREENSHOTS", tmp_path)) / "score.png")


def test_a_slow_request_does_not_keep_others_waiting(server: ShopServer) -> None:
    with socket.create_connection(server.server_address[:2], timeout=10) as slow:
        slow.sendall(b"POST /visit/x HTTP/1.1\r\nContent-Le")
        assert Browser(server).status == 200
