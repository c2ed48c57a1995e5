"""An engine whose turns are written now by a script and now by a policy: an expert goes on behind a learner's mistakes.

What a policy that only ever saw faultless turns does behind its own mistakes was never taught. DAgger (Ross et al.
2011, arXiv 1011.0686) lets the learner act and the expert tell what it would have done there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lightning_mem1.engine.local import LocalEngine
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.types import Completion, GenerationRequest


class LeadingWriter(Protocol):
    """A writer of a `ScriptedEngine` that leaves some turns to the policy."""

    def __call__(self, context: str) -> str:
        """Write the next turn."""

    def leaves(self, context: str) -> bool:
        """Whether the policy writes the next turn, asked once for each."""

    def took(self, text: str) -> None:
        """Told what the policy has written in its place."""


class MixedEngine:
    """Asks the session's writer for each turn who writes it; satisfies `types.Engine`.

    Args:
        script: Writes the turns that are not left to the policy.
        policy: Writes the others, with the sampling that the request asks for.
        writers: The script's, one per session.
    """

    def __init__(self, script: ScriptedEngine, policy: LocalEngine, writers: Sequence[LeadingWriter]) -> None:
        self.script, self.policy, self.writers = script, policy, writers
        self.max_context_tokens = policy.max_context_tokens

    @property
    def pending(self) -> int:
        """Turns queued or running."""
        return self.script.pending + self.policy.pending

    def reset(self) -> None:
        """Forget queued turns and cached keys."""
        self.script.reset()
        self.policy.reset()

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn where its writer wants it.

        Raises:
            ValueError: an empty context, or one that leaves the policy no room for `max_new_tokens`.
        """
        context = self.script.tokenizer.decode(request.context_ids, skip_special_tokens=False)
        engine = self.policy if self.writers[request.session].leaves(context) else self.script
        engine.submit(request)

    def step(self) -> list[Completion]:
        """Answer a request of the script where there is one, else make a pass of the policy: it runs many at once."""
        if self.script.pending:
            return self.script.step()
        completions = self.policy.step()
        for each in completions:
            text = self.script.tokenizer.decode(each.ids, skip_special_tokens=True)
            self.writers[each.session].took(text)
        return completions
