"""Composition of a stream: order, shares of processes, and resuming in the middle."""

from itertools import islice

import pytest
from datasets import Dataset

from lightning_mem1.environments.qa.streaming import composed_stream

ROWS = [{"id": str(n), "question": f"what is {n}?", "golden_answers": [str(n)]} for n in range(40)]


def stream(k, **settings):
    return composed_stream(Dataset.from_list(ROWS).to_iterable_dataset(num_shards=4), k, "nq", **settings)


def ids(rows):
    return [row["ids"] for row in rows]


def test_consecutive_questions_meet_in_their_order_when_nothing_is_shuffled():
    tasks = list(stream(2, seed=None))
    assert tasks[0] == {
        "ids": ["nq:0", "nq:1"],
        "questions": ["what is 0?", "what is 1?"],
        "answers": [["0"], ["1"]],
    }
    assert len(tasks) == 20


def test_a_seed_is_an_order():
    assert ids(stream(3, seed=1)) == ids(stream(3, seed=1)) != ids(stream(3, seed=2))
    dealt = sum(ids(stream(3, seed=1)), [])
    assert len(dealt) == len(set(dealt)) == 39


def test_processes_share_the_questions_out():
    shares = [set(sum(ids(stream(2, seed=1, rank=rank, world=2)), [])) for rank in (0, 1)]
    assert not shares[0] & shares[1] and len(shares[0] | shares[1]) == 40


def test_a_stream_is_resumed_where_it_was_left():
    whole, first = ids(stream(2, seed=1)), stream(2, seed=1)
    head = ids(islice(iter(first), 7))
    resumed = stream(2, seed=1)
    resumed.load_state_dict(first.state_dict())
    assert head + ids(resumed) == whole


def test_rows_that_cannot_be_asked_are_left_out_and_no_question_meets_itself():
    rows = [ROWS[0], {**ROWS[1], "golden_answers": []}, {**ROWS[0], "id": "twin"}, ROWS[2], ROWS[3]]
    found = composed_stream(Dataset.from_list(rows).to_iterable_dataset(), 2, "nq", seed=None)
    assert all(len(set(row["questions"])) == 2 for row in found)
    assert "nq:1" not in sum(ids(found), [])


def test_no_objectives_are_refused():
    with pytest.raises(ValueError, match="at least 1 per task, got 0"):
        stream(0)
