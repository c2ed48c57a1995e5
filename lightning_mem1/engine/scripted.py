"""An engine that writes what a script says: experts, baselines and tests run through the very same rollout."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from lightning_mem1.context.continuation import continuing
from lightning_mem1.context.detokenizer import Detokenizer
from lightning_mem1.types import Completion, GenerationRequest

Writer = Callable[[str], str]


class ScriptedEngine:
    """Answers each request with the text of its session's writer; log-probs are 0 (the script is certain).

    Args:
        tokenizer: Turns the text into ids, and the context's ids into the text a writer reads.
        writers: One per session: context text -> text of the next turn.
    """

    max_context_tokens = 1 << 30

    def __init__(self, tokenizer: Any, writers: Sequence[Writer]) -> None:
        self._reads, self._decode = continuing(tokenizer), Detokenizer(tokenizer)
        self.writers = list(writers)
        self._queue: deque[GenerationRequest] = deque()

    @property
    def pending(self) -> int:
        """Turns queued."""
        return len(self._queue)

    def reset(self) -> None:
        """Forget queued turns."""
        self._queue.clear()

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn."""
        self._queue.append(request)

    def step(self) -> list[Completion]:
        """Answer the oldest request."""
        request = self._queue.popleft()
        context = self._decode(request.context_ids)
        text = without_opening(self.writers[request.session](context), context)
        ids = list(self._reads.encode(text, add_special_tokens=False))
        return [Completion(request.session, ids, [0.0] * len(ids))]


def without_opening(text: str, context: str) -> str:
    """A turn without the tag that its context opens already: some chat templates begin each reply with ``<think>``."""
    return text.removeprefix(opening(context))


def opening(context: str) -> str:
    """The tag that a context ends with; empty where it ends with none.

    >>> opening("3 turns left</state><summary>"), opening("3 turns left</state>")
    ('<summary>', '')
    """
    found = re.search(r"<[^<>/]+>(?=\s*\Z)", context)
    return found[0] if found else ""
