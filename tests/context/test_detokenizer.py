"""Reading ids: characters that are cut, spaces as they are, text that continues another."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mem1.context.continuation import continuing
from lightning_mem1.context.detokenizer import PARTIAL, Detokenizer
from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.internal_state import state_end, state_span
from tiny_tokenizers import KINDS, of_kind

PIECES = [kind for kind in KINDS if of_kind(kind).convert_tokens_to_ids("<0x3C>")]


def spelled(tokenizer, text):
    """A text in byte tokens alone."""
    return tokenizer.convert_tokens_to_ids([f"<0x{value:02X}>" for value in text.encode()])


def test_a_character_that_is_cut_takes_nothing_with_it():
    tokenizer = of_kind("llama 2")
    decode, ids = Detokenizer(tokenizer), spelled(tokenizer, "é</think>多")
    assert [decode(ids[:n]) for n in (1, 2, 3)] == [PARTIAL, "é", "é<"]
    assert decode(ids[:-1]) == "é</think>" + PARTIAL
    assert tokenizer.decode(ids[:-1]) == PARTIAL * 12  # what it would be


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_more_ids_change_nothing_of_what_was_read_but_a_character_at_its_end(kind, data):
    tokenizer = of_kind(kind)
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) + 2), min_size=2, max_size=12))  # some without a token
    decode = Detokenizer(tokenizer)
    before, after = decode(ids[:-1]).rstrip(PARTIAL).rstrip(" "), decode(ids)
    assert after.startswith(before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_found_between_its_tags_whatever_the_pieces(kind):
    encoder = ContextEncoder(of_kind(kind))
    ids = encoder.encode("<think>red é多</think><search>river</search>")
    start, end = state_span(ids, encoder.decode, "think")
    inside = encoder.decode(ids[start:end])
    assert "red é多" in inside and "</" not in inside.removesuffix("<") and "search" not in inside
    rest = encoder.decode(ids[state_end(ids, encoder.decode, "think") :])
    assert "river</search>" in rest and "think" not in rest


def test_a_state_that_the_prompt_opened_begins_with_the_turn():
    encoder = ContextEncoder(of_kind("merges"))
    ids = encoder.encode("nothing known</think><search>river</search>")
    start, end = state_span(ids, encoder.decode, "think")
    assert (start, encoder.decode(ids[:end]).removesuffix("<")) == (0, "nothing known")
    assert state_end(ids, encoder.decode, "think") > end


@pytest.mark.parametrize("kind", ["llama 2", "metaspace", "unigram", "a space before texts"])
def test_a_text_behind_another_gets_no_space_before_it(kind):
    tokenizer = of_kind(kind)
    inside = continuing(tokenizer)
    assert inside is continuing(tokenizer) is not tokenizer
    marked, plain = (
        tokenizer.convert_ids_to_tokens(each.encode("<b", add_special_tokens=False)) for each in (tokenizer, inside)
    )
    assert "".join(marked).replace("\u0120", "\u2581").startswith("\u2581") and "".join(plain) == "<b"
    encoder = ContextEncoder(tokenizer)
    ids = [*encoder.encode("<answer>red</answer>"), *encoder.information_ids("shoes", 3)]
    assert encoder.decode(ids) == "<answer>red</answer><state>3 turns left\nshoes</state>"


@pytest.mark.parametrize("kind", ["bytes", "merges", "tags of one token", "gemma", "lower case"])
def test_a_tokenizer_that_puts_no_space_is_used_as_it_is(kind):
    tokenizer = of_kind(kind)
    assert (continuing(tokenizer) is tokenizer) == (kind != "gemma")


def test_spaces_before_punctuation_stay_where_a_tokenizer_would_clean_them_up():
    tokenizer = of_kind("unigram")
    assert tokenizer.clean_up_tokenization_spaces
    encoder = ContextEncoder(tokenizer)
    assert encoder.decode(encoder.encode("red , shoes . do n't")) == "red , shoes . do n't"
