"""Turns of a trained agent for clients that are its environment: text in, the next turn out, ids kept in between.

What the agent sees is what a rollout would have shown it: same prompt, same memory mode, sampled ids and never their
text (`rollout.collect` plays an environment of this process in the same way).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_mem1.context.contexts import asked, context_hash, context_ids, next_kind
from lightning_mem1.context.memory import Asked, Kind
from lightning_mem1.context.settings import MemorySetting, memory_mode
from lightning_mem1.context.tags import ParsedTurn, parse_turn
from lightning_mem1.rollout.gateway.refused import Refused
from lightning_mem1.rollout.seeds import turn_seed
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.turn_loop import turn_temperature
from lightning_mem1.types import Completion, GenerationRequest, Task, Turn

Generate = Callable[[GenerationRequest], Awaitable[Completion]]


@dataclass(frozen=True)
class Sampling:
    """How a turn is sampled.

    Attributes:
        temperature: 0 is greedy.
        top_p: Nucleus cut.
        seed: Of the session's first turn; later ones follow from it.
        max_new_tokens: Limit of the turn; None for that of the agent's settings.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Talk:
    """A session after some messages; each answer makes a new one, so that a failed call changes nothing.

    Attributes:
        max_turns: How many turns the agent has.
        prompt_ids: Ids of the prompt; none before the first message.
        turns: The turns so far, those that write a memory among them. The last one's reply is the next message.
        parsed: The last turn in its parts.
        wanted: What that turn asked of its memory.
        message: What the client sent last.
        context_ids: What the last turn was written in.
    """

    max_turns: int
    prompt_ids: Sequence[int] = ()
    turns: tuple[Turn, ...] = ()
    parsed: ParsedTurn = field(default_factory=lambda: ParsedTurn("", None))
    wanted: Asked = field(default_factory=Asked)
    message: str = ""
    context_ids: Sequence[int] = ()

    @property
    def turns_left(self) -> int:
        """Turns that the agent still has."""
        return self.max_turns - sum(turn.kind == "act" for turn in self.turns)


class ChatAgent:
    """Writes the next turn of sessions in a memory mode.

    Args:
        generate: Has a turn generated; many at once.
        tokenizer: The policy's.
        settings: Format and limits; how turns are sampled is the client's to say.
        memory: Memory mode.
        max_context_tokens: Most tokens of a context and the turn written in it.
    """

    def __init__(
        self,
        generate: Generate,
        tokenizer: Any,
        settings: RolloutSettings,
        memory: MemorySetting,
        max_context_tokens: int,
    ) -> None:
        self.generate, self.settings, self.memory = generate, settings, memory_mode(memory)
        self.max_context_tokens = max_context_tokens
        self.encoder = settings.encoder(tokenizer).with_actions(self.memory.actions)
        self.tags = self.encoder.format.tags
        self._openings = {"act": self.encoder.turn_opening(self.memory.staged), "memory": self.encoder.memory_opening()}
        self._note_ids = self.encoder.note_ids(self.memory.left_out())
        self._annotate = self.memory.annotator(self.encoder)

    async def answer(self, talk: Talk, message: str, sampling: Sampling) -> Talk:
        """The session with the agent's next turn, which acts.

        A memory that is due is written before it. What the memory mode answers by itself is answered here, and costs
        the agent its turn as ever.

        Args:
            talk: The session so far.
            message: The task, or the reply to the last turn.
            sampling: How turns are sampled.

        Raises:
            Refused: no turn is left, its context does not fit, or the engine failed.
        """
        if talk.turns_left <= 0:
            raise Refused(403, f"the session has had its {talk.max_turns} turns (max_turns)", "turns_spent")
        talk = self._received(talk, message)
        while True:
            kind = next_kind(talk.turns, self.memory, len(talk.prompt_ids))
            talk = await self._written(talk, kind, sampling)
            answers_itself = talk.wanted.reply is not None and not talk.parsed.problem and talk.turns_left > 0
            if kind == "act" and not answers_itself:
                return talk
            if kind == "act":
                talk = self._received(talk, talk.message)

    def _received(self, talk: Talk, message: str) -> Talk:
        """The session with a message as its prompt, or as the reply to the last turn."""
        if not talk.turns:
            about = self.memory.about(self.tags)
            task = Task("chat", message, (), talk.max_turns)
            prompt = self.encoder.prompt_ids(task, "", self.memory.staged, about)
            return replace(talk, prompt_ids=prompt, message=message)
        *before, last = talk.turns
        first = talk.parsed.problem or talk.wanted.reply
        shown = message if talk.wanted.page else ""
        information = f"{first}\n{shown}" if first else shown
        label = [*self.encoder.encode(self.memory.label(before)), *talk.wanted.quoted]
        turn = replace(
            last,
            information=information,
            information_ids=self.encoder.information_ids(information, talk.turns_left, label, last.ids),
            note_ids=self.encoder.behind(last.ids, self._note_ids),
            retried=self.settings.retries and bool(talk.parsed.problem),
        )
        if self._annotate and not turn.retried:
            self._annotate(turn)
        return replace(talk, turns=(*before, turn), message=message)

    async def _written(self, talk: Talk, kind: Kind, sampling: Sampling) -> Talk:
        """The session with one more turn."""
        opening = list(self._openings[kind])
        context = [*context_ids(talk.prompt_ids, talk.turns, self.memory, kind), *opening]
        limit = min(sampling.max_new_tokens or self.settings.max_new_tokens, self.settings.max_new_tokens)
        if len(context) + limit > self.max_context_tokens:
            raise Refused(
                400,
                f"the context does not fit: expected at most {self.max_context_tokens} tokens, those to come included, "
                f"got {len(context)} and {limit} to come (model.engine.max_context_tokens)",
                "context_length_exceeded",
            )
        hot = replace(self.settings, temperature=sampling.temperature, top_p=sampling.top_p)
        completion = await self.generate(
            GenerationRequest(
                session=0,
                context_ids=context,
                max_new_tokens=limit,
                stop=self._stop(talk, kind),
                temperature=turn_temperature(talk.turns, kind, hot),
                top_p=sampling.top_p,
                seed=turn_seed(sampling.seed, len(talk.turns)),
            )
        )
        if completion.error or not completion.ids:
            raise Refused(500, f"engine: {completion.error or 'no token was sampled'}", "engine_error")
        turn = Turn(completion.ids, completion.logprobs, kind=kind, opening_ids=opening)
        turn.context_hash = context_hash(context)
        return replace(self._read(talk, turn), context_ids=context)

    def _stop(self, talk: Talk, kind: Kind) -> tuple[str, ...]:
        return (self.tags.state_closing,) if kind == "memory" else self.encoder.format.stop(talk.turns_left)

    def _read(self, talk: Talk, turn: Turn) -> Talk:
        """The session with a turn behind it, read; a memory is kept as it is."""
        if turn.kind == "memory":
            turn.valid = self.tags.state_closing in self.encoder.decode(turn.action_ids)
            turn.retried = self.settings.retries and not turn.valid and not talk.turns[-1].retried
            return replace(talk, turns=(*talk.turns, turn))
        parsed = parse_turn(self.encoder.decode(turn.ids), self.tags)
        wanted = asked(talk.turns, parsed, self.memory)
        if wanted.problem:
            parsed = replace(parsed, problem=wanted.problem)
        turn.action, turn.directive, turn.valid = parsed.action, wanted.directive, not parsed.problem
        return replace(talk, turns=(*talk.turns, turn), parsed=parsed, wanted=wanted)
