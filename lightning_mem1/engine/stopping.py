"""Where a turn ends: at the end of text, at a stop string, or at its limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_mem1.types import GenerationRequest


class StopRule:
    """Says whether the token that was just sampled ends its turn.

    Args:
        tokenizer: Of the policy.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}

    def ends(self, request: GenerationRequest, generated: Sequence[int]) -> bool:
        """True when the last of the generated ids (at least one) ends the turn."""
        if len(generated) >= request.max_new_tokens or generated[-1] == self._tokenizer.eos_token_id:
            return True
        stop = request.stop
        if not any(s[-1] in self._piece(generated[-1]) for s in stop):
            return False
        tail = self._decode(generated[-max(map(len, stop)) :])  # a token is at least one character or byte
        return any(s in tail for s in stop)

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self._decode([token])
        return self._pieces[token]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))
