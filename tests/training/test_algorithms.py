import pytest
import torch

from lightning_mem1.training.credit.algorithms import ALGORITHMS, CreditSettings, GroupedRollouts
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task


def trajectory(rewards, lengths, group=0, replies=(), contexts=None, stop=StopReason.DONE):
    """Turns with rewards, numbers of tokens, replies, and numbers that stand for the contexts they were sampled in."""
    replies = [*replies, *[""] * len(lengths)]
    turns = [
        Turn([7] * length, [-0.5] * length, information=reply, reward=reward, context_hash=context)
        for reward, length, reply, context in zip(
            rewards, lengths, replies, contexts or [None] * len(lengths), strict=False
        )
    ]
    return Trajectory(task(), [1, 2], turns, stop, group)


def credit(name, trajectories, scale="std", penalties=None, values=None, anchor="context", **settings):
    played = GroupedRollouts.of(trajectories, None, penalties, values, anchor)
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


STEPS = [  # rewards, lengths, group, reply to the first turn, contexts of both turns
    trajectory([0.0, 1.0], [2, 1], 0, ["shop"], [1, 2]),
    trajectory([0.0, 0.0], [1, 1], 0, ["shop"], [1, 3]),
    trajectory([0.0, 0.0], [1, 1], 0, ["page"], [1, 4]),
    trajectory([0.0, 0.0], [1, 1], 0, ["shop"], [1, 2]),
]


def test_gigpo_compares_steps_taken_in_the_same_context_of_a_group():
    # returns     a: 1 1   b: 0 0   c: 0 0   d: 0 0     (gamma 1)
    # episode     1 0 0 0, mean 1/4              ->  3/4 -1/4 -1/4 -1/4
    # context 1   1 0 0 0                        ->  3/4 -1/4 -1/4 -1/4
    # context 2   a: 1   d: 0                    ->  1/2 -1/2
    # contexts 3 and 4: seen once                ->  0, though b has read "shop" as a and d have
    assert advantages("gigpo", STEPS, "none") == [
        [3 / 2, 3 / 2, 3 / 4 + 1 / 2],
        [-1 / 2, -1 / 4],
        [-1 / 2, -1 / 4],
        [-1 / 2, -1 / 4 - 1 / 2],
    ]


def test_gigpo_compares_steps_in_the_same_state_where_the_paper_is_asked_for():
    # state "": as context 1 above    state "shop": a 1, b 0, d 0  ->  2/3 -1/3 -1/3    state "page": seen once -> 0
    assert advantages("gigpo", STEPS, "none", anchor="state") == [
        [3 / 2, 3 / 2, 3 / 4 + 2 / 3],
        [-1 / 2, -1 / 4 - 1 / 3],
        [-1 / 2, -1 / 4],
        [-1 / 2, -1 / 4 - 1 / 3],
    ]


def test_without_a_kept_context_all_that_came_before_a_turn_has_to_be_equal():
    same, other = [Turn([7], [0.0], [8]), Turn([9], [0.0])], [Turn([6], [0.0], [8]), Turn([9], [0.0])]
    played = [Trajectory(task(), [1, 2], turns, StopReason.DONE) for turns in (same, list(same), other)]
    a, b, c = GroupedRollouts.of(played).anchors
    assert a == b and a[0] == c[0] and a[1] != c[1]


def test_gigpo_never_compares_states_of_different_groups():
    played = [
        trajectory([1.0, 0.0], [1, 1], 0, ["shop"], [1, 2]),
        trajectory([0.0, 1.0], [1, 1], 1, ["shop"], [1, 2]),
    ]
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
    played = GroupedRollouts.of([Trajectory(task(), [9], turns, StopReason.DONE)], anchor="state")
    assert played.anchors == [["", "memory of shop", "shop", "memory of page", "page"]]


def test_gigpo_discounts_the_returns_of_steps_and_weighs_them():
    played = [
        trajectory([0.0, 1.0], [1, 1], 0, ["shop"], [1, 2]),
        trajectory([0.0, 0.0], [1, 1], 0, ["page"], [1, 3]),
    ]
    # episode 1/2 -1/2; context 1: 0.5 and 0 -> 0.25 -0.25, weighed by 2; the second contexts are different ones
    found = advantages("gigpo", played, "none", gamma=0.5, step_weight=2.0)
    assert found == [[1.0, 0.5], [-1.0, -0.5]]


def test_dapo_and_gspo_give_grpos_advantages_and_differ_in_the_loss():
    for name in ("dapo", "gspo"):
        assert advantages(name, GROUP) == [[1.154699] * 3, [-0.577349], [-0.577349] * 2]
    assert (ALGORITHMS["dapo"].clip_high, ALGORITHMS["dapo"].drops_no_signal) == (0.28, True)
    assert (ALGORITHMS["dapo"].loss_unit, ALGORITHMS["dr_grpo"].loss_unit) == ("token", "token")
    assert (ALGORITHMS["gspo"].sequence_ratio, ALGORITHMS["gspo"].loss_unit) == (True, "trajectory")


def test_a_turn_without_tokens_leaves_its_reward_on_the_token_before_it():
    played = GroupedRollouts.of([trajectory([1.0, 2.0, 4.0], [2, 0, 1]), trajectory([1.0, 2.0], [0, 2])])
    assert played.token_rewards(0).tolist() == [0.0, 3.0, 4.0]
    assert played.token_rewards(1).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", [name for name, algorithm in ALGORITHMS.items() if algorithm.relative])
def test_equal_rewards_teach_nothing(name):
    played = [trajectory([0.1], [1]) for _ in range(7)]
    assert [a.tolist() for a in credit(name, played).advantages] == [[0.0]] * 7


@pytest.mark.parametrize("scale", ["std", "none"])
@pytest.mark.parametrize("name", [*[name for name, each in ALGORITHMS.items() if each.relative], "raft"])
def test_equal_rewards_teach_nothing_whatever_rounding_a_kl_in_the_reward_brings(name, scale):
    played = [trajectory([0.0, 1.0], [1, 1], 0, ["shop"], [1, 2]) for _ in range(4)]
    costs = [torch.tensor([each, -each]) + 1e-6 for each in (0.0, 3e-6, -7e-6, 1e-5)]
    found = credit(name, played, scale, penalties=costs).advantages
    assert [each.tolist() for each in found] == [[0.0, 0.0]] * 4


def test_a_kl_in_the_reward_counts_in_groups_whose_rewards_differ_and_in_a_group_of_one():
    played = [
        trajectory([1.0], [1], 0),
        trajectory([0.0], [1], 0),
        trajectory([1.0], [1], 1),
        trajectory([1.0], [1], 1),
    ]
    costs = [torch.tensor([each]) for each in (0.1, 0.2, 0.3, 0.4)]
    # group 0: 0.9 and -0.2, mean 0.35        group 1: equal rewards
    assert advantages("dr_grpo", played, penalties=costs) == [[0.55], [-0.55], [0.0], [0.0]]
    assert advantages("dr_grpo", played[:1], penalties=costs[:1]) == [[0.9]]


def test_the_steps_of_gigpo_pay_for_their_kl_only_where_their_returns_differ():
    played = [trajectory([0.0, 1.0], [1, 1], 0, [], [1, 2]), trajectory([1.0, 0.0], [1, 1], 0, [], [1, 2])]
    costs = [torch.tensor([0.25, 0.5]), torch.tensor([0.125, 0.25])]
    # episodes: 1 and 1, equal -> 0     context 1: returns 1 and 1, equal -> 0     context 2: 1 - 0.5 and 0 - 0.25
    assert advantages("gigpo", played, "none", penalties=costs) == [[0.0, 0.375], [0.0, -0.375]]


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


@pytest.mark.parametrize("stop", [StopReason.MAX_TURNS, StopReason.CONTEXT])
def test_ppo_lets_an_episode_that_was_cut_off_go_on_with_its_last_value_where_it_is_asked_to(stop):
    cut = trajectory([1.0, 0.0, 2.0], [2, 1, 1], stop=stop)
    # the last delta is 2 + 2/2 - 2 = 1 in place of 0; before it -3 + 1/4, then 1 - 11/16, then 0 + 5/64
    found = credit("ppo", [cut], values=[VALUES], bootstrap=True, **HALVES)
    assert found.advantages[0].tolist() == [0.078125, 0.3125, -2.75, 1.0]
    assert found.returns[0].tolist() == [1.078125, 2.3125, 1.25, 3.0]
    # with the turn as its step the value before the last turn goes on: deltas 2, -3, 2 + 2/2 - 2 = 1
    found = credit("ppo", [cut], values=[VALUES], unit="turn", bootstrap=True, **HALVES)
    assert found.advantages[0].tolist() == [1.3125, 1.3125, -2.75, 1.0]


def test_where_rows_are_episodes_of_their_own_the_last_value_is_paid_at_the_end_of_each():
    cut = trajectory([0.0, 2.0], [1, 1], stop=StopReason.MAX_TURNS)
    # between rows nothing is discounted: the second is paid 2 + 4 where 4 was expected, the first 2 + 4 where 1 was
    found = credit("ppo", [cut], values=[torch.tensor([1.0, 4.0])], bootstrap=True, rewrites="rows", **HALVES)
    assert found.advantages[0].tolist() == [5.0, 2.0]


def test_ppo_takes_an_episode_for_ended_that_is_done_or_where_nothing_is_asked():
    for stop, bootstrap in ((StopReason.DONE, True), (StopReason.MAX_TURNS, False)):
        played = [trajectory([1.0, 0.0, 2.0], [2, 1, 1], stop=stop)]
        found = credit("ppo", played, values=[VALUES], bootstrap=bootstrap, **HALVES)
        assert found.advantages[0].tolist() == [0.0625, 0.25, -3.0, 0.0]


def test_ppo_without_a_critic_is_refused():
    with pytest.raises(ValueError, match="ppo needs a critic: expected values of the action tokens, got none"):
        credit("ppo", [THREE_TURNS])


def test_a_clip_range_that_the_user_sets_wins_over_the_algorithms_own():
    dapo = ALGORITHMS["dapo"]
    assert dapo.clip_range(None, None) == (0.2, 0.28)
    assert dapo.clip_range(None, 0.3) == (0.2, 0.3) and dapo.clip_range(0.1, 0.15) == (0.1, 0.15)
    assert ALGORITHMS["ppo"].clip_range(None, None) == (0.2, 0.2) and ALGORITHMS["ppo"].clip_range(0.1, None) == (
        0.1,
        0.1,
    )


def test_a_clip_range_below_1_leaves_a_wider_one_above_1_as_it_is():
    dapo, gspo = ALGORITHMS["dapo"], ALGORITHMS["gspo"]
    assert dapo.clip_range(0.2, None) == (0.2, 0.28)  # the default, written out
    assert dapo.clip_range(0.1, None) == (0.1, 0.28) and dapo.clip_range(0.3, None) == (0.3, 0.3)
    assert gspo.clip_range(3e-4, None) == (3e-4, 4e-4) and gspo.clip_range(0.2, None) == (0.2, 0.2)


def test_groups_without_a_signal_are_dropped_as_the_algorithm_or_the_user_says():
    grpo, dapo, ppo = (ALGORITHMS[name] for name in ("grpo", "dapo", "ppo"))
    assert [grpo.drops(None), grpo.drops(True), grpo.drops(False)] == [False, True, False]
    assert [dapo.drops(None), dapo.drops(True), dapo.drops(False)] == [True, True, False]
    assert [ppo.drops(None), ppo.drops(True)] == [False, False]  # compares no groups
