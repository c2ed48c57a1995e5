"""Reading official files, good and bad."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from lightning_mem1.environments.webshop import Product, load_products, products_from

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "webshop-1k"
ITEM = {
    "asin": "B000000001",
    "name": "Lamp",
    "full_description": "Bright.",
    "small_description": ["one", "two"],
    "pricing": "$1,299.50",
    "customization_options": {"Color": [{"value": " Red/Blue "}], "Size": None},
    "category": "garden",
    "query": " Desk Lamps",
    "product_category": "Home › Lamps",
}


def one(**changes: Any) -> Product:
    return products_from([{**ITEM, **changes}], {"B000000001": {"attributes": ["bright"]}})[0]


def write(folder: Path, items: Any = (ITEM,), name: str = "items_shuffle_1000.json") -> None:
    (folder / name).write_text(json.dumps(items if not isinstance(items, tuple) else list(items)))
    (folder / "items_ins_v2_1000.json").write_text(json.dumps({"B000000001": {"attributes": ["bright"]}}))


def test_a_product_is_read_as_the_reference_reads_it() -> None:
    product = one()
    assert (product.price_text, product.prices, product.price) == ("$1299.5", (1299.5,), 1299.5)
    assert product.options == {"color": ("red | blue",)}
    assert (product.query, product.bullets, product.attributes) == ("desk lamps", ("one", "two"), ("bright",))


@pytest.mark.parametrize(
    ("pricing", "prices", "text"),
    [
        ("", (100.0,), "$100.0"),
        (None, (100.0,), "$100.0"),
        ("$1 - $2.50", (1.0, 2.5), "$1.0 to $2.5"),
        ("$1$2$3", (1.0, 2.0), "$1.0 to $2.0"),
    ],
)
def test_prices_are_one_number_or_the_first_two(pricing: Any, prices: tuple[float, ...], text: str) -> None:
    assert (one(pricing=pricing).prices, one(pricing=pricing).price_text) == (prices, text)


def test_a_product_nobody_annotated_has_the_dummy_attribute() -> None:
    assert products_from([ITEM], {})[0].attributes == ("DUMMY_ATTR",)


def test_a_single_bullet_may_be_a_text() -> None:
    assert one(small_description="only").bullets == ("only",)


def test_long_ids_nan_and_repeated_ids_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    items = [{**ITEM, "asin": "nan"}, {**ITEM, "asin": "B0000000011"}, ITEM, {**ITEM, "name": "second"}]
    assert [product.title for product in products_from(items, {}, where="somewhere")] == ["Lamp"]
    assert caplog.messages == ["skipped 0 malformed and 3 repeated of 4 products in somewhere"]


NAMELESS = {key: value for key, value in ITEM.items() if key != "name"}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (NAMELESS, "expected name as a text, got None"),
        ({**ITEM, "asin": None}, "expected asin as a text that is not empty, got None"),
        ({**ITEM, "pricing": "call us"}, "expected pricing like '$9.99' or '$1 - $2', got 'call us'"),
        (
            {**ITEM, "customization_options": {"color": [{}]}},
            "expected a product in the official format, got no 'value'",
        ),
        ({**ITEM, "asin": "B0\x00"}, "expected asin without control characters, got 'B0\\x00'"),
        ({**ITEM, "pricing": "$" + "9" * 400}, f"expected pricing like '$9.99' or '$1 - $2', got '${'9' * 39}'"),
        (
            {**ITEM, "customization_options": {str(n): [{"value": str(v)} for v in range(10)] for n in range(7)}},
            "expected at most 1,000,000 combinations of option values, got 10,000,000",
        ),
    ],
)
def test_a_malformed_product_is_an_error_that_says_where_and_what_to_do(bad: Any, reason: str) -> None:
    with pytest.raises(ValueError) as error:
        products_from([{**ITEM, "asin": "B000000002"}, bad, "text", ITEM], {}, where="somewhere")
    assert str(error.value) == (
        f"malformed product in somewhere, entry 1: {reason} (2 of 4 entries are malformed): "
        "repair the file or set data.skip_malformed true"
    )


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"instruction": 7, "instruction_attributes": ["bright"]}, "expected instruction as a text"),
        ({"instruction": "Find me", "instruction_attributes": "bright"}, "expected a list of texts, got 'bright'"),
        ("text", "expected a product in the official format"),
    ],
)
def test_malformed_annotations_make_their_product_malformed(annotation: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"malformed product in the given items, entry 0: {reason}"):
        products_from([ITEM], {"B000000001": annotation})


def test_a_human_instruction_without_its_fields_makes_its_product_malformed() -> None:
    with pytest.raises(ValueError, match="expected a product in the official format, got no 'instruction_attributes'"):
        products_from([ITEM], {}, {"B000000001": [{"instruction": "i want"}]})


def test_malformed_products_are_skipped_and_counted_in_one_warning_when_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = [NAMELESS, "text", {**ITEM, "asin": None}, {**ITEM, "pricing": "call us"}, {**ITEM, "query": None}]
    with caplog.at_level(logging.WARNING):
        products = products_from([*bad, ITEM], {}, where="somewhere", skip_malformed=True)
    assert len(products) == 1
    assert len(caplog.records) == 1
    assert "skipped 5 malformed and 0 repeated of 6 products in somewhere (entry 0: expected name" in caplog.text


def test_nothing_but_malformed_products_is_an_error_that_says_why() -> None:
    with pytest.raises(ValueError, match=r"at least one product, got none from 1 entries.*1 malformed.*asin"):
        products_from([{}], {}, skip_malformed=True)


def test_a_folder_with_a_malformed_product_opens_when_it_may_be_skipped(tmp_path: Path) -> None:
    write(tmp_path, [NAMELESS, ITEM])
    with pytest.raises(ValueError, match=r"malformed product in .*items_shuffle_1000.json, entry 0: expected name"):
        load_products(tmp_path)
    assert [product.title for product in load_products(tmp_path, skip_malformed=True)] == ["Lamp"]


def test_the_real_products_need_no_skipping() -> None:
    if not REAL.is_dir():
        pytest.skip("the official 1,000 products are not here: ../shared/data/webshop-1k")
    assert len(load_products(REAL)) == 1000


def test_an_empty_catalogue_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, [])
    with pytest.raises(ValueError, match="at least one product, got none from 0 entries"):
        load_products(tmp_path)


def test_plain_and_gzipped_files_give_the_same_products(tmp_path: Path) -> None:
    write(tmp_path)
    plain = load_products(tmp_path)
    path = tmp_path / "items_shuffle_1000.json"
    (tmp_path / "items_shuffle_1000.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert load_products(tmp_path) == plain


def test_a_missing_folder_and_a_missing_file_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"folder with items_shuffle\*\.json.*missing"):
        load_products(tmp_path / "nowhere")
    (tmp_path / "items_ins_v2.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"must hold items_shuffle\*\.json"):
        load_products(tmp_path)


def test_of_several_catalogues_none_is_guessed(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, name="items_shuffle.json")
    with pytest.raises(ValueError, match=r"expected one items_shuffle\*\.json.*keep one"):
        load_products(tmp_path)


def test_the_annotations_of_the_same_size_are_preferred(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "items_ins_v2.json").write_text("{}")
    assert load_products(tmp_path)[0].attributes == ("bright",)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_short_is_named(tmp_path: Path, compressed: bool) -> None:
    write(tmp_path)
    path = tmp_path / "items_shuffle_1000.json"
    data = path.read_bytes()
    if compressed:
        path.unlink()
        path, data = tmp_path / "items_shuffle_1000.json.gz", gzip.compress(data)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"expected complete JSON in '.*items_shuffle_1000.*download it again"):
        load_products(tmp_path)


def test_a_file_of_another_shape_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"B000000001": ITEM})
    with pytest.raises(ValueError, match="must hold a JSON list, got dict"):
        load_products(tmp_path)


def test_worker_ids_of_human_instructions_are_not_kept(tiny_products: list[Product]) -> None:
    assert "secret" not in repr(tiny_products)
    assert [h.text for h in tiny_products[0].human_instructions] == ["i want black trail shoes.", "anything"]
