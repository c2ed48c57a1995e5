"""OpenAI's ``/v1/completions`` with token ids, as a server speaks it: what was asked, and what is answered."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_mem1.engine.protocol.client import MAX_SEED, Decode, is_ids, short
from lightning_mem1.types import Completion, GenerationRequest

# one plain turn at a time, sampled by temperature and top_p alone: what each of these may be, for no effect
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "stream": (None, False),
    "stream_options": (None,),
    "echo": (None, False),
    "suffix": (None, ""),
    "logprobs": (None, False, True, 0, 1),
    "prompt_logprobs": (None,),
    "top_k": (None, 0, -1),
    "min_p": (None, 0),
    "typical_p": (None, 1),
    "repetition_penalty": (None, 1),
    "length_penalty": (None, 1),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "bad_words": (None, []),
    "allowed_token_ids": (None,),
    "min_tokens": (None, 0),
    "ignore_eos": (None, False),
    "use_beam_search": (None, False),
    "truncate_prompt_tokens": (None,),
}
ADD_SPECIAL = "add_special_tokens"  # whether a prompt that is text gets the tokenizer's BOS
READ = (
    *("model", "prompt", "max_tokens", "stop", "stop_token_ids", "temperature", "top_p", "seed"),
    *(ADD_SPECIAL, "return_token_ids", "include_stop_str_in_output", "skip_special_tokens"),
)
HARMLESS = ("user", "request_id", "spaces_between_special_tokens")  # of a client's own, or about how text looks
MAX_STOPS, MAX_STOP_CHARS = 64, 256  # each is looked for after every token


@dataclass(frozen=True)
class Asked:
    """A body, read by a server.

    Attributes:
        model: Which model.
        request: The turn; its session is the server's to set.
        ids: Whether ids are to be returned.
        logprobs: Whether log-probabilities are.
        keeps_stop: Whether the text keeps the stop string.
        keeps_special: Whether the text keeps special tokens.
    """

    model: str | None
    request: GenerationRequest
    ids: bool
    logprobs: bool
    keeps_stop: bool
    keeps_special: bool


def read_question(
    body: Any, encode: Callable[[str], list[int]], vocabulary: int, max_tokens: int | None = None
) -> Asked:
    """Read a body.

    Args:
        body: As it came.
        encode: Text to ids, for a prompt that is text.
        vocabulary: Number of ids that there are.
        max_tokens: Longest prompt; None for any.

    Raises:
        ValueError: it asks for what there is not, or not to the point; nothing that it asks for is ignored.
    """
    if not isinstance(body, dict):
        raise ValueError(f"expected a JSON object, got {short(body)}")
    _check_keys(body)
    model = body.get("model")
    if not (model is None or isinstance(model, str)):
        raise ValueError(f"expected 'model' to be a name, got {short(model)}")
    request = GenerationRequest(
        session=0,
        context_ids=_prompt(body.get("prompt"), encode, vocabulary, max_tokens),
        max_new_tokens=int(_number(body, "max_tokens", 16, 1, 1 << 20, whole=True)),
        stop=_stop(body.get("stop")),
        stop_ids=_stop_ids(body.get("stop_token_ids"), vocabulary),
        temperature=_number(body, "temperature", 1.0, 0.0, 100.0),
        top_p=_number(body, "top_p", 1.0, 1e-6, 1.0),
        seed=int(_number(body, "seed", time.time_ns() % MAX_SEED, -MAX_SEED, MAX_SEED, whole=True)),
    )
    return Asked(
        model,
        request,
        ids=bool(body.get("return_token_ids")),
        logprobs=body.get("logprobs") not in (None, False),
        keeps_stop=bool(body.get("include_stop_str_in_output")),
        keeps_special=not body.get("skip_special_tokens", True),
    )


def _check_keys(body: Mapping[str, Any]) -> None:
    for key, allowed in NEUTRAL.items():
        if not any(type(body.get(key)) in _kinds(each) and body.get(key) == each for each in allowed):
            raise ValueError(f"'{key}' is not supported: expected {allowed[-1]}, got {short(body[key])}")
    if unknown := sorted(str(key) for key in body if key not in {*NEUTRAL, *READ, *HARMLESS}):
        raise ValueError(f"{short(unknown[0])} is not supported: expected {', '.join(READ)}, got another parameter")


def _kinds(value: Any) -> tuple[type, ...]:
    """The types that say the same: 1 and 1.0, but not true."""
    return (int, float) if isinstance(value, int) and not isinstance(value, bool) else (type(value),)


def _prompt(
    given: Any, encode: Callable[[str], list[int]], vocabulary: int, max_tokens: int | None = None
) -> list[int]:
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], list | str):
        given = given[0]
    if isinstance(given, list) and max_tokens is not None and len(given) > max_tokens:
        raise ValueError(f"prompt is too long: expected at most {max_tokens} tokens, got {len(given)}")
    ids = encode(given) if isinstance(given, str) else given
    if not is_ids(ids) or not ids or not all(0 <= each < vocabulary for each in ids):
        raise ValueError(f"expected 'prompt' to be one text or one list of ids below {vocabulary}, got {short(given)}")
    return list(ids)


def _stop(given: Any) -> tuple[str, ...]:
    stop = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(stop, list) or not all(isinstance(each, str) and each for each in stop):
        raise ValueError(f"expected 'stop' to be strings, got {short(given)}")
    if len(stop) > MAX_STOPS or any(len(each) > MAX_STOP_CHARS for each in stop):
        raise ValueError(
            f"expected 'stop' with at most {MAX_STOPS} strings of at most {MAX_STOP_CHARS} characters, got more"
        )
    return tuple(stop)


def _stop_ids(given: Any, vocabulary: int) -> tuple[int, ...]:
    ids = [] if given is None else given
    if not is_ids(ids) or len(ids) > MAX_STOPS or not all(0 <= each < vocabulary for each in ids):
        raise ValueError(
            f"expected 'stop_token_ids' with at most {MAX_STOPS} ids below {vocabulary}, got {short(given)}"
        )
    return tuple(ids)


def _number(body: Mapping[str, Any], key: str, default: float, low: float, high: float, whole: bool = False) -> float:
    value = default if body.get(key) is None else body[key]
    right = isinstance(value, int) or (isinstance(value, float) and not whole)
    if isinstance(value, bool) or not right or not low <= value <= high:
        raise ValueError(f"expected '{key}' from {low:g} to {high:g}, got {short(value)}")
    return value


def answer(
    asked: Asked, completion: Completion, model: str, decode: Decode, end_ids: Collection[int]
) -> dict[str, Any]:
    """The body that answers.

    Args:
        asked: What was asked for.
        completion: What was generated.
        model: The model's name.
        decode: Ids to text, special tokens included.
        end_ids: Ids that end a text; the body may have named more.
    """
    ids, text = completion.ids, decode(completion.ids)
    stop = next((each for each in asked.request.stop if each in text), None)
    ended = ids[-1] in end_ids or ids[-1] in asked.request.stop_ids
    if not asked.keeps_special and ended:
        text = decode(ids[:-1])
    if stop and not asked.keeps_stop:
        text = text[: text.index(stop)]
    choice: dict[str, Any] = {
        "index": 0,
        "text": text,
        "finish_reason": "stop" if stop or ended else "length",
        "stop_reason": stop,
        "logprobs": None,
    }
    if asked.logprobs:
        pieces = [decode([each]) for each in ids]
        offsets = list(itertools.accumulate(map(len, pieces[:-1]), initial=0))
        numbers = completion.logprobs
        choice["logprobs"] = {"tokens": pieces, "token_logprobs": numbers, "top_logprobs": None, "text_offset": offsets}
    prompt = list(asked.request.context_ids)
    if asked.ids:
        choice |= {"token_ids": ids, "prompt_token_ids": prompt}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(ids), "total_tokens": len(prompt) + len(ids)}
    return {
        "id": f"cmpl-{time.time_ns():x}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": usage,
    }
