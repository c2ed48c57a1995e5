"""The card of a policy that was cloned."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from lightning_mem1.warmstart.settings import WarmStart


def write_card(config: WarmStart, numbers: dict[str, float], command: str) -> None:
    """Write the model card beside the weights."""
    steps = sum(stage.steps for stage in config.stages)
    worlds = -(-steps // config.data.steps_per_world)
    least = config.data.min_reward
    kept = "" if least is None else f"| cloned | those with a reward of at least {least}: {numbers['cloned']} |\n"
    mode = "" if config.mode.name == "mem1" else f"| memory mode | {config.mode} |\n"
    scored = [text for world, text in SCORES.items() if f"{world}_reward" in numbers]
    card = CARD.format(
        **numbers,
        scores="".join(scored).format(**numbers, tasks=config.num_val_tasks),
        mode=mode,
        before="".join(f"| before that: {name} | {told} |\n" for name, told in made_before(config.init_from)),
        minutes=numbers["seconds"] / 60,
        command=command,
        filter=kept,
        are="is" if len(_starts(config)) == 1 else "are",
        their="its" if len(_starts(config)) == 1 else "their",
        seed=config.seed,
        data=_played(config, worlds),
        experts=" and ".join(f"a scripted {expert}" for expert, _ in _starts(config)),
        experiments=" and ".join(f"`experiments/{name}.yaml`" for _, name in _starts(config)),
        stored="The weights are a LoRA adapter, which loads on the policy that it was made of."
        if not config.merged
        else "Weights are stored as float16 and loaded as float32.",
        first=config.data.first_seed,
        last=config.data.first_seed + worlds - 1,
        threads=torch.get_num_threads(),
        thread="thread" if torch.get_num_threads() == 1 else "threads",
    )
    Path(config.output, "README.md").write_text(card, encoding="utf-8")


CARD = """# Bundled policy

A Qwen2 of {parameters:.2f} M parameters with a tokenizer of {vocab} tokens, both made by this project from generated
text. It was cloned from {experts} that {are} faultless in form and copying and often
wrong in {their} decisions: it is the starting point of {experiments}.

| | |
| --- | --- |
| command | `{command}` |
| seed | {seed} |
{mode}| data | {data} |
{filter}| seeds of the worlds | {first} to {last} (those of training and tests, seed 0, were never seen) |
| cost | {tokens:.1f} M trained tokens, {minutes:.0f} minutes on {threads} CPU {thread} |
{before}{scores}
{stored} Licence: MIT, as the project.
"""


SCORES = {
    **{
        world: f"| {world}: {{tasks}} validation goals, greedy | reward {{{world}_reward:.3f}}, "
        f"success {{{world}_success:.3f}}, {{{world}_turns:.1f}} turns, {{{world}_valid:.1%}} valid |\n"
        for world in ("shop", "marketplace")
    },
    "qa": "| QA: {tasks} validation tasks, greedy | right answers {qa_reward:.3f}, all right {qa_success:.3f}, "
    "{qa_turns:.1f} turns, {qa_valid:.1%} valid |\n",
    "reading": "| reading: {tasks} validation documents, greedy | reward {reading_reward:.3f}, "
    "success {reading_success:.3f}, {reading_turns:.1f} turns, {reading_valid:.1%} valid |\n",
}


def _played(config: WarmStart, worlds: int) -> str:
    """How many trajectories of each kind there were, and in how many worlds."""
    kinds = {
        "shop_episodes": "in {} generated shops (train goals)",
        "marketplace_episodes": "in {} with marketplace listings",
        "qa_episodes": "in {} generated encyclopedias",
        "reading_episodes": "with generated documents of {} seeds",
    }
    counts = {where: sum(s.steps * getattr(s, name) for s in config.stages) for name, where in kinds.items()}
    parts = [f"{count} {where.format(worlds)}" for where, count in counts.items() if count]
    return ", ".join(parts).replace(" ", " trajectories ", 1)


def _starts(config: WarmStart) -> list[tuple[str, str]]:
    """The experts that were cloned, each with the experiment that goes on from there."""
    reads = any(stage.reading_episodes for stage in config.stages)
    return [("reader", "reading")] if reads else [("shopper", "webshop"), ("researcher", "qa")]


def made_before(folder: str | None) -> list[tuple[str, str]]:
    """How the policy that a warm start goes on from was made, as its card tells: (name, what is told)."""
    card = Path(folder, "README.md") if folder else None
    if card is None or not card.is_file():
        return []
    rows: list[tuple[str, str]] = re.findall(
        r"^\| (?:before that: )?(command|seed|data|seeds of the worlds|cost) \| (.*) \|$", card.read_text(), re.M
    )
    return rows
