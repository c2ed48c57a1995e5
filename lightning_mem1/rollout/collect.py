"""Rollouts: play many episodes at once in a memory mode, and record exactly what was sampled.

Seeds belong to trajectories, so a trajectory does not depend on what else is in the batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from lightning_mem1.context.modes.recorded import Recorded
from lightning_mem1.context.settings import MemorySetting, memory_mode
from lightning_mem1.rollout.episodes import Episode as Episode
from lightning_mem1.rollout.gateway.agent import AgentEnv
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.turn_loop import Play, Running, TurnLoop
from lightning_mem1.types import Engine, Trajectory, Turn


def collect(
    episodes: Sequence[Episode],
    engine: Engine,
    tokenizer: Any,
    settings: RolloutSettings,
    memory: MemorySetting = "mem1",
    on_turn: Callable[[Trajectory, Turn], None] | None = None,
    on_end: Callable[[int, Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Play episodes to their ends.

    Args:
        episodes: What to play; their environments are used up. Agents (`AgentEnv`) play through a gateway.
        engine: Generates the turns; it is reset first.
        tokenizer: A transformers tokenizer, the policy's.
        settings: Sampling and limits.
        memory: Memory mode.
        on_turn: Called after each turn, one that writes a memory too, e.g. to show progress.
        on_end: Called with the place in `episodes` and the trajectory as soon as an episode is over, however it ended.

    Returns:
        Trajectories in the order of `episodes`.
    """
    if any(isinstance(episode.env, AgentEnv) for episode in episodes):
        engine.reset()
        if not isinstance(mode := memory_mode(memory), Recorded):
            raise ValueError(
                f"agents send contexts of their own: expected memory mode recorded, got '{mode}'; set model.memory"
            )
        from lightning_mem1.rollout.gateway.play import play_agents  # imports a web server

        return play_agents(episodes, engine, tokenizer, settings, on_turn, on_end)
    found: dict[int, Trajectory] = {}

    def keep(place: int, trajectory: Trajectory) -> None:
        found[place] = trajectory
        if on_end:
            on_end(place, trajectory)

    collect_together([Play(episodes, settings, memory, on_turn, keep)], engine, tokenizer)
    return [found[place] for place in range(len(episodes))]


def collect_together(plays: Sequence[Play], engine: Engine, tokenizer: Any, at_once: int | None = None) -> None:
    """Play the episodes of several plays in one engine; whoever wants trajectories keeps them in `Play.on_end`.

    Where each play has an engine to itself, its last long episodes leave most slots idle; here others take them.

    Args:
        plays: What to play, in the order in which it begins.
        engine: Generates the turns; it is reset first.
        tokenizer: A transformers tokenizer, the policy's.
        at_once: Most episodes that are under way at a time; None for all of them.
    """
    engine.reset()
    with ExitStack() as stack:
        loops = [stack.enter_context(TurnLoop(engine, tokenizer, play)) for play in plays]
        waiting = ((each, place, episode) for each in loops for place, episode in enumerate(each.play.episodes))
        running: dict[int, tuple[TurnLoop, int, Running]] = {}
        sessions = itertools.count()

        def begin() -> None:
            while at_once is None or len(running) < at_once:
                if (following := next(waiting, None)) is None:
                    return
                loop, place, episode = following
                session = next(sessions)
                running[session] = loop, place, loop.begin(session, episode)
                end(session)

        def end(session: int) -> None:
            loop, place, each = running[session]
            if each.done:
                del running[session]
                if loop.play.on_end:
                    loop.play.on_end(place, each.trajectory)

        begin()
        while engine.pending or any(loop.waits for loop in loops):
            for completion in engine.step() if engine.pending else []:
                loop, _, each = running[completion.session]
                loop.advance(completion.session, each, completion)
                end(completion.session)
            for loop in loops:
                for session, reply in loop.carried_out():
                    loop.advance(session, running[session][2], reply)
                    end(session)
            begin()
