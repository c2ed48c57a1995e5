"""Warm start by behaviour cloning: `mem1 warmstart experiments/warmstart.yaml` makes the bundled policy.

A scripted shopper and a scripted researcher play (`expert`), and a small model learns their turns through the same
layout that reinforcement uses later, in any memory mode (`memory`). `data.min_reward` clones only what went well. A
policy learns from the best of its own trajectories with ``model.algorithm: raft`` of `fit`; transcripts are for reading
and hold no ids to learn from.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_mem1.data.task_data import spread_indices
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.evaluation.player import fitting, longest_of
from lightning_mem1.policy.loading import load_tokenizer
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.collect import Episode, collect, greedy
from lightning_mem1.training.layouts.collate import collate, split_by_tokens
from lightning_mem1.types import Trajectory
from lightning_mem1.warmstart.demonstrations import Demonstrations, qa_play, shop_play, tokenizer_texts
from lightning_mem1.warmstart.induction import start_with_induction
from lightning_mem1.warmstart.settings import Architecture, WarmStart


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

    def configure_optimizers(self) -> Any:
        """AdamW without decay on vectors; warm-up, then cosine to a twentieth."""
        optim, steps = self.config.optim, sum(stage.steps for stage in self.config.stages)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.policy.causal_lm.named_parameters():
            lr = optim.lr * (optim.circuit_lr if self._in_circuit(name) else 1.0)
            groups.setdefault((lr, optim.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
        settings = [{"params": group, "lr": lr, "weight_decay": decay} for (lr, decay), group in groups.items()]
        optimizer = torch.optim.AdamW(settings, lr=optim.lr, betas=(0.9, 0.98))
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.02, 1.0, optim.warmup_steps)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, max(1, steps - optim.warmup_steps), eta_min=optim.lr / 20
        )
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [optim.warmup_steps])
        return [optimizer], [schedule]

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
            save(self.policy, self.config.output)
        if step % 10 == 0:
            seconds = time.perf_counter() - self.started
            print(
                f"step {step:5d}  loss {loss:.3f}  {self.num_tokens / seconds:6.0f} tokens/s  {seconds:6.0f} s",
                flush=True,
            )

    def loss(self, trajectories: Sequence[Trajectory], backward: Callable[[Tensor], None] = lambda part: None) -> float:
        """Nats per cloned token; each forward pass's part of it is handed to `backward`."""
        total, loss = int(cloned(trajectories).sum()), 0.0
        memory = self.config.memory
        for indices in split_by_tokens(trajectories, self.config.optim.max_tokens, memory=memory):
            chosen = [trajectories[i] for i in indices]
            batch = collate(chosen, memory=memory).to(self.device)
            part = -self.policy.logprobs(batch)[0][cloned(chosen).to(self.device)].sum() / total
            backward(part)
            loss += float(part.detach())
            self.num_tokens += batch.num_tokens
        return loss


def cloned(trajectories: Sequence[Trajectory]) -> Tensor:
    """(N,) True on the action tokens to be cloned: those of valid turns."""
    return torch.tensor([turn.valid for t in trajectories for turn in t.turns for _ in turn.action_ids])


def make_tokenizer(config: WarmStart) -> Any:
    """The tokenizer of a folder, or one trained on a few generated catalogues and expert turns."""
    if config.tokenizer:
        return load_tokenizer(config.tokenizer)
    from lightning_mem1.warmstart.tokenizer import train_tokenizer

    return train_tokenizer(tokenizer_texts(config), config.model.vocab_size)


def make_model(architecture: Architecture, vocab_size: int) -> Any:
    """A small Qwen2 with random weights and tied embeddings."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from lightning_mem1.policy.attention import register

    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.num_layers,
        num_attention_heads=architecture.num_heads,
        num_key_value_heads=architecture.num_kv_heads,
        max_position_embeddings=architecture.max_positions,
        initializer_range=architecture.init_std,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": architecture.rope_theta},
    )
    config._attn_implementation = register()
    model = Qwen2ForCausalLM(config)
    if architecture.induction_start:
        start_with_induction(model)
    return model


def save(policy: Policy, folder: str) -> None:
    """Write weights (as float16, the tied head once) and tokenizer."""
    weights = policy.causal_lm.state_dict()
    half = {name: tensor.half() for name, tensor in weights.items() if name != "lm_head.weight"}
    policy.causal_lm.save_pretrained(folder, state_dict=half, safe_serialization=True)
    policy.tokenizer.save_pretrained(folder)


def validate(policy: Policy, config: WarmStart) -> dict[str, float]:
    """Greedy episodes in the default shop and encyclopedia, which the warm start never saw.

    Returns:
        Means ``shop_reward``, ``shop_success``, ``shop_turns``, ``shop_valid`` (part of the turns), the same for
        ``marketplace`` and for ``qa`` (success: every objective answered); only of the worlds that the last stage plays
        in.
    """
    numbers = {}
    stage = config.stages[-1]
    worlds = {"shop": shop_play(config, stage, 0)} if stage.shop_episodes else {}
    if stage.marketplace_episodes:
        worlds["marketplace"] = shop_play(config, stage, 0, marketplace=True)
    if stage.qa_episodes:
        worlds["qa"] = qa_play(config, stage, 0)
    for name, (source, settings, _) in worlds.items():
        tasks = [source.task("val", i) for i in spread_indices(config.num_val_tasks, source.size("val"))]
        episodes = [Episode(task, source.env(task), group) for group, task in enumerate(tasks)]
        settings = greedy(settings)
        longest = longest_of([(each.task, each.env.observe()) for each in episodes], policy, settings, config.memory)
        engine = LocalEngine(policy.eval(), fitting(EngineSettings(), longest, policy.config.max_position_embeddings))
        found = collect(episodes, engine, policy.tokenizer, settings, config.memory)
        numbers[f"{name}_reward"] = fmean(t.reward for t in found)
        numbers[f"{name}_success"] = fmean(t.success for t in found)
        numbers[f"{name}_turns"] = fmean(len(t.acts) for t in found)
        numbers[f"{name}_valid"] = fmean(turn.valid for t in found for turn in t.acts)
    return numbers


def train(config: WarmStart, command: str = "") -> dict[str, float]:
    """Make a policy and write it to `config.output` with a model card; return its validation numbers."""
    L.seed_everything(config.seed, verbose=False)
    if config.init_from:
        policy = Policy.load(config.init_from)
        tokenizer = policy.tokenizer
    else:
        tokenizer = make_tokenizer(config)
        policy = Policy(make_model(config.model, len(tokenizer)), tokenizer, source=config.output)
    module = SftModule(policy, config)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        deterministic=True,  # gradients of gathered keys are summed in a fixed order: same threads, same weights
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    loader = DataLoader(Demonstrations(config, tokenizer), batch_size=None, num_workers=1, prefetch_factor=4)
    trainer.fit(module, loader)
    if not module.num_trajectories:
        raise ValueError(
            "nothing to clone: expected expert trajectories with a valid turn and a reward of at least "
            f"{config.data.min_reward}, got none; lower warmstart.data.min_reward or warmstart.data.slip"
        )
    seconds = time.perf_counter() - module.started
    save(policy, config.output)
    numbers = validate(Policy.load(config.output), config)  # what is scored is what was written
    parameters = sum(p.numel() for p in policy.parameters()) / 1e6
    size = {"parameters": parameters, "vocab": len(tokenizer), "tokens": module.num_tokens / 1e6, "seconds": seconds}
    write_card(config, {**numbers, **size, "cloned": module.num_trajectories}, command)
    return numbers


CARD = """# Bundled policy

A Qwen2 of {parameters:.2f} M parameters with a tokenizer of {vocab} tokens, both made by this project from generated
text. It was cloned from a scripted shopper and a scripted researcher that are faultless in form and copying and often
wrong in their decisions: it is the starting point of `experiments/webshop.yaml` and `experiments/qa.yaml`.

| | |
| --- | --- |
| command | `{command}` |
| seed | {seed} |
{mode}| data | {shop} trajectories in {worlds} generated shops (train goals), {market}{qa} in {worlds} generated \
encyclopedias |
{filter}| seeds of the worlds | {first} to {last} (those of training and tests, seed 0, were never seen) |
| cost | {tokens:.1f} M trained tokens, {minutes:.0f} minutes on {threads} CPU {thread} |
{before}{scores}
Weights are stored as float16 and loaded as float32. Licence: MIT, as the project.
"""


SCORES = {
    **{
        world: f"| {world}: {{tasks}} validation goals, greedy | reward {{{world}_reward:.3f}}, "
        f"success {{{world}_success:.3f}}, {{{world}_turns:.1f}} turns, {{{world}_valid:.1%}} valid |\n"
        for world in ("shop", "marketplace")
    },
    "qa": "| QA: {tasks} validation tasks, greedy | right answers {qa_reward:.3f}, all right {qa_success:.3f}, "
    "{qa_turns:.1f} turns, {qa_valid:.1%} valid |\n",
}


def write_card(config: WarmStart, numbers: dict[str, float], command: str) -> None:
    """Write the model card beside the weights."""
    steps = sum(stage.steps for stage in config.stages)
    worlds = -(-steps // config.data.steps_per_world)
    least = config.data.min_reward
    kept = "" if least is None else f"| cloned | those with a reward of at least {least}: {numbers['cloned']} |\n"
    untidy = sum(stage.steps * stage.marketplace_episodes for stage in config.stages)
    mode = "" if config.memory == "mem1" else f"| memory mode | {config.memory} |\n"
    scored = [text for world, text in SCORES.items() if f"{world}_reward" in numbers]
    card = CARD.format(
        **numbers,
        scores="".join(scored).format(**numbers, tasks=config.num_val_tasks),
        mode=mode,
        market=f"{untidy} in as many with marketplace listings, " if untidy else "",
        before="".join(f"| before that: {name} | {told} |\n" for name, told in made_before(config.init_from)),
        minutes=numbers["seconds"] / 60,
        command=command,
        filter=kept,
        seed=config.seed,
        shop=sum(stage.steps * stage.shop_episodes for stage in config.stages),
        qa=sum(stage.steps * stage.qa_episodes for stage in config.stages),
        worlds=worlds,
        first=config.data.first_seed,
        last=config.data.first_seed + worlds - 1,
        threads=torch.get_num_threads(),
        thread="thread" if torch.get_num_threads() == 1 else "threads",
    )
    Path(config.output, "README.md").write_text(card, encoding="utf-8")


def made_before(folder: str | None) -> list[tuple[str, str]]:
    """How the policy that a warm start goes on from was made, as its card tells: (name, what is told)."""
    card = Path(folder, "README.md") if folder else None
    if card is None or not card.is_file():
        return []
    rows: list[tuple[str, str]] = re.findall(
        r"^\| (?:before that: )?(command|seed|data|seeds of the worlds|cost) \| (.*) \|$", card.read_text(), re.M
    )
    return rows
