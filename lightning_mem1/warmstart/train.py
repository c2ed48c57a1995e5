"""Warm start by behaviour cloning: `mem1 warmstart experiments/warmstart.yaml` makes the bundled policy.

A scripted shopper, researcher and reader play (`expert`), and a small model learns their turns through the same layout
that RL uses later, in any memory mode (`memory`). `data.min_reward` clones only what went well. A
policy learns from the best of its own trajectories with ``model.algorithm: raft`` of `fit`; transcripts are for reading
and hold no ids to learn from.
"""

from __future__ import annotations

import time
from datetime import timedelta
from statistics import fmean

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from lightning_mem1.data.source_checks import split_size
from lightning_mem1.data.task_data import spread_indices
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.engine.sizing import fitting
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.budget import longest_of
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import greedy
from lightning_mem1.types import Trajectory
from lightning_mem1.warmstart.demonstrations import Demonstrations, qa_play, shop_play
from lightning_mem1.warmstart.model import make_model, make_tokenizer, save
from lightning_mem1.warmstart.model_card import write_card
from lightning_mem1.warmstart.module import SftModule
from lightning_mem1.warmstart.own.rehearsal import changed_action, rehearsed, texts_of, too_long
from lightning_mem1.warmstart.own.teacher import teach
from lightning_mem1.warmstart.reading_play import reading_play
from lightning_mem1.warmstart.settings import WarmStart


def validate(policy: Policy, config: WarmStart) -> dict[str, float]:
    """Greedy episodes in the default shop, encyclopedia and documents, which the warm start never saw.

    Returns:
        Means ``shop_reward``, ``shop_success``, ``shop_turns``, ``shop_valid`` (part of the turns), the same for
        ``marketplace``, ``qa`` (success: every objective answered) and ``reading``; only of the worlds that the last
        stage plays in. Of a task of one's own ``own_reward`` and so on; nothing where no task source makes any.
    """
    numbers = {}
    stage = config.stages[-1]
    worlds = {"shop": shop_play(config, stage, 0)} if stage.shop_episodes else {}
    if stage.marketplace_episodes:
        worlds["marketplace"] = shop_play(config, stage, 0, marketplace=True)
    if stage.qa_episodes:
        worlds["qa"] = qa_play(config, stage, 0)
    if stage.reading_episodes:
        worlds["reading"] = reading_play(config, stage, 0)
    played = {name: (source, settings) for name, (source, settings, _) in worlds.items()}
    if config.data.own.given:
        source = config.data.own.source
        played = {"own": (source, config.rollout)} if source and split_size(source, "val") else {}
    for name, (source, settings) in played.items():
        tasks = [source.task("val", i) for i in spread_indices(config.num_val_tasks, source.size("val"))]
        episodes = [Episode(task, source.env(task), group) for group, task in enumerate(tasks)]
        settings = greedy(settings)
        shown = [(each.task, each.env.observe()) for each in episodes]
        encoder = settings.encoder(policy.tokenizer)
        longest = longest_of(shown, encoder, settings.max_new_tokens, config.mode)
        engine = LocalEngine(policy.eval(), fitting(EngineSettings(), longest, policy.config.max_position_embeddings))
        found = collect(episodes, engine, policy.tokenizer, settings, config.mode)
        numbers[f"{name}_reward"] = fmean(t.reward for t in found)
        numbers[f"{name}_success"] = fmean(t.success for t in found)
        numbers[f"{name}_turns"] = fmean(len(t.acts) for t in found)
        numbers[f"{name}_valid"] = fmean(turn.valid for t in found for turn in t.acts)
    return numbers


def train(config: WarmStart, command: str = "") -> dict[str, float]:
    """Make a policy and write it to `config.output` with a model card; return its validation numbers."""
    L.seed_everything(config.seed, verbose=False)
    if config.data.own.teacher:
        teach(config)
    shown = rehearsed(config) if config.data.own.given else []
    if config.init_from:
        policy = Policy.load(config.init_from, lora=config.lora)
        tokenizer = policy.tokenizer
    else:
        tokenizer = make_tokenizer(config, texts_of(shown))
        policy = Policy(make_model(config.model, len(tokenizer)), tokenizer, config.lora, source=config.output)
    if changed := changed_action(shown, config, tokenizer):
        print(f"the policy's tokenizer writes {changed[0]!r:.80} as {changed[1]!r:.80}: see that your task takes it")
    if long := too_long(shown, config, tokenizer):
        print(long, flush=True)
    module = clone(policy, config, Demonstrations(config, tokenizer))
    seconds = time.perf_counter() - module.started
    save(policy, config.output, config.merged)
    written = Policy.load(config.output)  # what is scored is what was written
    numbers = validate(written.to("cuda" if _on_gpu(config) else "cpu"), config)
    parameters = sum(p.numel() for p in written.parameters()) / 1e6
    size = {"parameters": parameters, "vocab": len(tokenizer), "tokens": module.num_tokens / 1e6, "seconds": seconds}
    write_card(config, {**numbers, **size, "cloned": module.num_trajectories}, command)
    return numbers


def clone(policy: Policy, config: WarmStart, demonstrations: Dataset[list[Trajectory]]) -> SftModule:
    """Train a policy on demonstrations, one list of trajectories a step.

    Args:
        policy: What is trained, in place.
        config: Of its settings those of the optimiser, the trainer and the memory mode.
        demonstrations: Trajectories by step; `Demonstrations`, or a data set of one's own.

    Returns:
        The module, which has counted what was cloned.

    Raises:
        ValueError: there was nothing to clone.
    """
    module, on_gpu, seconds = SftModule(policy, config), _on_gpu(config), config.optim.max_seconds
    trainer = L.Trainer(
        accelerator="cuda" if on_gpu else "cpu",
        devices=1,
        precision=config.precision,  # type: ignore[arg-type]
        # gradients of gathered keys are summed in a fixed order: same threads, same weights
        deterministic=not on_gpu,
        max_epochs=1,
        max_time=None if seconds is None else timedelta(seconds=seconds),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    workers = config.num_workers
    ahead = {"num_workers": workers, "prefetch_factor": 4} if workers else {}
    trainer.fit(module, DataLoader(demonstrations, batch_size=None, **ahead))  # type: ignore[arg-type]
    if not module.num_trajectories:
        raise ValueError(
            "nothing to clone: expected expert trajectories with a valid turn and a reward of at least "
            f"{config.data.min_reward}, got none; lower warmstart.data.min_reward or warmstart.data.slip"
        )
    return module


def _on_gpu(config: WarmStart) -> bool:
    return config.accelerator == "cuda" or (config.accelerator == "auto" and torch.cuda.is_available())
