"""How prompts begin and end: BOS, chat templates, and what they open or ask for."""

import pytest

from lightning_mem1.context.chat_template import ChatTemplate, begins, turn_end
from lightning_mem1.context.encoder import ContextEncoder
from lightning_mem1.context.formats import PRESETS
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Task
from tiny_tokenizers import (
    CHATML,
    HEADER,
    KINDS,
    OPENS_THINK,
    PARTS,
    PLAIN,
    QWEN3,
    WITH_BOS,
    byte_level,
    finished,
    of_kind,
)

RIVER = Task("t", "Which river?", (), 6)


def tokenizer_with(template):
    return finished(byte_level(60), template)


def prompt(tokenizer, task=RIVER, observation="", **settings):
    encoder = RolloutSettings(format="qa", prompt="brief", **settings).encoder(tokenizer)
    return encoder.prompt_ids(task, observation)


def test_a_tokenizer_without_a_template_begins_the_prompt_as_it_begins_texts():
    for kind in ("llama 2", "metaspace", "unigram without a template"):
        tokenizer = of_kind(kind)
        ids = prompt(tokenizer)
        assert ids == tokenizer.encode("Which river?\n6 turns left\n") and ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
    assert prompt(of_kind("a space before texts"))[0] not in of_kind("a space before texts").all_special_ids


@pytest.mark.parametrize("kind", KINDS)
def test_no_tokenizer_gets_its_bos_twice(kind):
    tokenizer = of_kind(kind)
    ids = prompt(tokenizer)
    if tokenizer.bos_token:
        assert ids.count(tokenizer.bos_token_id) == ("bos_token" in (tokenizer.chat_template or "bos_token"))
    if tokenizer.chat_template in (CHATML, WITH_BOS):
        chat = [{"role": "user", "content": "Which river?\n6 turns left"}]
        assert ids == tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]


def test_what_a_tokenizer_puts_behind_a_text_is_no_beginning():
    from tokenizers.processors import TemplateProcessing

    tokenizer = finished(byte_level(), None, bos_token="<s>")
    pieces = [("<s>", tokenizer.bos_token_id), ("<|endoftext|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A <|endoftext|>", special_tokens=pieces
    )
    assert begins(tokenizer) == [tokenizer.bos_token_id] and begins(of_kind("bytes")) == []


def test_a_template_that_opens_the_internal_state_opens_it_in_every_turn_and_not_in_the_prompt():
    for kind in ("special tags", "tags in pieces, opened"):
        encoder = ContextEncoder(of_kind(kind), PRESETS["qa"], style="brief")
        assert encoder.decode(encoder.prompt_ids(RIVER, "")).endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert encoder.decode(encoder.turn_opening()) == "<think>\n"
        assert encoder.turn_opening(staged=True) == []  # there a call of its own writes it
    assert ContextEncoder(of_kind("bytes"), PRESETS["qa"]).turn_opening() == []


@pytest.mark.parametrize(
    ("end", "opening"),
    [
        ("<think>", "<think>"),
        ("[THINK]\n", "[THINK]\n"),
        ("<|START_THINKING|>", "<|START_THINKING|>"),
        ("<seed:think>", "<seed:think>"),
        ("<thought>\n", "<thought>\n"),
        ("<summary>", "<summary>"),  # the tag of the state, whatever it is
        ("<think>\n\n</think>\n\n", ""),
        ("</think>", ""),
        ("<|START_THINKING|><|END_THINKING|>", ""),
        ("<assistant>\n", ""),
        ("<|assistant|>", ""),
    ],
)
def test_what_opens_a_models_reasoning_is_told_from_other_headers(end, opening):
    chat = ChatTemplate(
        tokenizer_with(PLAIN + "{% if add_generation_prompt %}{{ end }}{% endif %}"), "summary", {"end": end}
    )
    assert chat.opening == opening


def test_keywords_reach_the_template_and_one_that_it_does_not_read_is_named():
    tokenizer = of_kind("tags of one token")
    ids = prompt(tokenizer, chat_template_kwargs={"enable_thinking": False})
    assert tokenizer.decode(ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert tokenizer.decode(prompt(tokenizer)).endswith("<|im_start|>assistant\n")
    with pytest.raises(
        ValueError, match="unknown setting of the chat template 'thinking': expected a chat template that"
    ):
        prompt(tokenizer, chat_template_kwargs={"thinking": False})
    with pytest.raises(
        ValueError, match="expected a policy with a chat template, got none; set model.rollout.chat_templ"
    ):
        prompt(of_kind("llama 2"), chat_template_kwargs={"enable_thinking": False})


SECOND_PART = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}" + HEADER


@pytest.mark.parametrize("template", [PARTS, SECOND_PART, QWEN3, OPENS_THINK])
def test_no_template_drops_the_task_or_a_part_of_it(template):
    encoder = ContextEncoder(tokenizer_with(template), PRESETS["qa"])  # its instructions hold <think>...</think>
    shown = encoder.decode(encoder.prompt_ids(RIVER, "a page"))
    message = encoder.format.prompt("Which river?", "a page", 6, "full")
    assert message in shown and shown.count("Which river?") == 1


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "got a prompt without the message"),
        ("{{ raise_exception('no system message') }}", "got no system message"),
        ("{% for m in %}", "got Expected an expression"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line_before_anything_is_played(template, reason):
    with pytest.raises(
        ValueError, match=f"cannot use the policy's chat template: expected one that .*{reason}"
    ) as told:
        ContextEncoder(tokenizer_with(template))
    assert "\n" not in str(told.value)


# Where a reply ends

GLM = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% endfor %}" + HEADER
LAST_ONLY = "{% for m in messages %}{{ m['content'] }}{% if loop.last %}<|im_end|>{% endif %}{% endfor %}"
OTHER_AT_THE_END = (
    "{% for m in messages %}{{ m['content'] }}{{ '<|im_end|>' if loop.last else '<|endoftext|>' }}{% endfor %}"
)
ROLES = "{% for m in messages %}{% if m['role'] != 'user' %}{{ raise_exception('only users') }}{% endif %}{% endfor %}"
TWICE = "{% for m in messages %}{{ m['content'] }}{{ m['content'] }}<|im_end|>{% endfor %}"
WORD = "{% for m in messages %}{{ m['content'] }} END\n{% endfor %}"


@pytest.mark.parametrize("template", [CHATML, QWEN3, PARTS, OPENS_THINK, SECOND_PART[: -len(HEADER)] + "<|im_end|>"])
def test_the_end_of_a_reply_is_found_in_the_template_whatever_it_does_with_messages(template):
    tokenizer = tokenizer_with(template)
    shown = "[0]" not in template  # this one shows all messages before their end
    expected = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert turn_end(tokenizer) == (expected if shown else None) and tokenizer.eos_token == "<|endoftext|>"


@pytest.mark.parametrize("template", [None, GLM, LAST_ONLY, OTHER_AT_THE_END, ROLES, TWICE, WORD])
def test_what_is_no_end_of_every_reply_is_none_of_any(template):
    assert turn_end(tokenizer_with(template)) is None


def test_the_end_is_found_behind_spaces_and_with_a_tokenizer_that_puts_some_before_texts():
    spaced = "{% for m in messages %}{{ m['content'] }} </s>{% endfor %}"
    tokenizer = of_kind("llama 2 with a template")
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = spaced
        assert turn_end(tokenizer) == tokenizer.eos_token_id
    finally:
        tokenizer.chat_template = before
