"""An episode of a verifiers environment in its own loop, which asks the agent in place of a model.

Nothing of the environment is repeated here: `Environment.rollout` runs, with a client that hands its question on and
waits for the agent's next turn. All episodes of a process share one event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from lightning_mem1.environments.adapters import tool_text
from lightning_mem1.environments.adapters.extras import needed
from lightning_mem1.types import StepResult

T = TypeVar("T")
Call = tuple[str, list[tuple[str, str]]]  # what was said, and the tools that were called


class Rollout:
    """One episode, see `game_env.Game`.

    Args:
        environment: The `vf.Environment`.
        row: Of its data set.
        prompt: The row's prompt as text, which the agent has already.
        template: What the environment gets of an action; ``{action}`` stands for it.
    """

    def __init__(self, environment: Any, row: Mapping[str, Any], prompt: str, template: str) -> None:
        self.environment, self.row, self._prompt, self._template = environment, row, prompt, template
        self._asking: _Asking | None = None
        self._task: asyncio.Task[Any] | None = None
        self._seen: Sequence[Any] = ()
        self._tools: tool_text.Tools = ()

    def begin(self) -> str:
        """Let the environment ask for the first time: its tools, and its prompt where that is not the row's."""
        text, over = _run(self._begin())
        if over is not None:
            raise RuntimeError(f"the environment ended before the first turn: {dict(over.info)}")
        shown = [] if text == self._prompt else [text]
        return "\n".join([*shown, *filter(None, [tool_text.offered(self._tools)])])

    def parse(self, action: str) -> Call:
        """What an action says, and which tools it calls."""
        return tool_text.read(action, self._tools)

    def act(self, action: Call) -> StepResult:
        """Answer the environment; its next question is the reply, its rubric pays at the end."""
        text, over = _run(self._answer(action))
        return StepResult(text) if over is None else over

    def close(self) -> None:
        """End an episode that was given up."""
        if self._task is not None and not self._task.done():
            _loop(os.getpid()).call_soon_threadsafe(self._task.cancel)

    def abandon(self) -> None:
        """As `close`."""
        self.close()

    async def _begin(self) -> tuple[str, StepResult | None]:
        self._asking = _asking_client()()
        rollout = self.environment.rollout(dict(self.row), self._asking, "policy", {})
        self._task = asyncio.ensure_future(rollout)
        return await self._next()

    async def _answer(self, action: Call) -> tuple[str, StepResult | None]:
        said, calls = action
        assert self._asking is not None
        content = said if calls else self._template.replace("{action}", said)
        self._asking.answered.set_result(_response(content, calls, len(self._seen)))
        return await self._next()

    async def _next(self) -> tuple[str, StepResult | None]:
        """What the environment says next, or what the episode was worth."""
        assert self._asking is not None and self._task is not None
        question = asyncio.ensure_future(self._asking.asked.get())
        await asyncio.wait({question, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not question.done():
            question.cancel()
            return "", await self._scored(self._task.result())
        messages, tools = question.result()
        messages = [messages] if isinstance(messages, str) else list(messages)
        new, self._seen, self._tools = _behind(self._seen, messages), messages, [_plain(tool) for tool in tools or ()]
        return written(new), None

    async def _scored(self, state: Any) -> StepResult:
        if state.get("error") is not None:
            raise RuntimeError(f"{type(state['error']).__name__}: {state['error']}")
        rubric = self.environment.rubric
        await rubric.score_rollout(state)
        await rubric.cleanup(state)
        info = {**(state.get("metrics") or {}), "stop_condition": state.get("stop_condition")}
        return StepResult("", float(state["reward"] or 0.0), done=True, info=info)


class _Asking:
    """What the client of an episode has: questions that were put, and where the answer to the last one goes."""

    asked: asyncio.Queue[tuple[Any, Any]]
    answered: asyncio.Future[Any]


@lru_cache(maxsize=1)
def _asking_client() -> Any:
    """The client's class; its base is the package's."""
    clients = needed("verifiers.clients", "verifiers", "verifiers", "verifiers")

    class Asking(clients.Client, _Asking):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(None)
            self.asked = asyncio.Queue()

        async def get_response(self, prompt: Any, model: str, sampling_args: Any, tools: Any = None, **_: Any) -> Any:
            self.answered = asyncio.get_running_loop().create_future()
            await self.asked.put((prompt, tools))
            return await self.answered

    Asking.__abstractmethods__ = frozenset()  # the ways to a server, which are not gone
    return Asking


def _response(content: str, calls: Sequence[tuple[str, str]], number: int) -> Any:
    """A turn as the environment expects a model's."""
    types = needed("verifiers.types", "verifiers", "verifiers", "verifiers")
    made = [
        types.ToolCall(id=f"call_{number}_{n}", name=name, arguments=arguments)
        for n, (name, arguments) in enumerate(calls)
    ]
    message = types.ResponseMessage(
        content=content, tool_calls=made or None, finish_reason="tool_calls" if made else "stop", is_truncated=False
    )
    return types.Response(id=f"turn_{number}", created=int(time.time()), model="policy", message=message)


def _behind(seen: Sequence[Any], messages: Sequence[Any]) -> list[Any]:
    """The messages that are new, without what the agent said itself."""
    same = next((n for n, (a, b) in enumerate(zip(seen, messages, strict=False)) if a != b), len(seen))
    return [each for each in messages[same:] if not seen or _field(each, "role") != "assistant"]


def written(messages: Any) -> str:
    """Messages as text; the turns of a conversation that is shown have their speaker before them."""
    if isinstance(messages, str):
        return messages
    roles = [_field(each, "role") for each in messages]
    parts = []
    for role, message in zip(roles, messages, strict=True):
        content = _field(message, "content")
        pieces = [content] if isinstance(content, str) else [_field(each, "text") or "" for each in content or ()]
        text = "\n".join(filter(None, pieces)) if not isinstance(message, str) else message
        parts.append(f"{role}: {text}" if "assistant" in roles and role in ("user", "assistant") else text)
    return "\n".join(filter(None, parts))


def _field(message: Any, name: str) -> Any:
    return message.get(name) if hasattr(message, "get") else None


def _plain(tool: Any) -> dict[str, Any]:
    return dict(tool) if isinstance(tool, Mapping) else dict(tool.model_dump())


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, _loop(os.getpid())).result()


@lru_cache(maxsize=1)
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """The loop of a process: one that was forked off has no thread that runs its parent's."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name=f"verifiers-{process}").start()
    return loop
