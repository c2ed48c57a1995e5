"""The endpoint in front of an engine: calls come in on a thread of their own, and wait for the engine's owner.

The engine belongs to the thread that collects; `next` hands it what came, `answer` what it made of it.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import uvicorn

from lightning_mem1.rollout.gateway.app import Endpoint
from lightning_mem1.rollout.gateway.refused import Refused
from lightning_mem1.rollout.gateway.rendering import Renderer
from lightning_mem1.rollout.gateway.session import Call, Session
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import Completion, Engine, GenerationRequest

START_S, STOP_S = 20.0, 5.0  # limits of starting and of ending the server
BACKLOG = 2048  # connections that wait to be taken
FIRST_SPARE = 1 << 20  # numbers of turns while another one of their episode runs; below them each episode has its own


@dataclass(frozen=True)
class _Job:
    """A call that waits for its turn."""

    session: Session
    call: Call
    request: GenerationRequest
    done: Future[None]


class Gateway:
    """An OpenAI-compatible endpoint for the episodes that are open.

    Args:
        engine: Generates the turns; `next` and `answer` are called by the thread that it belongs to.
        tokenizer: The policy's.
        settings: Sampling and limits; the client's temperature is not asked.
        host: Address to listen on.
        port: Port; 0 for a free one.
        max_calls: Calls of one episode.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,
        settings: RolloutSettings,
        host: str = "127.0.0.1",
        port: int = 0,
        max_calls: int = 1000,
    ) -> None:
        self.engine, self.settings, self.max_calls = engine, settings, max_calls
        self.max_context_tokens, self.max_new_tokens = engine.max_context_tokens, settings.max_new_tokens
        self.vocabulary = len(tokenizer)
        end_ids = getattr(getattr(engine, "policy", None), "end_ids", ())
        self.renderer = Renderer(tokenizer, self.max_context_tokens, end_ids)
        self.inbox: SimpleQueue[Any] = SimpleQueue()  # calls, and whatever else the collecting thread waits for
        self._sessions: dict[str, tuple[int, Session]] = {}
        self._busy: dict[int, _Job] = {}  # by the number that the engine has for it
        self._spare = count(FIRST_SPARE)
        self._socket = socket.create_server((host, port), backlog=BACKLOG)
        self.url = f"http://{host}:{self._socket.getsockname()[1]}/v1"
        config = uvicorn.Config(
            Endpoint(self).app(), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="gateway")

    def __enter__(self) -> Gateway:
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(START_S / 0.01)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.01)
        if not self._server.started:
            raise OSError(
                f"the gateway did not start: expected it to listen on {self.url}; set data.host and data.port"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Refuse what still waits, and end the server."""
        for job in [*self._busy.values()]:
            self._fail(job, Refused(503, "the gateway is closing", "closing"))
        self._sessions.clear()
        self._server.should_exit = True
        self._thread.join(STOP_S)
        self._socket.close()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def open(self, number: int, session: Session) -> None:
        """Let an episode's client in; `number` is its own among the episodes."""
        self._sessions[session.key] = (number, session)

    def close(self, session: Session) -> None:
        """Let it in no longer; what it still waits for is refused."""
        self._sessions.pop(session.key, None)
        for job in [each for each in self._busy.values() if each.session is session]:
            self._fail(job, Refused(404, "the episode is over", "episode_not_found"))

    def find(self, key: str) -> Session | None:
        """The open episode of a key."""
        known = self._sessions.get(key)
        return known[1] if known else None

    async def generate(self, session: Session, call: Call, max_new_tokens: int, stop: tuple[str, ...]) -> None:
        """Have the turn of a call sampled; raises `Refused` where there is none."""
        request = GenerationRequest(
            0, call.context_ids, max_new_tokens, stop, self.settings.temperature, self.settings.top_p, call.seed
        )
        done: Future[None] = Future()
        self.inbox.put(_Job(session, call, request, done))
        await asyncio.wrap_future(done)

    def next(self, timeout_s: float | None) -> Any:
        """What came next; calls are begun here. None when nothing came in time (None: wait as long as it takes)."""
        try:
            found = self.inbox.get(timeout=timeout_s) if timeout_s is None or timeout_s > 0 else self.inbox.get_nowait()
        except Empty:
            return None
        if isinstance(found, _Job):
            self._begin(found)
        return found

    def _begin(self, job: _Job) -> None:
        known = self._sessions.get(job.session.key)
        if known is None:
            self._fail(job, Refused(404, "the episode is over", "episode_not_found"))
            return
        number = known[0] if known[0] not in self._busy else next(self._spare)
        try:
            self.engine.submit(GenerationRequest(**{**vars(job.request), "session": number}))
        except ValueError as error:
            self._fail(job, Refused(400, str(error), "context_length_exceeded"))
            return
        self._busy[number] = job

    def number_of(self, completion: Completion) -> int | None:
        """The number of the episode that a turn is of; None when it is over."""
        job = self._busy.get(completion.session)
        known = self._sessions.get(job.session.key) if job else None
        return known[0] if known else None

    def answer(self, completion: Completion) -> Call | None:
        """Give a caller its turn; returns the call, None when nobody waits for it or it has none."""
        job = self._busy.pop(completion.session, None)
        if job is None or job.done.done():
            return None
        if completion.error or not completion.ids:
            self._fail(job, Refused(500, f"engine: {completion.error or 'no token was sampled'}", "engine_error"))
            return None
        job.session.end(job.call, completion)
        job.done.set_running_or_notify_cancel()
        job.done.set_result(None)
        return job.call

    def _fail(self, job: _Job, error: Refused) -> None:
        if not job.done.done():
            job.done.set_exception(error)
