"""Environments behind an OpenEnv server (github.com/meta-pytorch/OpenEnv), through its own client; extra ``openenv``.

```yaml
source:
  class_path: lightning_mem1.environments.adapters.openenv.OpenEnvTasks
  init_args: {url: 'http://127.0.0.1:8000'}
```
Each episode has a session of its own on the server, over a WebSocket, from its first look to its end.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from lightning_mem1.checks import ANY_SIGN, TIMEOUT_S, Ranges, check_numbers
from lightning_mem1.environments.adapters.extras import needed
from lightning_mem1.environments.adapters.game_env import GameEnv
from lightning_mem1.environments.adapters.seeded_tasks import SeededTasks
from lightning_mem1.io.dotted_names import imported
from lightning_mem1.io.http_client import TROUBLES, fetch
from lightning_mem1.io.redaction import shown
from lightning_mem1.types import Env, Split, StepResult, Task

Render = Callable[[Mapping[str, Any]], str]  # observation -> text
Parse = Callable[[str], Mapping[str, Any]]  # text -> action
MAX_REPLY_BYTES = 1 << 24
MAX_FIELD_CHARS = 64_000
CLOSE_S = 10.0  # how long sessions that are being closed are waited for
_CLOSING: set[threading.Thread] = set()
OWN_FIELDS = ("metadata", "reward", "done", "valid")  # which every environment has, or this package's


class OpenEnvTasks(SeededTasks):
    """Episodes of an environment on an OpenEnv server; satisfies `types.TaskSource`.

    Args:
        url: Address of the server, such as http://127.0.0.1:8000.
        prompt: What the agent is asked, above the environment's first observation; may be empty.
        reset: Further arguments of the environment's ``reset``.
        splits: The server's own splits by ours, such as ``{train: train, val: validation}``: tasks are then its tasks,
            as many as it has, in place of seeds.
        action: Field of the action that gets the agent's text; None for the only one that is a text.
        render: Dotted name of ``render(observation: dict) -> str``; None takes the only field that is a text, else
            all fields with their names.
        parse: Dotted name of ``parse(text) -> dict``, the whole action; it raises ValueError for a text that means
            none.
        success_at: Sum of rewards from which on an episode that ended is a success; None takes ``success`` of the
            metadata.
        timeout_s: Limit of one reply of the server.
        max_turns: Turns the agent has.
        num_train: Tasks to train on.
        num_val: Tasks of the validation.
        num_test: Tasks of the test.
        seed: Moves the seeds of all tasks.

    Raises:
        ValueError: one line: the package is missing, or a setting is out of range. A server that is not there is named
            when tasks are counted.
    """

    ranges: ClassVar[Ranges] = {"timeout_s": TIMEOUT_S, "success_at": ANY_SIGN}

    def __init__(
        self,
        url: str,
        *,
        prompt: str = "",
        reset: dict[str, Any] | None = None,
        splits: dict[str, str] | None = None,
        action: str | None = None,
        render: str | None = None,
        parse: str | None = None,
        success_at: float | None = None,
        timeout_s: float = 60.0,
        max_turns: int = 20,
        num_train: int = 1_000_000,
        num_val: int = 1000,
        num_test: int = 1000,
        seed: int = 0,
    ) -> None:
        check_numbers("data.source", OpenEnvTasks, locals())
        super().__init__("openenv", max_turns, num_train, num_val, num_test, seed)
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"no address: expected data.source.url to begin with http:// or https://, got {url!r:.80}")
        needed("openenv.core", "openenv", "openenv", "OpenEnv")
        self.url, self.prompt, self.success_at, self.timeout_s = url.rstrip("/"), prompt, success_at, timeout_s
        self.reset, self.splits, self.action = dict(reset or {}), dict(splits or {}), action
        self._render: Render = imported(render, "function", "data.source.render") if render else written
        self._parse: Parse | None = imported(parse, "function", "data.source.parse") if parse else None
        self._checked = False

    def size(self, split: Split) -> int:
        """Number of tasks in a split.

        Raises:
            ValueError: the server is away, its actions have no field for a text, or it has no such tasks.
        """
        self._check_server()
        if self.splits and split not in self.splits:
            return 0
        return self.sizes[split]

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split."""
        self._check_server()
        if not self.splits:
            return self.seeded_task(split, index, self.prompt)
        theirs = {"split": self.splits[split], "index": self.checked(split, index)}
        return self.seeded_task(split, index, self.prompt, theirs)

    def env(self, task: Task) -> Env:
        """Return a fresh session for a task of this source."""
        self._check_server()
        begin = {**self.reset, **task.data}
        return GameEnv(_Session(self.url, self.timeout_s, begin, self._render, self._meant), self.success_at)

    def _meant(self, text: str) -> Mapping[str, Any]:
        return self._parse(text) if self._parse else {str(self.action): text}

    def _check_server(self) -> None:
        """Ask once what the actions look like, and how many tasks there are."""
        if self._checked:
            return
        properties = (self._asked("/schema").get("action") or {}).get("properties") or {}
        if self._parse is None:
            self.action = self._field(properties)
        if self.splits:
            (name, *_) = self._asked("/list_environments")
            for ours, theirs in self.splits.items():
                if ours not in self.sizes:
                    raise ValueError(f"no such split: expected train, val or test in data.source.splits, got {ours!r}")
                self.sizes[ours] = int(self._asked(f"/{name}/num_tasks", {"split": theirs})["num_tasks"])  # type: ignore[index]
        self._checked = True

    def _field(self, properties: Mapping[str, Any]) -> str:
        texts = [name for name, each in properties.items() if each.get("type") == "string" and name != "metadata"]
        if self.action in properties or (self.action is None and len(texts) == 1):
            return self.action or texts[0]
        got = ", ".join(name for name in properties if name != "metadata") or "none"
        raise ValueError(
            f"no field of the action gets the agent's text: expected data.source.action to be one of the fields of "
            f"{self.url}, got {self.action or 'null'} with the fields {got}; set it, or data.source.parse"
        )

    def _asked(self, path: str, question: Any = None) -> Any:
        try:
            reply = fetch(f"{self.url}{path}", question, timeout_s=self.timeout_s, max_bytes=MAX_REPLY_BYTES)
            return json.loads(reply)
        except TROUBLES as error:
            what = "its own tasks (data.source.splits)" if "tasks" in path else "actions of the OpenEnv protocol"
            raise ValueError(
                f"no OpenEnv server that answers: expected {self.url}{path} to give {what}, got "
                f"{type(error).__name__}: {shown(str(error))[:200]}; start it, or set data.source.url"
            ) from None


class _Session:
    """An episode on a server, see `game_env.Game`."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        begin: Mapping[str, Any],
        render: Render,
        parse: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self._url, self._timeout_s, self._begin = url, timeout_s, begin
        self._render, self.parse = render, parse
        self._client: Any = None

    def begin(self) -> str:
        """Open a session and reset its environment."""
        for thread in [*_CLOSING]:  # of episodes before this one: servers count sessions
            thread.join(CLOSE_S)
            _CLOSING.discard(thread)
        core = needed("openenv.core", "openenv", "openenv", "OpenEnv")
        made = core.GenericEnvClient(self._url, message_timeout_s=self._timeout_s, mode="simulation")
        self._client = made.sync()
        return self._render(self._client.reset(**self._begin).observation)

    def act(self, action: Mapping[str, Any]) -> StepResult:
        """Take a step; an action that the server calls no action is an invalid one."""
        try:
            result = self._client.step(dict(action))
        except RuntimeError as error:
            if "VALIDATION_ERROR" not in str(error):
                raise
            why = "the environment takes no such action"
            return StepResult(f"Invalid action: {why}.", valid=False, info={"invalid": why})
        observation = result.observation
        info = {**(observation.get("metadata") or {}), **(result.metadata or {})}
        text = "" if result.done else self._render(observation)
        return StepResult(
            text, float(result.reward or 0.0), bool(result.done), bool(observation.get("valid", True)), info
        )

    def close(self) -> None:
        """End the session."""
        if self._client is not None:
            self._client.close()

    def abandon(self) -> None:
        """End the session in a thread: the one that collects garbage may be the client's own."""
        thread = threading.Thread(target=self.close, daemon=True, name="openenv-close")
        thread.start()
        _CLOSING.add(thread)


def written(observation: Mapping[str, Any]) -> str:
    """An observation as text: its only text, else its fields with their names.

    >>> written({"echoed": "hi", "metadata": {}}), written({"board": [1, 2], "score": 3})
    ('hi', 'board: [1, 2]\\nscore: 3')
    """
    fields = {name: value for name, value in observation.items() if name not in OWN_FIELDS and value is not None}
    if len(fields) == 1 and isinstance(text := next(iter(fields.values())), str):
        return text
    lines = [f"{name}: {each if isinstance(each, str) else json.dumps(each)}" for name, each in fields.items()]
    return "\n".join(line[:MAX_FIELD_CHARS] for line in lines)
