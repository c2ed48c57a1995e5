"""A policy as an OpenAI-compatible server: completions with ids, models, health, and adapters at run time."""

from __future__ import annotations

import hmac
from functools import partial
from typing import Any

from lightning_mem1.engine.protocol.client import (
    HEALTH,
    LOAD,
    LOAD_WEIGHTS,
    MODELS,
    OWNER,
    PATH,
    UNLOAD,
    UPLOAD,
    WEIGHTS,
)
from lightning_mem1.engine.protocol.server import ADD_SPECIAL, answer, read_question
from lightning_mem1.engine.serving.loop import EngineLoop, NoAdapter
from lightning_mem1.engine.serving.text import TextCodec
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.io.json_server import Answers, JsonHandler, JsonServer, Refused
from lightning_mem1.io.json_server import server as serving
from lightning_mem1.policy.adapter_upload import unpacked
from lightning_mem1.policy.policy import Policy

ROOM_BYTES = 1 << 20
BYTES_PER_TOKEN = 64
MAX_UPLOAD_BYTES = 2 << 30


class EndpointHandler(JsonHandler):
    """Answers OpenAI's protocol for one policy and its adapters."""

    loop: EngineLoop
    text: TextCodec
    name: str
    key: str
    allow_adapters: bool
    allow_weights: bool = False
    timeout = 120

    @property
    def max_body(self) -> int:  # type: ignore[override]
        """Bytes of a body: enough for every context that fits, as ids or as text; more for an adapter's files."""
        if self.path == UPLOAD and self.allow_adapters:
            return MAX_UPLOAD_BYTES
        return ROOM_BYTES + BYTES_PER_TOKEN * self.loop.engine.max_context_tokens

    def posts(self) -> Answers:
        """Turns; adapters and whole weights where they are allowed."""
        adapters = {LOAD: self._load, UPLOAD: self._upload, UNLOAD: self._unload} if self.allow_adapters else {}
        weights = {LOAD_WEIGHTS: self._load_weights} if self.allow_weights else {}
        return {PATH: self._complete, **adapters, **weights}

    def gets(self) -> Answers:
        """What is served, and that it is."""
        return {MODELS: self._models, WEIGHTS: self._weights, HEALTH: lambda _: {"status": "up"}}

    def check(self) -> None:
        """Refuse whoever lacks the key; being up is no secret."""
        given = self.headers.get("Authorization", "").encode()
        if self.key and self.path != HEALTH and not hmac.compare_digest(given, f"Bearer {self.key}".encode()):
            raise Refused(401, "expected the server's key in 'Authorization: Bearer ...', got another or none")

    def refusal(self, status: int, message: str) -> Any:
        """Errors as OpenAI writes them."""
        kind = {401: "AuthenticationError", 404: "NotFoundError"}.get(status, "BadRequestError")
        return {"error": {"message": message, "type": kind if status < 500 else "InternalServerError", "code": status}}

    def _complete(self, body: Any) -> Any:
        policy = self.loop.engine.policy
        longest = self.loop.engine.max_context_tokens
        begun = isinstance(body, dict) and body.get(ADD_SPECIAL) is False
        asked = read_question(body, partial(self.text.encode, begun=begun), policy.vocab_size, longest)
        model = asked.model or self.name
        if model != self.name and model not in self.loop.adapters.names:
            raise Refused(404, f"The model `{model[:100]}` does not exist: expected {', '.join(self._names())}")
        try:
            done = self.loop.complete(asked.request, None if model == self.name else model)
        except NoAdapter as error:  # unloaded while the turn waited: a client may load it again
            raise Refused(404, str(error)) from None
        return answer(asked, done, model, self.text.decode, policy.end_ids)

    def _load(self, body: Any) -> Any:
        name, path = (body.get(key) if isinstance(body, dict) else None for key in ("lora_name", "lora_path"))
        if not isinstance(name, str) or not isinstance(path, str) or not name or name == self.name:
            raise ValueError("expected 'lora_name', another than the base's, and 'lora_path', a folder on this machine")
        self.loop.load(name, path)
        return {"status": f"loaded '{name}'"}

    def _upload(self, body: Any) -> Any:
        name, files = (body.get(key) if isinstance(body, dict) else None for key in ("lora_name", "files"))
        if not isinstance(name, str) or not name or name == self.name:
            raise ValueError("expected 'lora_name', another than the base's")
        with unpacked(files) as folder:
            self.loop.load(name, str(folder))
        return {"status": f"loaded '{name}'"}

    def _load_weights(self, body: Any) -> Any:
        name, path = (body.get(key) if isinstance(body, dict) else None for key in ("name", "path"))
        if not isinstance(name, str) or not isinstance(path, str) or not name:
            raise ValueError("expected 'name' of the weights, and 'path', a folder on this machine")
        self.loop.load_weights(name, path)
        return {"name": name}

    def _weights(self, _: Any) -> Any:
        return {"name": self.loop.weights}

    def _unload(self, body: Any) -> Any:
        name = body.get("lora_name") if isinstance(body, dict) else None
        if not isinstance(name, str) or name not in self.loop.adapters.names:
            raise Refused(404, f"no such adapter: expected {', '.join(self.loop.adapters.names) or 'none'}")
        self.loop.unload(name)
        return {"status": f"unloaded '{name}'"}

    def _models(self, _: Any) -> Any:
        longest = self.loop.engine.max_context_tokens
        own: dict[str, Any] = {"object": "model", "created": 0, "owned_by": OWNER, "max_model_len": longest}
        own["uploads"] = self.allow_adapters
        parents = {self.name: None, **dict.fromkeys(list(self.loop.adapters.names), self.name)}
        return {"object": "list", "data": [{"id": name, **own, "parent": parent} for name, parent in parents.items()]}

    def _names(self) -> list[str]:
        return [self.name, *self.loop.adapters.names]


def endpoint(
    policy: Policy,
    settings: EngineSettings,
    name: str,
    host: str = "127.0.0.1",
    port: int = 0,
    allow_adapters: bool = False,
    key: str = "",
    allow_weights: bool = False,
) -> JsonServer:
    """A server of a policy that is ready to `serve_forever`; port 0 takes a free one, see its `server_port`.

    Args:
        policy: Without an adapter of its own.
        settings: Of the local engine.
        name: What the policy is called.
        host: Address to listen on.
        port: Port to listen on.
        allow_adapters: Whether clients may load adapters, from folders of this machine or with the files.
        key: What clients have to know; empty for everybody.
        allow_weights: Whether clients may put other weights in the place of the policy's, from folders of this machine.
    """
    return serving(
        EndpointHandler,
        host,
        port,
        loop=EngineLoop(policy.eval(), settings),
        text=TextCodec(policy.tokenizer, settings.max_context_tokens),
        name=name,
        key=key,
        allow_adapters=allow_adapters,
        allow_weights=allow_weights,
    )
