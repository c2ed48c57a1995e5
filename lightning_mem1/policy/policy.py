"""The policy: one causal LM with a LoRA adapter named `policy`; adapters off, it is the reference.

Adapters are the only thing that trains: the policy's, and the critic's on the same base (see `policy.critic`). What is
loaded may be the bundled policy, a folder or a hub id.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_mem1.checks import check_choice
from lightning_mem1.policy.attention import SIXTEEN_BITS, TREE_KERNELS, TreeTable
from lightning_mem1.policy.kernels import use_kernels
from lightning_mem1.policy.loading import load_model, load_tokenizer, name_of_base, resolve
from lightning_mem1.policy.logprobs import chunked_logprobs
from lightning_mem1.policy.recurrent import adopt, along, bypassed_linears, check_no_drawn_mask, same_pass

ADAPTER = "policy"


class ScoredBatch(Protocol):
    """What `Policy.logprobs` reads of a `collator.Batch`."""

    @property
    def input_ids(self) -> Tensor: ...
    @property
    def position_ids(self) -> Tensor: ...
    @property
    def attention_mask(self) -> Tensor | None: ...
    @property
    def tree(self) -> TreeTable | None: ...
    @property
    def predict_index(self) -> Tensor: ...
    @property
    def action_ids(self) -> Tensor: ...


@dataclass
class LoraSettings:
    """LoRA (arXiv 2106.09685).

    Args:
        r: Rank of the update.
        alpha: Scale; the update is multiplied by alpha / r.
        dropout: Dropout on the adapter's input; keep 0 so that training scores what the rollout sampled.
        target_modules: Module names, or "all-linear" for every linear layer but the head.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"


class Policy(nn.Module):
    """A causal LM that scores trajectories and can be generated from.

    Args:
        model: A transformers causal LM whose attention is `policy.attention` (see `load_model`).
        tokenizer: Its tokenizer.
        lora: Adapter settings; None trains every weight (warm start).
        source: Where the base came from, stored in checkpoints.
        tree_kernel: One of `attention.TREE_KERNELS`, or "auto": varlen where it runs (16 bits on a GPU), else segments.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        lora: LoraSettings | None = None,
        source: str = "",
        tree_kernel: str = "auto",
    ) -> None:
        super().__init__()
        check_choice("attention", tree_kernel, ("auto", *TREE_KERNELS), "model.attention")
        adopt(model)
        self.causal_lm: Any = model
        self.tokenizer = tokenizer
        self.source = source
        self.fingerprint: str | None = None  # of the frozen base, see `snapshot`
        self.tree_kernel = tree_kernel
        self.model: Any = _with_adapter(model, lora) if lora else model
        # the critic's; here, so that they move and are stored with the adapters
        self.value_head: nn.Module | None = None
        self.critic_model: Policy | None = None

    @classmethod
    def load(
        cls,
        source: str = "bundled",
        *,
        lora: LoraSettings | None = None,
        dtype: str = "float32",
        attention: str = "auto",
        gradient_checkpointing: bool = False,
        quantization: str = "none",
        kernels: str = "torch",
    ) -> Policy:
        """Load a policy.

        Args:
            source: "bundled", a folder with safetensors, or a hub id such as "Qwen/Qwen2.5-7B-Instruct". A folder with
                a LoRA adapter stands for its base with the adapter merged into it: that is what `lora` is put on, and
                what the reference is.
            lora: Adapter settings, None for no adapter.
            dtype: "float32", "bfloat16" or "float16".
            attention: The kernel of the tree layout: "auto", "segments", "flex" or "varlen".
            gradient_checkpointing: Trade time for memory in the backward pass.
            quantization: "none", or "nf4" for a base in 4 bits, which an adapter has to be put on.
            kernels: "torch" or "liger", see `policy.kernels`.

        Raises:
            ValueError, FileNotFoundError: with one line that says what was expected and what to do.
        """
        folder = resolve(source)
        model = load_model(folder, dtype, quantization)
        use_kernels(model, kernels)
        policy = cls(model, load_tokenizer(folder), lora, source=source, tree_kernel=attention)
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": same_pass})
            model.enable_input_require_grads()
        return policy

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.causal_lm.parameters()).device

    @property
    def config(self) -> Any:
        """The transformers config of the base."""
        return self.causal_lm.config

    def computing(self) -> AbstractContextManager[Any]:
        """Around a forward pass, in training as in a rollout: adapters compute in the base's dtype.

        Their weights are float32 on a base of 16 bits too, so that small steps of the optimizer are not lost. Left to
        themselves they would turn the activations of every adapted layer into float32 and multiply those.
        """
        dtype = self.causal_lm.dtype
        if dtype not in SIXTEEN_BITS:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=dtype, cache_enabled=False)

    def hidden(self, input_ids: Tensor, position_ids: Tensor, **kwargs: Any) -> Tensor:
        """Last hidden states (B, L, width); `kwargs` reach the attention function."""
        backbone = self.causal_lm.model
        with self.computing(), along(kwargs.get("tree")):
            return backbone(input_ids=input_ids, position_ids=position_ids, use_cache=False, **kwargs).last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (n, vocabulary) of hidden states (n, width)."""
        with self.computing():
            return self.causal_lm.lm_head(hidden)

    def logprobs(self, batch: ScoredBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Score every action token of a batch in the context it was sampled in.

        Args:
            batch: From `collator.collate`, on this policy's device.
            temperature: The sampling temperature.

        Returns:
            Log-probabilities (N,) and entropies (N,) in nats, in the batch's order of action tokens.
        """
        return chunked_logprobs(self.predicting(batch), self.head, batch.action_ids, temperature)

    def predicting(self, batch: ScoredBatch) -> Tensor:
        """Hidden states (N, width) that predict the action tokens: each has seen its token's context and no more."""
        check_no_drawn_mask(self.causal_lm, batch.attention_mask)
        hidden = self.hidden(
            batch.input_ids,
            batch.position_ids,
            attention_mask=batch.attention_mask,
            **self._tree(batch.tree),
        )
        return hidden.flatten(0, 1)[batch.predict_index]

    def _computes_in(self) -> torch.dtype:
        device = self.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.causal_lm.dtype

    def _tree(self, table: TreeTable | None) -> dict[str, Any]:
        if table is None:
            return {}
        kernel = self.tree_kernel
        if kernel == "auto":
            kernel = "varlen" if self.device.type == "cuda" and self._computes_in() in SIXTEEN_BITS else "segments"
        return {"tree": table, "tree_kernel": kernel}

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the policy is its own reference: the base with adapters off."""
        disable = getattr(self.model, "disable_adapter", None)
        if disable is None:
            raise ValueError("no reference policy: expected an adapter, got full training; set model.lora or beta 0")
        with self._same_trained(), disable():
            yield

    @contextmanager
    def adapter(self, name: str) -> Iterator[None]:
        """Inside, the adapter `name` is on and every other one off.

        A backward pass that computes activations again (gradient checkpointing) has to run inside as well.
        """
        before = self.model.active_adapter
        self._switch(name)
        try:
            yield
        finally:
            self._switch(before)

    def add_adapter(self, name: str, lora: LoraSettings) -> None:
        """Put another adapter on the base. It trains beside those that are there, and is off outside `adapter(name)`.

        Raises:
            ValueError: full training, which would move the base under it.
        """
        if self.model is self.causal_lm:
            raise ValueError(f"no adapter to put '{name}' beside: expected one, got full training; set model.lora")
        with self._same_trained():
            self.model.add_adapter(name, _lora_config(lora, self.causal_lm))
        _leave_inputs(self.model)
        for own, parameter in self.named_parameters():
            if f".{name}." in own:
                parameter.requires_grad_(True)

    def _switch(self, name: str) -> None:
        with self._same_trained():
            self.model.set_adapter(name)

    @contextmanager
    def _same_trained(self) -> Iterator[None]:
        """Afterwards the same weights train as before: peft freezes whatever is not on when it switches adapters."""
        trained = [p for p in self.parameters() if p.requires_grad]
        try:
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    def adapter_state(self) -> dict[str, Tensor]:
        """The trained weights alone: names and tensors, on the CPU."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        return {name: p.detach().cpu().clone() for name, p in self.named_parameters() if name in trained}

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Put trained weights back.

        Raises:
            ValueError: the names or shapes are not this policy's.
        """
        own = {name: p for name, p in self.named_parameters() if p.requires_grad}
        for name, parameter in own.items():
            if name not in state or state[name].shape != parameter.shape:
                got = tuple(state[name].shape) if name in state else "nothing"
                raise ValueError(
                    f"adapter does not fit this policy: expected {name} of shape {tuple(parameter.shape)}, got {got}; "
                    "use the model.policy, model.lora, model.algorithm and model.critic settings it was trained with"
                )
            parameter.data.copy_(state[name])
        if extra := sorted(set(state) - set(own)):
            raise ValueError(f"adapter does not fit this policy: expected {len(own)} tensors, got also {extra[0]}")

    def policy_adapter(self) -> dict[str, Tensor]:
        """The weights of the policy's adapter alone, on the CPU, by their names here; none in full training."""
        own = [(name, p) for name, p in self.named_parameters() if not name.startswith("critic_model.")]
        return {name: p.detach().cpu() for name, p in own if f".{ADAPTER}." in name}

    def save_adapter(self, folder: str | Path) -> None:
        """Write the policy's adapter (peft format, safetensors) into the folder ``policy`` of `folder`."""
        self.model.peft_config[ADAPTER].base_model_name_or_path = name_of_base(self.source)
        # embeddings never train; to find out, peft would look for the base on the hub
        self.model.save_pretrained(
            str(folder), safe_serialization=True, selected_adapters=[ADAPTER], save_embedding_layers=False
        )

    def save(self, folder: str | Path) -> None:
        """Write the policy's adapter, see `save_adapter`, or the whole model when there is none; and the tokenizer."""
        if self.model is not self.causal_lm:
            self.save_adapter(folder)
        else:
            self.model.save_pretrained(str(folder), safe_serialization=True)
        self.tokenizer.save_pretrained(str(folder))

    def merge(self) -> None:
        """Put the policy's adapter into the weights for good; a critic goes. Nothing trains or refers any more."""
        if self.model is not self.causal_lm:
            self.causal_lm = self.model = self.model.merge_and_unload(adapter_names=[ADAPTER])
            self.value_head = self.critic_model = None


def _with_adapter(model: nn.Module, lora: LoraSettings) -> nn.Module:
    from peft import get_peft_model

    adapted = get_peft_model(model, _lora_config(lora, model), adapter_name=ADAPTER)
    _leave_inputs(adapted)
    return adapted


def _leave_inputs(model: nn.Module) -> None:
    """Keep peft from turning the input of adapted layers into float32; see `Policy.computing`."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]


def _lora_config(lora: LoraSettings, model: nn.Module) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=bypassed_linears(model) or None,
        task_type="CAUSAL_LM",
    )
