"""Which tasks an evaluation plays."""

import pytest

from lightning_mem1.environments.qa.tasks import EncyclopediaTasks
from lightning_mem1.evaluation.task_sets import task_sets
from tiny_tasks import RankedTasks


def encyclopedia(objectives):
    return EncyclopediaTasks(0, 60, (1,), objectives=objectives)


def test_numbers_deal_the_same_questions_out_anew_and_leave_the_source_as_it_was():
    source = encyclopedia(2)
    one, three = task_sets(source, [1, 3], "test", 4)
    assert [len(task.objectives) for task in three.tasks().values()] == [3] * 4
    assert [task.max_turns for task in three.tasks().values()] == [10] * 4
    assert len(one.indices) == 4 and three.source.retriever is source.retriever
    assert source.objectives == 2 and len(source.task("test", 0).objectives) == 2
    assert [(b.name, b.objectives) for b in three.baselines()] == [("researcher", 3)]


def test_without_numbers_the_sources_own_tasks_are_parted_by_their_objectives():
    found = task_sets(encyclopedia([1, 2]), None, "test", 4)
    assert [h.objectives for h in found] == [1, 2]
    for horizon in found:
        assert {len(task.objectives) for task in horizon.tasks().values()} == {horizon.objectives}
    assert sum(len(h.indices) for h in found) == 4


def test_fewer_tasks_than_asked_for_are_all_played():
    (horizon,) = task_sets(RankedTasks(), None, "test", 50)
    assert horizon.indices == [0, 1]
    assert {b.name: b.reward for b in horizon.baselines()} == {"rule": 0.25, "oracle": 1.0}
    assert horizon.published() == []


def test_a_source_without_other_numbers_and_a_number_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="got RankedTasks, which has tasks of its own; leave --objectives out"):
        task_sets(RankedTasks(), [2], "test", 4)
    with pytest.raises(ValueError, match="objectives must be at least 1 per task"):
        encyclopedia(2).with_objectives(0)
