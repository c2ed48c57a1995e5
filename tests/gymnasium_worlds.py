"""Functions that a YAML names, and environments whose spaces are no text."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text


class Corridor(gymnasium.Env):
    """Five places in a row; the last one pays. What is seen is drawn by the seed: where the light is."""

    def __init__(self, kind: str = "numbers") -> None:
        self.observation_space = {
            "numbers": Dict({"at": Discrete(5), "light": Box(0, 1, (2,), np.float32)}),
            "picture": Box(0, 255, (32, 32, 3), np.uint8),
        }[kind]
        self.action_space = Discrete(2) if kind == "numbers" else Dict({"push": Discrete(2)})
        self.kind = kind

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.light = 0, self.np_random.random(2).astype(np.float32)
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        push = action if self.kind == "numbers" else action["push"]
        self.at = max(0, self.at + (1 if push else -1))
        done = self.at == 4
        return self.seen(), float(done), done, False, {"is_success": done}

    def seen(self) -> Any:
        if self.kind == "picture":
            return np.full((32, 32, 3), self.at, np.uint8)
        return {"at": self.at, "light": self.light}


def render(observation: Any, info: Any, env: Any) -> str:
    return f"You are at {env.unwrapped.at} of 4."


def parse(text: str, env: Any) -> dict[str, int]:
    if text not in ("back", "on"):
        raise ValueError("expected back or on")
    return {"push": int(text == "on")}


for name, kind in (("Corridor-v0", "numbers"), ("Picture-v0", "picture")):
    if f"tests/{name}" not in gymnasium.registry:
        gymnasium.register(f"tests/{name}", entry_point=Corridor, kwargs={"kind": kind})

SPACES = {"digits": MultiDiscrete([3, 4]), "force": Box(-1, 1, (2,), np.float32), "word": Text(5)}
