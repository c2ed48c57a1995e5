"""The context of each turn, derived from a trajectory's ids by a memory mode, and what follows from it.

With prompt P and turns (A0, I0), (A1, I1), the next context is::

    mem1       P A1 I1
    full       P A0 I0 A1 I1
    window     P A0 I0 A1 I1, and of more turns the last `window`
    none       P I1
    amem       P A0 I0 A1 I1, and of more turns the `window` nearest to the last, and the last
    compaction P A0 I0 A1 I1, until that passes a budget and a memory takes the place of what is older
    masked     P A0 I0 A1 I1, and of more turns than `window` a note in place of the older replies
    fold       P A0 I0 A1 I1, without the turns of branches that have ended
    multiscale P A1 I1, and before it the internal states that stand for what is older
    edit       P A0 I0 A1 I1, without the turns that the policy deleted
    recall     P A1 I1, which may quote what has left; or as compaction
    recorded   what the agent sent for that turn, whatever it is (`Turn.context_ids`)

A turn that was malformed and retried (`Turn.retried`) is in no context, in whatever mode::

    (A0, I0) (A1, I1), A1 retried    P A0 I0    in mem1 and in full
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeVar

from lightning_mem1.context.memory import Asked, Kind, MemoryMode, Runs, standing
from lightning_mem1.context.modes.recorded import Recorded
from lightning_mem1.context.settings import MemorySetting, memory_mode
from lightning_mem1.context.tags import ParsedTurn
from lightning_mem1.io.own_code import told
from lightning_mem1.types import Trajectory, Turn

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What the policy saw in one turn.

    Attributes:
        prompt: Ids of the prompt.
        runs: The runs behind it that are not empty, the turn's own opening last. They are the lists of the turns
            themselves where the memory mode hands those on, so a context that grows copies nothing.
        length: Tokens of all of it.
    """

    prompt: Sequence[int]
    runs: Runs
    length: int

    @classmethod
    def of(cls, prompt: Sequence[int], runs: Runs) -> Context:
        """Leaves out runs that are empty."""
        filled = [run for run in runs if len(run)]
        return cls(prompt, filled, len(prompt) + sum(map(len, filled)))

    @property
    def ids(self) -> list[int]:
        """All ids, in a list of their own."""
        return [*self.prompt, *chain.from_iterable(self.runs)]

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True)
class _Known:
    """Contexts, what they were derived from, and what was counted of them."""

    trajectory: weakref.ref[Trajectory]
    parts: list[Any]
    contexts: list[Context]
    counts: dict[str, int] = field(default_factory=dict)


class Contexts:
    """The contexts of trajectories in a memory mode: each trajectory's are derived when first asked for, and once.

    Layouts, token counts, metrics, reports and the drift of an rl_step are handed the same `Contexts`. What is known of
    a trajectory is forgotten when it is gone, and derived again when a turn was added, removed or given other lists.
    It is never written down: a checkpoint or a copy of this begins empty.

    Args:
        memory: The memory mode.
    """

    def __init__(self, memory: MemorySetting = "mem1") -> None:
        self.memory = memory_mode(memory)
        self._known: dict[int, _Known] = {}  # by the id of a trajectory that is alive

    def of(self, trajectory: Trajectory) -> list[Context]:
        """The context of each turn, in order; it ends with the turn's opening, where it has one."""
        known, parts = self._known.get(id(trajectory)), _parts(trajectory)
        if known is None or not _same(known.parts, parts):
            return self._keep(trajectory, parts, derive(trajectory, self.memory))
        return known.contexts

    def lengths(self, trajectory: Trajectory) -> list[int]:
        """Tokens of each turn's context."""
        return [context.length for context in self.of(trajectory)]

    def once(self, trajectory: Trajectory, name: str, count: Callable[[], int]) -> int:
        """A number that follows from a trajectory's contexts, such as its tokens in a layout: counted once by name."""
        self.of(trajectory)
        counts = self._known[id(trajectory)].counts
        if name not in counts:
            counts[name] = count()
        return counts[name]

    def first(self, trajectory: Trajectory, count: int) -> Trajectory:
        """The trajectory up to its first `count` turns, whose contexts are known as well."""
        part = replace(trajectory, turns=trajectory.turns[:count])
        self._keep(part, _parts(part), self.of(trajectory)[:count])
        return part

    def _keep(self, trajectory: Trajectory, parts: list[Any], contexts: list[Context]) -> list[Context]:
        number, mine = id(trajectory), weakref.ref(self)

        def forget(_: object) -> None:
            if (here := mine()) is not None:
                here._known.pop(number, None)

        self._known[number] = _Known(weakref.ref(trajectory, forget), parts, contexts)
        return contexts

    def __reduce__(self) -> tuple[type[Contexts], tuple[MemoryMode]]:
        return Contexts, (self.memory,)


def _parts(trajectory: Trajectory) -> list[Any]:
    """Everything that contexts can follow from, and how long its lists are."""
    lists = [trajectory.prompt_ids, *chain.from_iterable((t.action_ids, t.information_ids) for t in trajectory.turns)]
    return [trajectory.prompt_ids, *chain.from_iterable(vars(t).values() for t in trajectory.turns), *map(len, lists)]


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether all are the very same objects; whole numbers are compared by their values."""
    return len(one) == len(other) and all(
        a is b or (isinstance(a, int) and a == b) for a, b in zip(one, other, strict=True)
    )


def derived(memory: MemorySetting | Contexts) -> Contexts:
    """The contexts in a memory mode; those that were handed on as they are."""
    return memory if isinstance(memory, Contexts) else Contexts(memory)


def derive(trajectory: Trajectory, memory: MemoryMode) -> list[Context]:
    """The context of each turn: the mode is asked once for each. For what asks more than once there is `Contexts`."""
    turns, found = trajectory.turns, []
    for t, turn in enumerate(turns):
        sent = turn.context_ids if isinstance(memory, Recorded) else None
        runs = (
            [*kept(memory, turns[:t], turn.kind), turn.opening_ids] if sent is None else [_behind(trajectory, t, sent)]
        )
        found.append(Context.of(trajectory.prompt_ids, runs))
    return found


def _behind(trajectory: Trajectory, turn: int, sent: Sequence[int]) -> Sequence[int]:
    """What a recorded context has behind the prompt; raises ValueError where it does not begin with the prompt."""
    length = len(trajectory.prompt_ids)
    if list(sent[:length]) != trajectory.prompt_ids:
        raise ValueError(
            f"recorded contexts begin with the prompt: expected its {length} ids before turn {turn} of "
            f"'{trajectory.task.id}', got others; record what they all begin with as prompt_ids"
        )
    return sent[length:]


def kept(memory: MemoryMode, turns: Sequence[Turn], kind: Kind = "act") -> Runs:
    """The runs of ids that stay after some turns, for a call of a kind.

    Raises:
        ValueError: the mode failed; one line with its file and line.
    """
    rule = memory.memory_context if kind == "memory" else memory.context
    runs = _asked(memory, turns, lambda: list(rule(standing(turns))))
    if strange := [run for run in runs if not isinstance(run, Sequence)]:
        raise ValueError(
            f"memory mode '{memory}' keeps no runs of ids: expected lists, such as turn.action_ids, got "
            f"{strange[0]!r:.80}; fix its context()"
        )
    return runs


def _asked(memory: MemoryMode, turns: Sequence[Turn], question: Callable[[], T]) -> T:
    """What a mode says after some turns; somebody's own code may fail."""
    try:
        return question()
    except Exception as error:
        raise ValueError(f"memory mode '{memory}' failed after {len(turns)} turns: {told(error)}; fix it") from error


def context_ids(
    prompt_ids: Sequence[int], turns: Sequence[Turn], memory: MemorySetting = "mem1", kind: Kind = "act"
) -> list[int]:
    """Ids of the context in which the turn after `turns`, of a kind, is generated, without that turn's opening."""
    return [*prompt_ids, *chain.from_iterable(kept(memory_mode(memory), turns, kind))]


def contexts(trajectory: Trajectory, memory: MemorySetting | Contexts = "mem1") -> list[list[int]]:
    """Ids of the context of each turn of a trajectory, in order; they end with the turn's opening, where it has one."""
    return [context.ids for context in derived(memory).of(trajectory)]


def next_kind(turns: Sequence[Turn], memory: MemorySetting, prompt_tokens: int = 0) -> Kind:
    """What kind of call comes after `turns`: an act, or one that writes the memory.

    Raises:
        ValueError: the mode failed, asks for something else, or for a memory before there is an act to remember.
    """
    mode, before = memory_mode(memory), standing(turns)
    kind = _asked(mode, turns, lambda: mode.due(before, prompt_tokens))
    if kind not in ("act", "memory"):
        raise ValueError(f"memory mode '{mode}' asks for no kind of call: expected act or memory, got {kind!r}; fix it")
    if kind == "memory" and (not before or before[-1].kind == "memory"):
        raise ValueError(
            f"memory mode '{mode}' asks for a memory with nothing to remember: expected an act before each, got "
            f"{'a memory' if before else 'no turn'}; fix its due()"
        )
    return kind


def asked(turns: Sequence[Turn], written: ParsedTurn, memory: MemoryMode) -> Asked:
    """What a turn after `turns` asks of its memory; nothing when it holds no action.

    Raises:
        ValueError: the mode failed, or gives something else than `Asked`.
    """
    if written.action is None:
        return Asked()
    found = _asked(memory, turns, lambda: memory.parse(standing(turns), written))
    if not isinstance(found, Asked):
        raise ValueError(f"memory mode '{memory}' reads no turn: expected Asked, got {found!r:.80}; fix its parse()")
    return found


def drift(trajectory: Trajectory, memory: MemorySetting | Contexts = "mem1") -> int:
    """Number of turns whose context, derived now, is not what the engine was given when they were sampled.

    Training derives contexts from ids, so this stays 0. Anything else means that ids or the memory mode have changed
    since the rollout, and that training would not see what the rollout saw. A recorded turn counts too when a message
    of the policy was not found among what it sampled (`Turn.num_unmatched`): it is scored as it was played, and stands
    in its context as its text reads, not as it was sampled.
    """
    pairs = zip(trajectory.turns, derived(memory).of(trajectory), strict=True)
    return sum(
        turn.num_unmatched > 0 or turn.context_hash not in (None, context_hash(seen.ids)) for turn, seen in pairs
    )


def context_hash(ids: Sequence[int]) -> int:
    """What `Turn.context_hash` holds for a context."""
    return hash(tuple(ids))


def act_number(trajectory: Trajectory, turn: int) -> int:
    """Which act a turn is, or the memory of which act it writes, counted from 0: (A0, M0, A1, M1) are 0, 0, 1, 1."""
    return sum(each.kind == "act" for each in trajectory.turns[: turn + 1]) - 1


def largest_by_act(trajectory: Trajectory, numbers: Sequence[int]) -> list[int]:
    """One number for each turn that acts: the larger of its own and of that of the memory written after it.

    With numbers of (A0, M0, A1)::

        5 9 7   ->   9 7
    """
    found: list[int] = []
    for turn, number in zip(trajectory.turns, numbers, strict=True):
        if turn.kind == "act":
            found.append(number)
        else:
            found[-1] = max(found[-1], number)
    return found
