"""Products of the shop, read from files in the official WebShop format.

A product without a price costs $100, as in the reference; a product whose name, id or category is missing is an
error, because a page or a reward made up from missing fields would be wrong without anyone noticing.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

DEFAULT_PRICE = 100.0
NO_ATTRIBUTES = ("DUMMY_ATTR",)  # what the reference lists for a product that nobody annotated

_log = logging.getLogger(__name__)


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


def load_products(folder: str | Path, *, skip_malformed: bool = False) -> list[Product]:
    """Read the official files of a folder.

    Args:
        folder: Holds ``items_shuffle*.json``, ``items_ins_v2*.json`` and, for human goals,
            ``items_human_ins*.json``; each may be gzipped (``.json.gz``).
        skip_malformed: Skip and count malformed products instead of raising.

    Returns:
        The products in the order of the file.

    Raises:
        FileNotFoundError: The folder or a needed file is missing.
        ValueError: A file is cut short or of another shape, a product is malformed, several files fit, or no
            product is left.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"catalogue must be a folder with items_shuffle*.json and items_ins_v2*.json, got {str(folder)!r}, "
            f"which is {'a file' if folder.exists() else 'missing'}: give the folder of the WebShop files"
        )
    items_path = _required(folder, "items_shuffle", "")
    suffix = _stem(items_path).removeprefix("items_shuffle")
    items, ins = _read(items_path, list), _read(_required(folder, "items_ins_v2", suffix), dict)
    human_path = _find(folder, "items_human_ins", suffix)
    human = _read(human_path, dict) if human_path else None
    return products_from(items, ins, human, where=str(items_path), skip_malformed=skip_malformed)


def products_from(
    items: Iterable[Any],
    ins: Mapping[str, Any],
    human: Mapping[str, Any] | None = None,
    where: str = "the given items",
    skip_malformed: bool = False,
) -> list[Product]:
    """Make products of parsed official-format dicts.

    Ids that are ``"nan"`` or longer than ten characters are dropped and of two products with the same id the
    first is kept, as in the reference. Malformed is a product without a name or id, or with a field of another shape.

    Args:
        items: Entries of ``items_shuffle.json``.
        ins: ``items_ins_v2.json``: asin -> attributes and instruction.
        human: ``items_human_ins.json``: asin -> instructions written by people.
        where: Where the items come from, for messages.
        skip_malformed: Skip malformed products, and tell in one warning how many, instead of raising.

    Raises:
        ValueError: A product is malformed, or no product is left.
    """
    products: dict[str, Product] = {}
    num_items, malformed, first_reason = 0, 0, ""
    for num_items, item in enumerate(items, start=1):
        try:
            asin = _text(item, "asin")
            if asin == "nan" or len(asin) > 10 or asin in products:
                continue
            products[asin] = _product(asin, item, ins.get(asin) or {}, (human or {}).get(asin) or [])
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            malformed += 1
            first_reason = first_reason or f"entry {num_items - 1}: {_reason(error)}"
    if malformed and not skip_malformed:
        raise ValueError(
            f"malformed product in {where}, {first_reason} ({malformed} of {num_items} entries are malformed): "
            "mend the file or set data.skip_malformed true"
        )
    if not products:
        raise ValueError(
            f"a catalogue needs at least one product, got none from {num_items} entries of {where}"
            f"{f' ({malformed} malformed; {first_reason})' if malformed else ''}: check the file"
        )
    if malformed:
        _log.warning("skipped %d malformed of %d products in %s (%s)", malformed, num_items, where, first_reason)
    return list(products.values())


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
    attributes = ins.get("attributes")
    title = _text(item, "name", may_be_empty=True)  # one of the real 1,000 has an empty name
    return Product(
        asin=asin,
        title=title,
        description=str(item.get("full_description") or ""),
        bullets=tuple(str(bullet) for bullet in bullets if bullet is not None),
        price_text=price_text,
        prices=prices,
        price=prices[0],
        options=_options(item.get("customization_options")),
        attributes=NO_ATTRIBUTES if attributes is None else _strings(attributes),
        category=_text(item, "category", may_be_empty=True),
        query=_text(item, "query", may_be_empty=True).lower().strip(),
        product_category=_text(item, "product_category", may_be_empty=True),  # empty for 2% of the real products
        instruction=ins.get("instruction"),
        instruction_attributes=_strings(ins.get("instruction_attributes") or ()),
        human_instructions=tuple(
            HumanInstruction(
                one["instruction"], *(_strings(one[f"instruction_{k}"]) for k in ("attributes", "options"))
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
    if not prices:
        raise ValueError(f"expected pricing like '$9.99' or '$1 - $2', got {str(pricing)[:40]!r}")
    return prices, " to ".join(f"${price}" for price in prices)


def _options(options: Any) -> dict[str, tuple[str, ...]]:
    if not options:
        return {}
    return {
        name.lower(): tuple(value["value"].strip().replace("/", " | ").lower() for value in values)
        for name, values in options.items()
        if values is not None
    }


def _text(item: Any, key: str, may_be_empty: bool = False) -> str:
    value = item.get(key) if isinstance(item, Mapping) else None
    if not isinstance(value, str) or not (may_be_empty or value.strip()):
        raise ValueError(f"expected {key} as a text{'' if may_be_empty else ' that is not empty'}, got {value!r}"[:120])
    return value


def _strings(values: Iterable[Any]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ValueError(f"expected a list of texts, got {values[:40]!r}")
    return tuple(str(value) for value in values)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".json")


def _required(folder: Path, prefix: str, suffix: str) -> Path:
    path = _find(folder, prefix, suffix)
    if path is None:
        raise FileNotFoundError(
            f"catalogue folder {str(folder)!r} must hold {prefix}*.json or .json.gz, got none: "
            "download it with WebShop's setup.sh or leave the catalogue out to use the generated one"
        )
    return path


def _find(folder: Path, prefix: str, suffix: str) -> Path | None:
    """Return the folder's file ``<prefix>*.json[.gz]``, the one ending in `suffix` when there are several."""
    found = {_stem(path): path for path in sorted(folder.glob(f"{prefix}*.json*"), reverse=True)}
    found = {stem: path for stem, path in found.items() if path.name.endswith((".json", ".json.gz"))}
    if suffix and prefix + suffix in found:
        return found[prefix + suffix]
    if len(found) > 1:
        names = ", ".join(path.name for path in found.values())
        raise ValueError(f"expected one {prefix}*.json in {str(folder)!r}, got {names}: keep one of them in the folder")
    return next(iter(found.values()), None)


def _read(path: Path, kind: type) -> Any:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            data = json.load(file)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:  # ValueError: JSON and Unicode errors
        raise ValueError(
            f"expected complete JSON in {str(path)!r}, got {error} ({path.stat().st_size} bytes): download it again"
        ) from error
    if not isinstance(data, kind):
        raise ValueError(
            f"{str(path)!r} must hold a JSON {'list' if kind is list else 'object'}, got {type(data).__name__}: "
            "check that it is the official file"
        )
    return data
