"""Products of the shop, read from files in the official WebShop format.

A product without a price costs $100, as in the reference; a product whose name, id or category is missing is an
error, because a page or a reward made up from missing fields would be wrong without anyone noticing.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

DEFAULT_PRICE = 100.0
NO_ATTRIBUTES = ("DUMMY_ATTR",)  # what the reference lists for a product that nobody annotated

MAX_COMBINATIONS = 1_000_000  # of a product's option values; each is a goal, so more would drown all others

_log = logging.getLogger(__name__)


class Lookup(Protocol):
    """Annotations by asin: a dict, or a file of them."""

    def get(self, key: str, /) -> Any:
        """Return the annotation of a product, None without one."""
        ...


@dataclass(frozen=True, slots=True)
class HumanInstruction:
    """An instruction that a person wrote for a product, without its price bound."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """One product.

    Attributes:
        asin: Id, at most ten characters.
        title: Name as shown.
        description: Text of the description page, may be empty.
        bullets: Lines of the features page.
        price_text: Price as the reference shows it, ``"$9.99"`` or ``"$1.0 to $2.0"``.
        prices: One price in dollars, or the two ends of a range.
        price: What a purchase costs. A `Shop` draws it for a range; before that it is the lower end.
        options: Option name -> values, lower case, in the order of the page.
        attributes: Annotated attributes, which the reward matches.
        category: Department, e.g. ``"beauty"``.
        query: The search that found the product, lower case; equal queries count as the same type.
        product_category: Levels joined by ``" › "``.
        instruction: Text of the synthetic instruction, None when the product is not a goal.
        instruction_attributes: Attributes that the instruction asks for.
        human_instructions: Instructions written by people, may be empty.
    """

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    price_text: str
    prices: tuple[float, ...]
    price: float
    options: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    category: str
    query: str
    product_category: str
    instruction: str | None = None
    instruction_attributes: tuple[str, ...] = ()
    human_instructions: tuple[HumanInstruction, ...] = field(default=())


def products_from(
    items: Iterable[Any],
    ins: Lookup,
    human: Lookup | None = None,
    where: str = "the given items",
    skip_malformed: bool = False,
) -> list[Product]:
    """Make products of parsed official-format dicts.

    Ids that are ``"nan"`` or longer than ten characters are dropped and of two products with the same id the
    first is kept, as in the reference; one warning says how many. Malformed is a product without a name or id, or
    with a field of another shape.

    Args:
        items: Entries of ``items_shuffle.json``.
        ins: ``items_ins_v2.json``: asin -> attributes and instruction.
        human: ``items_human_ins.json``: asin -> instructions written by people.
        where: Where the items come from, for messages.
        skip_malformed: Skip malformed products, and report in one warning how many, instead of raising.

    Raises:
        ValueError: A product is malformed, or no product is left.
    """
    reader = ProductReader(items, ins, human, where)
    products = list(reader)
    reader.findings.judge(skip_malformed)
    return products


@dataclass
class Findings:
    """What was found in the entries of a catalogue: how many there are, and how many of them are no products.

    Attributes:
        where: Where the entries come from, for messages.
        num_items: Entries read.
        num_products: Products among them.
        repeated: Entries with the id of an earlier product, or with an id that the reference drops.
        malformed: Malformed entries.
        reason: What is wrong with the first of them.
    """

    where: str
    num_items: int = 0
    num_products: int = 0
    repeated: int = 0
    malformed: int = 0
    reason: str = ""

    def judge(self, skip_malformed: bool) -> None:
        """Raise ValueError when nothing is left or something is malformed; warn when that is to be skipped."""
        if self.malformed and not skip_malformed:
            raise ValueError(
                f"malformed product in {self.where}, {self.reason} ({self.malformed} of {self.num_items} entries are "
                "malformed): repair the file or set data.skip_malformed true"
            )
        if not self.num_products:
            why = f" ({self.malformed} malformed; {self.reason})" if self.malformed else ""
            raise ValueError(
                f"a catalogue needs at least one product, got none from {self.num_items} entries of {self.where}{why}: "
                "check the file"
            )
        if self.malformed or self.repeated:
            why = f" ({self.reason})" if self.malformed else ""
            _log.warning(
                "skipped %d malformed and %d repeated of %d products in %s%s",
                *(self.malformed, self.repeated, self.num_items, self.where, why),
            )


class ProductReader:
    """Yields the products of entries once; afterwards `findings` lists what was left out."""

    def __init__(self, items: Iterable[Any], ins: Lookup, human: Lookup | None, where: str) -> None:
        self._items, self._ins, self._human = items, ins, human
        self.findings = Findings(where)

    def __iter__(self) -> Iterator[Product]:
        found, seen = self.findings, set[str]()
        for item in self._items:
            found.num_items += 1
            try:
                asin = _text(item, "asin")
                if not asin.isprintable():
                    raise ValueError(f"expected asin without control characters, got {asin[:40]!r}")
                if asin == "nan" or len(asin) > 10 or asin in seen:
                    found.repeated += 1
                    continue
                product = _product(asin, item, self._ins.get(asin) or {}, (self._human and self._human.get(asin)) or [])
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                found.malformed += 1
                found.reason = found.reason or f"entry {found.num_items - 1}: {_reason(error)}"
                continue
            seen.add(asin)
            found.num_products += 1
            yield product


def _reason(error: Exception) -> str:
    """What was expected and what came; errors of our own making say so themselves."""
    if isinstance(error, ValueError):
        return str(error)
    got = f"no {error}" if isinstance(error, KeyError) else str(error)
    return f"expected a product in the official format, got {got}"


def _product(asin: str, item: Mapping[str, Any], ins: Mapping[str, Any], human: list[Any]) -> Product:
    prices, price_text = _prices(item.get("pricing"))
    bullets = item.get("small_description")
    bullets = bullets if isinstance(bullets, list) else [bullets]
    options, attributes = _options(item.get("customization_options")), ins.get("attributes")
    title = _text(item, "name", may_be_empty=True)  # one of the real 1,000 has an empty name
    return Product(
        asin=asin,
        title=title,
        description=str(item.get("full_description") or ""),
        bullets=tuple(str(bullet) for bullet in bullets if bullet is not None),
        price_text=price_text,
        prices=prices,
        price=prices[0],
        options=options,
        attributes=NO_ATTRIBUTES if attributes is None else _strings(attributes),
        category=_text(item, "category", may_be_empty=True),
        query=_text(item, "query", may_be_empty=True).lower().strip(),
        product_category=_text(item, "product_category", may_be_empty=True),  # empty for 2% of the real products
        instruction=None if ins.get("instruction") is None else _text(ins, "instruction"),
        instruction_attributes=_strings(ins.get("instruction_attributes") or ()),
        human_instructions=tuple(
            HumanInstruction(
                _text(one, "instruction"), *(_strings(one[f"instruction_{k}"]) for k in ("attributes", "options"))
            )
            for one in human
        ),
    )


def _prices(pricing: Any) -> tuple[tuple[float, ...], str]:
    """Return the one or two prices and their text: ``"$1 - $2.5"`` -> ``(1.0, 2.5), "$1.0 to $2.5"``."""
    if not pricing:
        return (DEFAULT_PRICE,), f"${DEFAULT_PRICE}"
    try:
        prices = tuple(float(Decimal(re.sub(r"[^\d.]", "", part))) for part in str(pricing).split("$")[1:])[:2]
    except InvalidOperation:
        prices = ()
    if not prices or not all(map(math.isfinite, prices)):
        raise ValueError(f"expected pricing like '$9.99' or '$1 - $2', got {str(pricing)[:40]!r}")
    return prices, " to ".join(f"${price}" for price in prices)


def _options(options: Any) -> dict[str, tuple[str, ...]]:
    if not options:
        return {}
    result = {
        name.lower(): tuple(value["value"].strip().replace("/", " | ").lower() for value in values)
        for name, values in options.items()
        if values is not None
    }
    if (combinations := math.prod(map(len, result.values()))) > MAX_COMBINATIONS:
        raise ValueError(f"expected at most {MAX_COMBINATIONS:,} combinations of option values, got {combinations:,}")
    return result


def _text(item: Any, key: str, may_be_empty: bool = False) -> str:
    value = item.get(key) if isinstance(item, Mapping) else None
    if not isinstance(value, str) or not (may_be_empty or value.strip()):
        raise ValueError(f"expected {key} as a text{'' if may_be_empty else ' that is not empty'}, got {value!r}"[:120])
    return value


def _strings(values: Iterable[Any]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ValueError(f"expected a list of texts, got {values[:40]!r}")
    return tuple(str(value) for value in values)
