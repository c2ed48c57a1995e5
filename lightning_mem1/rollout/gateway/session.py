"""One episode as the gateway sees it: its calls, what was sampled in them, and the trajectory they make."""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lightning_mem1.context.contexts import context_hash
from lightning_mem1.context.origins import common_length
from lightning_mem1.rollout.gateway.messages import Message
from lightning_mem1.types import Completion, Turn

LEAST_CHARS = 8  # of a turn that is looked for in a text; a shorter one may be there by chance


@dataclass
class Call:
    """One call of the policy.

    Attributes:
        number: In the order in which calls came.
        context_ids: Its context.
        num_unmatched: Messages of the policy in it that this episode did not sample.
        seed: Of its sampling.
        messages: Of a chat; empty for a plain completion.
        turn: What was sampled; None while that runs, and for good when it failed.
        reply: The message that the client was given.
        row: Of a plain completion, its prompt as it came with all that was written behind it, as text and as ids; none
            of a chat.
        written: All that was sampled but for the end of the turn, as text and as ids.
        lost: The client had gone before it came: no turn, because nothing followed from it.
    """

    number: int
    context_ids: list[int]
    num_unmatched: int
    seed: int
    messages: Sequence[Message] = ()
    turn: Turn | None = None
    reply: Message | None = None
    row: tuple[str, list[int]] = ("", [])
    written: tuple[str, list[int]] = ("", [])
    lost: bool = False


@dataclass
class Session:
    """An episode that is open.

    Attributes:
        seed: Of its sampling.
        key: What its client has to know.
        calls: The calls, in the order in which they came.
        outgrown: Whether a context was refused because it did not fit.
        spent: Whether a call was refused because there had been too many.
    """

    seed: int
    key: str = field(default_factory=lambda: f"episode-{secrets.token_urlsafe(16)}")
    calls: list[Call] = field(default_factory=list)
    outgrown: bool = False
    spent: bool = False
    _same: Counter[int] = field(default_factory=Counter)

    def call(self, context_ids: list[int], num_unmatched: int = 0, messages: Sequence[Message] = ()) -> Call:
        """Begin a call. Its seed follows from its context: calls side by side are sampled alike in whatever order."""
        known = context_hash(context_ids)
        seed = _seed(self.seed, context_ids, self._same[known])
        self._same[known] += 1
        call = Call(len(self.calls), context_ids, num_unmatched, seed, messages)
        self.calls.append(call)
        return call

    def end(self, call: Call, completion: Completion) -> None:
        """Keep what was sampled."""
        call.turn = Turn(
            completion.ids,
            completion.logprobs,
            context_hash=context_hash(call.context_ids),
            context_ids=array("i", call.context_ids),  # a quarter of a list's room: a long episode has many
            num_unmatched=call.num_unmatched,
            version=completion.version,
            experts=completion.experts,
        )

    def answered(self, call: Call, reply: Message, text: str, problem: str) -> None:
        """Keep what the client was given for a call.

        Args:
            call: Which one.
            reply: The message.
            text: All of it.
            problem: Why a tool call could not be read; empty when all could.
        """
        assert call.turn is not None
        call.reply, call.turn.action, call.turn.valid = reply, text, not problem

    def sampled(self, messages: Sequence[Message]) -> dict[int, list[int]]:
        """Ids of the messages of a chat that this episode sampled, by their place.

        A message is found by what it says and by all messages before it; else by what it says alone, the latest of
        those that say the same; else by the ids of its tool calls, for a client that dropped the text next to them.
        """
        found = {}
        for place, message in enumerate(messages):
            if message.role == "assistant" and (call := self._said(messages[:place], message)):
                assert call.turn is not None
                found[place] = call.turn.action_ids
        return found

    def _said(self, before: Sequence[Message], message: Message) -> Call | None:
        answered = [call for call in reversed(self.calls) if call.turn and call.reply]
        same = [call for call in answered if call.reply and call.reply.said == message.said]
        context = [each.said for each in before]
        for call in same:
            if [each.said for each in call.messages] == context:
                return call
        if same:
            return same[0]
        ids = [call.id for call in message.tool_calls]
        if not ids or message.content.strip():
            return None
        return next((call for call in answered if call.reply and _calls(call.reply) == _calls(message)), None)

    def written(self, text: str) -> list[str | list[int]]:
        """A text of a plain completion in pieces: what the policy wrote in it is there as the ids that were sampled.

        The longest row, prompt and turn, that it begins with is known; behind it, whatever turns it holds whole.
        """
        answered = [call for call in self.calls if call.turn]
        rows = [call.row for call in answered if call.row[0] and text.startswith(call.row[0])]
        known, ids = max(rows, key=lambda row: len(row[0]), default=("", []))
        turns = {call.written[0]: call.written[1] for call in answered if len(call.written[0]) >= LEAST_CHARS}
        return [ids, *_spliced(text[len(known) :], turns)] if ids else _spliced(text, turns)

    def turns(self) -> list[Turn]:
        """The turns of the calls that were answered; each has as its information what the next context adds to it."""
        kept = [call for call in self.calls if call.turn is not None and not call.lost]
        for number, call in enumerate(kept):
            assert call.turn is not None
            row = [*call.context_ids, *call.turn.action_ids]
            behind = next((each for each in kept[number + 1 :] if each.context_ids[: len(row)] == row), None)
            call.turn.information_ids = behind.context_ids[len(row) :] if behind else []
        return [call.turn for call in kept if call.turn is not None]


def shared_prompt(turns: Sequence[Turn]) -> list[int]:
    """What all contexts of some turns begin with."""
    contexts = [list(turn.context_ids or ()) for turn in turns]
    shared = contexts[0] if contexts else []
    for context in contexts[1:]:
        shared = shared[: common_length(shared, context)]
    return shared


def _spliced(text: str, turns: Mapping[str, list[int]]) -> list[str | list[int]]:
    """A text with the turns in it exchanged for their ids, longer ones before shorter ones.

    >>> _spliced("ask: red shoes? no", {"red shoes": [7, 8]})
    ['ask: ', [7, 8], '? no']
    """
    if not text:
        return []
    for turn in sorted(turns, key=len, reverse=True):
        before, found, behind = text.partition(turn)
        if found:
            return [*_spliced(before, turns), turns[turn], *_spliced(behind, turns)]
    return [text]


def _calls(message: Message) -> tuple[object, ...]:
    return tuple((call.id, *call.said) for call in message.tool_calls)


def _seed(seed: int, context_ids: Sequence[int], times: int) -> int:
    """Seed of one turn's sampling: of the episode, its context, and how often that came before."""
    digest = hashlib.blake2b(f"{seed}/{times}/".encode() + array("i", context_ids).tobytes(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
