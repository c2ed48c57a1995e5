"""Says at the start of a run when the replies of its environments are longer than the room that a reply has."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from lightning_mem1.context.encoder import ContextEncoder

UNLIMITED = 10**9
NUMBER = 8  # tokens of the turn's number before a reply, in modes that have one


def warn_of_cut_replies(source: Any, encoder: ContextEncoder) -> None:
    """Warn, in one line, when a reply that a source shows as a sample would lose its middle.

    Args:
        source: A task source. Only one with a method ``sample_replies()`` is asked: a few of the longest replies of its
            environments, where those are known before they are played.
        encoder: The policy's, with its limit of one reply.
    """
    samples = getattr(source, "sample_replies", None)
    if samples is None:
        return
    whole = replace(encoder, max_information_tokens=UNLIMITED)
    longest = max((len(whole.information_ids(reply, 100)) for reply in samples()), default=0) + NUMBER
    if longest > encoder.max_information_tokens:
        warnings.warn(
            "parts of documents lose their middle: expected at most model.rollout.max_information_tokens "
            f"{encoder.max_information_tokens}, got {longest} tokens of this policy; set that to {longest}, or lower "
            "data.part",
            stacklevel=2,
        )
