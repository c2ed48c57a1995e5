"""The figure of the claim: its numbers are those of the log and of the results page, each mode to the same lengths."""

import csv
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLAIM = ROOT / "experiments" / "claim"
with (CLAIM / "results.csv").open(newline="") as lines:
    ROWS = list(csv.DictReader(lines))


def cell(row: dict[str, str], value: str, low: str, high: str) -> str:
    """``5,500 [4,229, 6,939]``, as a table has it; the value alone where no interval was kept."""
    written = [f"{int(each):,}" if each.isdecimal() else each for each in (row[value], row[low], row[high])]
    return f"{written[0]} [{written[1]}, {written[2]}]" if row[low] else written[0]


def cells(row: dict[str, str]) -> list[str]:
    names = ("em", "em_low", "em_high"), ("peak_tokens", "peak_low", "peak_high")
    return [cell(row, *each) for each in (*names, ("dependency", "dependency_low", "dependency_high"))]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['mode']}-{row['questions']}")
def test_a_row_of_the_figure_is_in_the_log(row):
    log = (CLAIM / "log.md").read_text()
    if row["start"] == "1" and row["mode"] in ("mem1", "full"):  # of the first start, told in one line for all lengths
        said = log.split("| first start |")[1].split(f"| `{row['mode']}` |")[1].split("\n")[0]
        em, peak, dependency = cells(row)
        assert em.split()[0] in said and peak in said and dependency in said and row["no_answer"] in said
        assert em in log
    else:
        line = rf"^\| `{row['mode']}` \| {row['questions']} \| (.*)$"
        said = re.search(line, log.split("## The result")[1], re.MULTILINE)[1]
        assert [each for each in cells(row) if each not in said] == []
        assert said.endswith(f"| {row['no_answer']} of {row['episodes']} |")


def test_every_mode_is_drawn_to_the_same_lengths():
    lengths = {mode: [r["questions"] for r in ROWS if r["mode"] == mode] for mode in {r["mode"] for r in ROWS}}
    assert sorted(lengths) == ["full", "mem1", "react", "summary"]
    assert set(map(tuple, lengths.values())) == {("1", "2", "4", "8", "16", "32")}


def test_the_table_of_the_results_page_has_the_same_numbers():
    page = (ROOT / "docs" / "results.md").read_text().split("## The table")[1]
    table = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*) \| (.*) \| (.*) \| (\d+) of", page.split("## ")[0], re.MULTILINE)
    expected = {(row["mode"], row["questions"]): [*cells(row), row["no_answer"]] for row in ROWS}
    assert len(table) == 12
    assert [line for line in table if expected[line[:2]] != list(line[2:])] == []


def test_the_figure_is_drawn(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("claim_figure", CLAIM / "figure.py")
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    monkeypatch.setattr(figure, "PICTURE", tmp_path / "claim.png")
    figure.main()
    assert (tmp_path / "claim.png").read_bytes()[1:4] == b"PNG"
