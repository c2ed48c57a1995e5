"""An environment of OpenEnv with types of its own, a server for any, and functions that a YAML names."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app


class Move(Action):
    steps: int
    note: str = ""
    mood: str = ""


class Place(Observation):
    at: int
    goal: int


class Walk(Environment):
    """A walk to a goal that the seed draws: one to nine steps."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, far: int = 0, **_: Any) -> Place:
        self.at, self.goal = 0, far + (seed or 0) % 9 + 1
        return self.seen()

    def step(self, action: Move, timeout_s: float | None = None, **_: Any) -> Place:
        if action.steps > 100:
            raise OverflowError("too far")
        self.at += action.steps
        return self.seen()

    def seen(self) -> Place:
        there = self.at == self.goal
        return Place(at=self.at, goal=self.goal, done=there, reward=float(there), metadata={"success": float(there)})

    @property
    def state(self) -> State:
        return State()


def walks(max_sessions: int = 8) -> Any:
    return create_fastapi_app(Walk, Move, Place, max_concurrent_envs=max_sessions, env_name="walk")


def render(observation: Mapping[str, Any]) -> str:
    return f"{observation['goal'] - observation['at']} steps to go"


def parse(text: str) -> dict[str, Any]:
    if not text.removeprefix("-").isdigit():
        raise ValueError("expected a number of steps")
    return {"steps": int(text)}


def unfit(text: str) -> dict[str, Any]:
    return {"steps": text}


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an application that is served within the context."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
