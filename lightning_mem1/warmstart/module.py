"""The Lightning module of behaviour cloning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lightning_mem1.context.contexts import Contexts
from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.layouts.microbatches import split_by_tokens
from lightning_mem1.types import Trajectory
from lightning_mem1.warmstart.model import save
from lightning_mem1.warmstart.settings import WarmStart


class SftModule(L.LightningModule):
    """Maximises the likelihood of the action tokens of the expert's valid turns.

    Logs ``train/loss`` (nats per cloned token) and ``train/tokens`` (tokens of the step).
    """

    def __init__(self, policy: Policy, config: WarmStart) -> None:
        super().__init__()
        self.policy, self.config = policy, config
        self.automatic_optimization = False
        self.started = time.perf_counter()
        self.num_tokens = self.num_trajectories = 0
        self._first_step_at: float | None = None
        self._rate = (-1, 1.0)  # step, part of the learning rate: the same for every group of weights

    def configure_optimizers(self) -> Any:
        """AdamW without decay on vectors; warm-up, then cosine to a twentieth."""
        optim, steps = self.config.optim, sum(stage.steps for stage in self.config.stages)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.policy.causal_lm.named_parameters():
            if not parameter.requires_grad:  # the base of an adapter
                continue
            lr = optim.lr * (optim.circuit_lr if self._in_circuit(name) else 1.0)
            groups.setdefault((lr, optim.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        settings = [{"params": group, "lr": lr, "weight_decay": decay} for (lr, decay), group in groups.items()]
        optimizer = torch.optim.AdamW(settings, lr=optim.lr, betas=(0.9, 0.98))
        if optim.max_seconds is not None:
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, self._timed_rate)]
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.02, 1.0, optim.warmup_steps)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, max(1, steps - optim.warmup_steps), eta_min=optim.lr / 20
        )
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [optim.warmup_steps])
        return [optimizer], [schedule]

    def _timed_rate(self, step: int) -> float:
        """The same course by the clock: warm-up, then cosine to a twentieth over the time or the steps."""
        optim, steps = self.config.optim, sum(stage.steps for stage in self.config.stages)
        assert optim.max_seconds is not None
        if step != self._rate[0]:
            now = time.perf_counter()
            self._first_step_at = self._first_step_at or now
            gone = min(1.0, max(step / steps, (now - self._first_step_at) / optim.max_seconds))
            rate = min(1.0, (step + 1) / optim.warmup_steps) * (0.525 + 0.475 * math.cos(math.pi * gone))
            self._rate = (step, rate)
        return self._rate[1]

    def _in_circuit(self, name: str) -> bool:
        attention = any(f".layers.{layer}.self_attn." in name for layer in (0, 1))
        return self.config.model.induction_start and (attention or "embed_tokens" in name)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Trajectories are no tensors: they stay where they are."""
        return batch

    def training_step(self, trajectories: list[Trajectory], step: int) -> None:
        """One optimizer step on one list of trajectories; an empty one leaves the weights as they are."""
        self.num_trajectories += len(trajectories)
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = self.loss(trajectories, self.manual_backward)
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.optim.max_grad_norm)
        optimizer.step()
        self.lr_schedulers().step()  # type: ignore[union-attr,call-arg]
        if (step + 1) % self.config.save_every == 0:
            save(self.policy, self.config.output, self.config.merged)
        if step % 10 == 0:
            seconds = time.perf_counter() - self.started
            print(
                f"step {step:5d}  loss {loss:.3f}  {self.num_tokens / seconds:6.0f} tokens/s  {seconds:6.0f} s",
                flush=True,
            )

    def loss(self, trajectories: Sequence[Trajectory], backward: Callable[[Tensor], None] = lambda part: None) -> float:
        """Nats per cloned token; each forward pass's part of it is handed to `backward`."""
        total, loss = int(cloned(trajectories).sum()), 0.0
        contexts = Contexts(self.config.mode)
        for indices in split_by_tokens(trajectories, self.config.optim.max_tokens, memory=contexts):
            chosen = [trajectories[i] for i in indices]
            batch = collate(chosen, memory=contexts).to(self.device)
            part = -self.policy.logprobs(batch)[0][cloned(chosen).to(self.device)].sum() / total
            backward(part)
            loss += float(part.detach())
            self.num_tokens += batch.num_tokens
        return loss


def cloned(trajectories: Sequence[Trajectory]) -> Tensor:
    """(N,) True on the action tokens to be cloned: those of valid turns."""
    return torch.tensor([turn.valid for t in trajectories for turn in t.turns for _ in turn.action_ids])
