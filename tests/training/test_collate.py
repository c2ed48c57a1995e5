import random

import pytest

from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.layouts.microbatches import split_by_tokens
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import random_trajectory, task

P = [1, 2]


def trajectory():
    turns = [Turn([10, 11], [-0.1, -0.2], [20]), Turn([12], [-0.3], [21, 22]), Turn([13], [-0.4])]
    return Trajectory(task(), P, turns, StopReason.DONE)


def test_tree_positions_go_on_from_the_prompt_in_every_segment():
    batch = collate([trajectory()])
    assert batch.input_ids.tolist() == [[1, 2, 10, 11, 20, 12, 12, 21, 22, 13]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 2, 3, 4, 5]]
    assert batch.attention_mask is None


def test_tree_predicts_the_first_action_from_the_prompt_and_later_ones_from_their_context():
    batch = collate([trajectory()])
    assert batch.predict_index.tolist() == [1, 2, 4, 8]
    assert batch.action_ids.tolist() == [10, 11, 12, 13]
    assert batch.turn_index.tolist() == [0, 0, 1, 2]


def test_rows_are_padded_on_the_right_and_predict_from_the_token_before():
    batch = collate([trajectory()], "rows")
    assert batch.input_ids.tolist() == [[1, 2, 10, 11, 0, 0], [1, 2, 10, 11, 20, 12], [1, 2, 12, 21, 22, 13]]
    assert batch.attention_mask.int().sum(1).tolist() == [4, 6, 6]
    assert batch.predict_index.tolist() == [1, 2, 6 + 4, 12 + 4]
    assert batch.action_ids.tolist() == [10, 11, 12, 13]


def test_each_action_token_knows_its_trajectory_and_its_log_prob():
    batch = collate([trajectory(), trajectory()])
    assert batch.trajectory_index.tolist() == [0] * 4 + [1] * 4
    assert batch.rollout_logprobs.tolist() == pytest.approx([-0.1, -0.2, -0.3, -0.4] * 2)


def test_log_probs_that_do_not_align_are_refused_by_name():
    bad = trajectory()
    bad.turns[1].action_logprobs = []
    with pytest.raises(ValueError, match="turn 1 of 'tiny/0': expected 1, got 0"):
        collate([bad])


def test_a_batch_without_any_action_is_refused():
    with pytest.raises(ValueError, match="at least one action token in 1 trajectories"):
        collate([Trajectory(task(), P, [], StopReason.ERROR)])


def test_minibatches_keep_order_and_stay_under_the_limit_unless_one_is_longer():
    rng = random.Random(0)
    sizes = [6, 6, 30, 6, 6]
    trajectories = [random_trajectory(rng, [(n, 0)], P, n) for n in sizes]  # n + 2 tokens each
    assert split_by_tokens(trajectories, 16) == [[0, 1], [2], [3, 4]]
