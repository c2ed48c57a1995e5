import math

import pytest

from lightning_mem1.context.modes.amem import embeddings, related


def test_a_word_weighs_by_how_few_texts_hold_it_and_how_often_it_stands_in_this_one():
    first, second, third = embeddings([[1, 2, 2], [1, 3], [1, 2]])
    assert first == {1: 0.0, 2: pytest.approx(2 * math.log(3 / 2))}
    assert second == {1: 0.0, 3: pytest.approx(math.log(3))}
    assert third == {1: 0.0, 2: pytest.approx(math.log(3 / 2))}


def test_the_nearest_notes_come_in_the_order_of_time():
    notes = [[1, 2], [3, 9], [4, 9]]
    assert related(notes, [5, 3, 9], 1) == [1]
    assert related(notes, [5, 3, 9], 2) == [1, 2]
    assert related(notes, [5, 3, 9], 3) == related(notes, [5, 3, 9], 7) == [0, 1, 2]


def test_of_equally_near_notes_the_newer_ones_are_taken_and_what_all_share_counts_nothing():
    assert related([[1], [2], [3]], [4], 2) == [1, 2]
    assert related([[7, 7, 7, 1], [7, 5, 2]], [7, 7, 5], 1) == [1]


def test_a_long_note_is_no_nearer_for_its_length():
    assert related([[5, *range(100, 150)], [5, 6]], [5, 8], 1) == [1]


def test_an_empty_turn_is_near_nothing():
    assert related([[], [1]], [], 1) == [1]
    assert related([], [1], 2) == []
