"""Small agents, and what plays them in tests: a tiny policy behind a gateway on loopback."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.gateway.agent import AgentEnv, AgentSettings
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Completion, Env, GenerationRequest, Trajectory
from tiny import task, tiny_policy

# as Qwen's: roles between marks, tools in the system message, calls and their results in tags
TEMPLATE = """{%- if tools %}<|im_start|>system
tools: {% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}\
<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def chat_policy() -> Policy:
    """A tiny random policy with a chat template of its own."""
    policy = tiny_policy(LoraSettings(r=4))
    policy.tokenizer = copy.deepcopy(policy.tokenizer)  # the other tests' has none
    policy.tokenizer.chat_template = TEMPLATE.replace("<|im_end|>", policy.tokenizer.eos_token)
    return policy


class SpokenEngine:
    """Answers each context with what a function says, spelled out letter by letter: no tokenizer would write it so.

    Args:
        tokenizer: Ids to text and back.
        write: Text of a context -> text of the turn; the end of turn comes behind it.
        limit: Longest context.
    """

    def __init__(self, tokenizer: Any, write: Callable[[str], str], limit: int = 4096) -> None:
        self.tokenizer, self.write, self.max_context_tokens = tokenizer, write, limit
        self.seen: list[str] = []
        self._queue: deque[GenerationRequest] = deque()

    @property
    def pending(self) -> int:
        return len(self._queue)

    def reset(self) -> None:
        self._queue.clear()

    def submit(self, request: GenerationRequest) -> None:
        self._queue.append(request)

    def step(self) -> list[Completion]:
        request = self._queue.popleft()
        self.seen.append(self.tokenizer.decode(request.context_ids))
        text = self.write(self.seen[-1])
        if text == "broken":
            return [Completion(request.session, [], [], error="the machine is gone")]
        ids = [*spelled(self.tokenizer, text), self.tokenizer.eos_token_id]
        return [Completion(request.session, ids, [-0.5] * len(ids))]


def spelled(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text, each letter by itself."""
    return tokenizer.convert_tokens_to_ids([{" ": "\u0120", "\n": "\u010a"}.get(letter, letter) for letter in text])


def played(
    agent: Any,
    count: int = 1,
    policy: Policy | None = None,
    engine: Any = None,
    env: Env | None = None,
    rollout: RolloutSettings | None = None,
    **settings: Any,
) -> list[Trajectory]:
    """Trajectories of an agent, two of each task."""
    policy = policy or chat_policy()
    engine = engine or LocalEngine(policy, EngineSettings(num_slots=8, max_context_tokens=1024))
    run = AgentSettings(**{"timeout_s": 60.0, **settings})
    episodes = [Episode(task(i // 2), AgentEnv(agent, run, env), i // 2, seed=i) for i in range(count)]
    with torch.no_grad():
        rollout = rollout or RolloutSettings(max_new_tokens=8)
        return collect(episodes, engine, policy.tokenizer, rollout, "recorded")
