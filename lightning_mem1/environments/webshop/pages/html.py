"""Pages of the shop for people: plain HTML without scripts, made from what an agent could see and do.

Every button sends the action an agent would write. Everything that comes from a product is escaped.
"""

from __future__ import annotations

from html import escape

from lightning_mem1.environments.webshop.catalogue.catalogue import Product
from lightning_mem1.environments.webshop.env import WebShopEnv
from lightning_mem1.environments.webshop.pages.compact import choices, clean
from lightning_mem1.environments.webshop.shop import Shop
from lightning_mem1.types import StepResult

MAX_SHOWN_CHARS = 20_000  # of a description or a list of features

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}"
    "button{font:inherit;margin:.15rem;padding:.2rem .7rem}button.chosen{background:#222;color:#fff}"
    "li{margin:.4rem 0}.ask{background:#eef;padding:.7rem}.wrong{color:#a00}pre{white-space:pre-wrap;font:inherit}"
)
_BUTTONS = ("< prev", "next >", "back to search", "description", "features", "reviews", "attributes", "buy now")


def page(shop: Shop, env: WebShopEnv, last: StepResult | None) -> str:
    """Return the page that a visit is on; `last` is what the last action did."""
    kind = env.page.kind
    if kind == "done" and last is not None:
        return _document("Thank you", _score(last))
    parts = {"search": _search, "results": _results, "item": _item}.get(kind, _sub_page)(shop, env)
    wrong = "" if last is None or last.valid else f'<p class="wrong">Invalid action: {_text(last.info["invalid"])}.</p>'
    ask = f'<p class="ask" id="instruction">{_text(env.goal.instruction)}</p>'
    buttons = "".join(_button(name) for name in _BUTTONS if f"click[{name}]" in env.available_actions)
    return _document(kind, f'{ask}{wrong}{parts}<form method="post">{buttons}</form>')


def message(title: str, text: str) -> str:
    """Return a page that says one thing."""
    return _document(title, f'<p>{_text(text)}</p><p><a href="/">Start a new visit</a></p>')


def _search(shop: Shop, env: WebShopEnv) -> str:
    return (
        '<form method="post"><input name="words" id="words" size="60" maxlength="2000" autofocus required> '
        "<button>Search</button></form>"
    )


def _results(shop: Shop, env: WebShopEnv) -> str:
    here = env.page
    rows = [_row(shop.by_asin[asin]) for asin in here.results]
    count = f"Page {here.number} of {max(here.num_pages, 1)}"
    return f'<p>{count}</p><form method="post"><ul>{"".join(rows) or "<li>No results.</li>"}</ul></form>'


def _row(product: Product) -> str:
    return f"<li>{_button(product.asin.lower())} {_text(product.title)} {_price(product)}</li>"


def _item(shop: Shop, env: WebShopEnv) -> str:
    product, selected = shop.by_asin[env.page.asin or ""], env.page.selected
    lines = [f"<h2>{_text(product.title)}</h2><p>Price: {_price(product)}</p>"]
    shown = choices(product)
    for name in product.options:
        buttons = [
            _button(key, chosen=selected.get(name) == value) for key, (own, value) in shown.items() if own == name
        ]
        lines.append(f"<p>{_text(name)}: {''.join(buttons)}</p>" if buttons else "")
    chosen = ", ".join(f"{name}: {value}" for name, value in selected.items())
    return f'<form method="post">{"".join(lines)}<p id="selected">Selected: {_text(chosen or "nothing")}</p></form>'


def _sub_page(shop: Shop, env: WebShopEnv) -> str:
    product = shop.by_asin[env.page.asin or ""]
    text = {
        "description": product.description[:MAX_SHOWN_CHARS],
        "features": "\n".join(map(clean, product.bullets)),
        "attributes": "\n".join(map(clean, product.attributes)),
    }.get(env.page.kind, "")
    return f"<h2>{_text(product.title)}</h2><pre>{_text(text[:MAX_SHOWN_CHARS], lines=True)}</pre>"


def _score(last: StepResult) -> str:
    parts = {"type": "r_type", "attributes": "r_att", "options": "r_option", "price": "r_price"}
    rows = "".join(f"<li>{name}: {float(last.info[key]):.2f}</li>" for name, key in parts.items())
    success = "yes" if last.info["success"] == 1.0 else "no"
    return (
        f'<p>Your score (0 to 1): <strong id="score">{last.reward:.4f}</strong>, success: {success}</p><ul>{rows}</ul>'
        '<p><a href="/">Another goal</a></p>'
    )


def _button(name: str, chosen: bool = False) -> str:
    mark = ' class="chosen"' if chosen else ""
    return f'<button name="action"{mark} value="{escape(f"click[{name}]")}">{_text(name)}</button>'


def _price(product: Product) -> str:
    return f"${product.price:.2f}"


def _text(text: str, lines: bool = False) -> str:
    """Escape a text and drop what a page cannot hold; with `lines`, line breaks stay."""
    return escape("\n".join(map(clean, text.split("\n"))) if lines else clean(text))


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>WebShop: {_text(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>WebShop</h1>{body}</body></html>"
    )
