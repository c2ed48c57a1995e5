"""A trained agent as an ASGI app: chat completions whose clients send the newest message only.

A session is named by the header ``X-Session-ID``, by ``session_id`` in the body, or by ``user``; without any of them a
new one begins, and the answer says its id. What a client does wrong is a status and a line, and leaves its session as
it was.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lightning_mem1.context.tags import read_action
from lightning_mem1.context.tool_calls import ToolCall
from lightning_mem1.context.tools import tool
from lightning_mem1.rollout.chat.agent import ChatAgent, Talk
from lightning_mem1.rollout.chat.request import read_message
from lightning_mem1.rollout.chat.sessions import Session, Sessions
from lightning_mem1.rollout.gateway.answer import Answer, body, events
from lightning_mem1.rollout.gateway.exchange import HANDLERS, Answering, answered, read_json
from lightning_mem1.rollout.gateway.messages import Message, shown
from lightning_mem1.rollout.gateway.refused import Refused
from lightning_mem1.rollout.gateway.request import Asked
from lightning_mem1.rollout.gateway.session import Call

SESSION_HEADER = "X-Session-ID"


@dataclass(frozen=True)
class ChatSettings:
    """How an agent is served.

    Attributes:
        name: What its model is called.
        key: What clients have to know; empty for everybody.
        max_turns: Turns of a session whose client names no number.
        end_ids: Ids that end a turn, which no text shows.
    """

    name: str
    key: str = ""
    max_turns: int = 10
    end_ids: Collection[int] = ()


class ChatEndpoint:
    """Answers the calls of clients.

    Args:
        agent: Writes the turns.
        sessions: Where they are kept.
        settings: How it is served.
    """

    def __init__(self, agent: ChatAgent, sessions: Sessions, settings: ChatSettings) -> None:
        self.agent, self.sessions, self.settings = agent, sessions, settings

    def app(self) -> Starlette:
        """The ASGI app."""
        routes = [
            Route("/v1/chat/completions", self._known(self._chat), methods=["POST"]),
            Route("/v1/sessions/{name:path}", self._known(self._end), methods=["DELETE"]),
            Route("/v1/models", self._known(self._models), methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers=HANDLERS)

    def _known(self, answer: Answering) -> Answering:
        """An endpoint for clients that know the key."""

        async def checked(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if self.settings.key and not hmac.compare_digest(given, f"Bearer {self.settings.key}".encode()):
                raise Refused(401, "expected the server's key in 'Authorization: Bearer KEY'", "invalid_key")
            return await answer(request)

        return answered(checked)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "up", "sessions": len(self.sessions)})

    async def _models(self, request: Request) -> Response:
        own = {"object": "model", "created": 0, "owned_by": "lightning_mem1"}
        model = {"id": self.settings.name, **own, "max_model_len": self.agent.max_context_tokens}
        return JSONResponse({"object": "list", "data": [model]})

    async def _end(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not self.sessions.end(name):
            raise Refused(404, f"no such session: expected one that is open, got {shown(name)}", "session_not_found")
        return JSONResponse({"id": name, "deleted": True})

    async def _chat(self, request: Request) -> Response:
        given = read_message(
            await read_json(request, self.agent.max_context_tokens), request.headers.get(SESSION_HEADER)
        )
        asked, message = given.asked, given.asked.messages[0]

        def begin() -> Talk:
            if message.role == "tool":
                raise Refused(
                    404,
                    "no such session: expected one that is open, or a first message of the user, got the result of a "
                    "tool; sessions that are not used end",
                    "session_not_found",
                )
            if not message.content.strip():
                raise ValueError("expected the first message to hold the task, got nothing")
            return Talk(given.max_turns or self.settings.max_turns)

        with self.sessions.entered(given.session, begin) as session:
            talk = await self.agent.answer(session.talk, message.content, given.sampling)
            if await request.is_disconnected():  # the session stays as it was, so that the client may ask again
                raise ClientDisconnect
            session.talk = talk
            return self._response(asked, session)

    def _response(self, asked: Asked, session: Session) -> Response:
        talk, decode = session.talk, self.agent.encoder.decode
        turn, headers = talk.turns[-1], {SESSION_HEADER: session.id}
        call = Call(len(talk.turns) - 1, list(talk.context_ids), 0, 0, turn=turn)
        answer = self._answer(asked, talk, call.number)
        if asked.stream:
            return StreamingResponse(
                events(asked, call, answer, decode), media_type="text/event-stream", headers=headers
            )
        more = {
            "session_id": session.id,
            "agent": {
                "internal_state": talk.parsed.internal_state,
                "action": talk.parsed.action,
                "problem": talk.parsed.problem,
                "turns_left": talk.turns_left,
            },
        }
        return JSONResponse({**body(asked, call, answer, decode), **more}, headers=headers)

    def _answer(self, asked: Asked, talk: Talk, number: int) -> Answer:
        """The turn as its client reads it: as it was written, with its action as a call of a tool that was offered."""
        turn = talk.turns[-1]
        ids = turn.ids[:-1] if turn.action_ids[-1] in self.settings.end_ids else turn.ids
        text = self.agent.encoder.decode(ids)
        call = None if talk.parsed.problem else _call(talk.parsed.action or "", asked.tools)
        calls = (ToolCall(*call, id=f"call_{number}"),) if call else ()
        cut = talk.parsed.problem and ids == turn.ids and len(turn.action_ids) >= self.agent.settings.max_new_tokens
        finish = "tool_calls" if calls else "length" if cut else "stop"
        return Answer(text, Message("assistant", text, calls), finish, talk.parsed.problem)


def _call(action: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Name and arguments of an action that is one of the tools that were offered; None when it is none."""
    named = read_action(action)
    offered = {str(each["function"]["name"]): each["function"] for each in tools}
    if named is None or named[0] not in offered:
        return None
    name, argument = named
    parameters = list(((offered[name].get("parameters") or {}).get("properties") or {}).keys())
    if len(parameters) > 1 and (several := _object(argument)) is not None:
        return name, json.dumps(several)
    return name, json.dumps({parameters[0] if parameters else tool(name).argument: argument})


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
