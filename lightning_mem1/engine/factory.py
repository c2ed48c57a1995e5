"""The engine that the settings name."""

from __future__ import annotations

from collections.abc import Callable

from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.remote.engine import RemoteEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.engine.vllm import VllmEngine
from lightning_mem1.policy.policy import Policy

AnyEngine = LocalEngine | RemoteEngine | VllmEngine


def make_engine(policy: Policy, settings: EngineSettings, version: Callable[[], int], training: bool) -> AnyEngine:
    """An engine for a policy; arguments as in `RemoteEngine`."""
    if settings.kind == "server":
        return RemoteEngine(policy, settings, version, training)
    if settings.kind == "vllm":
        return VllmEngine(policy, settings, version)
    return LocalEngine(policy, settings)
