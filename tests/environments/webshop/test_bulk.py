"""Catalogues of any size: written in pieces, in the official shape, opened as one."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_mem1.cli.serve_shop import main
from lightning_mem1.environments.webshop import Shop
from lightning_mem1.environments.webshop.generated import bulk
from lightning_mem1.environments.webshop.generated.bulk import products, write_catalogue
from lightning_mem1.environments.webshop.search.analyzer import analyze
from lightning_mem1.environments.webshop.search.search import search_text
from lightning_mem1.environments.webshop.tasks import ShopTasks

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "NUM_RARE_WORDS", 5000)
    monkeypatch.setattr(bulk, "CHUNK", 100)


def test_products_have_ids_and_texts_of_the_official_size() -> None:
    found = [item for item, _ in products(250)]
    assert len({item["asin"] for item in found}) == 250
    assert all(len(item["asin"]) == 10 and item["asin"].startswith("B0") for item in found)
    assert 3000 < statistics.mean(len(json.dumps(item)) for item in found) < 5500  # 4.4 kB in the official file


def test_the_number_of_different_terms_is_that_of_the_official_thousand(tmp_path: Path) -> None:
    write_catalogue(tmp_path, 250)
    shop = Shop.from_folder(tmp_path, nouns="rule")
    terms = statistics.mean(len(set(analyze(search_text(product)))) for product in shop.products)
    assert 60 < terms < 78  # 68.5 in the official 1,000


def test_equal_seeds_write_equal_files_and_others_do_not(tmp_path: Path) -> None:
    texts = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_catalogue(tmp_path / name, 120, seed)
        texts.append([(tmp_path / name / file).read_text() for file in ("items_shuffle.json", "items_ins_v2.json")])
    assert texts[0] == texts[1] != texts[2]
    assert len(json.loads(texts[0][0])) == len(json.loads(texts[0][1])) == 120


def test_the_oracle_can_shop_there(tmp_path: Path) -> None:
    write_catalogue(tmp_path, 250)
    tasks = ShopTasks(str(tmp_path), nouns="rule")
    assert tasks.baselines("val", range(20))["oracle"] == 1.0


def test_nothing_is_overwritten_and_a_number_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--generate", str(tmp_path), "--num-products", "10"]) == 0
    assert main(["--generate", str(tmp_path), "--num-products", "10"]) == 1
    assert "expected a folder without a catalogue" in capsys.readouterr().err
    assert main(["--index", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("10 products, ")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        write_catalogue(tmp_path / "new", 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["webshop_scale", "webshop_speed"])
def test_the_benchmarks_run(tmp_path: Path, name: str) -> None:
    write_catalogue(tmp_path / "data", 150)
    more = {"webshop_scale": ["--searches", "20", "--processes", "2"], "webshop_speed": ["--episodes", "10"]}[name]
    found = tmp_path / "found.json"
    line = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), str(tmp_path / "data"), *more, "--output", found]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written, printed = json.loads(found.read_text()), json.loads(done.stdout)
    assert written["sizes"] == [printed] if name == "webshop_scale" else written.items() >= printed.items()
    assert "hardware" in written
