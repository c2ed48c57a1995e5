"""vLLM next to a training: what it is asked for, in which order, around rollouts and updates.

The engine here is a stand-in that keeps vLLM's rules for sleeping (``EngineCore.sleep`` and ``wake_up`` of vLLM 0.30):
its sleep mode and CUDA IPC need a GPU.
"""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lightning_mem1.engine.settings import EngineSettings, VllmSettings
from lightning_mem1.engine.vllm import VllmEngine
from lightning_mem1.engine.vllm_weights import streamed
from lightning_mem1.policy.policy import LoraSettings
from tiny import tiny_policy


class StandIn:
    """Has weights and a cache, or has given them back."""

    def __init__(self, weights):
        self.there, self.weights, self.log = {"weights", "kv_cache"}, dict(weights), []

    def abort_request(self, names):
        pass

    def sleep(self, level, mode):
        assert self.there == {"weights", "kv_cache"}
        self.there = set()
        if level == 2:
            self.weights = None
        self.log.append(f"sleep {level}")

    def wake_up(self, tags):
        self.there |= {"weights", "kv_cache"} if tags is None else set(tags)
        self.log.append(f"wake {tags}")

    def collective_rpc(self, method, kwargs):
        assert method == "reload_weights" and "weights" in self.there
        self.weights = load_file(f"{kwargs['weights_path']}/model.safetensors")
        self.log.append(method)

    def reset_prefix_cache(self):
        self.log.append("reset_prefix_cache")


def engine_of(policy, version, sleep):
    settings = EngineSettings(kind="vllm", max_context_tokens=160, vllm=VllmSettings(sleep=sleep))
    return VllmEngine(policy, settings, lambda: version[0], StandIn(dict(streamed(policy))))


def moved(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1


def same(engine):
    """Whether vLLM has all memory, and the policy's weights."""
    expected = dict(streamed(engine.policy))
    held = engine.vllm.weights
    return len(engine.vllm.there) == 2 and all(torch.equal(held[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("sleep", [True, False])
def test_in_full_training_weights_come_before_each_rollout_and_the_cache_after_them(sleep):
    policy, version = tiny_policy(), [0]
    engine = engine_of(policy, version, sleep)
    engine.reset()
    assert engine.vllm.log == [] and same(engine)  # it has loaded the base itself
    for version[0] in (1, 2):
        engine.sleep()
        assert engine.vllm.there == (set() if sleep else {"weights", "kv_cache"})
        moved(policy)
        engine.vllm.log.clear()
        engine.publish()
        engine.reset()
        handed = ["reload_weights", "reset_prefix_cache"]
        assert engine.vllm.log == (["wake ['weights']", *handed, "wake ['kv_cache']"] if sleep else handed)
        assert same(engine)


def test_weights_that_sleep_dropped_come_again_though_they_are_the_same():
    policy = tiny_policy()
    engine = engine_of(policy, [3], True)
    engine.reset()
    engine.sleep()
    engine.sleep()
    assert engine.vllm.log.count("sleep 2") == 1 and engine.vllm.weights is None
    engine.reset()
    assert same(engine)


def test_with_an_adapter_the_base_waits_in_the_machines_memory():
    policy = tiny_policy(LoraSettings(r=4, alpha=8))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()  # an untrained one is the base
    engine = VllmEngine(
        policy,
        EngineSettings(kind="vllm", max_context_tokens=160, vllm=VllmSettings(sleep=True)),
        lambda: 0,
        StandIn({"base": torch.ones(1)}),
    )
    engine.sleep()
    assert engine.vllm.there == set() and engine.vllm.weights
    engine._give_adapter = lambda: engine.vllm.log.append("adapter")  # vLLM's own class of adapters is not there
    engine.reset()
    assert engine.vllm.log == ["sleep 1", "wake None", "adapter"]


def test_vllm_that_sleeps_cannot_play_meanwhile(make_module):
    settings = EngineSettings(kind="vllm", one_step_off=True, vllm=VllmSettings(sleep=True))
    with pytest.raises(ValueError, match="vLLM would sleep while it plays"):
        make_module(engine=replace(settings, self_check=False))
