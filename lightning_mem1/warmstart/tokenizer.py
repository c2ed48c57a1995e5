"""Train the small tokenizer of the bundled policy: byte-level BPE, lower case, tags as one token.

A small model copies and compares by identity of tokens, so a word is made the same token wherever it stands: at the
beginning of a text or line, inside brackets, behind a tag or a currency sign a space is put before it, which decoding
takes out again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

# Qwen2's pattern without contractions; numbers up to 9999 may be one token
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}{1,4}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
OPENERS = "[\n>$"  # a space is put behind these, and before a text
END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CALLS = ("click", "search")  # words that stand right before a bracket
BLOCKS = ("think", "summary", "search", "answer", "information", "state")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 4096,
    *,
    blocks: Sequence[str] = BLOCKS,
    calls: Sequence[str] = CALLS,
    lowercase: bool = True,
) -> Any:
    """Train a tokenizer.

    Text is lower-cased, so that a title and an instruction share their tokens; every byte stays representable. Decoding
    gives back the lower-cased text, less a single space at its start and behind ``[``, ``>``, ``$`` or a line's end.

    Args:
        texts: The training text.
        vocab_size: Size of the vocabulary, special tokens and tags included.
        blocks: Names of the tags that are one token each.
        calls: Words whose bracket opens as one behind a space does: ``click[red]`` and ``[red]`` share their tokens.
        lowercase: Whether text is lower-cased.

    Returns:
        A transformers fast tokenizer with a Qwen-style chat template.
    """
    from tokenizers import AddedToken, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tags = [f"<{slash}{name}>" for name in blocks for slash in ("", "/")]
    tokenizer = _untrained(calls, lowercase)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(tags),
        special_tokens=[END, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _untrained(calls: Sequence[str], lowercase: bool) -> Any:
    """Byte-level BPE without merges: how text is normalised, split and decoded."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    called = "|".join(map(re.escape, calls))
    before = r"\p{L}" if calls == CALLS else called  # "click[red]" opens as the page's "[red]" does
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            *([normalizers.Lowercase()] if lowercase else []),
            normalizers.Prepend(" "),
            *([normalizers.Replace(Regex(rf"(?<={before})\["), " [")] if calls else []),
            *(normalizers.Replace(Regex(rf"{re.escape(each)}(?=[^\s\]<])"), f"{each} ") for each in OPENERS),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.ByteLevel(),
            *([decoders.Replace(Regex(rf"(?<={called}) \["), "[")] if calls else []),
            decoders.Replace(Regex(rf"(?:^|(?<=[{re.escape(OPENERS)}])) (?=[^ \t\]<])"), ""),
        ]
    )
    return tokenizer


def words_before_brackets(texts: Iterable[str]) -> list[str]:
    """Words that stand right before a bracket, and never with a space between.

    >>> words_before_brackets(["go[attic] take[lamp]", "a list [red]"])
    ['go', 'take']
    """
    joined = "\n".join(texts)
    near, apart = (set(re.findall(rf"([^\W\d_]+){between}\[", joined)) for between in ("", " "))
    return sorted(near - apart)
