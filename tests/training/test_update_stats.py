import math

import pytest
import torch

from lightning_mem1.training.update_stats import (
    MAX_TURNS_SHOWN,
    UpdateStats,
    critic_means,
    mean_over_steps,
    mismatch,
    rollout_gap,
    value_numbers,
)


def one_pass(gaps, turns, loss=1.0, weight=0.5):
    parts = [torch.tensor(x) for x in (loss, 0.1, 0.02, 2.0, 0.0, weight)]
    return UpdateStats.of(parts, torch.tensor(gaps), torch.tensor(turns))


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
    assert all(math.isnan(value) for value in rollout_gap(UpdateStats.empty().named()).values())
    assert mean_over_steps([]) == {"train/loss": 0.0, "train/grad_norm": 0.0}


def test_kinds_of_token_are_told_apart():
    tokens = {
        "is_state": torch.tensor([True, False, True]),
        "entropy": torch.tensor([1.0, 4.0, 2.0]),
        "pull": torch.tensor([3.0, 1.0, 0.0]),
        "outside": torch.tensor([False, False, True]),
    }
    parts = [torch.tensor(x) for x in (1.0, 0.1, 0.02, 2.0, 0.0, 0.5)]
    step = UpdateStats.of(parts, torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0, 0, 1]), tokens).named()
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
    assert mismatch(UpdateStats.empty().named()) == {}


def test_the_critic_explains_the_share_of_the_returns_variance_that_its_errors_do_not_have():
    # returns 0 2: variance 1; errors 0 1: variance 1/4
    numbers = value_numbers(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0]), lambda sums: sums)
    assert numbers == {"train/value_mean": 0.5, "train/value_explained_variance": 0.75}


def test_a_critic_that_is_off_by_a_constant_explains_everything_and_one_that_is_constant_nothing():
    returns = torch.tensor([0.0, 2.0, 7.0])
    for values, share in ((returns + 3, 1.0), (torch.full((3,), 5.0), 0.0)):
        found = value_numbers(values, returns, lambda sums: sums)["train/value_explained_variance"]
        assert found == pytest.approx(share)


def test_two_ranks_together_tell_what_one_would_tell_of_all_tokens():
    values, returns = torch.tensor([0.0, 1.0, 1.0, 4.0]), torch.tensor([0.0, 2.0, 3.0, 3.0])
    whole: list[torch.Tensor] = []
    expected = value_numbers(values, returns, lambda sums: whole.append(sums) or sums)
    given: list[list[torch.Tensor]] = [[], []]
    for mine, part in zip(given, (slice(0, 1), slice(1, 4)), strict=True):
        # both ranks get the sums of all tokens
        told = value_numbers(
            values[part], returns[part], lambda sums, mine=mine: mine.append(sums) or whole[len(mine) - 1]
        )
        assert told == expected
    for one, other, both in zip(*given, whole, strict=True):
        torch.testing.assert_close(one + other, both)


def test_returns_that_are_all_equal_have_no_variance_to_explain():
    numbers = value_numbers(torch.tensor([0.5, 1.5]), torch.tensor([1.0, 1.0]), lambda sums: sums)
    assert numbers == {"train/value_mean": 1.0}
    assert value_numbers(torch.zeros(0), torch.zeros(0), lambda sums: sums) == {}


def test_the_critics_steps_are_averaged_over_those_in_which_it_learnt():
    steps = [
        {"value_tokens": 2.0, "value_loss": 1.0, "critic_grad_norm": 0.5},
        {"value_tokens": 0.0, "value_loss": 0.0, "critic_grad_norm": 0.0},
        {"value_tokens": 1.0, "value_loss": 3.0, "critic_grad_norm": 1.5},
    ]
    assert critic_means(steps) == {"train/value_loss": 2.0, "train/critic_grad_norm": 1.0}
    assert critic_means([{"tokens": 3.0}]) == {}
