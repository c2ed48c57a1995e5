"""``mem1 serve CONFIG --chat``: a trained agent as chat completions, its memory mode applied by the server.

A client sends the newest message of a session, the task first and then replies; the server keeps the constant context.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from typing import Any

from lightning_mem1.checks import Range, check_number
from lightning_mem1.cli import errors
from lightning_mem1.context.memory import MemoryMode
from lightning_mem1.context.settings import memory_mode
from lightning_mem1.engine.serving.loop import EngineLoop
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.plain_settings import from_plain
from lightning_mem1.types import Completion, GenerationRequest

BACKLOG = 2048  # connections that wait to be taken


@dataclass(frozen=True)
class AgentSettings:
    """How the agent that is served was trained to see and to write."""

    rollout: RolloutSettings
    memory: MemoryMode


def chat_settings(config: Any) -> AgentSettings:
    """The settings of a config, before anything is loaded for them.

    Raises:
        ValueError: a number that cannot be, an option that chats do not have, or no web server is installed.
    """
    check_number("--max_turns", config.max_turns, Range(1, 10_000))
    check_number("--max_sessions", config.max_sessions, Range(1))
    check_number("--session_timeout_s", config.session_timeout_s, Range(0, above=True))
    if config.allow_adapters:
        raise ValueError("--chat serves one agent: expected no --allow_adapters; leave it out, or leave --chat out")
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"--chat needs a web server: expected the package {error.name}, got none; "
            "pip install 'lightning-mem1[agents]'"
        ) from None
    rollout = from_plain(RolloutSettings, config.model.rollout.as_dict(), "model.rollout")
    setting = config.model.memory
    return AgentSettings(rollout, memory_mode(setting.as_dict() if hasattr(setting, "as_dict") else setting))


def serve_chat(policy: Policy, engine: EngineSettings, agent: AgentSettings, name: str, given: Any) -> int:
    """Serve an agent until interrupted; returns the exit code.

    Args:
        policy: Its weights.
        engine: Settings of the local engine.
        agent: How it sees and writes.
        name: What its model is called.
        given: Where to listen and how many sessions to keep, as the command line says.
    """
    import uvicorn

    from lightning_mem1.rollout.chat.agent import ChatAgent
    from lightning_mem1.rollout.chat.app import ChatEndpoint, ChatSettings
    from lightning_mem1.rollout.chat.sessions import Sessions

    loop = EngineLoop(policy.eval(), engine)

    async def generate(request: GenerationRequest) -> Completion:
        return await asyncio.wrap_future(loop.begin(request))

    writes = ChatAgent(generate, policy.tokenizer, agent.rollout, agent.memory, engine.max_context_tokens)
    key = os.environ.get(ServerSettings().key_variable, "")
    settings = ChatSettings(name, key, given.max_turns, policy.end_ids)
    endpoint = ChatEndpoint(writes, Sessions(given.max_sessions, given.session_timeout_s), settings)
    listening = socket.create_server((given.host, given.port), backlog=BACKLOG)
    config = uvicorn.Config(
        endpoint.app(), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    print(
        f"serving {name} as chat completions at http://{given.host}:{listening.getsockname()[1]}/v1, memory mode "
        f"{agent.memory}",
        flush=True,
    )
    with contextlib.closing(listening), contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
    return errors.INTERRUPTED  # nothing else ends it; uvicorn does not hand on every Ctrl-C
