import json
from pathlib import Path

import pytest
import torch

from lightning_mem1.training.credit.advantages import (
    gae,
    group_relative,
    leave_one_out,
    numbered,
    penalised,
    returns_to_go,
    step_relative,
    whiten,
)

GOLDEN = Path(__file__).parents[2].parent / "shared/golden/rl/ppo_grpo.json"


def relative(rewards, groups, **settings):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    return group_relative(rewards, torch.tensor(groups), **settings).tolist()


def test_rewards_are_compared_within_their_own_group_only():
    # group 7: mean 1/3, sample deviation sqrt(1/3) = 0.577350; group 2: mean 3, deviation sqrt(2)
    advantages = relative([1.0, 4.0, 0.0, 2.0, 0.0], [7, 2, 7, 2, 7], eps=0.0)
    assert advantages == pytest.approx([1.154701, 0.707107, -0.577350, -0.707107, -0.577350], abs=1e-6)


def test_without_scaling_an_advantage_is_the_reward_minus_the_mean():
    advantages = relative([1.0, 0.0, 0.0, 9.0, 5.0], [0, 0, 0, 1, 1], scale="none")
    assert advantages == pytest.approx([2 / 3, -1 / 3, -1 / 3, 2, -2])


def test_eps_is_added_to_the_deviation():
    assert relative([1.0, 3.0], [0, 0], eps=1.0) == pytest.approx([-1 / (2**0.5 + 1), 1 / (2**0.5 + 1)])


@pytest.mark.parametrize("scale", ["std", "none"])
def test_equal_rewards_teach_nothing_even_when_their_mean_is_rounded(scale):
    rewards = torch.full((7,), 0.1)  # in float32 the mean of seven times 0.1 is not 0.1
    assert group_relative(rewards, torch.zeros(7, dtype=torch.long), scale=scale).tolist() == [0.0] * 7


@pytest.mark.parametrize("scale", ["std", "none"])
def test_a_trajectory_alone_in_its_group_keeps_its_raw_reward(scale):
    assert relative([2.0, 1.0, 3.0], [0, 1, 1], scale=scale)[0] == 2.0


def test_whole_number_rewards_give_fractional_advantages():
    advantages = group_relative(torch.tensor([1, 0]), torch.tensor([0, 0]), scale="none")
    assert advantages.tolist() == [0.5, -0.5]


def test_no_trajectories_give_no_advantages():
    assert relative([], []) == []


def test_the_rewards_that_are_passed_in_stay_as_they_were():
    rewards = torch.tensor([1.0, 0.0])
    group_relative(rewards, torch.tensor([0, 0]))
    assert rewards.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_refused_with_the_trajectory_it_belongs_to(bad):
    with pytest.raises(ValueError, match=r"reward of trajectory 1 must be a finite number, got (nan|inf) \(1 of 3"):
        relative([1.0, bad, 0.0], [0, 0, 0])


def test_groups_that_do_not_align_are_refused():
    with pytest.raises(ValueError, match=r"got \(2,\) and \(1,\)"):
        relative([1.0, 0.0], [0])


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="'std' or 'none', got 'batch'"):
        relative([1.0], [0], scale="batch")


def test_the_reference_implementation_gives_the_same_advantages():
    if not GOLDEN.exists():
        pytest.skip(f"golden cases are not here: {GOLDEN.name}")
    for case in json.loads(GOLDEN.read_text())["cases"]:
        rewards = [sum(tokens) for tokens in case["rewards"]]
        expected = [tokens[0] for tokens in case["grpo_advantages"]]  # the same for every action token
        # the reference divides the reward of a lone trajectory by 1 + eps
        assert relative(rewards, case["group"]) == pytest.approx(expected, abs=3e-6)


def test_leave_one_out_is_the_centred_reward_times_n_over_n_minus_one():
    rewards, groups = torch.tensor([1.0, 0.0, 0.0, 5.0]), torch.tensor([0, 0, 0, 1])
    assert leave_one_out(rewards, groups).tolist() == pytest.approx([1.0, -0.5, -0.5, 5.0])


def test_steps_are_compared_within_their_own_state_and_a_state_seen_once_gets_zero():
    found = step_relative(torch.tensor([1.0, 0.0, 7.0, 0.0]), ["shop", "shop", "page", "shop"], "none")
    assert found.tolist() == pytest.approx([2 / 3, -1 / 3, 0.0, -1 / 3])


def test_returns_to_go_discount_what_is_still_to_come():
    assert returns_to_go(torch.tensor([1.0, 0.0, 2.0]), 0.5).tolist() == [1.5, 1.0, 2.0]


def test_gae_worked_by_hand():
    # rewards 0 0 1, values 1 2 4, gamma 1/2, lambda 1/2
    # deltas: 0 + 1 - 1 = 0;  0 + 2 - 2 = 0;  1 - 4 = -3      advantages: -3;  0 - 3/4;  0 - 3/16
    found = gae(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 4.0]), 0.5, 0.5)
    assert found.tolist() == [-3 / 16, -3 / 4, -3.0]


def test_with_gamma_and_lambda_one_gae_is_the_return_minus_the_value():
    rewards, values = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.5, -1.0, 4.0])
    assert gae(rewards, values).tolist() == [3.0 - 0.5, 2.0 + 1.0, 2.0 - 4.0]


def test_gae_of_an_episode_that_goes_on_ends_with_what_is_still_to_come():
    # as above but for the last delta: 1 + 8/2 - 4 = 1      advantages: 1;  0 + 1/4;  0 + 1/16
    found = gae(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 4.0]), 0.5, 0.5, beyond=8.0)
    assert found.tolist() == [1 / 16, 1 / 4, 1.0]


def test_costs_are_taken_off_where_rewards_differ_or_nothing_is_compared():
    rewards, costs = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]), torch.tensor([0.5, 0.25, 0.5, 0.25, 0.25])
    assert penalised(rewards, costs, torch.tensor([0, 0, 1, 1, 2])).tolist() == [1.0, 1.0, 0.5, -0.25, 0.75]


@pytest.mark.parametrize("scale", ["std", "none"])
def test_rewards_that_were_added_up_in_another_order_are_equal(scale):
    rewards = torch.tensor([0.1, 0.2, 0.3]).sum(), torch.tensor(0.1) + (torch.tensor(0.2) + torch.tensor(0.3))
    spread = torch.stack([rewards[0], torch.nextafter(rewards[0], torch.tensor(9.0)), rewards[1]])
    assert group_relative(spread, torch.zeros(3, dtype=torch.long), scale).tolist() == [0.0] * 3
    far = torch.tensor([1.0, 1.00001])
    assert group_relative(far, torch.zeros(2, dtype=torch.long), "none").tolist() == pytest.approx(
        [-5e-6, 5e-6], rel=0.02
    )


def test_equal_things_get_equal_numbers_in_the_order_they_come():
    assert numbered(["shop", "page", "shop", ("shop", 1)]).tolist() == [0, 1, 0, 2]


def test_gae_refuses_values_that_do_not_align():
    with pytest.raises(ValueError, match=r"one per step: expected shape \(2,\), got \(3,\)"):
        gae(torch.zeros(2), torch.zeros(3))


def test_whitened_numbers_have_mean_zero_and_variance_one():
    # mean 2, deviations -1 0 1, unbiased variance 1
    assert whiten(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx([-1.0, 0.0, 1.0])


def test_numbers_that_are_equal_but_for_rounding_are_whitened_to_zero():
    assert whiten(torch.full((7,), 0.1)).tolist() == [0.0] * 7
    assert whiten(torch.zeros(0)).tolist() == [] and whiten(torch.tensor([3.0])).tolist() == [0.0]


def test_ranks_whiten_by_the_numbers_of_all_of_them():
    whole = torch.tensor([1.0, 2.0, 3.0, 6.0])
    wide = whole.double()
    sums = iter([torch.stack([torch.tensor(4.0).double(), wide.sum()]), (wide - 3).square().sum()[None]])
    mine = whiten(whole[:2], lambda _: next(sums))
    torch.testing.assert_close(mine, whiten(whole)[:2])


def test_the_reference_implementation_gives_the_same_gae_and_returns():
    if not GOLDEN.exists():
        pytest.skip(f"golden cases are not here: {GOLDEN.name}")
    for case in json.loads(GOLDEN.read_text())["cases"]:
        wanted = torch.tensor(case["mask"]).bool()
        rewards, values, returns, whitened = (
            torch.tensor(case[key], dtype=torch.float64)
            for key in ("rewards", "values", "gae_returns", "gae_whitened_advantages")
        )
        # the reference lets the critic's value of padding leak into the last token of a short row: on whole rows, its
        # padding taken for steps, we agree with it everywhere
        found = torch.stack([gae(r, v, case["gamma"], case["lam"]) for r, v in zip(rewards, values, strict=True)])
        torch.testing.assert_close((found + values)[wanted], returns[wanted], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(whiten(found[wanted]), whitened[wanted], atol=1e-6, rtol=1e-6)
        # on the action tokens alone the cases coincide where there is no padding, or where nothing is bootstrapped
        for row, w, r, v in zip(returns, wanted, rewards, values, strict=True):
            if w.all() or case["gamma"] == case["lam"] == 1:
                ours = gae(r[w], v[w], case["gamma"], case["lam"]) + v[w]
                torch.testing.assert_close(ours, row[w], atol=1e-9, rtol=1e-9)
