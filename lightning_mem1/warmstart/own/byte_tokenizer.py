"""A tokenizer of bytes: plays episodes as text where there is no policy yet."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def byte_tokenizer() -> Any:
    """A transformers tokenizer with an id for each byte and no chat template; it gives back any text.

    >>> byte_tokenizer().decode(byte_tokenizer().encode("caf\\u00e9"))
    'café'
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {sign: number for number, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
