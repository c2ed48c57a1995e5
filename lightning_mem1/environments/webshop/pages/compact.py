"""The shop in the form a small policy can read, with the reference's traps repaired.

What can be clicked is in square brackets, in lower case. The last line of a page lists its actions.
"""

from __future__ import annotations

import re
from functools import lru_cache

from lightning_mem1.environments.webshop.catalogue.catalogue import Product
from lightning_mem1.environments.webshop.goals.goals import Goal
from lightning_mem1.environments.webshop.goals.reward import score
from lightning_mem1.environments.webshop.pages.page import MAX_ACTION_CHARS, Outcome, Page, PageKind
from lightning_mem1.environments.webshop.shop import Shop

MAX_TITLE_CHARS, MAX_TEXT_CHARS = 300, 4000  # what is shown of a longer title, description or list of features

_ACTION = re.compile(r"\s*(search|click)\s*\[(.*)\]\s*", re.IGNORECASE | re.DOTALL)
_TWO_ACTIONS = re.compile(r"\]\s*(search|click)\s*\[", re.IGNORECASE)
_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")  # also control characters and half pairs
_BACK, _NEXT, _PREV, _BUY = "back to search", "next >", "< prev", "buy now"
_BUTTONS = frozenset((_BACK, _NEXT, _PREV, _BUY, "description", "features", "attributes", "search"))


class CompactBrowser:
    """One shopping episode."""

    def __init__(self, shop: Shop, goal: Goal, results_per_page: int, show_attrs: bool) -> None:
        self._shop, self._goal, self._per_page, self._show_attrs = shop, goal, results_per_page, show_attrs
        self._kind: PageKind = "search"
        self._query: str | None = None
        self._found: list[str] = []
        self._number = 1
        self._asin: str | None = None
        self._selected: dict[str, str] = {}

    @property
    def page(self) -> Page:
        """Where the shopper is."""
        results = tuple(self._shown()) if self._kind == "results" else ()
        return Page(self._kind, self._asin, self._query, self._number, self._num_pages(), dict(self._selected), results)

    def observation(self) -> str:
        """Return the page as text."""
        if self._kind == "search":
            return "Search page\nActions: search[words]"
        if self._kind == "results":
            lines, actions = self._results_lines(), (["click[item]"] if self._shown() else [])
        elif self._kind == "item":
            lines, actions = self._item_lines(), (["click[option]"] if self._choices() else [])
        elif self._kind == "done":
            return "The episode is over."
        else:
            lines, actions = [_sub_text(self._product(), self._kind)], []
        return "\n".join([*lines, " ".join(["Actions:", *actions, *(f"click[{name}]" for name in self._buttons())])])

    def actions(self) -> list[str]:
        """Return every action that does something here."""
        if self._kind == "search":
            return ["search[<words>]"]
        names: list[str] = [asin.lower() for asin in self._shown()] if self._kind == "results" else []
        names += list(self._choices()) if self._kind == "item" else []
        return [f"click[{name}]" for name in dict.fromkeys([*names, *self._buttons()])]

    def act(self, action: str) -> Outcome:
        """Carry out one action; case and spaces at the ends do not matter."""
        if self._kind == "done":
            return Outcome(valid=False, why="the episode is over")
        if len(action) > MAX_ACTION_CHARS:
            return Outcome(valid=False, why=f"longer than {MAX_ACTION_CHARS} characters")
        found = _ACTION.fullmatch(action)
        if found is None or _TWO_ACTIONS.search(found[2]):
            return Outcome(valid=False, why="expected one action, search[words] or click[name]")
        name, argument = found[1].lower(), clean(found[2]).lower()
        return self._search(argument) if name == "search" else self._click(argument)

    def _search(self, query: str) -> Outcome:
        if self._kind != "search":
            return Outcome(valid=False, why="this page has no search bar")
        if not query:
            return Outcome(valid=False, why="a search needs words")
        self._query, self._number, self._kind = query, 1, "results"
        self._found = [asin for asin, _ in self._shop.search(query)]
        return Outcome()

    def _click(self, name: str) -> Outcome:
        if name in self._buttons():
            return self._press(name)
        if self._kind == "results" and (asins := [asin for asin in self._shown() if asin.lower() == name]):
            self._kind, self._asin = "item", asins[0]
            return Outcome()
        if self._kind == "item" and (chosen := _choice(self._product(), self._selected, name)):
            self._selected[chosen[0]] = chosen[1]
            return Outcome()
        return Outcome(valid=False, why=f"there is no {name[:40]!r} to click on this page")

    def _press(self, button: str) -> Outcome:
        if button == _BUY:
            product = self._product()
            self._kind = "done"
            reward = score(self._goal, product, self._selected, product.price, False, self._shop.nouns)
            return Outcome(bought=product.asin, reward=reward)
        if button == _BACK:
            self._kind, self._query, self._found, self._number, self._asin = "search", None, [], 1, None
            self._selected = {}
        elif self._kind == "results":
            self._number += 1 if button == _NEXT else -1
        elif self._kind == "item" and button == _PREV:
            self._kind, self._asin, self._selected = "results", None, {}
        elif button == _PREV:
            self._kind = "item"
        else:
            self._kind = button  # type: ignore[assignment]
        return Outcome()

    def _buttons(self) -> list[str]:
        """Return the buttons that do something on this page, in the order they are shown."""
        if self._kind == "results":
            more, before = self._number < self._num_pages(), self._number > 1
            return [*([_NEXT] if more else []), *([_PREV] if before else []), _BACK]
        if self._kind == "item":
            product = self._product()
            names = ("description", "features", *(("attributes",) if self._show_attrs else ()))
            return [_BUY, *(name for name in names if _sub_text(product, name)), _PREV, _BACK]
        return [] if self._kind in ("search", "done") else [_PREV, _BACK]

    def _results_lines(self) -> list[str]:
        products = [self._shop.by_asin[asin] for asin in self._shown()]
        # the id stands behind what it names: a causal model that reaches it has already read title and price
        lines = [f"{_title(product)} ${product.price:.2f} [{product.asin.lower()}]" for product in products]
        return [f"Page {self._number} of {max(self._num_pages(), 1)}", *(lines or ["No results."])]

    def _item_lines(self) -> list[str]:
        product = self._product()
        lines = [_title(product), f"Price: ${product.price:.2f}"]
        for name in product.options:
            shown = [key for key, (own, _) in self._choices().items() if own == name]
            lines += [f"{clean(name)}: {' '.join(f'[{key}]' for key in shown)}"] if shown else []
        chosen = ", ".join(f"{clean(name)}: {clean(value)}" for name, value in self._selected.items())
        return [*lines, f"Selected: {chosen or 'nothing'}"]

    def _choices(self) -> dict[str, tuple[str, str]]:
        return choices(self._product())

    def _shown(self) -> list[str]:
        return self._found[(self._number - 1) * self._per_page : self._number * self._per_page]

    def _num_pages(self) -> int:
        return -(-len(self._found) // self._per_page)

    def _product(self) -> Product:
        assert self._asin is not None  # item pages are only reached through a product
        return self._shop.by_asin[self._asin]


def clean(text: str) -> str:
    """Return a text on one line: control characters and runs of spaces become one space.

    >>> clean(" a\\tb\\n\\x00c ")
    'a b c'
    """
    return _SPACE.sub(" ", text).strip()


def choices(product: Product) -> dict[str, tuple[str, str]]:
    """Return what an item page offers: the text in brackets -> (option name, value), in the order of the page.

    The text is the value; where two options share a value or a button has its name, it is ``name: value``.
    """
    return _choices_of(tuple((name, values) for name, values in product.options.items()))


@lru_cache(maxsize=4096)
def _choices_of(options: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, tuple[str, str]]:
    offered = {(clean(value).lower(), name): value for name, values in options for value in reversed(values)}
    names: dict[str, set[str]] = {}
    for shown, name in offered:
        names.setdefault(shown, set()).add(name)
    result: dict[str, tuple[str, str]] = {}
    for name, values in options:
        for value in values:
            shown = clean(value).lower()
            alone = len(names[shown]) == 1 and shown not in _BUTTONS
            if shown:
                result.setdefault(shown if alone else f"{clean(name)}: {shown}", (name, value))
    return result


def _choice(product: Product, selected: dict[str, str], name: str) -> tuple[str, str] | None:
    """Return the option a click means; of several with the same value, the first that is not chosen yet."""
    offered = choices(product)
    if name in offered:
        return offered[name]
    same = [
        (own, value)
        for shown, (own, value) in offered.items()
        if shown == f"{clean(own)}: {name}" or name == f"{clean(own)}: {shown}"
    ]
    return next((pair for pair in same if pair[0] not in selected), same[0] if same else None)


@lru_cache(maxsize=1 << 16)
def _shown_title(title: str) -> str:
    return _cut(clean(title), MAX_TITLE_CHARS)


def _title(product: Product) -> str:
    return _shown_title(product.title) or "(no title)"


def _sub_text(product: Product, kind: str) -> str:
    if kind == "description":
        return _shown_lines((product.description[: 2 * MAX_TEXT_CHARS],))
    return _shown_lines(product.bullets if kind == "features" else product.attributes)


@lru_cache(maxsize=1 << 14)
def _shown_lines(lines: tuple[str, ...]) -> str:
    return _cut("\n".join(line for line in map(clean, lines[:100]) if line), MAX_TEXT_CHARS)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 4].rstrip() + " ..."
