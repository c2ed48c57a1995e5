"""The engine that the settings name."""

from __future__ import annotations

from collections.abc import Callable

from lightning_mem1.engine.generation import TransformersEngine
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.remote.engine import RemoteEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.engine.vllm import VllmEngine
from lightning_mem1.policy.policy import Policy

AnyEngine = LocalEngine | TransformersEngine | RemoteEngine | VllmEngine


def make_engine(policy: Policy, settings: EngineSettings, version: Callable[[], int], training: bool) -> AnyEngine:
    """An engine for a policy; arguments as in `RemoteEngine`."""
    if settings.kind == "server":
        return RemoteEngine(policy, settings, version, training)
    if settings.kind == "vllm":
        return VllmEngine(policy, settings, version)
    if settings.kind == "transformers":
        return TransformersEngine(policy, settings)
    return local_engine(policy, settings)


def local_engine(policy: Policy, settings: EngineSettings) -> LocalEngine | TransformersEngine:
    """The local engine, or transformers' generation for a policy whose layers it does not know (the policy logs it).

    Raises:
        ValueError: routing that is to be replayed, of a policy that the local engine cannot play.
    """
    if not policy.architecture.slots:
        return LocalEngine(policy, settings)
    if settings.replay_routing:
        raise ValueError(
            f"cannot record the routing of '{policy.source}': expected a policy that the local engine plays, got "
            f"another, {policy.architecture.slots}; set model.engine.replay_routing false"
        )
    return TransformersEngine(policy, settings)
