import pytest

from lightning_mem1.training.credit.shaping import ShapingSettings, overlong, shaped_rewards
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

TURNS = [Turn([7] * length, [-0.5] * length, reward=reward) for length, reward in [(6, 0.0), (9, 0.0), (10, 1.0)]]
PLAYED = [Trajectory(task(), [1], TURNS, StopReason.DONE)]


def test_length_costs_nothing_until_it_is_asked_for():
    assert not ShapingSettings().on
    assert shaped_rewards(PLAYED, [[5, 5, 5]], ShapingSettings(), 10) == [[0.0, 0.0, 1.0]]


def test_the_overlong_punishment_rises_over_the_last_tokens_before_the_limit():
    assert [overlong(length, limit=10, buffer=4) for length in (0, 6, 7, 9, 10)] == [0.0, 0.0, 0.25, 0.75, 1.0]
    settings = ShapingSettings(overlong_buffer_tokens=4, overlong_penalty=0.4)
    assert shaped_rewards(PLAYED, [[0, 0, 0]], settings, 10)[0] == pytest.approx([0.0, -0.3, 0.6])


def test_an_internal_state_pays_for_each_token_beyond_its_budget():
    settings = ShapingSettings(state_budget_tokens=4, state_penalty=0.1)
    assert shaped_rewards(PLAYED, [[3, 4, 6]], settings, 10)[0] == pytest.approx([0.0, 0.0, 0.8])
