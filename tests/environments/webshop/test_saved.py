"""The saved form of a catalogue: the same shop, made once, never stale, shared."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import shutil
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mem1.environments.webshop import Shop, WebShopEnv, load_products
from lightning_mem1.environments.webshop.catalogue import saved
from lightning_mem1.environments.webshop.generated.generated import generate
from lightning_mem1.environments.webshop.search import postings

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "webshop-1k"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of official files with 60 products."""
    write(tmp_path / "data")
    return tmp_path / "data"


def write(folder: Path, change: Callable[[list[dict[str, Any]]], None] = lambda items: None) -> None:
    folder.mkdir(exist_ok=True)
    items, ins = generate(5, 60)
    change(items)
    (folder / "items_shuffle.json").write_text(json.dumps(items))
    (folder / "items_ins_v2.json").write_text(json.dumps(ins))


def saved_folders(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir() if path.is_dir())


def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note the folder of each build; the build itself is the real one."""
    built: list[Path] = []
    build = saved._build

    def noted(files: Any, folder: Path, scratch: Path, skip_malformed: bool) -> Any:
        built.append(folder)
        return build(files, folder, scratch, skip_malformed)

    monkeypatch.setattr(saved, "_build", noted)
    return built


def same(one: Shop, other: Shop) -> bool:
    queries = ("leather boots", one.goals[0].instruction, "zebra", "price lower than 50.00 dollars")
    return (
        list(one.products) == list(other.products)
        and one.goals == other.goals
        and all(one.search(query) == other.search(query) for query in queries)
    )


def test_a_saved_shop_is_the_shop_in_memory(data: Path) -> None:
    memory, stored = Shop(load_products(data), nouns="rule", seed=3), Shop.from_folder(data, nouns="rule", seed=3)
    assert same(memory, stored)
    assert list(stored.by_asin) == sorted(product.asin for product in memory.products)
    assert stored.of_category("beauty") == memory.of_category("beauty") != []
    assert "nowhere" not in stored.by_asin


def test_the_official_thousand_are_the_same_saved_and_in_memory() -> None:
    if not FOLDER.is_dir():
        pytest.skip("the official 1,000 products are not here: ../shared/data/webshop-1k")
    for human in (False, True):
        memory = Shop(load_products(FOLDER), human_goals=human, nouns="rule")
        assert same(memory, Shop.from_folder(FOLDER, human_goals=human, nouns="rule"))


def test_an_index_is_made_once_beside_the_data(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = count_builds(monkeypatch)
    for seed in (0, 0, 1):
        Shop.from_folder(data, seed=seed)
    assert len(built) == 1
    assert len(saved_folders(data / ".lightning_mem1")) == 1


def test_a_folder_without_write_bits_keeps_its_index_in_the_cache(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data.chmod(0o555)
    Shop.from_folder(data)
    assert not (data / ".lightning_mem1").exists()
    assert len(list((tmp_path / "cache" / "lightning_mem1").glob("*/v*"))) == 1


def test_where_nothing_can_be_written_the_shop_opens_all_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    data.chmod(0o555)
    with caplog.at_level(logging.WARNING):
        assert len(Shop.from_folder(data).products) == 60
    assert "cannot be saved" in caplog.text


def test_other_data_of_the_same_size_and_date_are_indexed_anew(data: Path) -> None:
    path = data / "items_shuffle.json"
    before, stat = Shop.from_folder(data), path.stat()
    text = path.read_text()
    title = json.loads(text)[0]["name"]
    path.write_text(text.replace(title, title[::-1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    after = Shop.from_folder(data)
    assert (before.products[0].title, after.products[0].title) == (title, title[::-1])
    assert len(saved_folders(data / ".lightning_mem1")) == 1  # the old one is gone


def test_a_large_file_is_read_again_only_when_it_was_touched(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "TRUST_STAT_FROM", 0)
    hashed: list[str] = []
    real = saved._hash
    monkeypatch.setattr(saved, "_hash", lambda path: hashed.append(path.name) or real(path))
    built = count_builds(monkeypatch)
    for _ in range(2):
        Shop.from_folder(data)
    assert hashed == ["items_shuffle.json", "items_ins_v2.json"]
    stat = (data / "items_ins_v2.json").stat()
    (data / "items_ins_v2.json").write_bytes((data / "items_ins_v2.json").read_bytes())
    os.utime(data / "items_ins_v2.json", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    Shop.from_folder(data)
    assert hashed[2:] == ["items_ins_v2.json"]
    assert len(built) == 1  # the content was the same


@pytest.mark.parametrize("what", ["FORMAT", "unicode", "K1", "B", "words"])
def test_an_index_of_another_version_is_made_anew(data: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    built = count_builds(monkeypatch)
    Shop.from_folder(data)
    if what == "FORMAT":
        monkeypatch.setattr(saved, "FORMAT", saved.FORMAT + 1)
    elif what in ("K1", "B"):  # an upgrade that scores otherwise
        monkeypatch.setattr(postings, what, getattr(postings, what) + 0.1)
    elif what == "words":  # or that splits words otherwise
        monkeypatch.setattr(postings, "analyze", lambda text: text.split())
    else:
        monkeypatch.setattr(saved.unicodedata, "unidata_version", "99.0.0")
    Shop.from_folder(data)
    assert len(built) == 2
    assert len(saved_folders(data / ".lightning_mem1")) == 1


@pytest.mark.parametrize("name", ["postings.docs.npy", "products.bin", "header.json", "ids.names.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_index_is_made_anew(data: Path, name: str, damage: str) -> None:
    whole = Shop(load_products(data))
    Shop.from_folder(data)
    home = data / ".lightning_mem1"
    path = home / saved_folders(home)[0] / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    assert same(whole, Shop.from_folder(data))


def test_draws_of_a_seed_that_were_cut_are_drawn_anew(data: Path) -> None:
    whole = Shop(load_products(data), seed=4)
    Shop.from_folder(data, seed=4)
    for path in (data / ".lightning_mem1").glob("*/draws.*.4.*"):
        path.write_bytes(path.read_bytes()[:-3])
    assert same(whole, Shop.from_folder(data, seed=4))


def test_a_failed_build_leaves_nothing_behind(data: Path) -> None:
    (data / "items_shuffle.json").write_text("[{")
    with pytest.raises(ValueError, match="expected complete JSON"):
        Shop.from_folder(data)
    assert saved_folders(data / ".lightning_mem1") == []


def test_malformed_products_of_a_saved_form_are_an_error_until_they_may_be_skipped(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(data, lambda items: items.insert(0, {"asin": "B1"}))
    for _ in range(2):
        with pytest.raises(ValueError, match="malformed product in .*entry 0: expected .*name as a text"):
            Shop.from_folder(data)
    for _ in range(2):
        caplog.clear()
        assert len(Shop.from_folder(data, skip_malformed=True).products) == 60
        assert len(caplog.messages) == 1
        assert "skipped 1 malformed and 0 repeated of 61 products" in caplog.text


def open_and_search(folder: str, queue: Any) -> None:
    shop = Shop.from_folder(folder, nouns="rule")
    queue.put((os.getpid(), shop.search("leather boots")[:3], shop.goals[7].instruction))


def test_eight_processes_that_open_at_once_share_one_index(data: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=open_and_search, args=(str(data), queue)) for _ in range(8)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len({pid for pid, *_ in answers}) == 8
    assert all(answer[1:] == answers[0][1:] for answer in answers)
    assert len(saved_folders(data / ".lightning_mem1")) == 1


def test_a_saved_shop_travels_as_its_place_and_an_open_one_survives_a_rebuild(data: Path) -> None:
    shop = Shop.from_folder(data, nouns="rule", seed=2)
    sent = pickle.dumps(shop)
    assert len(sent) < 1000
    assert same(pickle.loads(sent), shop)
    expected = [product.title for product in shop.products]
    shutil.rmtree(data / ".lightning_mem1")
    fresh = Shop.from_folder(data, nouns="rule", seed=2)
    assert [product.title for product in shop.products] == expected == [product.title for product in fresh.products]


def test_a_ten_megabyte_description_and_control_characters_are_kept_and_shown_short(tmp_path: Path) -> None:
    def change(items: list[dict[str, Any]]) -> None:
        items[0] |= {"full_description": "endless words " * 750_000, "name": "Evil \x1b[31m<script>\u0000\ud800 zebra"}

    write(tmp_path / "data", change)
    started = time.perf_counter()
    shop = Shop.from_folder(tmp_path / "data", nouns="rule")
    env = WebShopEnv(shop, shop.goals[0])
    page = env.step("search[zebra]").information
    assert page.split("\n")[1].startswith("Evil [31m<script> zebra $")
    env.step(f"click[{env.page.results[0]}]")
    assert len(env.step("click[description]").information) < 4100
    assert time.perf_counter() - started < 60
    assert len(shop.products[0].description) == 10_500_000


def test_the_saved_files_hold_nothing_that_could_be_executed(data: Path) -> None:
    Shop.from_folder(data)
    for path in (data / ".lightning_mem1").glob("*/*.npy"):
        assert np.load(path, allow_pickle=False).dtype != object


def test_what_is_saved_changes_only_with_the_format(data: Path) -> None:
    """A changed digest means that indexes of earlier versions would be opened as if nothing had happened."""
    Shop.from_folder(data)
    digest = sha256()
    for path in sorted((data / ".lightning_mem1").glob("v*/*")):
        if path.name != "header.json" and not path.name.startswith("draws"):
            digest.update(path.name.encode() + path.read_bytes())
    assert (saved.FORMAT, saved._code_version(), digest.hexdigest()[:16]) == (1, "14e1373e", "97b27ee3594f3405")
