"""The policy: one causal LM with a LoRA adapter named `policy`; adapters off, it is the reference.

Adapters are the only thing that trains: the policy's, and the critic's on the same base (see `policy.critic`). What is
loaded may be the bundled policy, a folder or a hub id.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_mem1.checks import check_choice
from lightning_mem1.context.chat_template import turn_end
from lightning_mem1.io.disk_room import room_for
from lightning_mem1.policy.adapter_files import without_warnings
from lightning_mem1.policy.architecture import Architecture
from lightning_mem1.policy.attention import Pass, carrying
from lightning_mem1.policy.backbone import Head, backbone, backbone_name, text_config, trains_head
from lightning_mem1.policy.compiling import compile_layers
from lightning_mem1.policy.fused_lora import fuse_lora
from lightning_mem1.policy.inspection import inspect_layers
from lightning_mem1.policy.kernels import use_kernels
from lightning_mem1.policy.loading import check_vocabulary, load_model, load_tokenizer, path_of_base, resolve
from lightning_mem1.policy.logprobs import chunked_logprobs
from lightning_mem1.policy.merging import merge
from lightning_mem1.policy.parts import is_part, spread_like
from lightning_mem1.policy.read_weights import uncalled_linears
from lightning_mem1.policy.recurrent import adopt, bypassed_linears, check_no_drawn_mask
from lightning_mem1.policy.rotary import LengthRule, adopt_rotary
from lightning_mem1.policy.routing import Routers, find_routers
from lightning_mem1.policy.rows import Rows, rows_of
from lightning_mem1.policy.scores import EVERYTHING
from lightning_mem1.policy.settings import LoraSettings
from lightning_mem1.policy.stillness import let_train, recompute_activations, scoring
from lightning_mem1.policy.tied_weights import check_training
from lightning_mem1.policy.tree_kernels import SIXTEEN_BITS, TREE_KERNELS
from lightning_mem1.policy.tree_table import TreeTable

ADAPTER = "policy"
LOG = logging.getLogger(__name__)


class ScoredBatch(Protocol):
    """What `Policy.logprobs` reads of a `collate.Batch`."""

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
    @property
    def trajectory_index(self) -> Tensor: ...
    @property
    def turn_index(self) -> Tensor: ...
    @property
    def experts(self) -> Tensor | None: ...


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
        check_choice("attention", tree_kernel, ("auto", *TREE_KERNELS), "model.compute.attention")
        adopt(model)
        self.causal_lm: Any = model
        self.tokenizer = tokenizer
        self.source = source
        self.fingerprint: str | None = None  # of the frozen base, see `checkpoint_state`
        self.tree_kernel = tree_kernel
        self._length = adopt_rotary(model)
        self._architecture: Architecture | None = None
        self._routers: Routers | None = None
        self._turn_end: tuple[int | None] | None = None  # of the chat template, once it has been looked at
        self._head: Head | None = None
        self.model: Any = _with_adapter(model, lora) if lora else model

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
        compile: str = "",
        fused_lora: bool = False,
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
            compile: Backend of torch.compile for layers that train or score, "" for none, see `policy.compiling`.
            fused_lora: Whether plain LoRA layers compute in fewer calls, see `policy.fused_lora`.

        Raises:
            ValueError, FileNotFoundError: with one line that says what was expected and what to do.
        """
        folder = resolve(source)
        model = load_model(folder, dtype, quantization)
        use_kernels(model, kernels)
        tokenizer = load_tokenizer(folder)
        check_vocabulary(model, tokenizer, source)
        policy = cls(model, tokenizer, lora, source=source, tree_kernel=attention)
        policy.recompute_activations(gradient_checkpointing)
        if fused_lora:
            fuse_lora(policy.causal_lm)
        if compile:
            compile_layers(policy.causal_lm, compile)
        return policy

    def recompute_activations(self, enable: bool) -> None:
        """Trade time for memory in the backward pass, or do not."""
        if enable and not hasattr(self.causal_lm, "_require_grads_hook"):
            self.causal_lm.enable_input_require_grads()
        recompute_activations(self.causal_lm, enable)
        self.train(self.training)

    def train(self, mode: bool = True) -> Policy:
        """Adapters train; the base stays what was sampled from, without dropout (see `policy.stillness`)."""
        super().train(mode)
        if mode:
            let_train(self.causal_lm)
        return self

    @property
    def architecture(self) -> Architecture:
        """What is known of the base's layers; found out once, where the weights are at that time.

        Raises:
            ValueError: a model that can be neither scored nor played, with the layer that speaks against it.
        """
        if self._architecture is None:
            try:
                self._architecture = self.inspect(self._length)
            except AttributeError as error:  # of a model's code: torch would look for the property itself again
                raise RuntimeError(f"'{self.source}' does not run: {error}") from error
            if line := self._architecture.slower:
                LOG.warning("policy '%s': %s", self.source, line)
        return self._architecture

    @property
    def routers(self) -> Routers:
        """The routers of a mixture of experts; found once, and able to record and replay their choices from then on.

        Raises:
            ValueError: a dense model, or routers that choose in another way.
        """
        if self._routers is None:
            self._routers = find_routers(self.causal_lm, self.computing, self.source)
        return self._routers

    def inspect(self, length: LengthRule | None) -> Architecture:
        """Inspect the base's layers again, given how its rotary frequencies depend on the length."""
        known = self._architecture
        if known is None or not known.own:
            known = inspect_layers(self.causal_lm, length, self.computing)
        self._length, self._architecture = length, replace(known, length=length)
        return self._architecture

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.causal_lm.parameters()).device

    @property
    def config(self) -> Any:
        """The transformers config of the base."""
        return self.causal_lm.config

    @property
    def vocab_size(self) -> int:
        """Ids that the base reads."""
        return int(text_config(self.causal_lm).vocab_size)

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a turn: the tokenizer's end of text, its template's end of a reply, the generation config's."""
        named = getattr(getattr(self.causal_lm, "generation_config", None), "eos_token_id", None)
        listed = named if isinstance(named, list | tuple) else [named]
        if self._turn_end is None:
            self._turn_end = (turn_end(self.tokenizer),)
        return frozenset({self.tokenizer.eos_token_id, *self._turn_end, *listed} - {None})

    @property
    def max_positions(self) -> int | None:
        """Positions that the base declares; None for no limit."""
        found: int | None = getattr(text_config(self.causal_lm), "max_position_embeddings", None)
        return found

    def computing(self) -> AbstractContextManager[Any]:
        """Around a forward pass, in training as in a rollout: adapters compute in the base's dtype.

        Their weights are float32 on a base of 16 bits too, so that small steps of the optimizer are not lost. Left to
        themselves they would turn the activations of every adapted layer into float32 and multiply those.
        """
        dtype = self.causal_lm.dtype
        if dtype not in SIXTEEN_BITS:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=dtype, cache_enabled=False)

    def hidden(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor | None = None,
        tree: TreeTable | None = None,
        tree_kernel: str = "segments",
        experts: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states (B, L, width) by this package's attention, see `attention_forward`.

        With `experts` (B, L, width of the routers) the routers take these, see `policy.routing`.
        """
        if experts is not None and experts.shape[2] != self.routers.width:
            raise ValueError(
                f"cannot replay routing: expected {self.routers.width} choices of a token, got {experts.shape[2]}; "
                "train the model that played"
            )
        along = Pass(tree=tree, tree_kernel=tree_kernel, experts=experts)
        handed = {"tree": tree, "tree_kernel": tree_kernel} if tree is not None and self.architecture.keywords else {}
        return self._run(along, input_ids, position_ids=position_ids, attention_mask=attention_mask, **handed)

    def _run(self, along: Pass, input_ids: Tensor, **kwargs: Any) -> Tensor:
        with self.computing(), scoring(self.causal_lm), carrying(along):
            return backbone(self.causal_lm)(input_ids=input_ids, use_cache=False, **kwargs).last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (n, vocabulary) of hidden states (n, width), see `backbone.Head`."""
        if self._head is None or self._head.source is not self.causal_lm:
            self._head = Head(self.causal_lm)
        with self.computing():
            return self._head(hidden)

    def logprobs(
        self, batch: ScoredBatch, temperature: float = 1.0, replay: bool = True, entropy_gradient: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Score every action token of a batch in the context it was sampled in.

        Args:
            batch: From `collate.collate`, on this policy's device.
            temperature: The sampling temperature.
            replay: Whether routers take the experts that the rollout chose, where the batch has them.
            entropy_gradient: Whether gradients of the entropies will be asked for; without, scoring costs less.

        Returns:
            Log-probabilities (N,) and entropies (N,) in nats, in the batch's order of action tokens.
        """
        return self(batch, temperature, replay, entropy_gradient)  # type: ignore[no-any-return]

    def forward(
        self, batch: ScoredBatch, temperature: float, replay: bool, entropy_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """What `logprobs` returns; weights that are shared out among ranks are gathered around it."""
        once = not entropy_gradient and not trains_head(self.causal_lm)
        hidden, ids = self.predicting(batch, replay), batch.action_ids
        if batch.tree is None:
            return chunked_logprobs(hidden, self.head, ids, temperature, once=once)
        # tokens that trajectories share are scored once
        distinct, back = torch.unique(batch.predict_index * self.vocab_size + ids, return_inverse=True)
        first = torch.empty_like(distinct)
        first[back] = torch.arange(len(back), device=back.device)
        found = chunked_logprobs(hidden[first], self.head, ids[first], temperature, once=once)
        return found[0][back], found[1][back]

    def predicting(self, batch: ScoredBatch, replay: bool = False) -> Tensor:
        """Hidden states (N, width) that predict the action tokens: each has seen its token's context and no more.

        `replay` as in `logprobs`.
        """
        known = self.architecture
        rule = known.length if known.length and int(batch.position_ids.max()) >= known.length.original else None
        self._check_layout(batch, rule is not None)
        if known.own or rule:
            return self._predicting_in_rows(rows_of(batch, rule))
        hidden = self.hidden(
            batch.input_ids,
            batch.position_ids,
            attention_mask=batch.attention_mask,
            experts=batch.experts if replay else None,
            **self._tree(batch.tree),
        )
        return hidden.flatten(0, 1)[batch.predict_index]

    def _predicting_in_rows(self, rows: Rows) -> Tensor:
        """The same, of contexts that are rows."""
        along, mask = Pass(lengths=rows.lengths), rows.mask
        if not self.architecture.own:
            positions = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
            hidden = self._run(along, rows.input_ids, position_ids=positions, attention_mask=mask)
        elif self.architecture.padded:
            hidden = self._run(along, rows.input_ids, attention_mask=mask.long())
        else:
            alone = [self._run(Pass(lengths=lengths), ids)[0] for ids, lengths in rows]
            hidden = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True)
        return hidden.flatten(0, 1)[rows.predict_index]

    def _check_layout(self, batch: ScoredBatch, by_length: bool) -> None:
        """Raise ValueError for a drawn mask where the model's layers see by rules of their own."""
        if batch.attention_mask is None or batch.attention_mask.dim() == 2:
            return
        check_no_drawn_mask(self.causal_lm, batch.attention_mask)
        known = self.architecture
        layer = next((layer for layer in known.layers if layer.rule != EVERYTHING), None)
        if not known.own and layer is None and not by_length:
            return
        reason = known.own or "its rotary frequencies depend on the length of the context"
        if layer is not None:
            reason = f"attention layer {layer.number} does not see the whole context"
        raise ValueError(
            f"layouts stitched and official need full attention in every layer: '{self.source}' has others, {reason}; "
            "set model.layout tree or rows"
        )

    @property
    def computes_in(self) -> torch.dtype:
        """The dtype of a forward pass."""
        device = self.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.causal_lm.dtype

    def _tree(self, table: TreeTable | None) -> dict[str, Any]:
        if table is None:
            return {}
        kernel = self.tree_kernel
        if kernel == "auto":
            kernel = "varlen" if self.device.type == "cuda" and self.computes_in in SIXTEEN_BITS else "segments"
        return {"tree": table, "tree_kernel": kernel}

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the policy is its own reference: the base with adapters off."""
        disable = getattr(self.model, "disable_adapter", None)
        if disable is None:
            raise ValueError(
                "no reference policy: expected an adapter, got full training; set model.lora or model.loss.kl_coef 0"
            )
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
        """Put another adapter on the base. It trains next to those that are there, and is off outside `adapter(name)`.

        Raises:
            ValueError: full training, which would move the base under it.
        """
        if self.model is self.causal_lm:
            raise ValueError(
                f"cannot add adapter '{name}': expected a policy with an adapter, got full training; set model.lora"
            )
        with self._same_trained(), without_warnings():
            self.model.add_adapter(name, _lora_config(lora, self.causal_lm))
        check_training(self.model, self.causal_lm)
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

    def trained(self, adapter: str = ADAPTER) -> dict[str, nn.Parameter]:
        """The weights that train, by name: those of one adapter, or all of them in full training."""
        every = self.model is self.causal_lm
        named = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name: parameter for name, parameter in named.items() if every or f".{adapter}." in name}

    def adapter_state(self) -> dict[str, Tensor]:
        """The policy's own trained weights: names and tensors, on the CPU."""
        return copies(self.trained())

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Put the policy's own trained weights back.

        Raises:
            ValueError: the names or shapes are not this policy's.
        """
        put_back(self.trained(), state)

    def policy_adapter(self) -> dict[str, Tensor]:
        """The weights of the policy's adapter alone, on the CPU, by their names here; none in full training."""
        return {name: p.detach().cpu() for name, p in self.named_parameters() if f".{ADAPTER}." in name}

    def save_adapter(self, folder: str | Path) -> None:
        """Write the policy's adapter into a folder (peft format, safetensors)."""
        self.model.peft_config[ADAPTER].base_model_name_or_path = path_of_base(self.source)
        with tempfile.TemporaryDirectory() as written:
            # embeddings never train; to find out, peft would look for the base on the hub
            self.model.save_pretrained(
                written, safe_serialization=True, selected_adapters=[ADAPTER], save_embedding_layers=False
            )
            # peft gives an adapter with a name a folder of its own, and writes an empty card above it
            shutil.copytree(Path(written) / ADAPTER, folder, dirs_exist_ok=True)

    def save(self, folder: str | Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the policy's adapter, see `save_adapter`, or the whole model when there is none; and the tokenizer.

        Args:
            folder: Made when it is not there.
            weights: Of the whole model where they are shared out among ranks, see `sharding.whole_weights`.
        """
        with room_for(folder):
            if self.model is not self.causal_lm:
                self.save_adapter(folder)
            else:
                self.model.save_pretrained(str(folder), safe_serialization=True, state_dict=weights)
            self.tokenizer.save_pretrained(str(folder))

    def merge(self) -> float:
        """Put the policy's adapter into the weights for good; a critic's goes. Nothing trains or refers any more.

        Returns:
            The share of what the adapter adds that is lost to rounding, see `merging.merge`.

        Raises:
            ValueError: a base in 4 bits, or an adapter on weights that two modules share.
        """
        if self.model is self.causal_lm:
            return 0.0
        model, lost = merge(self.model, [ADAPTER])
        self.causal_lm = self.model = model
        self._architecture = self._routers = None
        return lost


def copies(weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Weights by name, copied to the CPU; those that are spread over ranks as they are."""
    return {name: p.detach() if is_part(p) else p.detach().cpu().clone() for name, p in weights.items()}


def put_back(weights: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> None:
    """Give weights the values of `copies` that were made of them.

    Raises:
        ValueError: names or shapes differ.
    """
    for name, parameter in weights.items():
        if name not in state or state[name].shape != parameter.shape:
            got = tuple(state[name].shape) if name in state else "nothing"
            raise ValueError(
                f"adapter does not fit this policy: expected {name} of shape {tuple(parameter.shape)}, got {got}; "
                "use the model.policy, model.lora, model.algorithm and model.critic settings it was trained with"
            )
        parameter.data.copy_(spread_like(state[name], parameter))
    if extra := sorted(set(state) - set(weights)):
        raise ValueError(f"adapter does not fit this policy: expected {len(weights)} tensors, got also {extra[0]}")


def _with_adapter(model: nn.Module, lora: LoraSettings) -> nn.Module:
    from peft import get_peft_model

    with without_warnings():
        adapted = get_peft_model(model, _lora_config(lora, model), adapter_name=ADAPTER)
    check_training(adapted, model)
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
        exclude_modules=[*_not_adaptable(model), *bypassed_linears(model), *uncalled_linears(model)] or None,
        task_type="CAUSAL_LM",
    )


def _not_adaptable(model: nn.Module) -> list[str]:
    """Linear layers that no adapter is put on.

    Routers that return more than a product, what peft refuses, and what reads images and sound next to the language
    model.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    path = backbone_name(model)
    tower = path if hasattr(backbone(model), "language_model") else None
    kept_out = [
        name
        for name, module in linear.items()
        if (tower and name.startswith(f"{tower}.") and not name.startswith(f"{tower}.language_model."))
        or _does_more(module)
        or _refused(model, name)
    ]
    last = {name.rpartition(".")[2] for name in kept_out}
    alike = [name for name in linear if name.rpartition(".")[2] in last]
    return sorted(last) if alike == kept_out else kept_out


def _does_more(module: nn.Linear) -> bool:
    """Whether a class of its own returns something else than a tensor, such as Llama 4's router of experts."""
    if type(module).forward is nn.Linear.forward or not type(module).__module__.startswith("transformers.models."):
        return False
    try:
        with torch.no_grad():
            return not isinstance(module(module.weight.new_zeros(1, module.in_features)), Tensor)
    except RuntimeError:  # it wants another shape than a linear layer does
        return True


def _refused(model: nn.Module, name: str) -> bool:
    from peft import LoraConfig
    from peft.tuners import tuners_utils

    check = getattr(
        tuners_utils, "_check_lora_target_modules_mamba", None
    )  # refuses them after "all-linear" found them
    if check is None:
        return False
    try:
        check(LoraConfig(), model, name.rpartition(".")[2])
    except ValueError:
        return True
    return False
