"""Plays the episodes of agents: a gateway before the engine, the agents at the same time, trajectories behind them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from lightning_mem1.rollout.env_guard import EnvError, checked, checked_task
from lightning_mem1.rollout.episodes import Episode
from lightning_mem1.rollout.gateway.agent import AgentEnv, AgentThread, Ended, arguments, outcome
from lightning_mem1.rollout.gateway.clients import Clients
from lightning_mem1.rollout.gateway.gateway import Gateway
from lightning_mem1.rollout.gateway.pacing import Pacing
from lightning_mem1.rollout.gateway.session import Session, shared_prompt
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Engine, StopReason, Trajectory, Turn

MAX_INFO_CHARS = 64_000
OnTurn = Callable[[Trajectory, Turn], None]
OnEnd = Callable[[int, Trajectory], None]


def play_agents(
    episodes: Sequence[Episode],
    engine: Engine,
    tokenizer: Any,
    settings: RolloutSettings,
    on_turn: OnTurn | None = None,
    on_end: OnEnd | None = None,
) -> list[Trajectory]:
    """Play episodes whose environments are `AgentEnv`s of the same settings; the arguments are those of `collect`."""
    run = next(each.env.settings for each in episodes if isinstance(each.env, AgentEnv))
    with ExitStack() as stack:
        gateway = stack.enter_context(Gateway(engine, tokenizer, settings, run.host, run.port, run.max_calls))
        agents = stack.enter_context(AgentThread(gateway.inbox.put))
        clients = Clients(gateway.url)
        stack.callback(lambda: agents.run(clients.close(), timeout_s=2.0))
        playing = _Playing(episodes, gateway, agents, clients, on_turn, on_end)
        return playing.to_the_end(run.max_running or len(episodes))


class _Playing:
    """What the episodes of one call share; all of it in the thread that the engine belongs to."""

    def __init__(
        self,
        episodes: Sequence[Episode],
        gateway: Gateway,
        agents: AgentThread,
        clients: Clients,
        on_turn: OnTurn | None,
        on_end: OnEnd | None,
    ) -> None:
        self.episodes, self.gateway, self.agents, self.clients = episodes, gateway, agents, clients
        self.on_turn, self.on_end = on_turn, on_end
        self.trajectories = [Trajectory(e.task, [], [], StopReason.DONE, e.group, e.seed) for e in episodes]
        self.sessions: dict[int, Session] = {}  # of the episodes that are being played
        self.started: dict[int, float] = {}
        self.waiting = deque(range(len(episodes)))
        self.decode, self.pacing = gateway.renderer.decode, Pacing()

    def to_the_end(self, max_running: int) -> list[Trajectory]:
        """Run agents and engine until every episode is over."""
        while self.waiting or self.sessions:
            while self.waiting and len(self.sessions) < max_running:
                self._begin(self.waiting.popleft())
            self._take()
            if self.gateway.engine.pending:
                self._step()
        return self.trajectories

    def _begin(self, number: int) -> None:
        episode, trajectory = self.episodes[number], self.trajectories[number]
        self.started[number] = time.perf_counter()
        try:
            trajectory.task = checked_task(episode.task)
            if not isinstance(episode.env, AgentEnv):  # it could not be made
                episode.env.observe()
                raise TypeError(f"expected an agent, got {type(episode.env).__name__}")
        except Exception as error:
            self._finish(number, Ended(number, error=EnvError.of(error)), Session(0))
            return
        self.sessions[number] = session = Session(episode.seed)
        self.gateway.open(number, session)
        run, agent = episode.env, episode.env.agent
        given = arguments(agent, trajectory.task, self.clients.client(agent, session.key), run.env)
        self.agents.start(number, agent, given, run.settings.timeout_s)
        self.pacing.expected += 1

    def _take(self) -> None:
        """Take in what came, calls and agents that have ended, and what is worth waiting for; without any, wait."""
        while self.sessions:
            wait_s = self.pacing.wait_s() if self.gateway.engine.pending else None
            found = self.gateway.next(wait_s)
            if found is None:
                if wait_s:
                    self.pacing.missed()
                return
            self.pacing.came()
            if isinstance(found, Ended) and found.number in self.sessions:
                session = self.sessions.pop(found.number)
                self.gateway.close(session)
                self._finish(found.number, found, session)
                if self.waiting:
                    return

    def _step(self) -> None:
        begun = time.perf_counter()
        completions = self.gateway.engine.step()
        self.pacing.stepped(time.perf_counter() - begun, len(completions))
        for completion in completions:
            number = self.gateway.number_of(completion)
            call = self.gateway.answer(completion)
            if call is not None and call.turn is not None and self.on_turn and number is not None:
                self.on_turn(self.trajectories[number], call.turn)

    def _finish(self, number: int, ended: Ended, session: Session) -> None:
        trajectory = self.trajectories[number]
        trajectory.turns = session.turns()
        trajectory.prompt_ids = shared_prompt(trajectory.turns)
        for turn in trajectory.turns:
            turn.information = self.decode(turn.information_ids)
        trajectory.seconds = time.perf_counter() - self.started[number]
        try:
            if ended.error is not None:
                raise ended.error
            _reward(trajectory, ended.value)
        except Exception as error:
            known = EnvError.of(error)
            trajectory.error, trajectory.error_at = str(known), known.at
            trajectory.stop_reason = _reason(session)
        if self.on_end:
            self.on_end(number, trajectory)


def _reason(session: Session) -> StopReason:
    """Why an episode ended with an error: what it ran into, where that is known."""
    if session.outgrown:
        return StopReason.CONTEXT
    return StopReason.MAX_TURNS if session.spent else StopReason.ERROR


def _reward(trajectory: Trajectory, value: Any) -> None:
    """Put what an agent returned on the last turn."""
    result = checked(outcome(value), MAX_INFO_CHARS)
    if not trajectory.turns:
        raise ValueError("the agent ended without a call of the policy: expected at least one, got none")
    trajectory.turns[-1].reward, trajectory.turns[-1].info = result.reward, result.info
