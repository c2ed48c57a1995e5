"""Agents for the tests' configs, named by their dotted names."""

from __future__ import annotations

from typing import Any

from lightning_mem1.types import Env, Task


async def counter(task: Task, client: Any) -> dict[str, Any]:
    """Asks twice; what it wrote is worth something when its first letters come in the alphabet's order."""
    messages = [{"role": "user", "content": task.prompt}]
    answer = await client.chat.completions.create(model="policy", messages=messages)
    said = answer.choices[0].message
    messages += [said.model_dump(exclude_none=True), {"role": "user", "content": "and?"}]
    answer = await client.chat.completions.create(model="policy", messages=messages)
    reward = float(len(answer.choices[0].message.content or "") % 3)
    return {"reward": reward, "success": float(reward > 1)}


def player(task: Task, client: Any, env: Env) -> float:
    """Plays the environment with whatever the policy says."""
    reward, seen = 0.0, env.observe()
    while True:
        turn = client.completions.create(model="policy", prompt=f"{task.prompt}\n{seen}").choices[0].text
        result = env.step(turn)
        reward, seen = reward + result.reward, result.information
        if result.done:
            return reward


word = "no agent"
