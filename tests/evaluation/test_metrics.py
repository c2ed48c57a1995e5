import math

import pytest

from lightning_mem1.evaluation.metrics import (
    AnswerScores,
    InternalStateTokens,
    PeakTokens,
    TrajectoryMean,
    dependency,
    growth_per_turn,
    peak_tokens,
)

CONTEXTS, ACTIONS = [10, 18, 17], [4, 2, 3]


def numbers(metric):
    value = metric.compute()
    return {key: number.item() for key, number in value.items()} if isinstance(value, dict) else value.item()


def test_the_peak_is_the_fullest_window_at_the_end_of_a_turn():
    assert peak_tokens(CONTEXTS, ACTIONS) == 20  # 14, 20, 20
    assert peak_tokens(CONTEXTS, ACTIONS, prompt_length=8) == 12


def test_dependency_is_the_area_under_causal_attention():
    # (20 + 4) * 4 / 2 + (36 + 2) * 2 / 2 + (34 + 3) * 3 / 2 = 48 + 38 + 55.5
    assert dependency(CONTEXTS, ACTIONS) == 141.5


def test_a_trajectory_without_turns_used_nothing():
    assert (peak_tokens([], []), dependency([], []), growth_per_turn([])) == (0, 0, 0.0)


def test_lengths_that_do_not_align_are_refused():
    for measure in (peak_tokens, dependency):
        with pytest.raises(ValueError, match="one entry per turn: got 2 contexts and 1 actions"):
            measure([1, 2], [1])


@pytest.mark.parametrize(
    ("lengths", "growth"),
    [([5], 0.0), ([5, 5, 5, 5], 0.0), ([10, 13, 16], 3.0), ([0, 1, 0, 5], 1.4)],  # (-1.5*0 -.5*1 +.5*0 +1.5*5) / 5
)
def test_growth_is_the_slope_of_the_best_straight_line(lengths, growth):
    assert growth_per_turn(lengths) == pytest.approx(growth)


def test_a_mean_weighs_every_trajectory_the_same_whatever_the_batches():
    metric = TrajectoryMean()
    metric.update([1.0, 0.0, 0.5])
    metric.update([])
    metric.update([0.9])
    assert numbers(metric) == pytest.approx(0.6)


def test_peak_tokens_reports_mean_and_maximum():
    metric = PeakTokens()
    metric.update([20, 30])
    metric.update([10])
    assert numbers(metric) == {"mean": 20.0, "max": 30.0}


def test_the_internal_state_reports_its_length_over_turns_and_its_growth_over_trajectories():
    metric = InternalStateTokens()
    metric.update([[2, 4, 6], [], [8]])
    assert numbers(metric) == {"mean": 5.0, "max": 8.0, "growth": 1.0}


def test_answers_are_summed_over_a_task_and_averaged_over_objectives():
    metric = AnswerScores()
    metric.update(em=[2.0, 0.0], f1=[2.0, 0.5], num_objectives=[2, 1])
    metric.update([1.0], [1.0], [2])
    assert numbers(metric) == pytest.approx({"em": 1.0, "f1": 3.5 / 3, "em_mean": 3 / 5, "f1_mean": 3.5 / 5})


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
@pytest.mark.parametrize("metric", [TrajectoryMean(), PeakTokens(), InternalStateTokens(), AnswerScores()])
def test_with_nothing_to_report_the_value_is_nan(metric):
    value = numbers(metric)
    assert all(math.isnan(number) for number in (value.values() if isinstance(value, dict) else [value]))


def test_a_reset_forgets_everything():
    metric = PeakTokens()
    metric.update([99])
    metric.reset()
    metric.update([5])
    assert numbers(metric) == {"mean": 5.0, "max": 5.0}


@pytest.mark.parametrize(
    ("metric", "parts"),
    [
        (PeakTokens, ([20, 30], [10])),
        (TrajectoryMean, ([1.5], [2.5, 3.0])),
        (InternalStateTokens, ([[2, 4, 6]], [[8], [1, 2]])),
    ],
)
def test_two_processes_report_what_one_would(metric, parts):
    # The states of two metrics, combined as each state declares, are those of one that saw everything.
    whole, *halves = metric(), metric(), metric()
    for half, part in zip(halves, parts, strict=True):
        half.update(part)
        whole.update(part)
    halves[0].merge_state(halves[1])
    assert numbers(halves[0]) == pytest.approx(numbers(whole))


def test_two_processes_report_the_answers_that_one_would():
    whole, left, right = AnswerScores(), AnswerScores(), AnswerScores()
    for metric in (whole, left):
        metric.update([2.0, 0.0], [2.0, 0.5], [2, 1])
    for metric in (whole, right):
        metric.update([1.0], [1.0], [2])
    left.merge_state(right)
    assert numbers(left) == pytest.approx(numbers(whole))
