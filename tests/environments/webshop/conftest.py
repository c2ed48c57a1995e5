"""Shops for the tests: a tiny one written here, and the real 1,000 products when they lie beside the repository."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_mem1.environments.webshop import Product, Shop, products_from

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
GOLDEN, REAL = SHARED / "golden" / "webshop", SHARED / "data" / "webshop-1k"


def item(asin: str, name: str, **fields: Any) -> dict[str, Any]:
    """Return an official-format product."""
    base = {
        "asin": asin,
        "name": name,
        "full_description": "",
        "small_description": [],
        "pricing": "$20.00",
        "customization_options": "",
        "category": "fashion",
        "query": "running shoes",
        "product_category": "Clothing › Shoes › Running",
    }
    return {**base, **fields}


ITEMS = [
    item(
        "B0SHOE0001",
        "Acme trail running shoes, waterproof",
        full_description="Made for muddy hills.",
        small_description=["Waterproof upper ", "Rubber sole"],
        pricing="$40 - $60",
        customization_options={
            "Color": [{"value": "Black"}, {"value": "Blue/Red"}],
            "Size": [{"value": "Large"}, {"value": "X-Large"}],
            "Fit": None,
        },
    ),
    item("B0SHOE0002", "Roadster road shoes", pricing=""),
    item(
        "B0LAMP0001",
        "Brass desk lamp\twith\nshade <b>",
        category="garden",
        query="Desk Lamps ",
        product_category="Home › Lamps",
        pricing="$15.50",
        customization_options={
            "shade": [{"value": "white"}, {"value": "brown2070"}],
            "base": [{"value": "white"}, {"value": "features"}],
        },
    ),
]
INS = {
    "B0SHOE0001": {
        "attributes": ["water proof", "rubber sole"],
        "instruction": "Find me waterproof running shoes with rubber sole",
        "instruction_attributes": ["waterproof", "rubber sole"],
    },
    "B0SHOE0002": {"attributes": []},
    "B0LAMP0001": {
        "attributes": ["brass"],
        "instruction": "Find me brass desk lamps",
        "instruction_attributes": ["brass"],
    },
}
HUMAN = {
    "B0SHOE0001": [
        {
            "asin": "B0SHOE0001",
            "instruction": "i want black trail shoes.",
            "instruction_attributes": ["waterproof"],
            "instruction_options": ["black"],
            "worker_id": "secret",
        },
        {"instruction": "anything", "instruction_attributes": [], "instruction_options": []},
    ]
}


@pytest.fixture(scope="session")
def tiny_products() -> list[Product]:
    return products_from(ITEMS, INS, HUMAN)


@pytest.fixture(scope="session")
def tiny_shop(tiny_products: list[Product]) -> Shop:
    return Shop(tiny_products, nouns="rule")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """Return a reader of the golden cases; the test is skipped where they are absent."""
    if not GOLDEN.is_dir() or not REAL.is_dir():
        pytest.skip("no golden cases in ../shared/golden/webshop beside the repository")

    def read(name: str) -> Any:
        path = GOLDEN / name
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()] if ".jsonl" in name else json.loads(text)

    return read


@pytest.fixture(scope="session")
def real_shops(golden: Callable[[str], Any]) -> dict[str, Shop]:
    """Return the saved shops of the real 1,000 products with synthetic and human goals, seed 0 and pinned nouns."""
    nouns = GOLDEN / "nouns_sm380.json"
    return {
        "synthetic": Shop.from_folder(REAL, nouns=nouns),
        "human": Shop.from_folder(REAL, human_goals=True, nouns=nouns),
    }


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes of read-only folders go to a folder of the tests, not to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
