"""Turns from vLLM without a server: its engine belongs to the process that trains, for one GPU.

The adapter in training is handed over as a folder before each rollout; in full training all weights are. vLLM's own
variable ``VLLM_ENABLE_V1_MULTIPROCESSING`` says whether its core runs in this process (0) or in a child of it (1, the
default).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightning_mem1.engine.adapter_folders import AdapterFolders
from lightning_mem1.engine.protocol.client import MAX_SEED
from lightning_mem1.engine.settings import EngineSettings, check_fits
from lightning_mem1.engine.stopping import StopRule
from lightning_mem1.engine.vllm_version import check_installed
from lightning_mem1.engine.vllm_weights import EngineWeights
from lightning_mem1.policy.adapter_files import ADAPTER_CONFIG
from lightning_mem1.policy.loading import resolve
from lightning_mem1.policy.policy import ADAPTER, Policy
from lightning_mem1.types import Completion, GenerationRequest

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM makes room for


class VllmEngine:
    """Generates turns with vLLM; satisfies `types.Engine`.

    Args:
        policy: Its source is what vLLM loads, its adapter is what vLLM is given, its tokenizer reads the turns.
        settings: Limits and vLLM's share of the memory.
        version: Says which rl_step the policy's weights are of.
        vllm: vLLM's engine; None makes one.

    Raises:
        ValueError: vLLM is not installed, or the policy's base is no whole model on disk or hub.
    """

    def __init__(
        self, policy: Policy, settings: EngineSettings, version: Callable[[], int] = lambda: 0, vllm: Any = None
    ) -> None:
        if vllm is None:
            check_installed()
        self.policy, self.settings = policy, settings
        self.folders = AdapterFolders(policy, version)
        self._stop = StopRule(policy.tokenizer, policy.end_ids)
        self.vllm = _start(policy, settings) if vllm is None else vllm
        self.every = policy.model is policy.causal_lm  # full training: weights are handed over, no adapter
        self.current = version
        self._weights = EngineWeights(policy, self.vllm)
        self._has: int | None = 0  # rl_step of the weights that vLLM has; it loads the base itself
        self._asleep = False
        self._adapter: Any = None  # vLLM's word for the adapter that acts; None for the base
        self._num_adapters = self._num_turns = 0
        self._asked: dict[str, GenerationRequest] = {}

    @property
    def max_context_tokens(self) -> int:
        """Most tokens of a context plus the turn generated in it."""
        return self.settings.max_context_tokens

    @property
    def pending(self) -> int:
        """Turns queued or running."""
        return len(self._asked)

    def publish(self) -> None:
        """In full training hand the weights over as they are now; every rank has to call it, nobody may play."""
        version = self.current()
        if not self.every or self._has == version:
            return
        if self._asleep:
            self.vllm.wake_up(["weights"])  # room for them first; the cache is no use until they are there
        self._weights.send()
        self._has = version

    def sleep(self) -> None:
        """Give the memory back until the next `reset`, where the settings say so; turns under way are given up."""
        if not self.settings.vllm.sleep or self._asleep:
            return
        self.vllm.abort_request(list(self._asked))
        self._asked = {}
        # 1: weights wait in the machine's memory; 2: they are dropped, other ones will come
        self.vllm.sleep(2 if self.every else 1, "abort")
        self._asleep, self._has = True, None if self.every else self._has

    def reset(self) -> None:
        """Wake up, forget queued turns, and hand the weights over as they are now."""
        self.vllm.abort_request(list(self._asked))
        self._asked = {}
        self.publish()
        if self._asleep:
            self.vllm.wake_up(["kv_cache"] if self.every else None)
            self._asleep = False
        if not self.every:
            self._give_adapter()

    def _give_adapter(self) -> None:
        from vllm.lora.request import LoRARequest

        self.folders.publish()
        name, before = self.folders.name, self._adapter
        if name == (before.lora_name if before else None):
            return
        self._adapter = None
        if name:
            self._num_adapters += 1
            self._adapter = LoRARequest(name, self._num_adapters, str(self.folders.path(name)))
        if before:
            self.vllm.remove_lora(before.lora_int_id)
        self.folders.tidy([])

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn.

        Raises:
            ValueError: an empty context, or one that leaves no room for `max_new_tokens`.
        """
        check_fits(request, self.max_context_tokens)
        self._num_turns += 1
        name = str(self._num_turns)
        prompt = {"prompt_token_ids": list(request.context_ids)}
        self.vllm.add_request(name, prompt, _sampling(request, self._stop.end_ids), lora_request=self._adapter)
        self._asked[name] = request

    def step(self) -> list[Completion]:
        """Advance every running turn by a token and return the ones that ended."""
        if not self._asked:
            return []
        ended = [output for output in self.vllm.step() if output.finished]
        return [
            self._finish(self._asked.pop(output.request_id), output.outputs[0])
            for output in ended
            if output.request_id in self._asked
        ]

    def _finish(self, request: GenerationRequest, written: Any) -> Completion:
        if written.finish_reason not in ("stop", "length"):
            return Completion(request.session, [], [], error=f"vLLM gave a turn up: {written.finish_reason}")
        ids = list(written.token_ids)
        logprobs = [float(each[token].logprob) for token, each in zip(ids, written.logprobs, strict=True)]
        end = self._stop.length(request, ids)
        return Completion(request.session, ids[:end], logprobs[:end])


def _start(policy: Policy, settings: EngineSettings) -> Any:
    """vLLM's engine over the policy's base."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    adapters = getattr(policy.model, "peft_config", {})
    if not adapters and policy.device.type == "cuda":  # handles to memory are no plain values; they go to a child alone
        os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
    rank = adapters[ADAPTER].r if ADAPTER in adapters else 1
    return LLMEngine.from_engine_args(
        EngineArgs(
            model=_whole(policy),
            dtype=str(next(policy.causal_lm.parameters()).dtype).removeprefix("torch."),
            max_model_len=settings.max_context_tokens,
            max_num_seqs=settings.num_slots,
            gpu_memory_utilization=settings.vllm.gpu_memory_utilization,
            enforce_eager=settings.vllm.enforce_eager,
            enable_lora=bool(adapters),
            enable_sleep_mode=settings.vllm.sleep,
            weight_transfer_config=None if adapters else {"backend": "ipc"},
            max_lora_rank=next((each for each in LORA_RANKS if each >= rank), rank),
            logprobs_mode="processed_logprobs",  # those at the sampling temperature, as training scores them
            generation_config="vllm",  # a model's own would make it another policy
            disable_log_stats=True,
        )
    )


def _whole(policy: Policy) -> str:
    """What vLLM loads as the base."""
    folder = resolve(policy.source)
    if (Path(folder) / ADAPTER_CONFIG).is_file():
        raise ValueError(
            f"vLLM loads whole models: expected one as model.policy, got the adapter '{folder}'; export it with "
            "--merged and name that folder"
        )
    if getattr(policy.causal_lm, "is_quantized", False):
        raise ValueError(
            "vLLM would load another base than the one that trains: expected model.compute.quantization none, got a "
            "base in 4 bits; set it, or model.engine.kind local"
        )
    return folder


def _sampling(request: GenerationRequest, end_ids: Iterable[int]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=request.max_new_tokens,
        stop=list(request.stop) or None,
        stop_token_ids=sorted({*end_ids, *request.stop_ids}),
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed % MAX_SEED,
        logprobs=0,  # of the sampled token alone
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
