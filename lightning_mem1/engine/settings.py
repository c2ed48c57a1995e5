"""What a YAML says about where turns are generated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lightning_mem1.checks import RETRIES, TIMEOUT_S, Range, Ranges
from lightning_mem1.types import GenerationRequest

Transfer = Literal["adapter", "folder", "nccl"]


@dataclass
class ServerSettings:
    """Servers that speak OpenAI's completions protocol: vLLM, SGLang, or `mem1 serve`.

    Args:
        urls: Base addresses, e.g. ``http://127.0.0.1:8000``; turns are spread over them.
        urls_file: A file with further addresses, one a line, read again before each rollout, so that servers may come
            and go while a run is under way; null for none.
        model: The name under which they offer the policy's base; null for the first model that they offer.
        text: Send and take text in place of ids, for a server that knows no ids (evaluate and play only).
        key_variable: Environment variable with the API key; none is sent when it is not set.
        timeout_s: Of one try to get a turn.
        num_retries: Further tries of a turn, on another server where one is well.
        pause_s: Before a retry when no server is well; doubled before each further one.
        max_staleness: rl_steps that the weights on a server may lag behind; above 0 needs `model.mismatch.correction`.
        transfer: How trained weights reach the servers: adapter (the adapter alone), or in full training folder (a
            checkpoint that they reload) or nccl (vLLM's own weight transfer between GPUs).
        transfer_timeout_s: Of handing whole weights to one server.
        adapter_folder: Where adapters, or checkpoints of transfer folder, are put for the servers to load, under the
            same path on every machine; null for a temporary folder on this one.
    """

    urls: list[str] = field(default_factory=list)
    urls_file: str | None = None
    model: str | None = None
    text: bool = False
    key_variable: str = "LIGHTNING_MEM1_API_KEY"
    timeout_s: float = 120.0
    num_retries: int = 3
    pause_s: float = 0.5
    max_staleness: int = 0
    transfer: Transfer = "adapter"
    transfer_timeout_s: float = 1800.0
    adapter_folder: str | None = None
    ranges: ClassVar[Ranges] = {
        "timeout_s": TIMEOUT_S,
        "transfer_timeout_s": TIMEOUT_S,
        "num_retries": RETRIES,
        "pause_s": Range(0, 3600),
    }


@dataclass
class VllmSettings:
    """vLLM in this process.

    Args:
        gpu_memory_utilization: Its share of the GPU's memory (0-1), weights of its own copy of the base included.
        enforce_eager: Start faster, generate slower: no CUDA graphs.
        sleep: Give the memory back while weights are updated, and take it again before the next rollout. False keeps
            it, so that both need room at once.
    """

    gpu_memory_utilization: float = 0.4
    enforce_eager: bool = False
    sleep: bool = False
    ranges: ClassVar[Ranges] = {"gpu_memory_utilization": Range(0, 1, above=True)}


@dataclass
class EngineSettings:
    """Where and how turns are generated.

    Args:
        num_slots: Turns generated at once.
        max_context_tokens: Most tokens of a context plus the turn generated in it.
        max_prefill_tokens: Most prompt tokens that the local engine runs in one pass, which bounds its memory.
        prefill_interval: Passes of the local engine from one that starts waiting turns to the next. Above 1 they start
            in bunches while others run: it pays on a GPU, where a pass that starts one turn takes as long as one that
            starts ten.
        merge_lora: Whether the local engine decodes with the adapter in the weights, which takes a second copy of the
            adapted layers; null for where weights are float32, so that it changes no more than the last digits.
        compile: Backend of torch.compile for the local engine's decode steps, such as inductor or cudagraphs; they then
            have fixed shapes, in which idle slots take part, and on a GPU are captured whatever compiles them. Empty
            for none, null for cudagraphs on a GPU and none on a CPU.
        capture_sampling: Whether the local engine's decode steps of fixed shapes draw their tokens as well, so that on
            a GPU the draw is captured with them, and a step starts before the tokens of the last one are looked at. No
            effect where steps have no fixed shapes. The tokens are the same. Not measured on a GPU.
        kind: local (in this process), transformers (likewise, by its own generation: slower, and what local becomes
            for a model whose layers it does not know), server, or vllm (in this process, for one GPU).
        server: Which servers, for kind server.
        vllm: For kind vllm.
        self_check: Before training, have the engine play a few invented turns and compare its log-probabilities with
            those of the layout and of plain transformers; where they differ the run ends.
        replay_routing: Record the experts that the routers of a mixture of experts choose, and have training take them
            (routing replay): for rollout and training that round differently. Kind local alone, without `compile`.
        one_step_off: Collect the trajectories of the next rl_step while this one is updated, with the weights from
            before the update.
    """

    num_slots: int = 64
    max_context_tokens: int = 1024
    max_prefill_tokens: int = 8192
    prefill_interval: int = 1
    merge_lora: bool | None = None
    compile: str | None = None
    capture_sampling: bool = False
    kind: Literal["local", "transformers", "server", "vllm"] = "local"
    server: ServerSettings = field(default_factory=ServerSettings)
    vllm: VllmSettings = field(default_factory=VllmSettings)
    self_check: bool = True
    replay_routing: bool = False
    one_step_off: bool = False
    ranges: ClassVar[Ranges] = {
        "num_slots": Range(1, 2**16),
        "max_context_tokens": Range(2),
        "max_prefill_tokens": Range(1),
        "prefill_interval": Range(1),
    }


def check_fits(request: GenerationRequest, max_context_tokens: int) -> None:
    """Raise ValueError for an empty context, or one that leaves no room for `max_new_tokens`."""
    needed = len(request.context_ids) + request.max_new_tokens
    if not request.context_ids or needed > max_context_tokens:
        raise ValueError(
            f"turn does not fit the engine: expected 1..{max_context_tokens} tokens, context and new, "
            f"got {len(request.context_ids)} + {request.max_new_tokens}; raise model.engine.max_context_tokens"
        )


def check_positions(max_context_tokens: int, positions: int | None) -> None:
    """Raise ValueError for contexts longer than a policy has positions; None for no limit."""
    if positions is not None and max_context_tokens > positions:
        raise ValueError(
            f"contexts do not fit the policy: expected at most {positions} tokens, the positions it has learnt, got "
            f"{max_context_tokens}; lower model.engine.max_context_tokens"
        )
