import math

import pytest
import torch

from lightning_mem1.update_stats import MAX_TURNS_SHOWN, PassStats, mean_over_steps, mismatch, rollout_gap


def one_pass(gaps, turns, loss=1.0, weight=0.5):
    parts = [torch.tensor(x) for x in (loss, 0.1, 0.02, 2.0, 0.0, weight)]
    return PassStats.of(parts, torch.tensor(gaps), torch.tensor(turns))


def test_passes_add_up_and_the_largest_gap_stays():
    both = one_pass([0.25, 0.5], [0, 1]) + one_pass([1.0, 0.5], [1, 1], loss=3.0)
    named = both.named()
    assert (named["loss"], named["weight"], named["gap"], named["tokens"]) == (4.0, 1.0, 2.25, 4.0)
    assert named["gap_max"] == 1.0


def test_the_gap_is_told_by_turn_for_the_turns_that_were_scored():
    named = (one_pass([0.25, 0.5], [0, 2]) + one_pass([1.0], [2])).named()
    assert {key: value for key, value in named.items() if key.startswith("gap_turn")} == {
        "gap_turn_0": 0.25,
        "gap_turn_2": 0.75,
    }


def test_turns_beyond_the_last_one_shown_count_as_that_one():
    named = one_pass([0.5, 1.0], [MAX_TURNS_SHOWN - 1, MAX_TURNS_SHOWN + 40]).named()
    assert named[f"gap_turn_{MAX_TURNS_SHOWN - 1}"] == 0.75


def test_over_ranks_sums_are_summed_and_maxima_compared():
    asked = []

    def two_equal_ranks(tensor, operation):
        asked.append(operation)
        return tensor * 2 if operation == "sum" else tensor

    named = one_pass([0.5], [0]).reduced(two_equal_ranks).named()
    assert asked == ["sum", "max"]
    assert (named["gap"], named["tokens"], named["gap_turn_0"], named["gap_max"]) == (1.0, 2.0, 0.5, 0.5)


def test_steps_are_averaged_per_weight_and_the_gap_is_the_first_steps():
    first = {**one_pass([0.5, 0.0], [0, 1]).named(), "grad_norm": 2.0}
    second = {**one_pass([9.0], [0], loss=2.0, weight=0.25).named(), "grad_norm": 4.0}
    metrics = mean_over_steps([first, second])
    assert (metrics["train/loss"], metrics["train/grad_norm"]) == (1.5, 3.0)
    assert metrics["train/entropy"] == pytest.approx((2.0 / 0.5 + 2.0 / 0.25) / 2)
    assert rollout_gap(first) == {
        "train/rollout_gap_mean": 0.25,
        "train/rollout_gap_max": 0.5,
        "train/rollout_gap_turn_0": 0.5,
        "train/rollout_gap_turn_1": 0.0,
    }


def test_without_a_scored_token_the_gap_is_not_a_number_and_the_loss_zero():
    assert all(math.isnan(value) for value in rollout_gap(PassStats.empty().named()).values())
    assert mean_over_steps([]) == {"train/loss": 0.0, "train/grad_norm": 0.0}


def test_kinds_of_token_are_told_apart():
    tokens = {
        "is_state": torch.tensor([True, False, True]),
        "entropy": torch.tensor([1.0, 4.0, 2.0]),
        "pull": torch.tensor([3.0, 1.0, 0.0]),
        "outside": torch.tensor([False, False, True]),
    }
    parts = [torch.tensor(x) for x in (1.0, 0.1, 0.02, 2.0, 0.0, 0.5)]
    step = PassStats.of(parts, torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0, 0, 1]), tokens).named()
    metrics = mean_over_steps([{**step, "grad_norm": 1.0}])
    assert (metrics["train/entropy_state"], metrics["train/entropy_action"]) == (1.5, 4.0)
    assert metrics["train/gradient_share_state"] == 0.75
    found = mismatch(step)
    assert (found["train/rollout_gap_state"], found["train/rollout_gap_action"]) == (0.5, 0.5)
    assert found["train/ratio_outside_clip"] == pytest.approx(1 / 3)


def test_the_99th_percentile_of_the_gap_is_at_most_12_percent_too_large():
    gaps = [1e-6] * 989 + [0.5] * 11
    assert 0.5 <= mismatch(one_pass(gaps, [0] * 1000).named())["train/rollout_gap_p99"] < 0.5 * 1.1221
    gaps = [1e-6] * 995 + [0.5] * 5
    assert 1e-6 <= mismatch(one_pass(gaps, [0] * 1000).named())["train/rollout_gap_p99"] < 1e-6 * 1.1221


def test_a_gap_that_is_no_number_counts_as_the_largest():
    found = mismatch(one_pass([math.nan, math.inf], [0, 0]).named())
    assert found["train/rollout_gap_p99"] == pytest.approx(100)
    assert mismatch(PassStats.empty().named()) == {}
