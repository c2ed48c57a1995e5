"""A turn ends with the first token that completes a stop string, or is an end of turn."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generation import request
from lightning_mem1.context.continuation import continuing
from lightning_mem1.context.detokenizer import Detokenizer
from lightning_mem1.engine.generation import TransformersEngine
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.serving.text import TextCodec
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.engine.stopping import StopRule
from lightning_mem1.types import GenerationRequest
from lightning_mem1.warmstart.tokenizer import CHAT_TEMPLATE
from tiny import tiny_policy, turns
from tiny_tokenizers import KINDS, of_kind

STOPS = ("</answer>", "</search>", "多")


def asked(stop=STOPS, limit=1000, stop_ids=()):
    return GenerationRequest(0, [1], limit, stop, stop_ids=stop_ids)


def first_end(tokenizer, ids, stop, end_ids):
    """By the definition: the whole text so far is read after each token."""
    decode = Detokenizer(tokenizer)
    ends = (n for n in range(1, len(ids)) if ids[n - 1] in end_ids or any(s in decode(ids[:n]) for s in stop))
    return next(ends, len(ids))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_turn_ends_where_its_text_first_holds_a_stop_string(kind, data):
    tokenizer = of_kind(kind)
    reads, beyond = continuing(tokenizer), len(tokenizer)  # a model may have more ids than its tokenizer
    words = st.sampled_from(
        ["</", "answer", ">", ">\n", "</answer", "</answer>", "></search><", "多", "é", "red ", "<answer>"]
    )
    ids = []
    for each in data.draw(st.lists(words | st.integers(0, beyond + 2), min_size=1, max_size=12)):
        ids += [each] if isinstance(each, int) else reads.encode(each, add_special_tokens=False)
        ids += [beyond] * data.draw(st.booleans())
    rule = StopRule(tokenizer, [5])
    assert rule.length(asked(), ids) == first_end(tokenizer, ids, STOPS, rule.end_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_string_is_seen_in_whatever_pieces_it_comes(kind):
    tokenizer = of_kind(kind)
    reads, rule = continuing(tokenizer), StopRule(tokenizer)
    for stop in STOPS:
        for text in (f"red{stop}", f"red{stop}\nshoes", f"red{stop}<b"):
            ids = reads.encode(text, add_special_tokens=False)
            end = rule.length(asked((stop,)), ids)
            read = Detokenizer(tokenizer)(ids[:end])
            assert stop in read and stop not in Detokenizer(tokenizer)(ids[: end - 1])


def test_a_token_that_holds_the_stop_string_and_more_ends_the_turn_and_is_kept():
    tokenizer = of_kind("merges")
    ids = tokenizer.encode("red</answer>\nblue", add_special_tokens=False)
    merged = tokenizer.convert_tokens_to_ids(">\u010a")
    assert merged in ids
    assert ids[StopRule(tokenizer).length(asked(), ids) - 1] == merged


def test_a_character_in_byte_tokens_ends_the_turn_with_its_last_byte():
    tokenizer = of_kind("llama 2")
    ids = tokenizer.convert_tokens_to_ids(["r", *(f"<0x{value:02X}>" for value in "多".encode()), "e"])
    assert StopRule(tokenizer).length(asked(("多",)), ids) == 4


def test_ids_without_text_and_a_space_that_begins_a_text_hide_no_stop_string():
    tokenizer = of_kind("bytes")
    ids = [
        each for letter in "red</answer>blue" for each in (*tokenizer.encode(letter), len(tokenizer), len(tokenizer))
    ]
    assert StopRule(tokenizer).length(asked(), ids) == 3 * len("red</answer>") - 2
    tokenizer = of_kind("llama 2")
    ids = tokenizer.convert_tokens_to_ids(["r", "\u2581", "a", "b"])
    assert StopRule(tokenizer).length(asked((" a",)), ids) == 3


def test_every_end_of_turn_ends_it_and_so_does_one_that_the_request_names():
    tokenizer = of_kind("bytes")
    rule = StopRule(tokenizer, [258, 259])
    assert rule.end_ids == {tokenizer.eos_token_id, 258, 259}
    assert rule.length(asked(), [1, 258, 2]) == rule.length(asked(), [1, 259, 2]) == 2
    assert rule.length(asked(), [1, 7, 2, 3]) == 4 and rule.length(asked(stop_ids=(7,)), [1, 7, 2, 3]) == 2
    assert rule.length(asked(limit=3), [1, 7, 2, 3]) == 3


def listed(policy, ids):
    """The policy with these ends of turn in its generation config."""
    policy.causal_lm.generation_config.eos_token_id = ids
    return policy


def test_engines_end_turns_at_every_id_of_the_generation_config():
    requests = [request(0, [5, 6, 7], n=24), request(1, [8, 9], n=24)]
    free = turns(LocalEngine(tiny_policy(), EngineSettings(2, 64)), requests)
    ends = [next(each for each in done.ids[6:] if each) for done in free]
    policy = listed(tiny_policy(), ends)
    assert policy.end_ids == {0, *ends} and listed(tiny_policy(), None).end_ids == {0}
    assert listed(tiny_policy(), 7).end_ids == {0, 7}
    for engine in (LocalEngine(policy, EngineSettings(2, 64)), TransformersEngine(policy, EngineSettings(2, 64))):
        for before, after in zip(free, turns(engine, requests), strict=True):
            end = min(n for n, each in enumerate(before.ids, 1) if each in policy.end_ids)
            assert after.ids == before.ids[:end] and end < 24


def test_engines_end_turns_where_the_chat_template_ends_replies_though_no_file_names_it():
    policy = listed(tiny_policy(), None)
    policy.tokenizer = copy.deepcopy(policy.tokenizer)
    policy.tokenizer.chat_template = CHAT_TEMPLATE
    assert policy.end_ids == {0, 2}
    assert policy.tokenizer.convert_ids_to_tokens(2) == "<|im_end|>" and policy.tokenizer.eos_token_id == 0
    asked_for = [request(number, [5, 6 + number], seed=number, n=200, temperature=50.0) for number in range(9)]
    for engine in (LocalEngine(policy, EngineSettings(4, 256)), TransformersEngine(policy, EngineSettings(4, 256))):
        ids = [done.ids for done in turns(engine, asked_for)]
        assert all(2 not in each[:-1] for each in ids) and any(each[-1] == 2 and len(each) < 200 for each in ids)


def test_a_server_reads_a_text_as_its_tokenizer_begins_texts_but_no_beginning_twice():
    for kind, beginning in (("llama 2", ["<s>"]), ("bytes", [])):
        tokenizer = of_kind(kind)
        codec = TextCodec(tokenizer, 100)
        plain = tokenizer.encode("red", add_special_tokens=False)
        first = tokenizer.convert_tokens_to_ids(beginning)
        assert codec.encode("red") == [*first, *plain] and codec.encode("red", begun=True) == plain
        assert codec.encode("".join([*beginning, "red"]))[: 1 + len(first)].count(1) == len(first)
