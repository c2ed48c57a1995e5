"""What a client of a served agent asks for, read and checked."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_mem1.rollout.chat.agent import Sampling
from lightning_mem1.rollout.gateway.messages import shown
from lightning_mem1.rollout.gateway.request import Asked, read_chat

MAX_ID_CHARS = 200  # of a session
MAX_TURNS = 10_000  # that a client may ask for
MAX_SEED = (1 << 63) - 1


@dataclass(frozen=True)
class Given:
    """One call.

    Attributes:
        asked: What is common to all chats; it holds one message.
        session: Its session; None where the client names none.
        max_turns: Turns of a session that begins; None for the server's number.
        sampling: How the turn is sampled.
    """

    asked: Asked
    session: str | None
    max_turns: int | None
    sampling: Sampling


def read_message(body: Any, header: str | None) -> Given:
    """A body of ``/v1/chat/completions``; raises ValueError with what is wrong with it.

    Args:
        body: As it came.
        header: The session that the request's header names; None for none.
    """
    asked = read_chat(body)
    _check_one(asked)
    if asked.stop:
        raise ValueError("expected no 'stop': the agent's format says where its turns end (model.rollout.format)")
    if asked.options:
        raise ValueError("expected no 'chat_template_kwargs': set model.rollout.chat_template_kwargs")
    sampling = Sampling(
        temperature=_number(body, "temperature", 0.0, 0.0, 100.0),
        top_p=_number(body, "top_p", 1.0, 1e-6, 1.0),
        seed=_whole(body, "seed", -MAX_SEED, MAX_SEED, secrets.randbits(63)),
        max_new_tokens=asked.max_tokens,
    )
    max_turns = _whole(body, "max_turns", 1, MAX_TURNS, 0) or None
    return Given(asked, _session(header, body), max_turns, sampling)


def _check_one(asked: Asked) -> None:
    if len(asked.messages) != 1:
        raise ValueError(
            f"expected 'messages' to hold the newest message alone, got {len(asked.messages)}: the server keeps what "
            "the agent needs of those before it"
        )
    if (role := asked.messages[0].role) not in ("user", "tool"):
        raise ValueError(f"expected a message of role user or tool, got {role}")


def _session(header: str | None, body: Mapping[str, Any]) -> str | None:
    name = next((each for each in (header, body.get("session_id"), body.get("user")) if each is not None), None)
    if name is not None and (not isinstance(name, str) or not 0 < len(name) <= MAX_ID_CHARS or not name.isprintable()):
        raise ValueError(f"expected a session's id to be text of 1 to {MAX_ID_CHARS} characters, got {shown(name)}")
    return name


def _number(body: Mapping[str, Any], key: str, otherwise: float, least: float, most: float) -> float:
    value = otherwise if body.get(key) is None else body[key]
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"expected '{key}' to be a number from {least:g} to {most:g}, got {shown(value)}")
    return float(value)


def _whole(body: Mapping[str, Any], key: str, least: int, most: int, otherwise: int) -> int:
    value = body.get(key)
    if value is None:
        return otherwise
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"expected '{key}' to be a whole number from {least} to {most}, got {shown(value)}")
    return value
