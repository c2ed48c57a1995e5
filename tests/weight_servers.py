"""The tiny policy behind an address that takes whole weights, and an engine that gives it some."""

import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from lightning_mem1.engine.remote.engine import RemoteEngine
from lightning_mem1.engine.serving.endpoint import EndpointHandler
from lightning_mem1.engine.serving.loop import EngineLoop
from lightning_mem1.engine.serving.text import TextCodec
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.io.json_server import server as server_of
from lightning_mem1.types import GenerationRequest
from tiny import tiny_policy, tiny_tokenizer

LOCAL = EngineSettings(num_slots=4, max_context_tokens=160)
ASKED = [GenerationRequest(k, [5, 6 + k, 7, 8], 8, ("e",), temperature=0.0, seed=k) for k in range(4)]


@contextmanager
def serving(handler=EndpointHandler, allow_weights=True, **more):
    """The tiny policy at an address, and the loop behind it."""
    loop = EngineLoop(tiny_policy().eval(), LOCAL)
    shared = {"loop": loop, "text": TextCodec(tiny_tokenizer(), 160), "name": "tiny", "key": "", **more}
    found = server_of(handler, **shared, allow_adapters=True, allow_weights=allow_weights)
    threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}", loop
    finally:
        found.shutdown()
        found.server_close()


def engine_of(url, policy, version, told=None, **changes):
    given = {"timeout_s": 60.0, "num_retries": 0, "pause_s": 0.01, "transfer": "folder", **changes}
    settings = replace(LOCAL, kind="server", server=ServerSettings([url], **given))
    return RemoteEngine(policy, settings, lambda: version[0], True, (told if told is not None else []).append)


def moved(policy, seed):
    """Another policy of the same shape."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def written(found):
    return [(each.ids, pytest.approx(each.logprobs, abs=1e-5)) for each in found]
