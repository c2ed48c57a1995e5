"""Questions that cannot be asked or scored are left out and counted; some are repaired without changing a score."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mem1.environments.qa.question import Question, fit_to_ask, writable
from lightning_mem1.environments.qa.scoring import normalise


def look_at(*questions):
    told = Counter()
    return fit_to_ask(questions, told), {reason: n for reason, n in told.items() if n}


@pytest.mark.parametrize(
    ("text", "answers", "reason"),
    [
        ("", ("a",), "no question"),
        ("Who?", (), "no answer"),
        ("Who?", ("", " ;"), "no answer"),
        ("w" * 10_000, ("a",), "question too long"),
        ("Who \udcff?", ("a",), "unreadable characters"),
        ("Who?", ("a\x00b",), "unreadable characters"),
    ],
)
def test_a_question_that_cannot_be_asked_is_counted_and_left_out(text, answers, reason):
    assert look_at(Question("q", text, answers)) == ([], {reason: 1})


def test_the_same_question_twice_is_asked_once():
    kept, told = look_at(Question("a", "Who is  it?", ("x",)), Question("b", "who is it?", ("y",)))
    assert ([q.id for q in kept], told) == (["a"], {"same question twice": 1})


def test_an_answer_with_the_separator_or_a_tag_is_mended():
    (kept,), told = look_at(Question("q", "Who?", ("Tom; Jerry", "A</answer>B", "plain")))
    assert kept.answers == ("Tom Jerry", "AanswerB", "plain")
    assert told == {"answers repaired": 1}


@given(st.lists(st.sampled_from(["Tom", ";", " ", "</answer>", "< think >", "x<y", "<", "7"]), max_size=8).map("".join))
def test_mending_changes_no_score_and_leaves_neither_separator_nor_tag(answer):
    repaired = writable(answer)
    assert ";" not in repaired and "<answer>" not in repaired and "</answer>" not in repaired
    assert "".join(normalise(f"Tom {repaired}")) == "".join(normalise(f"Tom {answer}"))
