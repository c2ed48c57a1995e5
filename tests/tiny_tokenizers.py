"""Small tokenizers of the kinds that people have, with the tokens that a family adds and a chat template or none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "<summary>red shoes</summary><answer>click[red]</answer>\n<state>3 turns left\nred shoes, blue shoes</state>",
    "<think>nothing known yet</think><search>river of Ulm</search>\n<information>2 turns left\nUlm</information>",
    "<answer>x</answer></search></answer></answer><search> user assistant page 0123456789 Which river? é 多 \U0001f600",
] * 4

PLAIN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = PLAIN + HEADER
WITH_BOS = "{{ bos_token }}" + CHATML
OPENS_THINK = CHATML + "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"  # R1 distills, Qwen3-2507-Thinking
QWEN3 = (  # turned off, an empty block is put before the reply; blocks of earlier replies are taken out
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'].split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    + HEADER
    + "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
)
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}" + HEADER
)
ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def finished(tokenizer: Tokenizer, template: str | None, added: list[AddedToken] = (), **roles: Any) -> Any:
    """A transformers tokenizer; ends of text and turns are special, and what else is added."""
    named = dict(eos_token=ENDS[0], pad_token=ENDS[0]) | roles
    tokenizer.add_special_tokens([*ENDS, *(role for role in named.values() if isinstance(role, str))])
    tokenizer.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **named)


def byte_level(merges: int = 0, ignore_merges: bool = False, prefix: bool = False) -> Tokenizer:
    """Byte-level BPE, of single bytes without merges; a pattern that keeps ``</`` and ``>\\n`` together."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(r" ?[^\s\p{L}\p{N}]+[\r\n]*| ?\p{L}+| ?\p{N}|\s+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


BYTES = [f"<0x{value:02X}>" for value in range(256)]
SENTENCE_PIECE = decoders.Sequence(
    [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)


def sentence_piece(legacy: bool = True) -> Tokenizer:
    """BPE over pieces with byte fallback: Llama 2's, whose normaliser puts the space, or a later one with Metaspace."""
    pieces = ["<unk>", "<s>", "</s>", *BYTES, "\u2581", *"abcdehilnoprstuwy[]<>/?,|."]
    merges = [("<", "/"), ("r", "e"), ("re", "d"), ("\u2581", "red"), (">", "<"), ("\u2581", "s")]
    vocab = {piece: number for number, piece in enumerate([*pieces, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = SENTENCE_PIECE
    return tokenizer


def unigram() -> Tokenizer:
    """Unigram, whose vocabulary holds its control tokens as pieces like any other, behind an NFKC normaliser."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "[MASK]",
        *BYTES,
        "\u2581",
        *"abcdehilnoprstuwy[]<>/?,|.\u2039",
        "red",
        "\u2581shoes",
    ]
    tokenizer = Tokenizer(models.Unigram([(each, -1.0) for each in pieces], unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    return tokenizer


def begun(tokenizer: Any) -> Any:
    """Begins every text with its BOS."""
    processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = processor
    return tokenizer


def token(content: str, special: bool = False, normalized: bool = False, **more: bool) -> AddedToken:
    return AddedToken(content, special=special, normalized=normalized, **more)


def lower_case() -> Tokenizer:
    """Byte-level, with a normaliser that makes "</S>" what it is trained on."""
    tokenizer = byte_level(60)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return tokenizer


INST = [token("[INST]", special=True), token("[/INST]", special=True)]
TAGS = [token(f"<{slash}{name}>") for name in ("think", "search", "answer", "summary", "state") for slash in ("", "/")]
BARS = [
    token("<\uff5cUser\uff5c>"),
    token("<\uff5cend\u2581of\u2581sentence\uff5c>", special=True),
    token("<end_of_turn>"),
]
LLAMA = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")
GEMMA = dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")

KINDS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: finished(byte_level(), CHATML, BARS),
    "merges": lambda: finished(byte_level(120), CHATML, INST),
    "a space before texts": lambda: finished(byte_level(60, prefix=True), None, INST),
    "whole words without merging": lambda: finished(byte_level(120, ignore_merges=True), CHATML, [token("<s>", True)]),
    "tags of one token": lambda: finished(byte_level(120), QWEN3, TAGS),
    "special tags": lambda: finished(byte_level(60), OPENS_THINK, [token(t.content, special=True) for t in TAGS]),
    "tags in pieces, opened": lambda: finished(byte_level(60), OPENS_THINK),
    "tags that swallow spaces": lambda: finished(
        byte_level(60), OPENS_THINK, [token(t.content, lstrip=True, rstrip=True) for t in TAGS]
    ),
    "llama 2": lambda: begun(finished(sentence_piece(), None, **LLAMA)),
    "llama 2 with a template": lambda: begun(finished(sentence_piece(), WITH_BOS, INST, **LLAMA)),
    "metaspace": lambda: begun(finished(sentence_piece(legacy=False), None, TAGS, **LLAMA)),
    "unigram": lambda: begun(finished(unigram(), PARTS, **LLAMA, clean_up_tokenization_spaces=True)),
    "unigram without a template": lambda: begun(finished(unigram(), None, **LLAMA)),
    "lower case": lambda: finished(
        lower_case(), PARTS, [token("</s>", True, True), token("<end_of_turn>", False, True), token("[INST]", True)]
    ),
    "gemma": lambda: finished(
        sentence_piece(legacy=False), WITH_BOS, [token("<start_of_turn>"), token("<end_of_turn>")], **GEMMA
    ),
}


@cache
def of_kind(name: str) -> Any:
    return KINDS[name]()
