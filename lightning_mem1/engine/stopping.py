"""Where a turn ends: at the end of text, at a stop string, or at its limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lightning_mem1.context.detokenizer import PARTIAL, Detokenizer
from lightning_mem1.types import GenerationRequest


class StopRule:
    """Says whether the token that was just sampled ends its turn.

    Args:
        tokenizer: Of the policy.
        end_ids: Ids that end a turn besides the tokenizer's own end of text, see `Policy.end_ids`.
    """

    def __init__(self, tokenizer: Any, end_ids: Iterable[int] = ()) -> None:
        self.end_ids = frozenset({*end_ids, tokenizer.eos_token_id} - {None})
        self._decode = Detokenizer(tokenizer)
        self._pieces: dict[int, str] = {}

    def ends(self, request: GenerationRequest, generated: Sequence[int]) -> bool:
        """True when the last of the generated ids (at least one) ends the turn."""
        last = generated[-1]
        if len(generated) >= request.max_new_tokens or last in self.end_ids or last in request.stop_ids:
            return True
        stop, piece = request.stop, self._piece(last)
        if PARTIAL not in piece and not any(s[-1] in piece for s in stop):
            return False
        tail = self._decode(self._tail(generated, max((len(s.encode()) for s in stop), default=0)))
        return any(s in tail for s in stop)

    def length(self, request: GenerationRequest, ids: Sequence[int]) -> int:
        """How many of some ids the turn has: up to the first that ends it, all where none does.

        A server that looks for stop strings in batches of tokens, or in the text of another decoder, may run over it::

            ids   <answer> red </answer> <answer> blue       stop </answer>: 3
        """
        return next((end for end in range(1, len(ids)) if self.ends(request, ids[:end])), len(ids))

    def _tail(self, generated: Sequence[int], longest: int) -> Sequence[int]:
        """The last ids, as many as may spell a stop string of so many bytes: a token has a byte, or no text at all."""
        start, room = len(generated), longest
        while start and room:
            start -= 1
            room -= bool(self._piece(generated[start]))
        return generated[start:]

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = self._decode([token])
        return self._pieces[token]
