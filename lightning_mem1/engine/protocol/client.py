"""OpenAI's ``/v1/completions`` with token ids, as a client speaks it: what is asked, and what an answer says.

The plain protocol knows text alone. vLLM's additions make it exact: ``prompt`` may be ids, ``return_token_ids`` adds
``token_ids`` to a choice, and a turn keeps the stop string that ended it.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_mem1.types import GenerationRequest

PATH = "/v1/completions"
MODELS = "/v1/models"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
UPLOAD = "/v1/upload_lora_adapter"  # of this package's own server, as are these two
LOAD_WEIGHTS, WEIGHTS = "/v1/load_weights", "/v1/weights"
HEALTH = "/health"
OWNER = "lightning_mem1"  # how this package's own server is known from others
MAX_SEED = 1 << 63  # servers take signed 64-bit seeds
MAX_LOGPROB = 1e-3  # log-probabilities are at most 0, but for rounding
MAX_SHOWN = 80  # characters of a value in a message
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = _SHORT.maxset = MAX_SHOWN // 2
_SHORT.maxstring = _SHORT.maxother = 2 * MAX_SHOWN

Decode = Callable[[Sequence[int]], str]


def question(
    request: GenerationRequest, model: str, text: str | None = None, end_ids: Sequence[int] = ()
) -> dict[str, Any]:
    """The body that asks for a turn.

    Args:
        request: The turn.
        model: The server's name for base or adapter.
        text: The context as text, for a server that knows no ids: nothing but the plain protocol is spoken then.
        end_ids: Ids that end a turn.
    """
    plain = {
        "model": model,
        "prompt": list(request.context_ids) if text is None else text,
        "max_tokens": request.max_new_tokens,
        "stop": list(request.stop) or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed % MAX_SEED,
        "logprobs": 1,
    }
    if text is not None:
        return plain
    return {
        **plain,
        "return_token_ids": True,
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        # servers take what is not said from the model's generation_config.json, and would sample from another policy
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        **({"stop_token_ids": list(end_ids)} if end_ids else {}),
    }


@dataclass(frozen=True)
class Reply:
    """A choice, taken apart.

    Attributes:
        text: What was written.
        ids: The sampled ids, None from a server that gives none.
        logprobs: Theirs, in nats.
        finish_reason: ``stop``, ``length`` or what the server says.
        stop: The stop string that ended it, where the server names it.
    """

    text: str
    ids: list[int] | None
    logprobs: list[float]
    finish_reason: str
    stop: str | None


def read_reply(reply: Any, request: GenerationRequest, vocabulary: int) -> Reply:
    """Take an answer apart.

    Args:
        reply: As it came.
        request: What was asked for.
        vocabulary: Number of ids that there are.

    Raises:
        ValueError: it is not to the point: what was expected, what came.
    """
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise ValueError(f"expected 'choices' with one choice, got {short(choices if choices else reply)}")
    (choice,) = choices
    text, stop = choice.get("text"), choice.get("stop_reason", choice.get("matched_stop"))
    if not isinstance(text, str):
        raise ValueError(f"expected 'text' in the choice, got {short(text)}")
    ids = choice.get("token_ids")
    numbers: list[float] = []
    if ids is not None:
        _check_ids(ids, request.max_new_tokens, vocabulary)
        _check_prompt(choice.get("prompt_token_ids"), request)
        numbers = _logprobs(choice.get("logprobs"), len(ids))
    return Reply(text, ids, numbers, str(choice.get("finish_reason")), stop if isinstance(stop, str) else None)


def _check_ids(ids: Any, limit: int, vocabulary: int) -> None:
    if not is_ids(ids) or not 1 <= len(ids) <= limit:
        got = f"{len(ids)} ids" if is_ids(ids) else short(ids)
        raise ValueError(f"expected 'token_ids' with 1 to {limit} ids, got {got}")
    if outside := [each for each in ids if not 0 <= each < vocabulary]:
        raise ValueError(f"expected ids below {vocabulary}, got {outside[0]}: is it the same model?")


def is_ids(value: Any) -> bool:
    """Whether a value is a list of whole numbers."""
    return isinstance(value, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in value)


def _check_prompt(ids: Any, request: GenerationRequest) -> None:
    if ids is not None and ids != list(request.context_ids):
        raise ValueError(
            f"expected the {len(request.context_ids)} ids of the context as its prompt, got {short(ids)}: it saw "
            "another context"
        )


def _logprobs(given: Any, count: int) -> list[float]:
    numbers = given.get("token_logprobs") if isinstance(given, dict) else None
    if not isinstance(numbers, list) or len(numbers) != count:
        got = f"{len(numbers)}" if isinstance(numbers, list) else short(given)
        raise ValueError(f"expected 'token_logprobs' with {count} numbers, got {got}")
    for each in numbers:
        if isinstance(each, bool) or not isinstance(each, int | float) or not -math.inf < each <= MAX_LOGPROB:
            raise ValueError(f"expected log-probabilities, got {short(each)}")
    return [float(each) for each in numbers]


def short(value: Any) -> str:
    """A value in a message; of a long one its beginning alone is looked at."""
    return " ".join(_SHORT.repr(value).split())[:MAX_SHOWN]


def with_stop(reply: Reply, stop: Sequence[str]) -> str:
    """The text with the stop string that ended it: the plain protocol cuts it off.

    It is the one that the server names, else the only one whose opening tag is still open::

        <think>x</think><search>red     stop </search>, </answer>: ...<search>red</search>
    """
    if reply.finish_reason != "stop" or any(each in reply.text for each in stop):
        return reply.text
    if reply.stop in stop:
        return reply.text + str(reply.stop)
    opened = [each for each in stop if each.replace("</", "<", 1) in reply.text]
    return reply.text + opened[-1] if len(opened) == 1 else reply.text
