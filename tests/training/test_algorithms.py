import pytest
import torch

from lightning_mem1.training.credit.algorithms import ALGORITHMS, CreditSettings, GroupedRollouts
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task


def trajectory(rewards, lengths, group=0, replies=()):
    replies = [*replies, *[""] * len(lengths)]
    turns = [
        Turn([7] * length, [-0.5] * length, information=reply, reward=reward)
        for reward, length, reply in zip(rewards, lengths, replies, strict=False)
    ]
    return Trajectory(task(), [1, 2], turns, StopReason.DONE, group)


def credit(name, trajectories, scale="std", penalties=None, values=None, **settings):
    played = GroupedRollouts.of(trajectories, None, penalties, values)
    return ALGORITHMS[name].give_credit(played, CreditSettings(scale, **settings))


def advantages(*args, **settings):
    return [pytest.approx(a.tolist(), abs=1e-5) for a in credit(*args, **settings).advantages]


GROUP = [trajectory([0.0, 1.0], [2, 1]), trajectory([0.0], [1]), trajectory([0.0], [2])]


def test_grpo_gives_every_token_the_groups_standard_score():
    # mean 1/3, sample deviation 0.577350
    assert advantages("grpo", GROUP) == [[1.154699] * 3, [-0.577349], [-0.577349] * 2]


def test_dr_grpo_does_not_divide_whatever_the_scale():
    assert advantages("dr_grpo", GROUP, "std") == [[2 / 3] * 3, [-1 / 3], [-1 / 3] * 2]


def test_rloo_compares_with_the_mean_of_the_others():
    assert advantages("rloo", GROUP) == [[1.0] * 3, [-0.5], [-0.5] * 2]


def test_rloo_leaves_the_reward_of_a_group_of_one_as_it_is():
    assert advantages("rloo", [trajectory([3.0], [1])]) == [[3.0]]


def test_reinforce_pp_gives_each_token_the_reward_that_is_still_to_come():
    assert advantages("reinforce_pp", [trajectory([1.0, 2.0], [2, 1])]) == [[3.0, 3.0, 2.0]]
    # gamma per token: 1 stands on token 1, 2 on token 2
    assert advantages("reinforce_pp", [trajectory([1.0, 2.0], [2, 1])], gamma=0.5) == [[0.5 + 0.5, 1.0 + 1.0, 2.0]]


def test_kl_in_the_reward_is_paid_by_the_tokens_from_which_it_is_still_to_come():
    costs = [torch.tensor([0.1, 0.2, 0.4])]
    assert advantages("reinforce_pp", [trajectory([1.0, 2.0], [2, 1])], penalties=costs) == [[2.3, 2.4, 1.6]]


def test_kl_in_the_reward_is_taken_off_the_trajectorys_reward_where_groups_are_compared():
    costs = [torch.tensor([0.1, 0.2]), torch.tensor([0.1])]
    pair = [trajectory([1.0], [2]), trajectory([0.0], [1])]
    assert advantages("dr_grpo", pair, penalties=costs) == [[0.4, 0.4], [-0.4]]  # 0.7 and -0.1, mean 0.3


def test_gigpo_compares_steps_taken_in_the_same_state_of_a_group():
    # states  a: "" shop   b: "" shop   c: "" page        returns  a: 1 1   b: 0 0   c: 0 0     (gamma 1)
    # episode 1 0 0, mean 1/3             ->  2/3 -1/3 -1/3
    # state "": 1 0 0                     ->  2/3 -1/3 -1/3
    # state "shop": 1 0                   ->  1/2 -1/2
    # state "page": seen once             ->  0
    played = [
        trajectory([0.0, 1.0], [2, 1], 0, ["shop"]),
        trajectory([0.0, 0.0], [1, 1], 0, ["shop"]),
        trajectory([0.0, 0.0], [1, 1], 0, ["page"]),
    ]
    assert advantages("gigpo", played, "none") == [
        [4 / 3, 4 / 3, 2 / 3 + 1 / 2],
        [-2 / 3, -1 / 3 - 1 / 2],
        [-2 / 3, -1 / 3],
    ]


def test_gigpo_never_compares_states_of_different_groups():
    played = [trajectory([1.0, 0.0], [1, 1], 0, ["shop"]), trajectory([0.0, 1.0], [1, 1], 1, ["shop"])]
    # alone in their groups: the raw reward, and no step to compare with
    assert advantages("gigpo", played) == [[1.0, 1.0], [1.0, 1.0]]


def test_gigpo_compares_the_writing_of_a_memory_with_its_like_only():
    turns = [
        Turn([1], [0.0], [2], information="shop"),
        Turn([1], [0.0], kind="memory"),
        Turn([1], [0.0], information="page"),
        Turn([1], [0.0], kind="memory"),
        Turn([1], [0.0]),
    ]
    played = GroupedRollouts.of([Trajectory(task(), [9], turns, StopReason.DONE)])
    assert played.anchors == [["", "memory of shop", "shop", "memory of page", "page"]]


def test_gigpo_discounts_the_returns_of_steps_and_weighs_them():
    played = [trajectory([0.0, 1.0], [1, 1], 0, ["shop"]), trajectory([0.0, 0.0], [1, 1], 0, ["page"])]
    # episode 1/2 -1/2; state "": 0.5 and 0 -> 0.25 -0.25, weighed by 2; the second states are different ones
    found = advantages("gigpo", played, "none", gamma=0.5, step_weight=2.0)
    assert found == [[1.0, 0.5], [-1.0, -0.5]]


def test_dapo_and_gspo_give_grpos_advantages_and_differ_in_the_loss():
    for name in ("dapo", "gspo"):
        assert advantages(name, GROUP) == [[1.154699] * 3, [-0.577349], [-0.577349] * 2]
    assert (ALGORITHMS["dapo"].clip_high, ALGORITHMS["dapo"].drops_no_signal) == (0.28, True)
    assert (ALGORITHMS["gspo"].sequence_ratio, ALGORITHMS["gspo"].loss_unit) == (True, "trajectory")


def test_a_turn_without_tokens_leaves_its_reward_on_the_token_before_it():
    played = GroupedRollouts.of([trajectory([1.0, 2.0, 4.0], [2, 0, 1]), trajectory([1.0, 2.0], [0, 2])])
    assert played.token_rewards(0).tolist() == [0.0, 3.0, 4.0]
    assert played.token_rewards(1).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", [name for name, algorithm in ALGORITHMS.items() if algorithm.relative])
def test_equal_rewards_teach_nothing(name):
    played = [trajectory([0.1], [1]) for _ in range(7)]
    assert [a.tolist() for a in credit(name, played).advantages] == [[0.0]] * 7


# three turns across two rewrites, token rewards 0 1 | 0 | 2, values 1 2 | 4 | 2, gamma = lambda = 1/2
# deltas      0 + 2/2 - 1 = 0    1 + 4/2 - 2 = 1    0 + 2/2 - 4 = -3    2 - 2 = 0
# advantages  0 + 1/16           1 - 3/4 = 1/4      -3 + 0              0
THREE_TURNS, VALUES = trajectory([1.0, 0.0, 2.0], [2, 1, 1]), torch.tensor([1.0, 2.0, 4.0, 2.0])
HALVES = {"gamma": 0.5, "lam": 0.5}


def test_ppo_gives_credit_across_the_rewrites_of_three_turns():
    found = credit("ppo", [THREE_TURNS], values=[VALUES], **HALVES)
    assert found.advantages[0].tolist() == [0.0625, 0.25, -3.0, 0.0]
    assert found.returns[0].tolist() == [1.0625, 2.25, 1.0, 2.0]


def test_ppo_with_the_turn_as_its_step_reads_the_value_before_the_turn_and_shares_its_numbers():
    # turn rewards 1 0 2, values 1 4 2    deltas  1 + 4/2 - 1 = 2    2/2 - 4 = -3    0    advantages  2 - 3/4  -3  0
    found = credit("ppo", [THREE_TURNS], values=[torch.tensor([1.0, 9.0, 4.0, 2.0])], unit="turn", **HALVES)
    assert found.advantages[0].tolist() == [1.25, 1.25, -3.0, 0.0]
    assert found.returns[0].tolist() == [2.25, 2.25, 1.0, 2.0]


def test_ppo_sees_no_difference_between_one_context_and_several_when_the_reward_comes_last():
    whole, split = trajectory([2.0], [4]), trajectory([0.0, 0.0, 2.0], [2, 1, 1])
    one, several = (credit("ppo", [played], values=[VALUES], **HALVES) for played in (whole, split))
    # textbook, backwards: 0, 2/2 - 4 = -3, 4/2 - 2 - 3/4 = -3/4, 2/2 - 1 - 3/16
    assert one.advantages[0].tolist() == several.advantages[0].tolist() == [-0.1875, -0.75, -3.0, 0.0]


def test_ppo_without_discount_and_decay_is_the_return_minus_the_value_with_the_kl_paid_on_the_way():
    costs = [torch.tensor([0.1, 0.2, 0.4])]
    played = [trajectory([1.0, 2.0], [2, 1])]
    values = [torch.tensor([0.5, 0.0, 1.0])]
    assert advantages("ppo", played, penalties=costs, values=values) == [[2.3 - 0.5, 2.4, 1.6 - 1.0]]


def test_ppo_without_a_critic_is_refused():
    with pytest.raises(ValueError, match="ppo needs a critic: expected values of the action tokens, got none"):
        credit("ppo", [THREE_TURNS])


def test_a_clip_range_that_the_user_sets_wins_over_the_algorithms_own():
    dapo = ALGORITHMS["dapo"]
    assert dapo.clip_range(None, None) == (0.2, 0.28)
    assert dapo.clip_range(0.1, None) == (0.1, 0.1)
    assert dapo.clip_range(None, 0.3) == (0.2, 0.3)
    assert ALGORITHMS["ppo"].clip_range(None, None) == (0.2, 0.2)
