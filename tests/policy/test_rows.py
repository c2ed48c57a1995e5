import random

import torch

from lightning_mem1.context.contexts import contexts
from lightning_mem1.policy.rotary import LengthRule
from lightning_mem1.policy.rows import rows_of
from lightning_mem1.training.layouts.collate import collate
from tiny import random_ids, random_trajectory

RNG = random.Random(0)
PROMPTS = [random_ids(RNG, 5), random_ids(RNG, 3)]
PLAYED = [random_trajectory(RNG, [(3, 2), (1, 4), (4, 0)], PROMPTS[n % 2], n) for n in range(3)]


def read(rows):
    """The tokens up to each place that predicts, and the length that its frequencies are of."""
    found = []
    for index in rows.predict_index.tolist():
        row, place = divmod(index, rows.input_ids.shape[1])
        lengths = None if rows.lengths is None else rows.lengths[row, : place + 1].tolist()
        found.append((rows.input_ids[row, : place + 1].tolist(), lengths))
    return found


def seen(mode):
    """What each action token was sampled after."""
    for trajectory in PLAYED:
        for context, turn in zip(contexts(trajectory, mode), trajectory.turns, strict=True):
            for n in range(len(turn.action_ids)):
                yield len(context), [*context, *turn.action_ids[:n]]


def test_every_token_is_predicted_after_what_it_was_sampled_after_whatever_the_layout():
    for mode in ("mem1", "full"):
        for layout in ("tree", "rows"):
            found = read(rows_of(collate(PLAYED, layout, mode), None))
            assert found == [(ids, None) for _, ids in seen(mode)]


def test_segments_become_rows_and_no_row_holds_more_than_is_read():
    rows = rows_of(collate(PLAYED, "tree", "full"), None)
    assert rows.counts == (5 + 3 + 2 + 1 + 4 + 3, 3 + 3 + 2 + 1 + 4 + 3, 5 + 3 + 2 + 1 + 4 + 3)
    assert rows.mask.sum().item() == sum(rows.counts)
    assert [ids.shape[1] for ids, _ in rows] == list(rows.counts)


def test_where_frequencies_depend_on_the_length_each_turn_is_a_row_with_its_lengths():
    rule = LengthRule(8, two_sets=False)
    for layout in ("tree", "rows"):
        rows = rows_of(collate(PLAYED, layout, "full"), rule)
        assert len(rows.counts) == 9
        expected = [(ids, [max(start, n + 1) for n in range(len(ids))]) for start, ids in seen("full")]
        assert read(rows) == expected


def test_a_turn_that_grows_beyond_the_original_length_is_a_row_before_and_one_after():
    rule = LengthRule(9, two_sets=True)
    for layout in ("tree", "rows"):
        rows = rows_of(collate(PLAYED[:1], layout, "mem1"), rule)
        # contexts of 5, 10 and 10 tokens with 3, 1 and 4 new ones
        assert sorted(rows.counts) == [7, 10, 13]
        for ids, lengths in read(rows):
            assert len(set(map(rule.regime, lengths))) == 1 and rule.regime(lengths[0]) == rule.regime(len(ids))
    crossing = rows_of(collate(PLAYED[:1], "tree", "mem1"), LengthRule(11, two_sets=True))
    assert sorted(crossing.counts) == [7, 10, 11, 13]  # the last turn is scored from 10 and 11, then 12 and 13


def test_rows_go_through_a_device_and_back_as_tensors():
    rows = rows_of(collate(PLAYED, "tree"), None)
    assert rows.input_ids.dtype == rows.predict_index.dtype == torch.long
    assert rows.predict_index.shape == (sum(len(turn.action_ids) for t in PLAYED for turn in t.turns),)
