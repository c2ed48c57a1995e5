"""One trajectory as plain values for the page: what each turn saw, kept, dropped, wrote and got back.

Texts are cut to size and control characters written out here, so nothing that reaches the page is long or can act.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import groupby
from operator import itemgetter
from typing import Any

from lightning_mem1.context.contexts import Contexts, act_number
from lightning_mem1.context.internal_state import state_spans, state_turns
from lightning_mem1.context.memory import Decode
from lightning_mem1.context.origins import token_origins
from lightning_mem1.context.settings import MemorySetting
from lightning_mem1.context.tags import printable
from lightning_mem1.evaluation.view import View
from lightning_mem1.types import Trajectory, Turn

MAX_CHARS = 4000  # of one text
MAX_IDS = 600  # of one turn
MAX_TURNS = 60
BROKEN = "\N{REPLACEMENT CHARACTER}"  # how an unfinished character decodes


def episode(
    trajectory: Trajectory,
    view: View,
    advantages: Sequence[float] | None = None,
    row: str = "",
) -> dict[str, Any]:
    """Everything the page shows of a trajectory, as values that JSON holds.

    Args:
        trajectory: What was played.
        view: How it was played.
        advantages: One number per action token, turn by turn; None when nobody knows them.
        row: What it is listed under.

    Returns:
        The trajectory's own values, how many turns ``acts`` there were, and ``turns``, the first `MAX_TURNS`. A turn's
        ``kind`` is ``act`` or ``memory`` and its ``number`` that of the act it is or follows; ``context`` and
        ``dropped`` hold ``[kind, turn, tokens]`` (see `parts`, `dropped`), ``diff`` holds ``[op, words]`` (see
        `word_diff`; None where the state is another turn's to write), and
        ``pieces``, ``logprobs`` (nats) and ``advantages`` line up, one for each of its first `MAX_IDS` ids, of
        which those from ``state[0]`` to before ``state[1]`` are its internal state.

    Raises:
        ValueError: there is not one advantage for each action token.
    """
    decode, num_ids = view.decode, sum(len(turn.action_ids) for turn in trajectory.turns)
    if advantages is not None and len(advantages) != num_ids:
        raise ValueError(
            f"advantages must align with trajectory '{trajectory.task.id}': expected {num_ids} tokens, got "
            f"{len(advantages)}"
        )
    shown = _turns(trajectory, view, advantages)
    return {
        "row": printable(row),
        "task": printable(trajectory.task.id),
        "memory": view.contexts.memory.name,
        "objectives": len(trajectory.task.objectives),
        "prompt": shortened(decode(trajectory.prompt_ids)),
        "reward": finite(trajectory.reward),
        "success": finite(trajectory.success),
        "stop": str(trajectory.stop_reason),
        "error": shortened(trajectory.error),
        "invalid": sum(not turn.valid for turn in trajectory.acts),
        "group": trajectory.group,
        "seed": str(trajectory.seed),  # 63 bits are more than a browser's numbers hold
        "seconds": finite(trajectory.seconds),
        "turns": shown,
        "acts": len(trajectory.acts),
        "turns_left_out": len(trajectory.turns) - len(shown),
    }


def _turns(trajectory: Trajectory, view: View, advantages: Sequence[float] | None) -> list[dict[str, Any]]:
    """The first `MAX_TURNS` turns, see `episode`."""
    turns, lengths, decode = trajectory.turns, [len(turn.action_ids) for turn in trajectory.turns], view.decode
    seen, everything = parts(trajectory, view.contexts), parts(trajectory, "full")
    spans = state_spans(replace(trajectory, turns=turns[:MAX_TURNS]), decode, view.tags.internal_state)
    states = [decode(turn.action_ids[a:b]).strip() for turn, (a, b) in zip(turns, spans, strict=False)]
    carried = set(state_turns(trajectory))
    shown, before = [], ""
    for number, turn in enumerate(turns[:MAX_TURNS]):
        start = sum(lengths[:number])
        gains = None if advantages is None else advantages[start : start + lengths[number]]
        shown.append(
            {
                "kind": turn.kind,
                "number": act_number(trajectory, number),
                "context": seen[number],
                "dropped": dropped(everything[number], seen[number]),
                "diff": word_diff(before, states[number]) if number in carried else None,
                "state": list(spans[number]),
                **_written(turn, decode, gains),
                **_reply(turn, decode),
            }
        )
        before = states[number] if number in carried else before
    return shown


def parts(trajectory: Trajectory, memory: MemorySetting | Contexts) -> list[list[list[Any]]]:
    """What the context of each turn is made of, in order: ``[kind, turn, tokens]``.

    ``kind`` is ``prompt`` (its turn is -1), ``turn`` (what the policy wrote), ``memory`` (the one it wrote after
    this turn), ``information``, or ``other`` for ids that are none of the trajectory's own. For a prompt of 5, turns of
    3 and replies of 2, in mode mem1::

        turn 0   prompt 5
        turn 2   prompt 5, turn 1 3, information 1 2

    A part of an act that is not all of it has a fourth entry, where it begins: in mode multiscale ``[turn, 0, 2, 0]``
    is the state of a turn of which no more is left.
    """
    owners = [("prompt", -1)] * len(trajectory.prompt_ids)
    for place, turn in enumerate(trajectory.turns):
        kind, number = "turn" if turn.kind == "act" else "memory", act_number(trajectory, place)
        owners += [(kind, number)] * len(turn.ids) + [("information", number)] * len(turn.information_ids)
    wholes = {owner: range(owners.index(owner), owners.index(owner) + n) for owner, n in Counter(owners).items()}
    found = []
    for context in token_origins(trajectory, memory):
        named = [(("other", -1) if place is None else owners[place], place) for place in context]
        runs = [(owner, [place for _, place in run]) for owner, run in groupby(named, itemgetter(0))]
        found.append([[*owner, len(run), *_offset(owner[0], run, wholes.get(owner))] for owner, run in runs])
    return found


def _offset(kind: str, run: Sequence[int | None], whole: range | None) -> list[int]:
    """Where a part of an act begins in it; nothing for all of it, and for anything else."""
    if kind != "turn" or whole is None or run[0] is None or len(run) == len(whole):
        return []
    return [run[0] - whole.start]


def dropped(everything: Sequence[Sequence[Any]], seen: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """What the whole history holds and a context does not, as ``[kind, turn, tokens]``."""
    kept: Counter[tuple[str, int]] = Counter()
    for kind, turn, tokens, *_ in seen:
        kept[kind, turn] += tokens
    return [[kind, turn, tokens - kept[kind, turn]] for kind, turn, tokens in everything if tokens > kept[kind, turn]]


def word_diff(before: str, after: str) -> list[list[str]]:
    """How one text became another, over words: runs of ``=`` (stayed), ``-`` (went) and ``+`` (came).

    >>> word_diff("buy red shoes", "buy blue shoes")
    [['=', 'buy '], ['-', 'red'], ['+', 'blue'], ['=', ' shoes']]
    """
    old, new = (re.findall(r"\s+|\S+", shortened(text)) for text in (before, after))
    runs: list[list[str]] = []
    for op, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if op == "equal":
            runs.append(["=", "".join(new[c:d])])
            continue
        runs += [[sign, "".join(words)] for sign, words in (("-", old[a:b]), ("+", new[c:d])) if words]
    return runs


def pieces(ids: Sequence[int], decode: Decode) -> list[str]:
    """The text of each id, as it reads behind the ids before it (some tokenizers drop a space that begins a text).

    A character made of several ids stands at the last of them, the others are empty::

        c  a  f  <C3>  <A9>        "c" "a" "f" "" "e with acute"
    """
    texts, before, start = [], 0, 0
    for end in range(1, len(ids) + 1):
        lead, text = decode(ids[before:start]), decode(ids[before:end])
        if text.endswith(BROKEN) and end < len(ids) and end - start < 4:  # a character has at most four bytes
            texts.append("")
            continue
        texts.append(text[len(lead) :] if text.startswith(lead) else decode(ids[start:end]))
        before, start = start, end
    return texts


def shortened(text: str, limit: int = MAX_CHARS) -> str:
    """Printable text without its middle, which says how long it was.

    >>> shortened("abcdefghij", 4)
    'abc ... 6 characters left out ... j'
    """
    if len(text) <= limit:
        return printable(text)
    tail = limit // 4
    left_out = f" ... {len(text) - limit:,} characters left out ... "
    return printable(text[: limit - tail]) + left_out + printable(text[len(text) - tail :])


def finite(number: float) -> float | None:
    """A number that JSON can hold, to six significant digits; None for one that is not finite."""
    return float(f"{number:.6g}") if math.isfinite(number) else None


def _written(turn: Turn, decode: Decode, advantages: Sequence[float] | None) -> dict[str, Any]:
    ids = turn.action_ids[:MAX_IDS]
    return {
        "written": len(turn.action_ids),
        "pieces": [printable(piece) for piece in pieces(ids, decode)],
        "logprobs": [finite(number) for number in turn.action_logprobs[: len(ids)]],
        "advantages": None if advantages is None else [finite(float(number)) for number in advantages[: len(ids)]],
        "action": None if turn.action is None else shortened(turn.action),
        "valid": turn.valid,
        "retried": turn.retried,
    }


def _reply(turn: Turn, decode: Decode) -> dict[str, Any]:
    """The reply as it stood in later contexts; the last one stood in none and is the environment's own words."""
    ids = turn.information_ids
    return {
        "information": shortened(decode(ids) if ids else turn.information),
        "information_tokens": len(ids),
        "reward": finite(turn.reward),
        "info": {shortened(str(key), 100): _plain(value) for key, value in turn.info.items()},
    }


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shortened(str(value), 400)
