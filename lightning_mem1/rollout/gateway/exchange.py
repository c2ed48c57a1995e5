"""Requests in, errors out: what every endpoint of OpenAI's protocol here does with HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from lightning_mem1.rollout.gateway.refused import Refused

ROOM_BYTES, BYTES_PER_TOKEN = 1 << 20, 64  # of a body: enough for every context that fits
HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # what spells half of a character, which no tokenizer reads
BODY_S = 120.0  # in which a body has to come
MAX_HEARD_BYTES = 1 << 26  # a client that is cut off while it sends never reads why; beyond this it is
Answering = Callable[[Request], Awaitable[Response]]


def answered(answer: Answering) -> Answering:
    """An endpoint whose mistakes of clients, `Refused` and ValueError, are answers too."""

    async def answering(request: Request) -> Response:
        try:
            return await answer(request)
        except Refused as error:
            return error_response(error.status, str(error), error.code)
        except ValueError as error:
            return error_response(400, str(error), "invalid_request")
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it

    return answering


async def read_json(request: Request, max_context_tokens: int) -> Any:
    """The body; of one that is longer than any context that fits nothing is kept."""
    most, data, size = ROOM_BYTES + BYTES_PER_TOKEN * max_context_tokens, bytearray(), 0
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                size += len(chunk)
                data = data + chunk if size <= most else bytearray()
                if size > MAX_HEARD_BYTES:
                    break
    except TimeoutError:
        raise Refused(408, f"expected the body within {BODY_S:g} s, got a part of it", "request_timeout") from None
    if size > most:
        raise Refused(413, f"expected a body of at most {most} bytes, got more", "body_too_large")
    try:
        found = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON, got {type(error).__name__}: {str(error)[:100]}") from None
    if HALF.search(data):
        try:
            json.dumps(found, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("expected text of whole characters, got half of a surrogate pair") from None
    return found


def error_response(status: int, message: str, code: str) -> JSONResponse:
    """An error as OpenAI writes it."""
    kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(status)
    kind = "server_error" if status >= 500 else kind or "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    response = error_response(
        error.status_code, f"{request.method} {request.url.path}: {error.detail}", "invalid_request"
    )
    response.headers.update(error.headers or {})
    return response


async def _own_error(request: Request, error: Exception) -> Response:
    return error_response(500, f"{type(error).__name__}: {str(error)[:200]}", "internal_error")


HANDLERS: Any = {HTTPException: _http_error, Exception: _own_error}
