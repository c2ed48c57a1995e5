"""A picture of the layouts: which token of one trajectory sees which, and which are scored.

The matrices are drawn for the eye only; training in `tree` and `rows` never makes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, chain

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lightning_mem1.context.contexts import Contexts, derived
from lightning_mem1.context.settings import MemorySetting
from lightning_mem1.evaluation.report.episode import parts
from lightning_mem1.policy.tree_table import tree_table
from lightning_mem1.training.layouts.collate import mask
from lightning_mem1.training.layouts.single_copy import Stitch, official, stitched
from lightning_mem1.training.layouts.spans import LAYOUTS, StateEnd, check_layout
from lightning_mem1.training.layouts.trie import trie
from lightning_mem1.types import Trajectory

PROMPT, COPY, INFORMATION, SCORED = 1, 2, 3, 4  # kinds of tokens; 0 is what is not seen
NAMES = {PROMPT: "prompt", COPY: "copy, not scored", INFORMATION: "information", SCORED: "action, scored"}
COLORS = ("#f4f2ec", "#a9b0b8", "#9dbcf7", "#3fa66b", "#e8963a")  # by kind, those of the page
MAX_TOKENS = 3000  # of the longest layout: a picture has no more dots


def visible(
    trajectory: Trajectory,
    layout: str,
    memory: MemorySetting | Contexts = "mem1",
    state_end: StateEnd | None = None,
) -> np.ndarray:
    """(L, L): the kind of the token (column) that a token (row) sees, 0 where it sees none.

    The diagonal shows the kinds of all tokens, because every token sees itself. Prompt P, action A0 (twice in `tree`:
    its copy C0), information I, in mode mem1 over three turns of one token each, `tree`::

        P   1
        A0  1 4
        I0  1 4 3
        A1  1 4 3 4
        C1  1 . . . 2
        I1  1 . . . 2 3
        A2  1 . . . 2 3 4

    Args:
        trajectory: What was played.
        layout: tree, rows, stitched or official.
        memory: The memory mode it was played in, or its contexts as they were derived before.
        state_end: How much of a turn is its internal state; layout official needs it.

    Raises:
        ValueError: a layout that the memory mode does not have, or official without `state_end`.
    """
    contexts = derived(memory)
    check_layout(layout, contexts.memory)
    if layout in ("stitched", "official"):
        (line,) = _single_copy(trajectory, layout, contexts, state_end)
        turns = trajectory.turns
        pieces = [
            [COPY] * len(turn.opening_ids) + [SCORED] * len(turn.action_ids) + [INFORMATION] * len(turn.information_ids)
            for turn in turns
        ]
        kinds = [PROMPT] * line.prompt_length + [*chain.from_iterable(pieces)]
        return mask(line).numpy() * np.array(kinds[: len(line.ids)])
    seen = [_kinds(each) for each in parts(trajectory, contexts)]
    if layout == "rows":
        blocks = [
            context + [SCORED] * len(turn.action_ids) for context, turn in zip(seen, trajectory.turns, strict=True)
        ]
        return _blocks(blocks)
    return _trie(trajectory, contexts, seen)


def turns_drawn(trajectory: Trajectory, memory: MemorySetting | Contexts = "mem1") -> int:
    """How many of its first turns fit the picture; 0 when not even the first does."""
    pairs = zip(derived(memory).lengths(trajectory), trajectory.turns, strict=True)
    return sum(total <= MAX_TOKENS for total in accumulate(seen + len(turn.action_ids) for seen, turn in pairs))


def masks(
    trajectory: Trajectory, memory: MemorySetting | Contexts = "mem1", state_end: StateEnd | None = None
) -> Figure:
    """A panel for each layout that the memory mode has (official only with `state_end`), of the first turns that fit.

    Raises:
        ValueError: not even one turn fits, or there is none.
    """
    contexts = derived(memory)
    count = turns_drawn(trajectory, contexts)
    if not count:
        raise ValueError(
            f"nothing to draw of '{trajectory.task.id}': expected a first turn of at most {MAX_TOKENS} tokens in all"
        )
    cut = contexts.first(trajectory, count)
    matrices = {}
    for name in LAYOUTS:
        with suppress(ValueError):  # a mode that writes tokens of its own has no single copy
            matrices[name] = visible(cut, name, contexts, state_end)
    if not matrices:
        raise ValueError(f"nothing to draw of '{trajectory.task.id}': expected a layout of memory {contexts.memory}")
    figure = Figure(figsize=(3.6 * len(matrices), 4.2), layout="constrained")
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        axes.imshow(matrix, cmap=ListedColormap(COLORS), vmin=0, vmax=len(COLORS) - 1, interpolation="nearest")
        axes.set_title(f"{name}, {len(matrix):,} tokens", fontsize="medium")
        axes.set_xlabel("token that is seen")
        axes.set_ylabel("token that sees")
    patches = [Patch(color=COLORS[kind], label=name) for kind, name in NAMES.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize="small")
    figure.suptitle(f"memory {contexts.memory}, the first {count} of {len(trajectory.turns)} turns", fontsize="medium")
    return figure


def _single_copy(trajectory: Trajectory, layout: str, contexts: Contexts, state_end: StateEnd | None) -> list[Stitch]:
    if layout == "stitched":
        return stitched([trajectory], contexts)
    if state_end is None:
        raise ValueError("layout official hides internal states: expected state_end, which says where they end")
    return official([trajectory], state_end)


def _trie(trajectory: Trajectory, contexts: Contexts, seen: Sequence[Sequence[int]]) -> np.ndarray:
    """`visible` in `tree`, given the kinds of the tokens of each context."""
    packed = trie([trajectory], contexts)
    kinds, places = np.zeros(packed.num_tokens, int), torch.arange(packed.num_tokens)
    for span, row in zip(packed.spans, packed.rows(), strict=True):
        seen_by = row[: span.start + span.length].numpy()
        kinds[seen_by] = np.maximum(kinds[seen_by], [*seen[span.turn], *[SCORED] * span.length])
    return tree_table(packed.blocks).visible(places[:, None], places).numpy() * kinds


def _kinds(context: Sequence[Sequence[object]]) -> list[int]:
    """The kind of each token of a context, given its parts."""
    kind = {"prompt": PROMPT, "turn": COPY, "memory": COPY, "information": INFORMATION, "other": COPY}
    return [*chain.from_iterable([kind[str(name)]] * int(str(tokens)) for name, _, tokens, *_ in context)]


def _blocks(blocks: Sequence[Sequence[int]]) -> np.ndarray:
    """Causal blocks one after the other."""
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    place = np.arange(len(owner))
    seen = owner[:, None] == owner
    kinds = np.array([*chain.from_iterable(blocks)])
    return (seen & (place <= place[:, None])) * kinds
