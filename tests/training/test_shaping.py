import pytest

from lightning_mem1.context.contexts import Contexts
from lightning_mem1.training.credit.shaping import ShapingSettings, overlong, shaped_rewards
from lightning_mem1.types import Directive, StopReason, Trajectory, Turn
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


def test_a_long_main_thread_costs_on_its_turns_but_for_those_that_branch_or_are_in_a_branch():
    names = {1: "branch", 3: "return", 4: "branch"}
    turns = [
        Turn([7] * 2, [0.0] * 2, [8], directive=Directive(names[number]) if number in names else None)
        for number in range(5)
    ]
    played = Trajectory(task(), [1], turns, StopReason.DONE)  # contexts of 1, 4, 7, 10 and, back again, of 10
    settings = ShapingSettings(main_budget_tokens=0, main_penalty=0.5)
    assert shaped_rewards([played], [[0] * 5], settings, 10, Contexts("fold")) == [[-0.5, 0.0, 0.0, 0.0, 0.0]]
    crowded = ShapingSettings(main_budget_tokens=6, main_penalty=0.5)
    assert shaped_rewards([played], [[0] * 5], crowded, 10, Contexts("fold")) == [[0.0] * 5]
    assert shaped_rewards([played], [[0] * 5], crowded, 10, Contexts("full")) == [[0.0, 0.0, -0.5, -0.5, -0.5]]


def test_an_act_that_failed_costs_and_a_memory_without_its_closing_tag_does_not():
    turns = [Turn([7], [0.0], valid=False), Turn([7], [0.0], kind="memory", valid=False), Turn([7], [0.0], reward=1.0)]
    settings = ShapingSettings(failed_penalty=0.25)
    played = Trajectory(task(), [1], turns, StopReason.DONE)
    assert settings.on and shaped_rewards([played], [[0] * 3], settings, 10) == [[-0.25, 0.0, 1.0]]
