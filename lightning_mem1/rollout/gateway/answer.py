"""What a client is answered, as OpenAI's protocol has it: at once, or as a stream of events."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_mem1.context.tool_calls import read_written
from lightning_mem1.rollout.gateway.messages import Message
from lightning_mem1.rollout.gateway.request import Asked
from lightning_mem1.rollout.gateway.session import Call
from lightning_mem1.types import Turn

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Answer:
    """A turn as its client reads it.

    Attributes:
        text: Of the turn, without the end of turn and the string that stopped it.
        message: The same as a message, tool calls taken out.
        finish: Why it ended: stop, length or tool_calls.
        problem: Why a tool call could not be read; empty when all could.
    """

    text: str
    message: Message
    finish: str
    problem: str = ""


def read_turn(asked: Asked, call: Call, decode: Decode, end_ids: Collection[int]) -> Answer:
    """What a call's turn says."""
    ids = action_ids(call)
    ended = bool(ids) and ids[-1] in end_ids
    text = decode(ids[:-1] if ended else ids)
    places = [text.index(each) for each in asked.stop if each in text]
    text = text[: min(places)] if places and not asked.keeps_stop else text
    written = read_written(text, asked.tools)
    calls = tuple(replace(each, id=f"call_{call.number}_{n}") for n, each in enumerate(written.tool_calls))
    finish = "tool_calls" if calls else "stop" if ended or places else "length"
    return Answer(text, Message("assistant", written.content, calls), finish, written.problem)


def body(asked: Asked, call: Call, answer: Answer, decode: Decode) -> dict[str, Any]:
    """The body that answers at once."""
    turn = _turn(call)
    choice: dict[str, Any] = {"index": 0, "finish_reason": answer.finish}
    choice |= {"message": _message(answer.message)} if asked.chat else {"text": answer.text}
    choice["logprobs"] = _logprobs(asked, turn, decode) if asked.logprobs else None
    if asked.ids:
        choice |= {"token_ids": turn.action_ids, "prompt_token_ids": call.context_ids}
    return {**_head(asked, "chat.completion" if asked.chat else "text_completion"), "choices": [choice], **_usage(call)}


def events(asked: Asked, call: Call, answer: Answer, decode: Decode) -> Iterator[str]:
    """The same as events: a turn is sampled with those of the other episodes, so all of it comes at once."""
    head = _head(asked, "chat.completion.chunk" if asked.chat else "text_completion")
    for choice in _chat_choices(answer) if asked.chat else [{"text": answer.text, "finish_reason": answer.finish}]:
        yield _event({**head, "choices": [{"index": 0, "logprobs": None, **choice}]})
    if asked.usage:
        yield _event({**head, "choices": [], **_usage(call)})
    yield "data: [DONE]\n\n"


def _chat_choices(answer: Answer) -> Iterator[dict[str, Any]]:
    yield {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    if answer.message.content:
        yield {"delta": {"content": answer.message.content}, "finish_reason": None}
    if calls := _message(answer.message).get("tool_calls"):
        yield {"delta": {"tool_calls": [{"index": n, **each} for n, each in enumerate(calls)]}, "finish_reason": None}
    yield {"delta": {}, "finish_reason": answer.finish}


def _event(value: Any) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _head(asked: Asked, kind: str) -> dict[str, Any]:
    now = time.time_ns()
    prefix = "chatcmpl" if asked.chat else "cmpl"
    return {"id": f"{prefix}-{now:x}", "object": kind, "created": now // 10**9, "model": asked.model}


def _message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": "assistant", "content": message.content, "refusal": None}
    if message.tool_calls:
        found["content"] = message.content or None
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return found


def _logprobs(asked: Asked, turn: Turn, decode: Decode) -> dict[str, Any]:
    pieces = [decode([each]) for each in turn.action_ids]
    if asked.chat:
        pairs = zip(pieces, turn.action_logprobs, strict=True)
        each = [{"token": p, "logprob": n, "bytes": list(p.encode()), "top_logprobs": []} for p, n in pairs]
        return {"content": each, "refusal": None}
    offsets = list(itertools.accumulate(map(len, pieces[:-1]), initial=0))
    return {"tokens": pieces, "token_logprobs": turn.action_logprobs, "top_logprobs": None, "text_offset": offsets}


def _usage(call: Call) -> dict[str, Any]:
    prompt, written = len(call.context_ids), len(_turn(call).action_ids)
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}}


def action_ids(call: Call) -> list[int]:
    """What was sampled in a call that has been answered."""
    return _turn(call).action_ids


def _turn(call: Call) -> Turn:
    assert call.turn is not None
    return call.turn
