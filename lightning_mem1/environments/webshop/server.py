"""The shop as web pages for people: a small server on this machine.

A visit lives under an address that cannot be guessed, so that no other web page can act in it. Requests are bounded
in size and time, and so is the number of visits; the oldest go first.
"""

from __future__ import annotations

import random
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lightning_mem1.environments.webshop.env import WebShopEnv
from lightning_mem1.environments.webshop.pages import html
from lightning_mem1.environments.webshop.pages.page import MAX_ACTION_CHARS
from lightning_mem1.environments.webshop.shop import Shop
from lightning_mem1.io.json_server import TimedHandler, TimedServer
from lightning_mem1.types import StepResult

MAX_BODY_BYTES = 4 * MAX_ACTION_CHARS
MAX_VISITS = 256
TIMEOUT_S = 15

_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass
class _Visit:
    env: WebShopEnv
    last: StepResult | None = None
    lock: Lock = field(default_factory=Lock)


class Refused(Exception):
    """A request that is not carried out, with the status and what to say."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class ShopServer(TimedServer):
    """Serves visits to a shop; port 0 takes a free one."""

    def __init__(
        self, shop: Shop, goals: Sequence[int], host: str = "127.0.0.1", port: int = 0, *, seed: int = 0,
        strict: bool = False, results_per_page: int = 10,
    ) -> None:  # fmt: skip
        """Bind to an address.

        Args:
            shop: The shop.
            goals: Indices of the goals to draw from.
            host: Address to listen on; only one of this machine's loopback addresses.
            port: 0 for any free port.
            seed: Draws the goals.
            results_per_page: Products on a page of results.

        Raises:
            ValueError: The address is not a loopback address: there is no login and no encryption.
        """
        if host != "localhost" and not _is_loopback(host):
            raise ValueError(f"the shop is served on this machine only: expected a loopback address, got {host!r}")
        self.shop, self._goals, self._rng = shop, goals, random.Random(seed)
        self._per_page = results_per_page
        self._visits: OrderedDict[str, _Visit] = OrderedDict()
        self._lock = Lock()
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Address of the start page."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/"

    def open_visit(self, index: int | None = None) -> str:
        """Start a visit with a goal of the shop or one drawn from those given; return the name of the visit."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            number = self._rng.choice(self._goals) if index is None else index
            self._visits[name] = _Visit(WebShopEnv(self.shop, self.shop.goals[number], results_per_page=self._per_page))
            while len(self._visits) > MAX_VISITS:
                self._visits.popitem(last=False)
        return name

    def visit(self, name: str) -> _Visit:
        """Return a visit; raises Refused when there is none, or none any more."""
        with self._lock:
            if name not in self._visits:
                raise Refused(HTTPStatus.NOT_FOUND, "There is no such visit (any more).")
            self._visits.move_to_end(name)
            return self._visits[name]

    def knows_host(self, host: str | None) -> bool:
        """Return whether a request names this machine: a page elsewhere may point its own name here."""
        name = urlsplit(f"//{host}").hostname if host else None
        return name == "localhost" or bool(name and _is_loopback(name))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class _Handler(TimedHandler):
    server: ShopServer
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        """Show a visit, or start one."""
        self._answer(self._show)

    def do_POST(self) -> None:
        """Carry out an action and show what came of it."""
        self._answer(self._act)

    def _answer(self, handle: Any) -> None:
        try:
            if not self.server.knows_host(self.headers.get("Host")):
                raise Refused(HTTPStatus.FORBIDDEN, "This shop answers to names of this machine only.")
            handle()
        except Refused as refused:
            self.close_connection = True  # a body may be unread
            self._send(refused.status, html.message(refused.status.phrase, refused.why))

    def _show(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/":
            self._redirect(self.server.open_visit(self._goal(address.query)))
            return
        visit = self._visit(address.path)
        with visit.lock:
            text = html.page(self.server.shop, visit.env, visit.last)
        self._send(HTTPStatus.OK, text)

    def _act(self) -> None:
        path = urlsplit(self.path).path
        visit, fields = self._visit(path), self._fields()
        words, action = fields.get("words"), fields.get("action")
        if (words is None) == (action is None):
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected one field, words or action.")
        with visit.lock:
            if visit.env.page.kind != "done":  # the score stays: a purchase counts once
                visit.last = visit.env.step(f"search[{words}]" if action is None else action)
        self._redirect(path.removeprefix("/visit/"))

    def _visit(self, path: str) -> _Visit:
        if not path.startswith("/visit/"):
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such page.")
        return self.server.visit(path.removeprefix("/visit/"))

    def _goal(self, query: str) -> int | None:
        wanted = parse_qs(query[:100]).get("goal")
        if wanted is None:
            return None
        if not wanted[0].isascii() or not wanted[0].isdigit() or int(wanted[0]) >= len(self.server.shop.goals):
            raise Refused(HTTPStatus.BAD_REQUEST, f"Expected a goal from 0 to {len(self.server.shop.goals) - 1}.")
        return int(wanted[0])

    def _fields(self) -> dict[str, str]:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Expected a Content-Length.")
        if int(length) > MAX_BODY_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Expected at most {MAX_BODY_BYTES} bytes.")
        try:
            body = self.rfile.read(int(length)).decode("utf-8")
            fields = parse_qs(body, keep_blank_values=True, max_num_fields=8, errors="strict")
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected a form.") from None
        return {name: values[0] for name, values in fields.items()}

    def _redirect(self, visit: str) -> None:
        self._send(HTTPStatus.SEE_OTHER, "", {"Location": f"/visit/{visit}"})

    def _send(self, status: HTTPStatus, text: str, more: dict[str, str] | None = None) -> None:
        data = text.encode("utf-8", "replace")
        self.allow()
        self.send_response(status)
        for name, value in {**_HEADERS, **(more or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
