"""The page of costs: its tables, its figures and what it says of them are those of the committed benchmarks."""

import html
import json
import math
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))

import cost_data  # noqa: E402
import cost_figures as cost  # noqa: E402

PAGE = cost.PAGE.read_text()


def slope(points: list) -> float:
    """The power of x with which y grows, over the last two points: 0 flat, 1 linear, 2 quadratic."""
    (x0, y0), (x1, y1) = points[-2:]
    return math.log(y1 / y0) / math.log(x1 / x0)


def lines(name: str, panel: str) -> dict:
    return cost.numbers(cost.read(name)[1])[panel]


def test_the_tables_of_the_page_hold_the_numbers_of_the_benchmarks():
    assert cost.filled(PAGE) == PAGE, "run python docs/cost_figures.py"
    assert set(re.findall(r"<!-- (\w+) -->", PAGE)) == {*cost.FIGURES, "end"}


def test_a_table_with_another_number_is_noticed():
    other = PAGE.replace("| 64 |", "| 65 |", 1)
    assert other != PAGE and cost.filled(other) != other


@pytest.mark.parametrize("name", cost.FIGURES)
def test_a_committed_figure_was_drawn_from_the_numbers_of_the_benchmarks(name):
    svg = (cost.FOLDER / f"{name}.svg").read_text()
    described = json.loads(html.unescape(re.search(r"<dc:description>(.*?)</dc:description>", svg, re.DOTALL)[1]))
    assert described == cost.numbers(cost.read(name)[1]), "run python docs/cost_figures.py"
    assert f"](../cost/{name}.svg)" in PAGE


def test_figures_are_small():
    assert [path.name for path in cost.FOLDER.glob("*.svg") if path.stat().st_size > 80_000] == []


def test_a_figure_is_drawn_with_every_point_that_was_measured():
    _, panels, _ = cost.read("horizon")
    axes = cost.draw(panels).axes
    assert [each.get_title() for each in axes] == [panel.y for panel in panels]
    drawn = [[list(map(tuple, line.get_xydata())) for line in each.get_lines()] for each in axes]
    assert drawn == [[list(map(tuple, line.points)) for line in panel.lines] for panel in panels]


def test_what_was_not_measured_is_a_dash():
    assert cost_data.scaled(None) == "–"
    assert [
        cost_data.scaled(13394),
        cost_data.scaled(1921.0, 1e-3),
        cost_data.scaled(0.0398),
        cost_data.scaled(100),
    ] == [
        "13,394",
        "1.92",
        "0.0398",
        "100",
    ]


def test_in_mem1_keys_and_values_are_flat_and_time_is_linear_in_the_turns():
    assert slope(lines("horizon", "keys and values, MiB")["mem1"]) == 0
    assert slope(lines("horizon", "collecting, s")["mem1"]) == pytest.approx(1, abs=0.35)


def test_in_the_full_history_keys_and_values_are_linear_and_training_is_nearly_quadratic_in_the_turns():
    assert slope(lines("horizon", "keys and values, MiB")["full"]) == pytest.approx(1, abs=0.1)
    assert slope(lines("horizon", "training, s")["full"]) > 1.5


def test_a_group_in_tree_runs_fewer_tokens_than_in_rows_and_both_are_linear_in_its_size():
    tokens = lines("group", "tokens through the model")
    assert slope(tokens["training, rows"]) == pytest.approx(1)
    assert slope(tokens["training, tree"]) == pytest.approx(1, abs=0.1)
    assert tokens["training, tree"][-1][1] < 0.5 * tokens["training, rows"][-1][1]
    assert tokens["rollout, one prompt"][-1][1] < tokens["rollout, a prompt each"][-1][1]


def test_building_is_linear_in_products_and_in_passages():
    for name in ("catalogue", "corpus"):
        points = lines(name, "building, s")["building"]
        assert slope([point for point in points if point[0] < 1_000_000]) == pytest.approx(1, abs=0.3)
