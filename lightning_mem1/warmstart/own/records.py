"""Recorded episodes, a JSON object a line: turns to be played again, or a conversation with its replies.

Three kinds of lines::

    {"split": "train", "index": 7, "turns": ["<summary>...</summary><answer>...</answer>", ...]}
    {"prompt": "...", "turns": ["...", ...], "replies": ["...", ...], "reward": 1.0}
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...], "reward": 1.0}

The first is played again in the environment of the task source, which says what it earns. The other two hold what the
environment said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lightning_mem1.context.tags import Tags, parse_turn
from lightning_mem1.types import Split
from lightning_mem1.warmstart.own.expert import written_turn

MAX_TURNS = 10**4
REASONING = ("reasoning_content", "reasoning")  # of a chat message: what becomes the internal state


@dataclass(frozen=True)
class Record:
    """One episode.

    Attributes:
        turns: The texts of the turns, in the policy's format.
        task: Split and index of the task, where it is played again; None where the replies are recorded.
        prompt: What was asked; empty where it is played again.
        replies: What the environment said to each turn but the last.
        reward: What it earned; None where nobody says.
        max_turns: Turns that there were; None for as many as were taken.
        where: File and line, for messages.
    """

    turns: tuple[str, ...]
    task: tuple[Split, int] | None = None
    prompt: str = ""
    replies: tuple[str, ...] = ()
    reward: float | None = None
    max_turns: int | None = None
    where: str = ""


def read_records(path: str, tags: Tags) -> list[Record]:
    """The episodes of a file.

    Args:
        path: JSON lines.
        tags: How turns are written; a message without a tag of them is an action.

    Raises:
        FileNotFoundError, ValueError: one line with the file and the line in it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no such file: expected JSON lines of demonstrations, got '{path}'; set warmstart.data.own.file"
        )
    found = list(_lines(path, tags))
    if not found:
        raise ValueError(f"'{path}' is empty: expected an episode a line, got none; set warmstart.data.own.file")
    return found


def _lines(path: str, tags: Tags) -> Iterator[Record]:
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield record(json.loads(line), tags, f"'{path}', line {number}")
                except (ValueError, RecursionError) as error:
                    what = f"no JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)
                    raise ValueError(f"{what} in '{path}', line {number}; correct that line") from error


def record(line: Any, tags: Tags, where: str = "") -> Record:
    """One line, taken apart.

    Raises:
        ValueError: it is none of the three kinds; what was expected and what came.
    """
    if not isinstance(line, Mapping):
        raise ValueError(f"expected an object with turns or messages, got {type(line).__name__}")
    reward, max_turns = _number(line.get("reward")), line.get("max_turns")
    if max_turns is not None and not (isinstance(max_turns, int) and 1 <= max_turns <= MAX_TURNS):
        raise ValueError(f"expected max_turns from 1 to {MAX_TURNS}, got {max_turns!r:.40}")
    rest = {"reward": reward, "max_turns": max_turns, "where": where}
    if "messages" in line:
        prompt, turns, replies = _conversation(line["messages"], tags)
        return Record(turns, prompt=prompt, replies=replies, **rest)  # type: ignore[arg-type]
    turns = tuple(in_format(text, tags) for text in _texts("turns", line.get("turns")))
    if not turns:
        raise ValueError("expected turns with at least one text, or messages, got none")
    if "prompt" not in line:
        return Record(turns, task=_task(line), **rest)  # type: ignore[arg-type]
    replies = tuple(_texts("replies", line.get("replies", [])))
    if len(replies) not in (len(turns) - 1, len(turns)):
        raise ValueError(f"expected a reply to each of {len(turns)} turns but the last, got {len(replies)}")
    (prompt,) = _texts("prompt", [line["prompt"]])
    return Record(turns, prompt=prompt, replies=replies[: len(turns) - 1], **rest)  # type: ignore[arg-type]


def in_format(text: str, tags: Tags) -> str:
    """A turn in the policy's format: one without any of its tags is an action.

    >>> in_format("go[attic]", Tags())
    '<answer>go[attic]</answer>'
    """
    known = [tags.state_opening, tags.state_closing, *tags.stop]
    if any(each in text for each in known):
        return text
    return written_turn("", text.strip(), tags).removeprefix(tags.state_opening + tags.state_closing)


def _task(line: Mapping[str, Any]) -> tuple[Split, int]:
    split, index = line.get("split", "train"), line.get("index")
    if split not in get_args(Split) or isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise ValueError(
            f"expected the split and the index of a task, or its prompt, got split {split!r:.20} and index "
            f"{index!r:.20}"
        )
    return split, index


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e9:
        raise ValueError(f"expected reward to be a number, got {value!r:.40}")
    return float(value)


def _texts(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value) or len(value) > MAX_TURNS:
        raise ValueError(f"expected {name} to be text, got {value!r:.60}")
    return value


def _conversation(messages: Any, tags: Tags) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Prompt, turns and replies of chat messages: what is before the first turn is the prompt."""
    if not isinstance(messages, Sequence) or not all(isinstance(each, Mapping) for each in messages):
        raise ValueError(f"expected messages to be a list of objects with role and content, got {messages!r:.60}")
    turns: list[str] = []
    others: list[list[str]] = [[]]  # what was said before each turn, and behind the last
    for message in messages:
        if message.get("role") == "assistant":
            turns.append(_turn(message, tags))
            others.append([])
        elif message.get("role") in ("system", "developer", "user", "tool"):
            others[-1].append(_content(message))
        else:
            raise ValueError(f"expected the roles system, user, assistant and tool, got {message.get('role')!r:.40}")
    if not turns or not others[0]:
        raise ValueError("expected a user's message and an assistant's behind it, got none")
    if any(not each for each in others[1:-1]):
        raise ValueError("expected a user's or a tool's message between two of the assistant, got none")
    prompt, *replies = ("\n".join(each) for each in others)
    return prompt, tuple(turns), tuple(replies[: len(turns) - 1])


def _turn(message: Mapping[str, Any], tags: Tags) -> str:
    if message.get("tool_calls"):
        raise ValueError("expected the assistant's turns as text, got tool_calls; write each call as name[argument]")
    text = _content(message)
    thought = next((str(message[key]) for key in REASONING if message.get(key)), "")
    if not thought or tags.state_opening in text:
        return in_format(text, tags)
    parsed = parse_turn(in_format(text, tags), tags)
    return written_turn(thought, parsed.action, tags) if parsed.action else in_format(text, tags)


def _content(message: Mapping[str, Any]) -> str:
    """The text of a message; of a list of parts those that are text."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    if not isinstance(content, str):
        raise ValueError(f"expected the content of a message to be text, got {content!r:.40}")
    return content
