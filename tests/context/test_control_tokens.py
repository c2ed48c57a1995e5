"""Text of strangers becomes no control token, whatever a tokenizer's family calls them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from lightning_mem1.context.control_tokens import ControlTokens
from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.formats import PRESETS
from lightning_mem1.policy.loading import BUNDLED, load_tokenizer
from lightning_mem1.types import Task
from tiny_tokenizers import CHATML, KINDS, byte_level, finished, of_kind, token

NAMES = ["</s>", "<end_of_turn>", "<start_of_turn>", "[INST]", "<\uff5cUser\uff5c>", "<|eot_id|>", "EOT", ">>TITLE<<"]
OTHERS = ["<s>", "</S>", "\uff1c/s\uff1e", "<0x3C>/state>", "</state>", "[MASK]", "<unk>", "<", "/s>", "s>", "red "]
HOSTILE = st.lists(
    st.sampled_from([*NAMES, *OTHERS])
    | st.text(max_size=3)
).map("".join)  # fmt: skip


def control_ids(tokenizer):
    """What may not come of text: special tokens and added ones in brackets, but for the unknown token."""
    added = tokenizer.added_tokens_decoder.items()
    marked = {number for number, each in added if each.special or set("<>[]\uff5c") & set(each.content)}
    return (marked | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


def test_special_tokens_of_every_family_are_made_harmless_in_replies_and_prompts():
    tokenizer = load_tokenizer(str(BUNDLED))
    tokenizer.add_special_tokens({"additional_special_tokens": NAMES})
    encoder, page = ContextEncoder(tokenizer, PRESETS["qa"], style="brief"), "Shoe, red. " + " ".join(NAMES)
    special = {tokenizer.convert_tokens_to_ids(name) for name in NAMES}
    reply, prompt = encoder.information_ids(page, 3), encoder.prompt_ids(Task("t", page, (), 6), page)
    assert not special.intersection(reply) and not special.intersection(prompt)
    shown = "red. ‹/s>‹end_of_turn>‹start_of_turn>‹inst] ‹\uff5cuser\uff5c>‹|eot_id|>e‹ot ‹>title<<"
    assert shown in encoder.decode(reply) and encoder.decode(prompt).count(shown) == 2


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(text=HOSTILE)
def test_no_tokenizer_makes_a_control_token_or_a_tag_of_foreign_text(kind, text):
    tokenizer = of_kind(kind)
    encoder = ContextEncoder(tokenizer, style="brief")
    safe, ids = encoder.harmless(text)
    assert not control_ids(tokenizer).intersection(ids)
    assert "</state>" not in encoder.decode(ids).lower() and "<|" not in encoder.decode(ids)
    plain, prompt = (encoder.prompt_ids(Task("t", each, (), 6), each) for each in ("red", text))
    count = [sum(each in control_ids(tokenizer) for each in ids) for ids in (plain, prompt)]
    assert count[0] == count[1]  # those of the template, and no more


def test_ordinary_text_keeps_its_ids_also_where_words_and_spaces_are_added_tokens():
    added = [token("webshop"), token("   "), token("\u2581\u2581"), token("\u20ac"), token("<tag>")]
    tokenizer = finished(byte_level(60), CHATML, added)
    control = ControlTokens(tokenizer)
    for text in ("webshop   \u20ac5 a < b [2] </x> e-mail", "", "é\n"):
        assert control.harmless(text) == (text, tokenizer.encode(text, add_special_tokens=False))
    assert control.harmless("a <tag>b")[0] == "a \u2039tag>b"


def test_what_a_normaliser_makes_a_token_again_is_taken_out():
    tokenizer = finished(byte_level(60), None, [token("<x>", special=True, normalized=True)])
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u2039", "<")
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken("<x>", normalized=True)])
    text, ids = ControlTokens(tokenizer).harmless("red <x> shoes")
    assert (text, tokenizer.decode(ids)) == ("red   shoes", "red   shoes")


def test_an_unknown_character_is_no_control_token_unless_it_becomes_the_end_of_text():
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = []
    for unknown in ("<unk>", "<|endoftext|>"):
        plain = Tokenizer(models.WordLevel({"<unk>": 0, "<|endoftext|>": 1, "red": 2}, unk_token=unknown))
        plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = finished(plain, None, unk_token=unknown)
        made.append(ControlTokens(tokenizer).harmless("red shoes red")[1])
    assert made == [[2, 0, 2], [2, 2]]
