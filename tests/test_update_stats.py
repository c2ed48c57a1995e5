import math

import pytest
import torch

from lightning_mem1.update_stats import MAX_TURNS_SHOWN, PassStats, mean_over_steps, rollout_gap


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
