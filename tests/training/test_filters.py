import pytest

from lightning_mem1.training.credit.filters import bad_input, groups_without_signal, sound
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task


def trajectory(reward, group=0, length=1, stop=StopReason.DONE):
    return Trajectory(task(), [1], [Turn([7] * length, [-0.5] * length, reward=reward)], stop, group)


@pytest.mark.parametrize(
    "bad",
    [
        trajectory(1.0, stop=StopReason.ERROR),
        trajectory(float("nan")),
        trajectory(float("-inf")),
        trajectory(1.0, length=0),
        Trajectory(task(), [1], [], StopReason.CONTEXT),
    ],
)
def test_what_cannot_be_learnt_from_is_left_out(bad):
    assert sound([trajectory(1.0), bad, trajectory(0.0)]) == [0, 2]


def test_the_last_one_left_of_a_group_is_left_out_where_groups_are_compared():
    played = [trajectory(1.0, 0), trajectory(float("nan"), 0), trajectory(2.0, 1)]
    assert sound(played) == [2]  # group 1 was a group of one from the start
    assert sound(played, relative=False) == [0, 2]


def test_bad_input_is_counted_by_kind():
    played = [trajectory(1.0, 0, 4), trajectory(float("inf"), 0), trajectory(1.0, 1, 0)]
    assert bad_input(played, max_new_tokens=4) == {
        "bad_rewards": 1.0,
        "empty_trajectories": 1.0,
        "lone_groups": 1.0,
        "overlong_turns": 1.0,
    }


def test_groups_of_equal_rewards_are_silent_and_groups_of_one_are_not_played_again():
    played = [trajectory(1.0, 0), trajectory(1.0, 0), trajectory(0.0, 1), trajectory(1.0, 1), trajectory(1.0, 2)]
    assert groups_without_signal(played) == [0]
