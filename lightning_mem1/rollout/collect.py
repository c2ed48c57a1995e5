"""Rollouts: play many episodes at once, each with its memory mode, and write down exactly what was sampled.

This is the boundary where any exception is caught: an environment that fails ends its own trajectory, never the run;
so does an engine that could not generate a turn.
Seeds belong to trajectories, so a trajectory does not depend on what else is in the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Literal

from lightning_mem1.context import memory
from lightning_mem1.context.formats import prompt_format
from lightning_mem1.context.sentence_encoder import Encoder
from lightning_mem1.context.tags import ParsedTurn, escape_tags, parse_turn
from lightning_mem1.rollout.env_guard import EnvError, EnvGuard, checked_task
from lightning_mem1.rollout.env_threads import EnvThreads
from lightning_mem1.rollout.plain_values import valid_text
from lightning_mem1.rollout.seeds import turn_seed
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import (
    Completion,
    Engine,
    Env,
    GenerationRequest,
    StepResult,
    StopReason,
    Task,
    Trajectory,
    Turn,
)

KEPT_TAIL = 0.25  # when information is cut, this part of the budget keeps its end (the available actions stand there)
MAX_CHARS_PER_TOKEN = 64  # of a text that is read at all; ordinary ones have about four


@dataclass(frozen=True)
class Episode:
    """A task to be played: `group` numbers the episodes of the same task, `seed` makes the sampling its own."""

    task: Task
    env: Env
    group: int = 0
    seed: int = 0


@dataclass
class _Player:
    """The state of one episode while it is played."""

    episode: Episode
    trajectory: Trajectory
    started: float
    asked: Turn = field(default_factory=lambda: Turn([], []))  # the turn that is being generated, nothing of it yet
    parsed: ParsedTurn | None = None  # the turn whose action is being carried out
    done: bool = False


def collect(
    episodes: Sequence[Episode],
    engine: Engine,
    tokenizer: Any,
    settings: RolloutSettings,
    mode: str = "mem1",
    window: int = 2,
    on_turn: Callable[[Trajectory, Turn], None] | None = None,
    on_end: Callable[[int, Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Play episodes to their ends.

    Args:
        episodes: What to play; their environments are used up.
        engine: Generates the turns; it is reset first.
        tokenizer: A transformers tokenizer, the policy's.
        settings: Sampling and limits.
        mode: Memory mode.
        window: Turns kept by mode `window`, retrieved by mode `amem`.
        on_turn: Called after each turn, one that writes a memory too, e.g. to show progress.
        on_end: Called with the place in `episodes` and the trajectory as soon as an episode is over, however it ended.

    Returns:
        Trajectories in the order of `episodes`.
    """
    memory.check_mode(mode, window)
    engine.reset()
    with _Rollout(engine, tokenizer, settings, mode, window) as rollout:
        players = [rollout.begin(session, episode) for session, episode in enumerate(episodes)]
        if on_end:
            for session, player in enumerate(players):
                if player.done:
                    on_end(session, player.trajectory)
        while engine.pending or rollout.waits:
            for session, ended in rollout.ended():
                player = players[session]
                rollout.go_on(session, player, ended, on_turn)
                if player.done and on_end:
                    on_end(session, player.trajectory)
    return [player.trajectory for player in players]


class _Rollout:
    """What the episodes of one call to `collect` share."""

    def __init__(self, engine: Engine, tokenizer: Any, settings: RolloutSettings, mode: str, window: int) -> None:
        self.engine, self.tokenizer, self.settings = engine, tokenizer, settings
        self.mode, self.window = mode, window
        self.wire = prompt_format(settings.wire, settings.tags, settings.instructions)
        self.memory_opening = self._encode(settings.tags.state_opening)
        self.embed = _encoder(settings.note_embedding) if settings.note_embedding and mode == "amem" else None
        self.guard = self._guard()
        self.steps = EnvThreads(settings.env_threads, settings.env_passes) if settings.env_threads else None

    def __enter__(self) -> _Rollout:
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

    def ended(self) -> Iterator[tuple[int, Completion | Future[StepResult]]]:
        """One pass: the sessions whose turn the engine ended, then those whose action was carried out in a thread."""
        if self.engine.pending:
            yield from ((completion.session, completion) for completion in self.engine.step())
        if self.steps:
            yield from self.steps.due(idle=not self.engine.pending)

    def begin(self, session: int, episode: Episode) -> _Player:
        trajectory = Trajectory(episode.task, [], [], StopReason.MAX_TURNS, episode.group, episode.seed)
        player = _Player(episode, trajectory, time.perf_counter())
        try:
            trajectory.task = checked_task(episode.task)
            observation = self.guard.observe(episode.env)
        except EnvError as error:
            _fail(player, str(error), error.at)
            return player
        if len(observation) > self.engine.max_context_tokens * MAX_CHARS_PER_TOKEN:  # not worth its tokenising
            _end(player, StopReason.CONTEXT)
            return player
        trajectory.prompt_ids = prompt_ids(trajectory.task, observation, self.tokenizer, self.settings, self.mode)
        self.ask(session, player)
        return player

    def go_on(
        self,
        session: int,
        player: _Player,
        ended: Completion | Future[StepResult],
        on_turn: Callable[[Trajectory, Turn], None] | None,
    ) -> None:
        """Take in what the engine or an environment ended, and ask for the next turn where there is one."""
        if isinstance(ended, Future):
            self.hear(player, ended)
        elif ended.error:
            _fail(player, f"engine: {ended.error}")
            return
        elif not self.take(session, player, ended):
            return
        if on_turn:
            on_turn(player.trajectory, player.trajectory.turns[-1])
        if not player.done:
            self.ask(session, player)

    def ask(self, session: int, player: _Player) -> None:
        """Submit the next turn, or end the episode when its context would not fit."""
        trajectory = player.trajectory
        due = memory.memory_due(self.mode, trajectory.turns)
        opening = list(self.memory_opening) if due else []
        context = memory.context_ids(trajectory.prompt_ids, trajectory.turns, self.mode, self.window) + opening
        if len(context) + self.settings.max_new_tokens > self.engine.max_context_tokens:
            _end(player, StopReason.CONTEXT)
            return
        kind: Literal["act", "memory"] = "memory" if due else "act"
        player.asked = Turn([], [], context_hash=memory.context_hash(context), kind=kind, opening_ids=opening)
        self.engine.submit(
            GenerationRequest(
                session=session,
                context_ids=context,
                max_new_tokens=self.settings.max_new_tokens,
                stop=self._stop(due, trajectory),
                temperature=turn_temperature(trajectory.turns, kind, self.settings),
                top_p=self.settings.top_p,
                seed=turn_seed(player.episode.seed, len(trajectory.turns)),
            )
        )

    def _stop(self, due: bool, trajectory: Trajectory) -> tuple[str, ...]:
        """What ends the next turn."""
        if due:
            return (self.settings.tags.state_closing,)
        return self.wire.stop(trajectory.task.max_turns - len(trajectory.acts))

    def take(self, session: int, player: _Player, completion: Completion) -> bool:
        """Take in a finished turn: an act is parsed and carried out, a memory is kept as it is.

        Returns:
            Whether the episode can go on; otherwise the reply is to come.
        """
        turn = replace(player.asked, action_ids=completion.ids, action_logprobs=completion.logprobs)
        turns = player.trajectory.turns
        turns.append(turn)
        if turn.kind == "memory":
            turn.valid = self.settings.tags.state_closing in self._decode(turn.action_ids)
            # once: a memory costs no turn, so that nothing else would end this
            turn.retried = self.settings.retries and not turn.valid and not turns[-2].retried
            return True
        player.parsed = parse_turn(self._decode(turn.action_ids), self.settings.tags)
        # a malformed turn is still shown to the environment, as an action that means nothing: it costs the turn,
        # and the agent sees its page again together with what was wrong
        env, action = player.episode.env, player.parsed.action or ""
        if self.steps:
            self.steps.begin(session, partial(self._step_alone, env), action)
            return False
        reply: Future[StepResult] = Future()
        try:
            reply.set_result(self.guard.step(env, action))
        except Exception as error:
            reply.set_exception(error)
        self.hear(player, reply)
        return True

    def _step_alone(self, env: Env, action: str) -> StepResult:
        """Carry out an action in one of several threads: a guard serves one at a time."""
        with closing(self._guard()) as guard:
            return guard.step(env, action)

    def hear(self, player: _Player, reply: Future[StepResult]) -> None:
        """Take in what an environment said to the last turn, or that it failed."""
        assert player.parsed is not None
        try:
            self._record(player, player.trajectory.turns[-1], player.parsed, reply.result())
        except EnvError as error:
            _fail(player, str(error), error.at)

    def _record(self, player: _Player, turn: Turn, parsed: ParsedTurn, result: StepResult) -> None:
        turn.action = parsed.action
        turn.reward, turn.info = result.reward, result.info
        turn.valid = result.valid and parsed.action is not None
        turn.information = result.information if not parsed.problem else f"{parsed.problem}\n{result.information}"
        turns_left = player.trajectory.task.max_turns - len(player.trajectory.acts)
        if result.done:
            _end(player, StopReason.DONE)
        elif turns_left <= 0:
            _end(player, StopReason.MAX_TURNS)
        else:
            turn.information_ids = self._information_ids(turn.information, turns_left)
            turn.retried = self.settings.retries and parsed.action is None
            if self.embed and not turn.retried:
                note = self._decode([*turn.ids, *turn.information_ids])
                turn.embedding = tuple(map(float, self.embed([note])[0]))

    def _information_ids(self, information: str, turns_left: int) -> list[int]:
        return information_ids(information, turns_left, self._encode, self.settings)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))


@lru_cache(maxsize=1)
def _encoder(model: str) -> Encoder:
    return Encoder(model)


def prompt_ids(
    task: Task, observation: str, tokenizer: Any, settings: RolloutSettings, mode: str = "mem1"
) -> list[int]:
    """Ids of the prompt that every context of a task begins with.

    Args:
        task: What is asked.
        observation: What its environment shows first.
        tokenizer: The policy's.
        settings: Wire format and prompt style.
        mode: Memory mode; a prompt that explains the format explains that of staged modes where the mode is one.
    """
    wire = prompt_format(settings.wire, settings.tags, settings.instructions)
    message = wire.prompt(task.prompt, observation, task.max_turns, settings.prompt, mode in memory.STAGED)
    if not tokenizer.chat_template:
        return list(tokenizer.encode(message + "\n", add_special_tokens=False))
    chat = [{"role": "user", "content": message}]
    rendered = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return list(tokenizer.encode(rendered, add_special_tokens=False))


def information_ids(
    information: str, turns_left: int, encode: Callable[[str], list[int]], settings: RolloutSettings
) -> list[int]:
    """Ids of a reply as later contexts hold it; one that is too long loses its middle, never its closing tag.

    Args:
        information: What the environment said; tags in it are made harmless.
        turns_left: How many turns the agent still has, for the hint.
        encode: Text -> ids, the policy's, without special tokens.
        settings: Wire format and limits.
    """
    opening, closing = prompt_format(settings.wire, settings.tags, settings.instructions).information_ends(turns_left)
    head, tail = encode(opening), encode(closing)
    body = encode(escape_tags(information, settings.tags))
    room = max(0, settings.max_information_tokens - len(head) - len(tail))
    if len(body) > room:
        kept = int(room * KEPT_TAIL)
        body = body[: room - kept] + body[len(body) - kept :]
    return [*head, *body, *tail]


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


def _end(player: _Player, reason: StopReason) -> None:
    player.done = True
    player.trajectory.stop_reason = reason
    player.trajectory.seconds = time.perf_counter() - player.started


def _fail(player: _Player, problem: str, at: str = "") -> None:
    player.trajectory.error = valid_text(" ".join(problem.split()))[:300]
    player.trajectory.error_at = at
    _end(player, StopReason.ERROR)
