"""Puts a generated catalogue into the words of a marketplace: what real listings have and tidy ones lack.

Ids are ten characters that begin alike, titles are stuffed with search words up to 190 characters, options have up to
fourteen values with codes and measures among them, and requests are worded as the official synthetic ones are. A policy
that has read both kinds of pages reads the official files as well.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from lightning_mem1.environments.webshop.generated.lexicon import Department, Group, lexicon

_ID_STARTS, _ID_WEIGHTS = ("B09", "B08", "B07", "B00", "B01"), (35, 23, 21, 13, 8)
_ID_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_TITLE_CHARACTERS = (45, 190)
_NUM_VALUES, _VALUE_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14), (24, 22, 14, 14, 9, 6, 5, 3, 2, 1)
_MAX_COMBINATIONS = 40
_CODED = 0.35  # of the values of an option, this part carries a code, a measure or a second value


def restyle(
    items: Sequence[dict[str, Any]], instructions: dict[str, dict[str, Any]], seed: int = 0
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Reword a catalogue.

    Args:
        items: Products, as `generated.generate` gives them.
        instructions: Attributes and instruction by asin, likewise.
        seed: Equal seeds give equal words.

    Returns:
        Both rewritten, in the same order, with new ids.
    """
    rng, taken, listed, asked = random.Random(f"marketplace/{seed}"), set[str](), [], {}
    for item in items:
        asin = _asin(rng, taken)
        about = instructions[item["asin"]]
        department, group = _shelf(item)
        query = _query(rng, group, item["query"])
        noun = item["query"].title()
        title = _title(rng, department, group, item["name"], noun)
        options = _options(rng, item["customization_options"] or {})
        listed.append({**item, "asin": asin, "name": title, "query": query, "customization_options": options or ""})
        wanted = about.get("instruction_attributes")
        asked[asin] = {**about, "instruction": _request(rng, query, wanted)} if wanted else dict(about)
    return listed, asked


def _asin(rng: random.Random, taken: set[str]) -> str:
    while True:
        asin = rng.choices(_ID_STARTS, _ID_WEIGHTS)[0] + "".join(rng.choices(_ID_CHARACTERS, k=7))
        if asin not in taken:
            taken.add(asin)
            return asin


def _shelf(item: dict[str, Any]) -> tuple[Department, Group]:
    """Find where a product stands: its category path names department and group."""
    root, path = item["product_category"].split(" › ", 1)
    department = next(each for each in lexicon().departments if each.root == root)
    return department, next(each for each in department.groups if path.startswith(f"{each.path} › "))


def _query(rng: random.Random, group: Group, noun: str) -> str:
    """Name a category of the shop, e.g. "women's skirts" or "women's skirts, tunics & blouses"."""
    others = [each.name for each in group.types if each.name != noun]
    rng.shuffle(others)
    first, *more = [_plural(each) for each in (noun, *others[: rng.choices((0, 1, 2), (70, 20, 10))[0]])]
    tail = [each.removeprefix(f"{first.split()[0]} ") for each in more]
    return " & ".join(each for each in (", ".join([first, *tail[:-1]]), *tail[-1:]))


def _plural(noun: str) -> str:
    return noun if noun.endswith("s") else f"{noun}s"


def _title(rng: random.Random, department: Department, group: Group, tidy: str, noun: str) -> str:
    """Stuff a tidy title with what people search for; it keeps the words of the tidy one, the brand in front."""
    length = rng.triangular(*_TITLE_CHARACTERS, 100)
    parts = [_capitals(tidy)]
    while len(" ".join(parts)) < length:
        parts.append(_stuffing(rng, department, group, noun))
    if rng.random() < 0.3:
        parts.append(f"({_code(rng)})")
    text = " ".join(parts) if rng.random() < 0.5 else ", ".join(parts)
    return text[: _TITLE_CHARACTERS[1]].rsplit(" ", 1)[0].rstrip(",") if len(text) > _TITLE_CHARACTERS[1] else text


def _stuffing(rng: random.Random, department: Department, group: Group, noun: str) -> str:
    adjective, thing = rng.choice(department.adjectives).title(), rng.choice(department.things).title()
    use, word = rng.choice(department.uses).title(), rng.choice((*group.materials, *group.modifiers)).title()
    return rng.choice(
        (
            f"for {use}",
            f"{adjective} {thing}",
            f"{word} {noun}",
            f"{word} {adjective}",
            f"with {adjective} {thing}",
            f"{rng.randint(2, 24)} Pack",
            f"{_measure(rng)}",
            f"{noun} for {use}",
            f"Compatible with {_code(rng).upper()}",
        )
    )


def _capitals(text: str) -> str:
    return re.sub(r"(?<![\w'])[a-z]", lambda letter: letter[0].upper(), text)


def _code(rng: random.Random) -> str:
    """Invent an article number, e.g. "gs2900b" or "easter35-l"."""
    letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(1, 4)))
    number = str(rng.randint(1, 10 ** rng.randint(1, 4)))
    tail = rng.choice(("", "", rng.choice("abcdefglnsx"), f"-{rng.randint(1, 99)}"))
    return rng.choice((letters + number + tail, number + letters, f"{letters}-{number}"))


def _measure(rng: random.Random) -> str:
    a, b = rng.randint(1, 99), rng.randint(1, 99)
    return rng.choice(
        (
            f"{a}x{b}cm",
            f"{a}.{b % 10}x{b}.{a % 10}in",
            f"{a}''x{b}''",
            f'{a}" x {b}"',
            f"{a} ft {b % 12} in x {b} ft",
            f"{a} ounce (pack of {b % 12 + 1})",
            f"{a}w x {b}l",
            f"{a}.5",
        )
    )


def _options(rng: random.Random, tidy: dict[str, list[dict[str, str]]]) -> dict[str, list[dict[str, str]]]:
    """Add values to the options of a product, and codes to some of its values; no value stands under two names."""
    options: dict[str, list[dict[str, str]]] = {}
    taken: set[str] = set()
    combinations = 1
    for name, known in tidy.items():
        values = [each["value"] for each in known]
        most = min(rng.choices(_NUM_VALUES, _VALUE_WEIGHTS)[0], max(2, _MAX_COMBINATIONS // combinations))
        coded = _CODED if rng.random() < 0.6 else 0.0
        listed: dict[str, None] = {}
        for place in range(4 * most):
            value = values[place % len(values)]
            value = _coded(rng, value, values) if place >= len(values) or rng.random() < coded else value
            if value not in taken and len(listed) < most:
                listed[value] = None
        taken |= listed.keys()
        combinations *= max(1, len(listed))
        options[name] = [{"value": value} for value in listed]
    return {name: values for name, values in options.items() if values}


def _coded(rng: random.Random, value: str, values: Sequence[str]) -> str:
    return rng.choice(
        (
            f"{_code(rng)}-{value}",
            f"{value}-{rng.randint(1, 20)}",
            f"{value} | {rng.choice(values)}",
            f"{value} {rng.choice(values)}",
            f"{rng.randint(1, 2000)}{value}",
            f"{rng.choice(('deep', 'light', 'heather', 'antique', 'type', 'multi'))} {value}",
            _measure(rng),
            _code(rng),
        )
    )


def _request(rng: random.Random, query: str, wanted: Sequence[str]) -> str:
    """Word a request as the official ones are: "Find me hand wash women's skirts with long sleeve for daily wear"."""
    cuts = sorted(rng.choices(range(len(wanted) + 1), k=2))
    before, having, purpose = wanted[: cuts[0]], wanted[cuts[0] : cuts[1]], wanted[cuts[1] :]
    text = f"Find me {', '.join(before)} {query}" if before else f"Find me {query}"
    text += f" with {', '.join(having)}" if having else ""
    return text + (f" for {', '.join(purpose)}" if purpose else "")
