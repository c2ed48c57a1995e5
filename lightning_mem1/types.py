"""The data that every package shares: tasks, environments, turns, trajectories.

A `Trajectory` holds what was sampled and nothing derived from it: contexts, masks, positions, metrics and
pictures are all computed from its ids. Ids are exact: they are never decoded and tokenised again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

Split = Literal["train", "val", "test"]


class StopReason(StrEnum):
    """Why a trajectory ended."""

    DONE = "done"  # the environment ended the episode
    MAX_TURNS = "max_turns"  # the turn budget is spent
    CONTEXT = "context"  # the next context would not fit the engine
    ERROR = "error"  # the environment or the engine failed; the trajectory is kept and counted


@dataclass(frozen=True)
class Objective:
    """One question of a task with its accepted answers."""

    question: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """What the agent is asked.

    Attributes:
        id: Stable name, e.g. ``"webshop/train/17"``.
        prompt: The user message that stays visible in every turn.
        objectives: What the task consists of (one entry for a shop task).
        max_turns: How many turns the agent may take.
        data: Plain values that the environment of this task needs (picklable).
    """

    id: str
    prompt: str
    objectives: tuple[Objective, ...]
    max_turns: int
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepResult:
    """The environment's reply to one action.

    Attributes:
        information: Text shown to the agent next (empty when the episode is over).
        reward: Reward of this step; a trajectory's reward is the sum over its steps.
        done: True when the episode is over.
        valid: False when the action could not be carried out (it still costs the turn).
        info: Numbers and words for metrics and transcripts, e.g. ``{"success": 1.0}``.
    """

    information: str
    reward: float = 0.0
    done: bool = False
    valid: bool = True
    info: Mapping[str, Any] = field(default_factory=dict)


class Env(Protocol):
    """Single-use environment of one task: there is no reset."""

    def observe(self) -> str:
        """Return what the agent sees before its first turn (may be empty)."""
        ...

    def step(self, action: str) -> StepResult:
        """Carry out one action."""
        ...


class TaskSource(Protocol):
    """Makes tasks and the environments that play them."""

    def size(self, split: Split) -> int:
        """Number of different tasks in a split."""
        ...

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split, 0 <= index < size(split)."""
        ...

    def env(self, task: Task) -> Env:
        """Return a fresh environment for a task made by this source."""
        ...


@dataclass(frozen=True)
class Directive:
    """What a turn did to the memory, in the memory modes that let the policy say so.

    Attributes:
        name: What was done, in the mode's word: branch, return, fold, delete or recall.
        turns: Numbers of the acts that it was done to, ascending, see `MemoryMode.numbered`.
        acts: Whether the turn acts on the environment too; otherwise all of it is about memory.
    """

    name: str
    turns: tuple[int, ...] = ()
    acts: bool = False


@dataclass(frozen=True)
class ExpertChoices:
    """Which experts the routers of a mixture of experts chose for tokens, see `policy.routing`.

    Attributes:
        data: A row of `width` unsigned numbers for each token, little endian.
        width: Numbers of a token: those of all routers, in the order in which a forward pass comes to them.
        itemsize: Bytes of a number, 1 or 2.
        start: How many tokens come before the first row; the turn before has their choices.
    """

    data: bytes
    width: int
    itemsize: int
    start: int = 0


@dataclass
class Turn:
    """One policy call and the reply to it.

    In a staged memory mode (`summary`) a call that writes the memory is a turn too, of kind ``memory``. It is sampled,
    scored and trained like the others; no environment replies.

    Attributes:
        action_ids: Ids the policy sampled, stop tokens included.
        action_logprobs: Log-probability of each action id under the policy that sampled it (same length), in
            nats, at the sampling temperature and before any top-p or top-k cut.
        information_ids: Ids of the reply as they are in later contexts (empty after the last turn).
        action: The action parsed out of the turn; None when it was malformed.
        information: The reply's text as the environment gave it.
        reward: Reward of this step.
        valid: False when the action was malformed or could not be carried out.
        info: The environment's `StepResult.info`.
        context_hash: Hash of the context ids that the engine was given for this turn; None when nobody kept it.
        kind: ``act`` for a turn that the environment replies to, ``memory`` for one that writes the memory.
        opening_ids: Ids that were put before the turn to say what is wanted (the opening tag of a memory, or what a
            chat template begins a reply with); they end its own context, stand before its action in later ones, and
            were not sampled.
        embedding: Unit vector of the turn and its reply by a sentence encoder, where memory mode `amem` was given one.
        retried: Whether it was malformed and is retried (`rollout.malformed: retry`): no later context holds it.
        directive: What it did to the memory, where the memory mode lets the policy say so.
        state_tokens: How many of its action ids are its internal state with the tags, where a mode keeps those alone.
        note_ids: Ids that stand for its reply once a mode has left that out.
        context_ids: Ids of its whole context as they were sent, the prompt's included, where an agent chose them
            (memory mode `recorded`); None where contexts follow from the turns.
        num_unmatched: Messages of the policy in that context whose sampled ids were not found, so that they were
            tokenised from their text.
        version: The rl_step that the weights were of which sampled it; None when nobody kept it.
        experts: Choices of the routers for the tokens of its context and its action, but for the last one, which no
            pass has run; None when the engine did not record them.
    """

    action_ids: list[int]
    action_logprobs: list[float]
    information_ids: list[int] = field(default_factory=list)
    action: str | None = None
    information: str = ""
    reward: float = 0.0
    valid: bool = True
    info: Mapping[str, Any] = field(default_factory=dict)
    context_hash: int | None = None
    kind: Literal["act", "memory"] = "act"
    opening_ids: list[int] = field(default_factory=list)
    embedding: tuple[float, ...] = ()
    retried: bool = False
    directive: Directive | None = None
    state_tokens: int = 0
    note_ids: Sequence[int] = ()
    context_ids: Sequence[int] | None = None
    num_unmatched: int = 0
    version: int | None = None
    experts: ExpertChoices | None = None

    @property
    def ids(self) -> list[int]:
        """The whole turn as it is in later contexts: what it was opened with, then what was sampled."""
        return [*self.opening_ids, *self.action_ids]


@dataclass
class Trajectory:
    """One episode.

    Attributes:
        task: The task that was played.
        prompt_ids: Ids of the prompt, the part that every context starts with.
        turns: The turns, oldest first, those that write a memory among them.
        stop_reason: Why it ended.
        group: Trajectories of the same task in one rl_step share this number (GRPO's group).
        seed: Seed of this trajectory's sampling.
        error: One line about what failed when `stop_reason` is ERROR.
        error_at: ``file:line`` where the environment raised it; empty when it did not.
        seconds: Wall-clock time of the episode.
    """

    task: Task
    prompt_ids: list[int]
    turns: list[Turn]
    stop_reason: StopReason
    group: int = 0
    seed: int = 0
    error: str = ""
    error_at: str = ""
    seconds: float = 0.0

    @property
    def acts(self) -> list[Turn]:
        """The turns that act: those that the turn budget counts and the environment replies to."""
        return [turn for turn in self.turns if turn.kind == "act"]

    @property
    def action_logprobs(self) -> list[float]:
        """Log-probabilities of all action tokens (T) when they were sampled, in nats, turn by turn."""
        return [logprob for turn in self.turns for logprob in turn.action_logprobs]

    @property
    def reward(self) -> float:
        """Sum of the rewards of the turns."""
        return sum(turn.reward for turn in self.turns)

    @property
    def success(self) -> float:
        """The environment's own `success` of the last act, 0.0 when it gave none."""
        acts = self.acts
        return float(acts[-1].info.get("success", 0.0)) if acts else 0.0


@dataclass(frozen=True)
class GenerationRequest:
    """One turn to be generated.

    Attributes:
        session: The episode the turn belongs to; an engine may reuse cached keys of the same session.
        context_ids: What the policy sees.
        max_new_tokens: Upper limit of the turn.
        stop: Strings that end the turn; the token that completes one is kept and scored.
        stop_ids: Ids that end the turn besides the policy's own ends of text; they are kept and scored as well.
        temperature: Sampling temperature; 0 means greedy.
        top_p: Nucleus cut of the sampling distribution, 1.0 for none.
        seed: Seed of this turn's sampling; equal seeds and contexts give equal turns, whatever the batch.
    """

    session: int
    context_ids: Sequence[int]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """A finished turn: sampled ids and their log-probabilities, in the order of sampling.

    Attributes:
        error: What went wrong when the engine could not generate the turn: the episode ends there.
        version: The rl_step that the weights were of, where the engine says so.
        experts: As in `Turn`.
    """

    session: int
    ids: list[int]
    logprobs: list[float]
    error: str = ""
    version: int | None = None
    experts: ExpertChoices | None = None


class Engine(Protocol):
    """Generates turns for many episodes at once and never waits for the slowest of them."""

    def reset(self) -> None:
        """Forget every queued turn and every cached key: the weights may have changed."""
        ...

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn; raises ValueError when it cannot fit `max_context_tokens`."""
        ...

    @property
    def max_context_tokens(self) -> int:
        """Most tokens that a context and the turn generated in it may have together."""
        ...

    def step(self) -> list[Completion]:
        """Advance every running turn by a token and return the ones that ended."""
        ...

    @property
    def pending(self) -> int:
        """Number of turns that are queued or running."""
        ...
