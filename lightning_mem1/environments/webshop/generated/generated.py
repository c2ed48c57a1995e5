"""A generated catalogue in the format of the official files: five departments of look-alike products.

Products come in families: four to eight of one type that share some attributes, options and a price level. A title
names about 60% of a product's attributes; the others are in its bullets and description. Almost half of the
products are *keyword-stuffed* (`loud`): they cost more, and list popular searches for what they are not. The first
search result is often a wrong one; titles and prices still distinguish the products.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from lightning_mem1.environments.webshop.generated.lexicon import Department, Group, Lexicon, ProductType, lexicon
from lightning_mem1.environments.webshop.generated.prose import Prose

OPTION_COUNTS, OPTION_WEIGHTS = (0, 1, 2, 3), (25, 40, 30, 5)
FAMILY_SIZES = (4, 5, 6, 7, 8)
MAX_TITLE_CHARACTERS = 78
_CONSONANTS, _VOWELS = "BDFGHJKLMNPRSTVWXZ", "AEIOU"
RANGED_PRICES = 0.1
TWINS = 0.45  # probability that a member is another member's near copy at another price
SHOWN_ATTRIBUTES = 0.6  # part of the attributes that the title names
WANTED_FROM_TITLE = 0.75  # probability that a wanted attribute is taken from those in the title
LOUD = 0.55  # probability that a product (not the first of its family) lists popular searches for what it is not
LOUD_WANTED = 0.3  # part of the keyword-stuffed products that an instruction asks for; of the others, all
LOUD_MARKUP = (1.2, 2.0)
NUM_SEARCHES = (5, 7)
OTHER_TYPE = 0.4  # part of the keyword-stuffed products whose popular searches name another product type of the shelf

_TITLES = (
    "{brand} {first} {noun} with {rest}",
    "{brand} {noun}, {all}",
    "{brand} {all} {noun}",
    "{brand} {noun} with {all}",
    "{first} {noun} by {brand}, {rest}",
)
_REQUESTS = (
    "Find me {before} {query} with {after}",
    "i need {before} {query} with {after}",
    "i am looking for {query} that is {before} and {after}",
    "looking for {before} {query}, {after}",
    "i want {before} {query} that has {after}",
    "can you find me {query} with {before}, {after}",
    "i would like to buy {before} {query} which is {after}",
    "please show me {before} {query} with {after}",
    "shopping for {query}, {before}, {after}",
    "i'm after {before} {query}, also {after}",
)


@dataclass
class _Member:
    """What one product of a family has before it is put into words.

    `searches` are the popular searches that a keyword-stuffed description lists; they name what the product is not.
    """

    searches: list[str]
    attributes: list[str]
    price: float
    options: dict[str, list[str]]


def generate(seed: int = 0, num_products: int = 1000) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Generate a catalogue.

    Args:
        seed: Equal seeds give equal catalogues on every platform; different seeds share words, not products.
        num_products: How many products; 1,000 give about 4,500 goals.

    Returns:
        The contents of `items_shuffle.json` (a list of products) and of `items_ins_v2.json` (attributes and
        instruction by asin).

    Raises:
        ValueError: `num_products` is not positive.
    """
    if num_products < 1:
        raise ValueError(f"num_products must be at least 1, got {num_products}: give the number to generate")
    rng = random.Random(seed)
    words = lexicon()
    brands = _brands(rng, words, 400)
    asins: dict[str, None] = {}
    syllables = 3 if num_products <= 50_000 else 5  # 729,000 or 6 thousand million ids
    items, instructions = [], {}
    for department, group, kind, size in _families(rng, words, num_products):
        members = _members(rng, group, kind, size)
        for member, brand in zip(members, rng.sample(brands, size), strict=True):
            asin = _asin(rng, asins, syllables)
            item, shown = _item(rng, department, group, kind, member, brand)
            items.append({**item, "asin": asin})
            instructions[asin] = {"attributes": list(member.attributes)}
            if not member.searches or rng.random() < LOUD_WANTED:
                instructions[asin] |= _instruction(rng, kind, member.attributes, shown)
    rng.shuffle(items)
    return items, instructions


def _families(
    rng: random.Random, words: Lexicon, num_products: int
) -> Iterator[tuple[Department, Group, ProductType, int]]:
    """Yield (department, group, type, family size) until the sizes add up; a type returns only when all were used."""
    left = num_products
    while left:
        shelf = [(each, group, kind) for each in words.departments for group in each.groups for kind in group.types]
        rng.shuffle(shelf)
        for department, group, kind in shelf:
            size = min(left, rng.choice(FAMILY_SIZES))
            if not size:
                return
            left -= size
            yield department, group, kind, size


def _brands(rng: random.Random, words: Lexicon, count: int) -> list[str]:
    """Invent `count` different brand names such as "Brelora"."""
    found: dict[str, None] = {}
    while len(found) < count:
        middle = rng.choice(words.onsets) + rng.choice(words.vowels) if rng.random() < 0.4 else ""
        stem = rng.choice(words.onsets) + rng.choice(words.vowels) + middle + rng.choice(words.codas)
        found[(stem + rng.choice(words.endings)).capitalize()] = None
    return list(found)


def _asin(rng: random.Random, taken: dict[str, None], syllables: int) -> str:
    """Draw a new id that can be pronounced, e.g. "MIKUDO": a few tokens, and the first one mostly identifies it."""
    while True:
        asin = "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(syllables))
        if asin not in taken:
            taken[asin] = None
            return asin


def _members(rng: random.Random, group: Group, kind: ProductType, size: int) -> list[_Member]:
    """Draw a family: overlapping attributes, prices from half to twice the family's level, shared option lists."""
    pool = rng.sample(group.attributes, min(len(group.attributes), 10))
    level = kind.low * (kind.high / kind.low) ** rng.uniform(0.2, 0.8)
    shelf = [(name, rng.sample(values, min(len(values), 7))) for name, values in group.options]
    members: list[_Member] = []
    for _ in range(size):
        if members and rng.random() < TWINS:
            model = rng.choice(members)
            attributes = _near_copy(rng, model.attributes, pool)
            price = model.price * rng.choice((0.45, 0.55, 0.65, 1.6, 1.9, 2.2))
        else:
            attributes = rng.sample(pool, rng.choice((3, 4, 4, 5, 5, 6)))
            price = level * 2 ** rng.uniform(-1, 1)
        searches = _searches(rng, group, kind, pool, attributes) if members and rng.random() < LOUD else []
        markup = rng.uniform(*LOUD_MARKUP) if searches else 1.0
        members.append(_Member(searches, attributes, price * markup, _options(rng, shelf)))
    return members


def _near_copy(rng: random.Random, attributes: Sequence[str], pool: Sequence[str]) -> list[str]:
    """Exchange one attribute for another of the pool."""
    others = [each for each in pool if each not in attributes]
    copy = list(attributes)
    if others:
        copy[rng.randrange(len(copy))] = rng.choice(others)
    rng.shuffle(copy)
    return copy


def _searches(
    rng: random.Random, group: Group, kind: ProductType, pool: Sequence[str], attributes: Sequence[str]
) -> list[str]:
    """List searches for what this product is not, e.g. "lace-up hiking boots" in the text of a pair of sandals."""
    # a type that is named after an attribute would give the product that attribute in the eyes of the reward
    others = [each for each in group.types if each != kind and each.name not in _named_after_attributes()]
    if others and rng.random() < OTHER_TYPE:
        noun, lacking = rng.choice(others).name, list(group.attributes)
    else:
        noun, lacking = kind.name, [each for each in pool if each not in attributes]
    names = rng.sample(lacking, min(len(lacking), rng.randint(*NUM_SEARCHES)))
    return [f"{name.replace(' ', '-')} {noun}" for name in names]


@cache
def _named_after_attributes() -> frozenset[str]:
    """Names of types that hold an attribute of any shelf, e.g. "plant based burgers"."""
    groups = [group for department in lexicon().departments for group in department.groups]
    attributes = {each for group in groups for each in group.attributes if " " in each}
    return frozenset(kind.name for group in groups for kind in group.types if any(a in kind.name for a in attributes))


def _options(rng: random.Random, shelf: Sequence[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """Pick up to three options with two to five values each; no value stands under two names."""
    count = rng.choices(OPTION_COUNTS, OPTION_WEIGHTS)[0]
    chosen = shelf[:count] if rng.random() < 0.7 else rng.sample(shelf, min(count, len(shelf)))
    options: dict[str, list[str]] = {}
    for name, values in chosen:
        free = [value for value in values if all(value not in taken for taken in options.values())]
        picked = rng.sample(free, min(len(free), rng.choice((2, 3, 3, 4, 5))))
        options[name] = [value for value in free if value in picked]
    return options


def _item(
    rng: random.Random, department: Department, group: Group, kind: ProductType, member: _Member, brand: str
) -> tuple[dict[str, Any], list[str]]:
    """Put one product into words; return the official fields (without asin) and the attributes its title shows."""
    count = max(2, round(len(member.attributes) * SHOWN_ATTRIBUTES + rng.uniform(-0.4, 0.4)))
    title, shown = _title(rng, group, kind, member, brand, count)
    hidden = [each for each in member.attributes if each not in shown]
    prose = Prose(rng, department, kind.name, brand)
    told = [each for each in hidden if rng.random() < 0.4]
    item = {
        "name": title,
        "full_description": prose.description(told, member.searches),
        "pricing": _pricing(rng, member.price),
        "product_category": f"{department.root} › {group.path} › {kind.name.title()}",
        "small_description": prose.bullets([each for each in hidden if each not in told], shown, member.searches),
        "customization_options": {name: [{"value": value} for value in each] for name, each in member.options.items()}
        or "",
        "category": department.name,
        "query": kind.name,
        "page": rng.randint(1, 5),
    }
    return item, shown


def _title(
    rng: random.Random, group: Group, kind: ProductType, member: _Member, brand: str, count: int
) -> tuple[str, list[str]]:
    """Write a title of at most `MAX_TITLE_CHARACTERS`; too long ones lose ornaments, then attributes."""
    shown = list(member.attributes[:count])
    colors = member.options.get("color", [])
    ornament = rng.choice([rng.choice(group.materials), rng.choice(group.modifiers), ""])
    noun = kind.name if ornament in kind.name else f"{ornament} {kind.name}"
    tail = f", {rng.choice(colors)}" if colors and rng.random() < 0.3 else ""
    form = rng.choice(_TITLES)
    while True:
        first, rest = shown[0], ", ".join(shown[1:])
        title = form.format(brand=brand, noun=noun, first=first, rest=rest, all=", ".join(shown)) + tail
        if len(title) <= MAX_TITLE_CHARACTERS or (len(shown) == 2 and not tail and noun == kind.name):
            return title, shown
        if tail or noun != kind.name:
            tail, noun = "", kind.name
        else:
            shown.pop()


def _pricing(rng: random.Random, price: float) -> str:
    """Write a price as "$24.99", one in ten as a range "$21.99 - $27.99"."""
    ending = rng.choice((0.99, 0.99, 0.95, 0.49))
    if rng.random() < RANGED_PRICES:
        return f"${max(1, int(price * 0.85)) + ending:.2f} - ${int(price * 1.15) + 1 + ending:.2f}"
    return f"${max(1, int(price)) + ending:.2f}"


def _instruction(
    rng: random.Random, kind: ProductType, attributes: Sequence[str], shown: Sequence[str]
) -> dict[str, Any]:
    """Want two to four of the attributes, mostly ones that the title shows."""
    in_title, others = list(shown), [each for each in attributes if each not in shown]
    rng.shuffle(in_title)
    wanted: list[str] = []
    for _ in range(min(len(attributes), rng.choice((2, 3, 3, 4)))):
        source = in_title if in_title and (not others or rng.random() < WANTED_FROM_TITLE) else others
        wanted.append(source.pop())
    rng.shuffle(wanted)
    split = rng.randint(1, len(wanted) - 1)
    text = rng.choice(_REQUESTS).format(
        before=", ".join(wanted[:split]), query=kind.name, after=", ".join(wanted[split:])
    )
    return {"instruction": text, "instruction_attributes": wanted}
