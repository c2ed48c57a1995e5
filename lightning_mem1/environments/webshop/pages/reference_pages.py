"""Pages of the reference shop as lists of visible texts, in its three text modes.

A page is what a browser would show of the reference's HTML: every text with its role. Modes only differ in how
roles are written out. Texts of nothing but spaces vanish when they hold a line break, as they do in the parsed HTML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lightning_mem1.environments.webshop.catalogue.catalogue import Product

Role = Literal["text", "button", "option", "link"]

BACK, NEXT, PREV, BUY = "Back to Search", "Next >", "< Prev", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews", "Attributes")

_HTML_SPACES = " \n\t\f\r"


@dataclass(frozen=True)
class StrictPage:
    """One page.

    Attributes:
        texts: (role, text) in the order of the page.
        radios: Option value -> option name of everything that can be chosen.
        has_search_bar: True on the search page.
    """

    texts: tuple[tuple[Role, str], ...]
    radios: Mapping[str, str] = field(default_factory=dict)
    has_search_bar: bool = False

    def clickables(self) -> list[str]:
        """Return what can be clicked, in lower case: buttons, then links, then option values."""
        buttons = [text.lower() for role, text in self.texts if role == "button"]
        links = [text.lower() for role, text in self.texts if role == "link"]
        return list(dict.fromkeys([*buttons, *links, *self.radios]))

    def text(self) -> str:
        """Return the ``text`` mode: the visible texts joined by ``[SEP]``."""
        return " [SEP] ".join(text.strip() for _, text in self.texts)

    def text_rich(self, url: str, visited: set[str]) -> str:
        """Return the ``text_rich`` mode: one text a line, buttons marked, chosen options repeated on top."""
        lines: list[str] = []
        chosen: list[str] = []
        for role, text in self.texts:
            if role == "text":
                lines.append(text)
                continue
            clicked = f'"{text}"' in url if role == "option" else role == "link" and text in visited
            mark = "clicked button" if clicked else "button"
            space = {"button": "", "option": "  ", "link": "\n"}[role]
            lines.append(f"{space}[{mark}] {text} [{mark}_]")
            if clicked and role == "option":
                chosen.append(f"You have clicked {text}.")
        return "".join(f"{line}\n" for line in [*reversed(chosen), *lines])


def search_page(instruction: str) -> StrictPage:
    """Return the page with the search bar."""
    return _page(
        ("text", "WebShop"),
        ("text", "Instruction: "),
        ("text", instruction),
        ("button", "Search"),
        has_search_bar=True,
    )


def results_page(instruction: str, products: Sequence[Product], number: int, total: int) -> StrictPage:
    """Return a page of results; `products` are those on it."""
    texts: list[tuple[Role, str]] = [*_top(instruction), ("text", f"Page {number} (Total results: {total})")]
    texts += [("button", PREV)] if number > 1 else []
    texts += [("button", NEXT)]
    for product in products:
        texts += [("link", product.asin), ("text", product.title), ("text", product.price_text)]
    return _page(*texts)


def item_page(instruction: str, product: Product, show_attrs: bool) -> StrictPage:
    """Return a product's page. It does not show what is chosen, except through the url in ``text_rich``."""
    texts: list[tuple[Role, str]] = [*_top(instruction), ("button", PREV)]
    for name, values in product.options.items():
        texts += [("text", name), *(("option", value) for value in values)]
    texts += [("text", product.title), ("text", f"Price: {product.price_text}"), ("text", "Rating: N.A.")]
    texts += [("button", name) for name in SUB_PAGES if show_attrs or name != "Attributes"]
    radios = {value: name for name, values in product.options.items() for value in values}
    return _page(*texts, ("button", BUY), radios=radios)


def sub_page(instruction: str, product: Product, name: str) -> StrictPage:
    """Return the page `name` of `SUB_PAGES` of a product; reviews are never loaded, so theirs is empty."""
    texts: list[tuple[Role, str]] = [*_top(instruction), ("button", PREV)]
    if name == "Description":
        texts.append(("text", product.description))
    elif name == "Features":
        # a bullet stands behind a space in the HTML, and so does an attribute below
        texts += [("text", f" {bullet}") for bullet in product.bullets]
        texts += [] if product.bullets else [("text", "\n                No Features\n                ")]
    elif name == "Attributes":
        texts += [("text", f" {attribute}") for attribute in product.attributes]
        texts += [("text", text) for text in (product.category, product.query, product.product_category)]
    return _page(*texts)


def done_page(asin: str, options: Mapping[str, str], reward: float) -> StrictPage:
    """Return the page after a purchase, which shows the score; the many ``None`` are the reference's."""
    lines = ["Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)"]
    lines += ["Purchased", "asin", asin, "options", _html_json(options)]
    lines += ["attrs", "None", "category", "None", "query", "None", "product category", "None"]
    lines += ["Target", "asin", "options", "attrs", "price upper", "instuction text", "category", "product category"]
    lines += ["query", "Goal ", "None", "Reward", "Your score (min 0.0, max 1.0)", str(reward)]
    lines += ["Reward Details ", "None"]
    return _page(*(("text", line) for line in lines))


def _top(instruction: str) -> list[tuple[Role, str]]:
    return [("text", "Instruction:"), ("text", instruction), ("button", BACK)]


def _page(
    *texts: tuple[Role, str], radios: Mapping[str, str] | None = None, has_search_bar: bool = False
) -> StrictPage:
    visible = tuple((role, _parsed(text)) for role, text in texts if _parsed(text) not in ("", "\n"))
    return StrictPage(visible, radios or {}, has_search_bar)


def _parsed(text: str) -> str:
    """Return a text as an HTML parser hands it on: nothing but spaces becomes one line break or one space."""
    return text if not text or text.strip(_HTML_SPACES) else ("\n" if "\n" in text else " ")


def _html_json(options: Mapping[str, str]) -> str:
    text = json.dumps(dict(options), sort_keys=True)
    for char in "<>&'":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
