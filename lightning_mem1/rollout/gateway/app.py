"""The endpoint as an ASGI app: chat completions, completions and models, for the episodes that are open.

A client is known by its key, ``Authorization: Bearer KEY`` below ``/v1``, or by its address, ``/episodes/KEY/v1``.
Whatever it does wrong is answered with a status and a line, and ends nothing but that call.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from lightning_mem1.rollout.gateway.answer import action_ids, body, events, read_turn
from lightning_mem1.rollout.gateway.rendering import Renderer
from lightning_mem1.rollout.gateway.request import Asked, read_chat, read_completion
from lightning_mem1.rollout.gateway.session import Call, Session

ROOM_BYTES, BYTES_PER_TOKEN = 1 << 20, 64  # of a body: enough for every context that fits
MAX_HEARD_BYTES = 1 << 26  # a client that is cut off while it sends never reads why; beyond this it is


class Refused(Exception):
    """A call that is answered with an error.

    Attributes:
        status: Of HTTP.
        code: What clients look at, such as ``context_length_exceeded``.
    """

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Calls(Protocol):
    """What is behind the endpoint."""

    renderer: Renderer
    vocabulary: int
    max_context_tokens: int
    max_new_tokens: int
    max_calls: int

    def find(self, key: str) -> Session | None:
        """The open episode of a key."""
        ...

    async def generate(self, session: Session, call: Call, max_new_tokens: int, stop: tuple[str, ...]) -> None:
        """Have the turn of a call sampled; raises `Refused`."""
        ...


class Endpoint:
    """Answers the calls of clients.

    Args:
        calls: What is behind it.
    """

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def app(self) -> Starlette:
        """The ASGI app."""
        routes = [
            Route("/v1/chat/completions", self._answered(self._chat), methods=["POST"]),
            Route("/v1/completions", self._answered(self._completion), methods=["POST"]),
            Route("/v1/models", self._answered(self._models), methods=["GET"]),
            Route("/v1/models/{name:path}", self._answered(self._models), methods=["GET"]),
        ]
        handlers: Any = {HTTPException: _http_error, Exception: _own_error}
        return Starlette(routes=[*routes, Mount("/episodes/{key}", routes=routes)], exception_handlers=handlers)

    def _answered(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answered(request: Request) -> Response:
            try:
                return await answer(request)
            except Refused as error:
                return _error(error.status, str(error), error.code)
            except ValueError as error:
                return _error(400, str(error), "invalid_request")
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it

        return answered

    def _session(self, request: Request) -> Session:
        key = request.path_params.get("key")
        given = key or request.headers.get("authorization", "").removeprefix("Bearer ")
        session = self.calls.find(given)
        if session is None and key:
            raise Refused(404, "no such episode: expected one that is open in the address", "episode_not_found")
        if session is None:
            raise Refused(
                401, "expected the key of an episode that is open in 'Authorization: Bearer KEY'", "invalid_key"
            )
        return session

    async def _models(self, request: Request) -> Response:
        self._session(request)
        name = request.path_params.get("name")
        own = {"object": "model", "created": 0, "owned_by": "lightning_mem1"}
        model = {"id": name or "policy", **own, "max_model_len": self.calls.max_context_tokens}
        return JSONResponse(model if name else {"object": "list", "data": [model]})

    async def _chat(self, request: Request) -> Response:
        session = self._session(request)
        asked = read_chat(await self._json(request))
        rendered = self.calls.renderer.chat(asked.messages, asked.tools, session.sampled(asked.messages), asked.options)
        return await self._call(request, session, asked, rendered.ids, rendered.num_unmatched)

    async def _completion(self, request: Request) -> Response:
        session = self._session(request)
        asked = read_completion(await self._json(request), self.calls.vocabulary)
        if not isinstance(asked.prompt, str):
            return await self._call(request, session, asked, list(asked.prompt), 0)
        rendered = self.calls.renderer.text(session.written(asked.prompt))
        return await self._call(request, session, asked, rendered, 0)

    async def _call(
        self, request: Request, session: Session, asked: Asked, context_ids: list[int], num_unmatched: int
    ) -> Response:
        limit = min(asked.max_tokens or self.calls.max_new_tokens, self.calls.max_new_tokens)
        self._check_room(session, len(context_ids), limit)
        call = session.call(context_ids, num_unmatched, asked.messages)
        await self.calls.generate(session, call, limit, asked.stop)
        renderer = self.calls.renderer
        answer = read_turn(asked, call, renderer.decode, renderer.end_ids)
        session.answered(call, answer.message, answer.text, answer.problem)
        written = renderer.without_end(action_ids(call))
        call.written = (renderer.decode(written), written)
        if isinstance(asked.prompt, str) and asked.prompt:
            call.row = (asked.prompt + call.written[0], [*context_ids, *written])
        if await request.is_disconnected():
            call.lost = True
            raise ClientDisconnect
        if asked.stream:
            return StreamingResponse(events(asked, call, answer, renderer.decode), media_type="text/event-stream")
        return JSONResponse(body(asked, call, answer, renderer.decode))

    def _check_room(self, session: Session, num_tokens: int, limit: int) -> None:
        if num_tokens + limit > self.calls.max_context_tokens:
            session.outgrown = True
            raise Refused(
                400,
                f"the context does not fit: expected at most {self.calls.max_context_tokens} tokens, those to come "
                f"included, got {num_tokens} and {limit} to come (model.engine.max_context_tokens)",
                "context_length_exceeded",
            )
        if len(session.calls) >= self.calls.max_calls:
            session.spent = True
            raise Refused(403, f"the episode has had its {self.calls.max_calls} calls (data.max_calls)", "calls_spent")

    async def _json(self, request: Request) -> Any:
        """The body; of one that is longer than any context that fits nothing is kept."""
        most, data, size = ROOM_BYTES + BYTES_PER_TOKEN * self.calls.max_context_tokens, bytearray(), 0
        async for chunk in request.stream():
            size += len(chunk)
            data = data + chunk if size <= most else bytearray()
            if size > MAX_HEARD_BYTES:
                break
        if size > most:
            raise Refused(413, f"expected a body of at most {most} bytes, got more", "body_too_large")
        try:
            return json.loads(bytes(data))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"expected JSON, got {type(error).__name__}: {str(error)[:100]}") from None


def _error(status: int, message: str, code: str) -> JSONResponse:
    kind = {401: "authentication_error", 404: "not_found_error"}.get(status, "invalid_request_error")
    kind = kind if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    answer = _error(error.status_code, f"{request.method} {request.url.path}: {error.detail}", "invalid_request")
    answer.headers.update(error.headers or {})
    return answer


async def _own_error(request: Request, error: Exception) -> Response:
    return _error(500, f"{type(error).__name__}: {str(error)[:200]}", "internal_error")
