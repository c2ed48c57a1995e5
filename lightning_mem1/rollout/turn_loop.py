"""One episode, turn by turn: ask for a turn, take it in, carry out its action, take in the reply.

This is the boundary where any exception is caught: an environment that fails ends its own trajectory, never the run;
so does an engine that could not generate a turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from lightning_mem1.context.contexts import asked, context_hash, context_ids, next_kind
from lightning_mem1.context.memory import Asked, Kind
from lightning_mem1.context.settings import MemorySetting, memory_mode
from lightning_mem1.context.tags import ParsedTurn, parse_turn
from lightning_mem1.policy.expert_choices import shortened
from lightning_mem1.rollout.env_guard import EnvError, EnvGuard, checked_task
from lightning_mem1.rollout.env_threads import EnvThreads
from lightning_mem1.rollout.episodes import Episode
from lightning_mem1.rollout.plain_values import valid_text
from lightning_mem1.rollout.seeds import turn_seed
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import (
    Completion,
    Engine,
    Env,
    ExpertChoices,
    GenerationRequest,
    StepResult,
    StopReason,
    Trajectory,
    Turn,
)

MAX_CHARS_PER_TOKEN = 64  # of a text that is read at all; ordinary ones have about four


@dataclass(frozen=True)
class Play:
    """Episodes that are played alike; those of several plays share an engine (`collect_together`).

    Attributes:
        episodes: Made one after the other, when they begin. Agents (`AgentEnv`) cannot be among them.
        settings, memory, on_turn, on_end: As in `collect`.
    """

    episodes: Iterable[Episode]
    settings: RolloutSettings
    memory: MemorySetting = "mem1"
    on_turn: Callable[[Trajectory, Turn], None] | None = None
    on_end: Callable[[int, Trajectory], None] | None = None


@dataclass
class Running:
    """The state of one episode while it is played."""

    episode: Episode
    trajectory: Trajectory
    started: float
    asked: Turn = field(default_factory=lambda: Turn([], []))  # the turn that is being generated, its ids still to come
    parsed: ParsedTurn | None = None  # the turn whose action is being carried out
    wanted: Asked = field(default_factory=Asked)  # of its memory, by that turn
    experts: ExpertChoices | None = None  # all of those of the last turn
    done: bool = False


class TurnLoop:
    """What the episodes of one `Play` share."""

    def __init__(self, engine: Engine, tokenizer: Any, play: Play) -> None:
        self.engine, self.play = engine, play
        self.settings, self.memory = settings, memory = play.settings, memory_mode(play.memory)
        self.encoder = settings.encoder(tokenizer).with_actions(memory.actions)
        self.tags = self.encoder.format.tags
        self.note_ids = self.encoder.note_ids(memory.left_out())
        self.openings = {"act": self.encoder.turn_opening(memory.staged), "memory": self.encoder.memory_opening()}
        self.annotate = memory.annotator(self.encoder)
        self.guard = self._guard()
        self.steps = EnvThreads(settings.env_threads, settings.env_passes) if settings.env_threads else None

    def __enter__(self) -> TurnLoop:
        """Threads live no longer than the call to `collect`."""
        return self

    def __exit__(self, *_: object) -> None:
        if self.steps:
            self.steps.close()
        self.guard.close()

    def _guard(self) -> EnvGuard:
        return EnvGuard(self.settings.env_timeout_s, self.settings.max_information_tokens * MAX_CHARS_PER_TOKEN)

    @property
    def waits(self) -> bool:
        """Whether actions are being carried out in threads."""
        return self.steps is not None and self.steps.pending > 0

    def carried_out(self) -> Iterator[tuple[int, Future[StepResult]]]:
        """The sessions whose action was carried out in a thread."""
        if self.steps:
            yield from self.steps.due(idle=not self.engine.pending)

    def begin(self, session: int, episode: Episode) -> Running:
        trajectory = Trajectory(episode.task, [], [], StopReason.MAX_TURNS, episode.group, episode.seed)
        running = Running(episode, trajectory, time.perf_counter())
        try:
            trajectory.task = checked_task(episode.task)
            observation = self.guard.observe(episode.env)
        except EnvError as error:
            _fail(running, str(error), error.at)
            return running
        if len(observation) > self.engine.max_context_tokens * MAX_CHARS_PER_TOKEN:  # too long to be tokenised at all
            _end(running, StopReason.CONTEXT)
            return running
        about = self.memory.about(self.tags)
        trajectory.prompt_ids = self.encoder.prompt_ids(trajectory.task, observation, self.memory.staged, about)
        self.ask(session, running)
        return running

    def advance(self, session: int, running: Running, ended: Completion | Future[StepResult]) -> None:
        """Take in what the engine or an environment ended, and ask for the next turn where there is one."""
        if isinstance(ended, Future):
            self.receive(running, ended)
        elif ended.error:
            _fail(running, f"engine: {ended.error}")
            return
        elif not self.take(session, running, ended):
            return
        if self.play.on_turn:
            self.play.on_turn(running.trajectory, running.trajectory.turns[-1])
        if not running.done:
            self.ask(session, running)

    def ask(self, session: int, running: Running) -> None:
        """Submit the next turn, or end the episode when its context would not fit."""
        trajectory = running.trajectory
        kind = next_kind(trajectory.turns, self.memory, len(trajectory.prompt_ids))
        opening = list(self.openings[kind])
        context = context_ids(trajectory.prompt_ids, trajectory.turns, self.memory, kind) + opening
        if len(context) + self.settings.max_new_tokens > self.engine.max_context_tokens:
            _end(running, StopReason.CONTEXT)
            return
        running.asked = Turn([], [], context_hash=context_hash(context), kind=kind, opening_ids=opening)
        self.engine.submit(
            GenerationRequest(
                session=session,
                context_ids=context,
                max_new_tokens=self.settings.max_new_tokens,
                stop=self._stop(kind, trajectory),
                temperature=turn_temperature(trajectory.turns, kind, self.settings),
                top_p=self.settings.top_p,
                seed=turn_seed(running.episode.seed, len(trajectory.turns)),
            )
        )

    def _stop(self, kind: Kind, trajectory: Trajectory) -> tuple[str, ...]:
        """What ends the next turn."""
        if kind == "memory":
            return (self.tags.state_closing,)
        return self.encoder.format.stop(trajectory.task.max_turns - len(trajectory.acts))

    def take(self, session: int, running: Running, completion: Completion) -> bool:
        """Take in a finished turn: an act is parsed and carried out, a memory is kept as it is.

        Returns:
            Whether the turn is complete; otherwise the reply is still to come.
        """
        ids, logprobs, version = completion.ids, completion.logprobs, completion.version
        turn = replace(running.asked, action_ids=ids, action_logprobs=logprobs, version=version)
        if completion.experts is not None:
            turn.experts = shortened(completion.experts, running.experts)
            running.experts = completion.experts
        turns = running.trajectory.turns
        turns.append(turn)
        if turn.kind == "memory":
            turn.valid = self.tags.state_closing in self.encoder.decode(turn.action_ids)
            # once: a memory costs no turn, so that nothing else would end this
            turn.retried = self.settings.retries and not turn.valid and not turns[-2].retried
            return True
        running.parsed = parse_turn(self.encoder.decode(turn.ids), self.tags)
        running.wanted = asked(turns[:-1], running.parsed, self.memory)
        if running.wanted.problem:
            running.parsed = replace(running.parsed, problem=running.wanted.problem)
        turn.directive = running.wanted.directive
        step = partial(_carry_out, running.episode.env, running.parsed, running.wanted)
        if self.steps:
            self.steps.begin(session, self._alone, step)
            return False
        reply: Future[StepResult] = Future()
        try:
            reply.set_result(step(self.guard))
        except Exception as error:
            reply.set_exception(error)
        self.receive(running, reply)
        return True

    def _alone(self, step: Callable[[EnvGuard], StepResult]) -> StepResult:
        """Carry out an action in one of several threads: a guard serves one at a time."""
        with closing(self._guard()) as guard:
            return step(guard)

    def receive(self, running: Running, reply: Future[StepResult]) -> None:
        """Take in what an environment said to the last turn, or that it failed."""
        assert running.parsed is not None
        try:
            self._record(running, running.trajectory.turns[-1], running.parsed, reply.result())
        except EnvError as error:
            _fail(running, str(error), error.at)

    def _record(self, running: Running, turn: Turn, parsed: ParsedTurn, result: StepResult) -> None:
        wanted, trajectory = running.wanted, running.trajectory
        turn.action = parsed.action
        turn.reward, turn.info = result.reward, result.info
        turn.valid = result.valid and not parsed.problem
        first = parsed.problem or wanted.reply
        shown = result.information if wanted.page else ""
        turn.information = f"{first}\n{shown}" if first else shown
        turns_left = trajectory.task.max_turns - len(trajectory.acts)
        if result.done:
            _end(running, StopReason.DONE)
        elif turns_left <= 0:
            _end(running, StopReason.MAX_TURNS)
        else:
            before = [*self.encoder.encode(self.memory.label(trajectory.turns[:-1])), *wanted.quoted]
            turn.information_ids = self.encoder.information_ids(turn.information, turns_left, before, turn.ids)
            turn.retried = self.settings.retries and bool(parsed.problem)
            turn.note_ids = self.encoder.behind(turn.ids, self.note_ids)
            if self.annotate and not turn.retried:
                self.annotate(turn)


def _carry_out(env: Env, parsed: ParsedTurn, wanted: Asked, guard: EnvGuard) -> StepResult:
    """The reply to an action.

    A malformed turn is still shown to the environment, as an action that means nothing: it costs the turn, and the
    agent sees its page again together with what was wrong. Where the memory mode answers, it sees its page again too,
    unless that is still in view.
    """
    if wanted.reply is not None and not parsed.problem:
        return guard.look(env)
    return guard.step(env, "" if parsed.problem else parsed.action or "")


def turn_temperature(turns: Sequence[Turn], kind: str, settings: RolloutSettings) -> float:
    """Sampling temperature of the turn after `turns`: `retry_temperature` where greedy decoding would go in a circle.

    Args:
        turns: The turns so far.
        kind: Kind of the turn that is to be written; a memory is sampled behind one that was malformed only.
        settings: Its two temperatures.
    """
    before = [turn for turn in turns if turn.kind == kind]
    if settings.temperature or not settings.retry_temperature or not before:
        return settings.temperature
    *earlier, last = before
    again = kind == "act" and any(_same_step(turn, last) for turn in earlier)
    return settings.retry_temperature if again or not last.valid else 0.0


def _same_step(one: Turn, other: Turn) -> bool:
    return one.action_ids == other.action_ids and one.information == other.information


def _end(running: Running, reason: StopReason) -> None:
    running.done = True
    running.trajectory.stop_reason = reason
    running.trajectory.seconds = time.perf_counter() - running.started


def _fail(running: Running, problem: str, at: str = "") -> None:
    running.trajectory.error = valid_text(" ".join(problem.split()))[:300]
    running.trajectory.error_at = at
    _end(running, StopReason.ERROR)
