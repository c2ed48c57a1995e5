"""Pictures: what is drawn, read back from the figures."""

import io
import math

import numpy as np
import pytest
import torch

from lightning_mem1.evaluation.bootstrap import Interval
from lightning_mem1.evaluation.ledger import Ledger, Record
from lightning_mem1.evaluation.report import plots
from lightning_mem1.evaluation.report.layout_plot import (
    COPY,
    INFORMATION,
    MAX_TOKENS,
    PROMPT,
    SCORED,
    masks,
    turns_drawn,
    visible,
)
from lightning_mem1.evaluation.tables import Row, row
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import StopReason, Task, Trajectory, Turn

P, C, R, A = PROMPT, COPY, INFORMATION, SCORED


def measured(memory: str, objectives: int, peak: float, by_turn: dict | None = None) -> Row:
    intervals = {"peak_tokens": Interval(peak, peak - 10, peak + 20), "reward": Interval(0.5, 0.4, 0.7)}
    return Row(memory, objectives, 8, 512, {}, intervals, by_turn=by_turn or {})


def trajectory(*lengths: tuple[int, int], prompt: int = 1) -> Trajectory:
    turns = [Turn([5 + n] * a, [0.0] * a, [7] * i) for n, (a, i) in enumerate(lengths)]
    return Trajectory(Task("t/0", "", (), 9), [1] * prompt, turns, StopReason.DONE)


def line(axes, label: str) -> list[tuple[float, float]]:
    """The points of the line with a label."""
    found = next(each for each in axes.get_lines() if each.get_label() == label)
    return [tuple(map(float, point)) for point in found.get_xydata()]


def test_the_curve_shows_training_validation_and_baselines_by_rl_step():
    points = [
        {"rl_step": 0.0, "val/reward": 0.2, "val/success": 0.0, "val/baseline_rule": 0.6},
        {"rl_step": 1.0, "rollout/reward": 0.3, "rollout/success": 0.1},
        {"rl_step": 2.0, "rollout/reward": 0.5, "rollout/success": 0.2},
        {"rl_step": 2.0, "val/reward": 0.4, "val/success": 0.3, "val/baseline_rule": 0.7},
        {"rl_step": 2.0, "val/baseline_best": 1.0, "val/baseline_oracle": 1.0},
    ]
    reward, success = plots.curve(points).axes
    assert (reward.get_xlabel(), reward.get_ylabel(), success.get_ylabel()) == ("rl_step", "reward", "success")
    assert line(reward, "training, sampled") == [(1.0, 0.3), (2.0, 0.5)]
    assert line(reward, "validation, greedy") == [(0.0, 0.2), (2.0, 0.4)]
    assert line(success, "validation, greedy") == [(0.0, 0.0), (2.0, 0.3)]
    assert [(text.get_text(), text.xy[1]) for text in reward.texts] == [("best, oracle", 1.0), ("rule", 0.7)]
    assert not success.texts
    blank = plots.curve([{"rl_step": 1.0, "rollout/reward": math.nan}])
    blank.savefig(io.BytesIO())  # a run without a number ends like any other
    assert blank.axes[0].get_ylim() == (0, 1)


def test_runs_have_a_line_each_in_every_panel_that_they_have_numbers_for():
    mem1 = [{"rl_step": 0.0, "val/reward": 0.2}, {"rl_step": 1.0, "rollout/reward": 0.3}]
    figure = plots.runs({"mem1": mem1, "full": [{"rl_step": 1.0, "rollout/reward": 0.6}]})
    training, validation = figure.axes
    assert training.get_ylabel() == "reward, training, sampled"
    assert (line(training, "mem1"), line(training, "full")) == ([(1.0, 0.3)], [(1.0, 0.6)])
    assert [text.get_text() for text in validation.get_legend().get_texts()] == ["mem1"]
    assert line(validation, "mem1") == [(0.0, 0.2)]


def test_objectives_have_a_line_for_each_memory_mode_with_its_intervals():
    rows = [measured("mem1", 4, 120), measured("mem1", 1, 100), measured("full", 1, 110), measured("full", 4, 400)]
    (peak,) = plots.by_objectives(rows, ["peak_tokens"]).axes
    assert (peak.get_xlabel(), peak.get_ylabel()) == ("objectives", "peak tokens")
    assert [text.get_text() for text in peak.get_legend().get_texts()] == ["mem1", "full"]
    mem1, full = peak.containers
    assert mem1.lines[0].get_xydata().tolist() == [[1, 100], [4, 120]]
    assert full.lines[0].get_xydata().tolist() == [[1, 110], [4, 400]]
    (bars,) = mem1.lines[2]
    assert [bar.tolist() for bar in bars.get_segments()] == [[[1, 90], [1, 120]], [[4, 110], [4, 140]]]
    assert list(peak.get_xticks()) == [1, 4] and peak.get_ylim()[0] == 0


def test_turns_have_a_line_for_each_row_and_rows_without_turns_have_none():
    rows = [
        measured("mem1", 1, 1, {"context_tokens": [50, 80, 81], "internal_state_tokens": [9, 9, 10]}),
        measured("full", 1, 1, {"context_tokens": [50, 80, 110], "internal_state_tokens": [8, 8, 8]}),
        measured("none", 1, 1),
    ]
    context, state = plots.by_turn(rows).axes
    assert (context.get_xlabel(), context.get_ylabel()) == ("turn", "context, tokens")
    assert state.get_ylabel() == "internal state, tokens"
    assert line(context, "full") == [(0, 50), (1, 80), (2, 110)] and line(state, "mem1") == [(0, 9), (1, 9), (2, 10)]
    assert len(context.get_lines()) == 2
    longer = plots.by_turn([*rows, measured("mem1", 2, 1, {"context_tokens": [60]})], ["context_tokens"]).axes[0]
    assert line(longer, "mem1, 2") == [(0, 60)]


def test_a_row_averages_each_turn_over_the_trajectories_that_had_it(tmp_path):
    numbers = [{"context_tokens": [10, 30], "internal_state_tokens": [1, 2]}, {}]
    numbers += [{"context_tokens": [20], "internal_state_tokens": [3]}]
    records = [Record("mem1", 1, n, "t", "done", "", {"reward": 0.0}, each) for n, each in enumerate(numbers)]
    ledger = Ledger(tmp_path, {})
    for record in records:
        ledger.add(record)
    again = list(Ledger(tmp_path, {}).records.values())
    assert row(again, 100).by_turn == {
        "context_tokens": [15.0, 30.0],
        "internal_state_tokens": [2.0, 2.0],
        "trajectories": [2.0, 1.0],
    }
    assert row(again[1:2], 100).by_turn == {}


def test_advantages_stand_over_their_tokens_between_the_lines_of_turns():
    figure = plots.advantages([0.5, 0.5, -1.0], [2, 1], [True, False, False], "t/0, reward 1.00")
    (axes,) = figure.axes
    assert line(axes, "advantage") == [(0, 0.5), (1, 0.5), (2, -1.0)]
    assert [each.get_xdata()[0] for each in axes.get_lines()[1:]] == [-0.5, 1.5]
    assert (axes.get_title(), axes.get_ylabel()) == ("t/0, reward 1.00", "advantage")
    with pytest.raises(ValueError, match="expected 3 tokens, got 1 advantages and 3 states"):
        plots.advantages([0.5], [2, 1], [True] * 3)


def test_an_evaluation_has_the_pictures_it_has_numbers_for(tmp_path):
    figures = plots.of_rows([measured("mem1", 1, 100)])
    assert list(figures) == ["objectives"] and len(figures["objectives"].axes) == 2  # no dependency was measured
    turns = {"context_tokens": [5], "internal_state_tokens": [1]}
    assert list(plots.of_rows([measured("mem1", 1, 100, turns)])) == ["objectives", "turns"]
    (path,) = plots.save(figures, tmp_path / "new")
    assert path == tmp_path / "new" / "objectives.png" and path.read_bytes().startswith(b"\x89PNG")


def test_the_masks_of_three_turns_are_those_drawn_by_hand():
    three = trajectory((1, 1), (1, 1), (1, 0))
    assert visible(three, "tree").tolist() == [
        [P, 0, 0, 0, 0, 0, 0],
        [P, A, 0, 0, 0, 0, 0],
        [P, A, R, 0, 0, 0, 0],
        [P, A, R, A, 0, 0, 0],
        [P, 0, 0, 0, C, 0, 0],
        [P, 0, 0, 0, C, R, 0],
        [P, 0, 0, 0, C, R, A],
    ]
    assert visible(three, "stitched").tolist() == [
        [P, 0, 0, 0, 0, 0],
        [P, A, 0, 0, 0, 0],
        [P, A, R, 0, 0, 0],
        [P, A, R, A, 0, 0],
        [P, 0, 0, A, R, 0],
        [P, 0, 0, A, R, A],
    ]
    # an action without an internal state is all rest: official shows it, and information sees nothing but itself
    assert visible(three, "official", state_end=lambda ids: 0)[4].tolist() == [0, 0, 0, 0, R, 0]
    rows = visible(three, "rows")
    assert rows.shape == (2 + 4 + 4, 2 + 4 + 4)
    assert rows[9].tolist() == [0] * 6 + [P, C, R, A] and rows[5].tolist() == [0, 0, P, C, R, A, 0, 0, 0, 0]


def test_the_opening_of_a_memory_written_apart_is_drawn_as_what_was_not_scored():
    first, last = trajectory((1, 1), (1, 0)).turns
    memory = Turn([31], [0.0], kind="memory", opening_ids=[30])
    staged = Trajectory(Task("t/0", "", (), 5), [9], [first, memory, last], StopReason.DONE)
    assert np.diag(visible(staged, "tree", "summary")).tolist() == [
        P,
        A,
        R,
        C,
        A,
        C,
        C,
        R,
        A,
    ]  # P A0 I0 m M0, m M0 I0 A1
    assert np.diag(visible(staged, "stitched", "summary")).tolist() == [P, A, R, C, A, A]
    assert visible(staged, "stitched", "summary")[5].tolist() == [P, 0, R, C, A, A]


@pytest.mark.parametrize("mode", ["mem1", "full", "window", "none", "amem"])
def test_the_drawn_tree_is_what_the_batch_of_the_layout_lets_a_token_see(mode):
    batch = collate([trajectory((2, 3), (1, 2), (3, 1), (2, 0), prompt=4)], "tree", mode)
    drawn = visible(trajectory((2, 3), (1, 2), (3, 1), (2, 0), prompt=4), "tree", mode)
    assert len(drawn) == batch.num_tokens
    # as many tokens are scored as there are actions, and each is visible to itself at its own position
    assert (np.diag(drawn) == A).sum() == len(batch.action_ids) == 8
    # a token sees as many others as its position says: the prompt and its own segment, without a gap
    assert torch.equal(torch.tensor((drawn > 0).sum(axis=1)) - 1, batch.position_ids[0])


def shout(turns):
    return [[99] for _ in turns[-1:]]


def test_a_picture_of_masks_has_a_panel_for_each_layout_and_only_the_turns_that_fit():
    three = trajectory((1, 1), (1, 1), (1, 0))
    figure = masks(three, state_end=lambda ids: 0)
    assert [axes.get_title() for axes in figure.axes] == [
        "tree, 7 tokens",
        "rows, 10 tokens",
        "stitched, 6 tokens",
        "official, 6 tokens",
    ]
    assert figure.axes[0].images[0].get_array().tolist() == visible(three, "tree").tolist()
    figure.savefig(io.BytesIO())
    assert len(masks(three, "full").axes) == 3  # official knows memory mode mem1 only
    assert [axes.get_title() for axes in masks(three, shout).axes] == ["tree, 6 tokens", "rows, 8 tokens"]
    long = trajectory((MAX_TOKENS // 2, 1), (MAX_TOKENS // 2, 0))
    assert turns_drawn(long) == 1
    with pytest.raises(ValueError, match="nothing to draw of 't/0'"):
        masks(trajectory((MAX_TOKENS, 0)))
