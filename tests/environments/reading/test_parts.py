"""A document is cut into parts: nothing is lost, nothing is longer than a part, sentences stay whole."""

from hypothesis import given
from hypothesis import strategies as st

from lightning_mem1.environments.reading.parts import num_tokens, parts, shown

PIECES = st.lists(st.text(alphabet="ab., \n", max_size=30).map(lambda text: " ".join(text.split())), max_size=20)


def test_words_and_punctuation_marks_count_one_each():
    assert num_tokens("The room of Odo Lin is 417.") == 8
    assert (num_tokens(""), num_tokens("don't"), num_tokens("a-b, c")) == (0, 3, 5)


def test_sentences_are_packed_as_they_fit():
    assert parts(["a b", "c d", "e"], 3) == ["a b", "c d e"]
    assert parts(["a b.", "c d."], 3) == ["a b.", "c d."]
    assert parts(["a b.", "c d."], 6) == ["a b. c d."]


def test_a_sentence_that_is_longer_than_a_part_is_cut_between_words():
    assert parts(["x", "one two three four five"], 2) == ["x", "one two", "three four", "five"]


def test_an_empty_document_is_one_empty_part():
    assert parts([], 10) == [""]


@given(PIECES, st.integers(1, 8))
def test_nothing_is_lost_and_no_part_is_longer_than_it_may_be(pieces, size):
    packed = parts(pieces, size)
    assert "".join("".join(packed).split()) == "".join("".join(pieces).split())
    assert all(num_tokens(part) <= size for part in packed)


def test_a_part_says_where_it_is_and_the_last_one_that_it_is_the_last():
    assert shown(["a", "b"], 0) == "Part 1 of 2\na"
    assert shown(["a", "b"], 1) == "Part 2 of 2\nb\nThe end."
