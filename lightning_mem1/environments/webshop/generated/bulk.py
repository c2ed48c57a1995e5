"""A generated catalogue of any size, written to official files product by product.

It has the shape of the full official catalogue: about 4 KB of JSON for each product, ids of ten characters, some
70 different search terms each, and a vocabulary that keeps growing (brands, model numbers, rare words by Zipf's law).
The small default catalogue is `generated.generate`; this one stretches many of those.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, TextIO

from lightning_mem1.environments.webshop.generated.generated import generate
from lightning_mem1.environments.webshop.generated.lexicon import lexicon
from lightning_mem1.io.disk_room import room_for

CHUNK = 1000  # products that are made at once
NUM_RARE_WORDS = 200_000
RARE_WORDS_EACH = 36
IMAGES_EACH = (12, 24)

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUM_IDS, _STRIDE = 36**8, 1_234_577_890_123  # coprime, so that no id comes twice
_LINK = "shop.example/images/I/"  # a name that can never exist
_DETAILS = ("Item Weight", "Package Dimensions", "Item model number", "Date First Available", "Manufacturer")


def write_catalogue(folder: str | Path, num_products: int, seed: int = 0) -> None:
    """Write ``items_shuffle.json`` and ``items_ins_v2.json``; memory does not grow with the number of products.

    Args:
        folder: Made when it is missing.
        num_products: How many; a million take 4.4 GB.
        seed: Equal seeds give equal files.

    Raises:
        ValueError: `num_products` is not positive.
        FileExistsError: The folder holds a catalogue already.
    """
    if num_products < 1:
        raise ValueError(f"num_products must be at least 1, got {num_products}: give the number to generate")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "items_shuffle.json", folder / "items_ins_v2.json"]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"expected a folder without a catalogue, got {str(path)!r}: name another folder")
    parts = [path.with_suffix(".part") for path in paths]
    with room_for(folder), parts[0].open("w", encoding="utf-8") as items, parts[1].open("w", encoding="utf-8") as ins:
        _write(items, ins, num_products, seed)
    for part, path in zip(parts, paths, strict=True):
        part.rename(path)


def _write(items: TextIO, ins: TextIO, num_products: int, seed: int) -> None:
    before_item, before_ins = "[\n", "{\n"
    for item, annotation in products(num_products, seed):
        items.write(before_item + json.dumps(item, ensure_ascii=False))
        ins.write(f"{before_ins}{json.dumps(item['asin'])}: {json.dumps(annotation, ensure_ascii=False)}")
        before_item = before_ins = ",\n"
    items.write("\n]\n")
    ins.write("\n}\n")


def products(num_products: int, seed: int = 0) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the entries of the two official files, a product at a time."""
    words = _RareWords(seed)
    for first in range(0, num_products, CHUNK):
        items, annotations = generate(seed * 1_000_003 + first, min(CHUNK, num_products - first))
        for place, item in enumerate(items, start=first):
            yield _stretched(random.Random(f"{seed}/{place}"), words, item, _asin(place)), annotations[item["asin"]]


def _asin(place: int) -> str:
    """Return B0 and eight of 0-9A-Z; different for each place."""
    number, letters = place * _STRIDE % _NUM_IDS, ""
    for _ in range(8):
        number, digit = divmod(number, 36)
        letters = _DIGITS[digit] + letters
    return f"B0{letters}"


class _RareWords:
    """Invented words; the n-th is drawn with a probability in proportion to 1/n."""

    def __init__(self, seed: int) -> None:
        rng, parts = random.Random(f"words/{seed}"), lexicon()
        onsets, vowels, codas = parts.onsets, parts.vowels, parts.codas
        found: dict[str, None] = {}
        while len(found) < NUM_RARE_WORDS:
            syllables = [rng.choice(onsets) + rng.choice(vowels) for _ in range(rng.choice((1, 2, 2, 3)))]
            found["".join(syllables) + rng.choice(codas)] = None
        self._words = list(found)
        self._weights = list(accumulate(1 / (rank + 10) for rank in range(NUM_RARE_WORDS)))

    def draw(self, rng: random.Random, count: int) -> list[str]:
        return rng.choices(self._words, cum_weights=self._weights, k=count)


def _stretched(rng: random.Random, words: _RareWords, item: dict[str, Any], asin: str) -> dict[str, Any]:
    """Give a product the fields and the length of an official one."""
    model = f"{rng.choice(_DIGITS[10:])}{rng.choice(_DIGITS[10:])}{rng.randrange(100, 99999)}"
    rare = words.draw(rng, RARE_WORDS_EACH)
    brand = rare[0].capitalize()
    details = (f"{rng.randint(1, 60)} ounces", " x ".join(str(rng.randint(2, 400) / 10) for _ in range(3)), model)
    story = f"{' '.join(rare[:24]).capitalize()}. Model {model}, {details[0]}, {details[1]} inches."
    images = [f"{_LINK}{rng.getrandbits(60):015x}._AC_US40_.jpg" for _ in range(rng.randint(*IMAGES_EACH))]
    return {
        **item,
        "asin": asin,
        "name": f"{item['name']} {model}",
        "full_description": f"{item['full_description']} {story}",
        "small_description": [*item["small_description"], f"{' '.join(rare[24:]).capitalize()}."],
        "small_description_old": [" ".join(item["small_description"]), *item["small_description"]],
        "customization_options": _with_images(item["customization_options"], images),
        "product_information": dict(zip(_DETAILS, (*details, "January 1, 2021", brand), strict=True)),
        "brand": f"Visit the {brand} Store",
        "brand_url": f"/stores/{brand}/page/{rng.getrandbits(128):032x}",
        "images": images,
        "list_price": "",
        "availability_quantity": None,
        "availability_status": "In Stock.",
        "average_rating": rng.randint(20, 50) / 10,
        "total_reviews": rng.randint(0, 5000),
        "total_answered_questions": "",
        "seller_id": f"A{rng.getrandbits(64):016X}",
        "seller_name": brand,
        "fulfilled_by_amazon": None,
        "aplus_present": "",
    }


def _with_images(options: Any, images: list[str]) -> Any:
    return options and {
        name: [
            {"is_selected": not place, "is_available": True, "image": images[place % len(images)], **value, "url": None}
            for place, value in enumerate(values)
        ]
        for name, values in options.items()
    }
