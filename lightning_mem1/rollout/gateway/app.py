"""The endpoint as an ASGI app: chat completions, completions and models, for the episodes that are open.

A client is known by its key, ``Authorization: Bearer KEY`` below ``/v1``, or by its address, ``/episodes/KEY/v1``.
Whatever it does wrong is answered with a status and a line, and ends nothing but that call.
"""

from __future__ import annotations

from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from lightning_mem1.rollout.gateway.answer import action_ids, body, events, read_turn
from lightning_mem1.rollout.gateway.exchange import HANDLERS, answered, read_json
from lightning_mem1.rollout.gateway.refused import Refused
from lightning_mem1.rollout.gateway.rendering import Renderer
from lightning_mem1.rollout.gateway.request import Asked, read_chat, read_completion
from lightning_mem1.rollout.gateway.session import Call, Session


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
            Route("/v1/chat/completions", answered(self._chat), methods=["POST"]),
            Route("/v1/completions", answered(self._completion), methods=["POST"]),
            Route("/v1/models", answered(self._models), methods=["GET"]),
            Route("/v1/models/{name:path}", answered(self._models), methods=["GET"]),
        ]
        return Starlette(routes=[*routes, Mount("/episodes/{key}", routes=routes)], exception_handlers=HANDLERS)

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
        asked = read_chat(await read_json(request, self.calls.max_context_tokens))
        rendered = self.calls.renderer.chat(asked.messages, asked.tools, session.sampled(asked.messages), asked.options)
        return await self._call(request, session, asked, rendered.ids, rendered.num_unmatched)

    async def _completion(self, request: Request) -> Response:
        session = self._session(request)
        asked = read_completion(await read_json(request, self.calls.max_context_tokens), self.calls.vocabulary)
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
