import torch

from lightning_mem1.training.layouts.microbatches import Microbatches
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

P = [1, 2]


def trajectory(*actions):
    return Trajectory(task(), P, [Turn(list(ids), [-0.5] * len(ids)) for ids in actions], StopReason.DONE)


PLAYED = [trajectory([10, 11]), trajectory([]), trajectory([12], [13])]


def test_each_pass_says_whose_trajectories_it_holds():
    found = [(here, batch.action_ids.tolist()) for here, batch in Microbatches(4).batches(PLAYED, [2, 0])]
    assert found == [([2], [12, 13]), ([0], [10, 11])]


def test_scores_go_back_to_the_trajectory_they_are_of_and_one_without_tokens_has_none():
    scorers = {"ids": lambda batch: batch.action_ids, "half": lambda batch: batch.action_ids / 2}
    for max_tokens in (4, 100):
        found = Microbatches(max_tokens).scores(PLAYED, scorers)
        assert [column.tolist() for column in found["ids"]] == [[10, 11], [], [12, 13]]
        assert [column.tolist() for column in found["half"]] == [[5, 5.5], [], [6, 6.5]]


def test_scores_hold_no_graph():
    weight = torch.ones((), requires_grad=True)
    assert not any(c.requires_grad for c in Microbatches(9).scores(PLAYED, {"x": lambda b: b.action_ids * weight})["x"])


def test_without_a_scorer_there_is_no_pass():
    broken = [Trajectory(task(), P, [Turn([3], [])], StopReason.DONE)]  # no batch could be made of it
    assert Microbatches(9).scores(broken, {}) == {}
