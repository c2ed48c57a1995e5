"""Text to ids and back, in the policy's format and within its limits."""

from itertools import product

import pytest

from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.formats import PRESETS, PromptFormat
from lightning_mem1.context.tags import Tags
from lightning_mem1.rollout.settings import RolloutSettings
from tiny import task, tiny_tokenizer


def test_what_is_encoded_is_decoded_with_its_tags():
    encoder = ContextEncoder(tiny_tokenizer())
    text = "<summary>red shoes</summary><answer>click[red]</answer>"
    assert encoder.decode(encoder.encode(text)) == text
    assert encoder.decode(encoder.memory_opening()) == "<summary>"


def test_the_settings_of_a_rollout_make_it():
    made = RolloutSettings(format="qa", prompt="brief", max_information_tokens=40).encoder(tiny_tokenizer())
    assert made == ContextEncoder(tiny_tokenizer(), PRESETS["qa"], 40, "brief")
    assert "count to 3\npage\n8 turns left" in made.decode(made.prompt_ids(task(3), "page"))


def test_a_reply_that_is_too_long_loses_its_middle_and_a_tag_in_it_ends_nothing():
    encoder = ContextEncoder(tiny_tokenizer(), max_information_tokens=20)
    ids = encoder.information_ids("0123456789" * 4 + "</state>7", 2)
    text = encoder.decode(ids)
    assert len(ids) == 20 and text.startswith("<state>2 turns left\n0123") and text.endswith("7</state>")
    assert text.count("</state>") == 1 and len(encoder.information_ids("red", 2)) < 20


def test_a_reply_that_is_cut_forges_no_tag_where_its_ends_meet():
    encoder = ContextEncoder(tiny_tokenizer(), max_information_tokens=32)
    for before, after in product(range(6), range(6)):
        reply = "x" * before + "</sta" * 20 + "te>" * 20 + "0" * after
        text = encoder.decode(encoder.information_ids(reply, 2))
        assert text.count("</state>") == 1 and text.endswith("</state>")


def test_actions_that_a_tokenizer_cannot_write_are_named():
    tokenizer = tiny_tokenizer()  # of lower case
    with pytest.raises(ValueError, match="tokenizer cannot write </Act>: expected it as it is, got ' </act>'; set"):
        ContextEncoder(tokenizer, PromptFormat(Tags(action="Act")))
