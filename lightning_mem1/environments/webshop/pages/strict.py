"""The reference's text environment to the letter, as a state machine over its urls.

A query that crashes the reference (``<a> ...``, a bare ``<c>``) leaves the page as it is and counts as invalid.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Literal

from lightning_mem1.environments.webshop.catalogue.catalogue import Product
from lightning_mem1.environments.webshop.goals.goals import Goal
from lightning_mem1.environments.webshop.goals.reward import score
from lightning_mem1.environments.webshop.pages import reference_pages
from lightning_mem1.environments.webshop.pages.page import MAX_ACTION_CHARS, Outcome, Page, PageKind
from lightning_mem1.environments.webshop.shop import Shop

Mode = Literal["text", "text_rich", "url"]

BASE_URL = "http://127.0.0.1:3000"

_ACTION = re.compile(r"(.+)\[(.+)\]")


class StrictBrowser:
    """One session of the reference shop."""

    def __init__(
        self, shop: Shop, goal: Goal, mode: Mode, session: str, results_per_page: int, show_attrs: bool
    ) -> None:
        self._shop, self._goal, self._mode = shop, goal, mode
        self._session, self._show_attrs, self._per_page = session, show_attrs, results_per_page
        self._rng = random.Random(goal.index)  # for the special query <r>, which shows random products
        self._home()

    @property
    def page(self) -> Page:
        """Where the session is."""
        return Page(
            self._kind, self._asin, self._query(), self._number, self._num_pages, dict(self._options), self._results
        )

    def observation(self) -> str:
        """Return the page in the mode of this session."""
        if self._mode == "url":
            return self._url
        return self._page.text() if self._mode == "text" else self._page.text_rich(self._url, self._visited)

    def available(self) -> dict[str, object]:
        """Return what the reference's ``get_available_actions`` returns."""
        return {"has_search_bar": self._page.has_search_bar, "clickables": self._page.clickables()}

    def actions(self) -> list[str]:
        """Return the actions that do something; a search works on every page."""
        names = [name for name in self._page.clickables() if name not in ("search", "")]
        return ["search[<words>]", *(f"click[{name}]" for name in names)]

    def act(self, action: str) -> Outcome:
        """Carry out an action as the reference parses it."""
        found = _ACTION.match(action) if len(action) <= MAX_ACTION_CHARS else None
        name, argument = (found[1], found[2].lower()) if found else ("", "")
        if name == "search" and argument:
            keywords = argument.split(" ")
            if _crashes(keywords):
                return Outcome(valid=False, why=f"the reference crashes on the query {argument[:40]!r}")
            self._search(keywords, 1)
            return Outcome()
        if name == "click" and argument != "search" and argument in self._page.clickables():
            return self._click(argument)
        return Outcome(valid=False, why="not an action of this page")

    def _click(self, name: str) -> Outcome:
        in_results = "search_results" in self._url
        if name == reference_pages.BUY.lower():
            return self._buy()
        if name == reference_pages.BACK.lower():
            self._home()
        elif name == reference_pages.NEXT.lower() and in_results:
            self._search(self._keywords, self._number + 1)
        elif name == reference_pages.PREV.lower() and in_results:
            self._search(self._keywords, self._number - 1)
        elif name == reference_pages.PREV.lower() and "item_page" in self._url:
            self._search(self._keywords, self._number)
        elif name.title() in reference_pages.SUB_PAGES:
            self._open_sub_page(name.title())
        else:
            self._open_item(name)
        return Outcome()

    def _home(self) -> None:
        self._kind: PageKind = "search"
        self._keywords: list[str] = []
        self._number, self._num_pages = 1, 0
        self._asin: str | None = None
        self._visited: set[str] = set()
        self._options: dict[str, str] = {}
        self._results: tuple[str, ...] = ()
        self._url = f"{BASE_URL}/{self._session}"
        self._page = reference_pages.search_page(self._goal.instruction)

    def _search(self, keywords: list[str], number: int) -> None:
        self._kind, self._keywords, self._number = "results", keywords, number
        self._asin, self._options = None, {}
        found = self._find(keywords)
        first = (number - 1) * self._per_page
        shown = [self._shop.products[place] for place in found[first : first + self._per_page]]
        self._results = tuple(product.asin for product in shown)
        self._num_pages = -(-len(found) // self._per_page)
        self._url = f"{BASE_URL}/search_results/{self._session}/{'+'.join(keywords)}/{number}"
        self._page = reference_pages.results_page(self._goal.instruction, shown, number, len(found))

    def _find(self, keywords: list[str]) -> Sequence[int]:
        """Return the places of what a search finds."""
        shop, rest = self._shop, " ".join(keywords[1:]).strip()
        if keywords[0] == "<r>":
            return self._rng.sample(range(len(shop.products)), min(50, len(shop.products)))
        if keywords[0] == "<c>":
            return shop.of_category(keywords[1].strip())
        if keywords[0] == "<q>":
            return shop.of_query(rest)
        return [shop.place(asin) for asin, _ in shop.search(" ".join(keywords))]

    def _open_item(self, name: str) -> None:
        """Open a product, choose an option, or come back from a sub page."""
        if name in self._page.radios:
            self._options[self._page.radios[name]] = name
        elif self._kind == "results":
            self._asin = next(asin for asin in self._results if asin.lower() == name)
            self._visited.add(self._asin)
        self._kind = "item"
        self._url = self._item_url("item_page", json.dumps(self._options))
        self._page = reference_pages.item_page(self._goal.instruction, self._product(), self._show_attrs)

    def _open_sub_page(self, name: str) -> None:
        self._kind = name.lower()  # type: ignore[assignment]
        self._url = self._item_url("item_sub_page", f"{name}/{self._options}")
        self._page = reference_pages.sub_page(self._goal.instruction, self._product(), name)

    def _buy(self) -> Outcome:
        product = self._product()
        reward = score(self._goal, product, self._options, product.price, True, self._shop.nouns)
        self._kind = "done"
        self._url = f"{BASE_URL}/done/{self._session}/{product.asin}/{self._options}"
        self._page = reference_pages.done_page(product.asin, self._options, reward.total)
        return Outcome(bought=product.asin, reward=reward)

    def _item_url(self, kind: str, rest: str) -> str:
        return f"{BASE_URL}/{kind}/{self._session}/{self._asin}/{'+'.join(self._keywords)}/{self._number}/{rest}"

    def _product(self) -> Product:
        assert self._asin is not None  # item pages are only reached through a product
        return self._shop.by_asin[self._asin]

    def _query(self) -> str | None:
        return " ".join(self._keywords) if self._keywords else None


def _crashes(keywords: list[str]) -> bool:
    return keywords[0] == "<a>" or keywords == ["<c>"]
