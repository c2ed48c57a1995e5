"""The simulation of waiting, by hand: who waits for whom, and how far ahead helps."""

import importlib
import sys

import pytest


@pytest.fixture
def simulation(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # scripts put their own folder there
    return importlib.import_module("benchmarks.rollout_queue")


def test_ranks_wait_for_the_longest_group_and_for_the_update(simulation):
    assert simulation.dealt([4, 2, 4, 2], 2, 0.0) == pytest.approx(1 - 12 / (2 * 8))
    assert simulation.dealt([4, 2, 4, 2], 2, 2.0) == pytest.approx(1 - 12 / (2 * 12))


def test_one_queue_with_as_many_workers_as_tasks_waits_as_long_unless_it_may_play_ahead(simulation):
    assert simulation.queued([4, 2, 4, 2], 2, 2, 0, 0.0) == simulation.dealt([4, 2, 4, 2], 2, 0.0)
    assert simulation.queued([4, 2, 4, 2], 2, 2, 1, 0.0) == 0


def test_whoever_is_free_takes_the_next_task(simulation):
    assert simulation.queued([4, 1, 1, 2], 2, 4, 0, 0.0) == 0  # 4 on one worker, 1 + 1 + 2 on the other


def test_no_rl_step_begins_before_the_weights_that_it_may_be_played_with(simulation):
    # one worker; an update takes 3: rl_steps of 1 end at 1, then each waits for the update of the one before
    assert simulation.queued([1, 1, 1], 1, 1, 0, 3.0) == pytest.approx(1 - 3 / 9)  # played at 0-1, 4-5, 8-9
    assert simulation.queued([1, 1, 1], 1, 1, 1, 3.0) == pytest.approx(1 - 3 / 5)  # 0-1, 1-2, 4-5
