"""The card of a policy that was cloned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from lightning_mem1.policy.loading import is_plain_tokenizer, resolve
from lightning_mem1.policy.published_card import front_matter, licence_of
from lightning_mem1.warmstart.settings import WarmStart


def write_card(config: WarmStart, numbers: dict[str, float], command: str) -> None:
    """Write the model card next to the weights."""
    steps = sum(stage.steps for stage in config.stages)
    worlds = -(-steps // config.data.steps_per_world)
    least = config.data.min_reward
    kept = "" if least is None else f"| cloned | those with a reward of at least {least}: {numbers['cloned']} |\n"
    untidy = sum(stage.steps * stage.marketplace_episodes for stage in config.stages)
    mode = "" if config.mode.name == "mem1" else f"| memory mode | {config.mode} |\n"
    scored = [text for world, text in SCORES.items() if f"{world}_reward" in numbers]
    licence = licence_of(resolve(config.init_from)) if config.init_from else "mit"
    plain = is_plain_tokenizer(config.output)
    card = CARD.format(
        **numbers,
        header=front_matter("transformers", licence, results=_results(numbers), name=Path(config.output).name),
        origin="" if config.init_from else ", both made by lightning_mem1 from generated text",
        tokenizer="PreTrainedTokenizerFast" if plain else "AutoTokenizer",
        licence=f"{licence}." if licence else "the one of the policy it was made from.",
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


CARD = """{header}
# MEM1 policy, cloned from demonstrations

A causal LM of {parameters:.2f} M parameters with a tokenizer of {vocab} tokens{origin}.

It was cloned from a scripted shopper and a scripted researcher. They make no mistakes in form or copying and often
decide wrongly, so RL has something to improve: it is a starting point for `mem1 fit`, not a good agent. It knows the
pages and questions of lightning_mem1 and nothing else.

| | |
| --- | --- |
| command | `{command}` |
| seed | {seed} |
{mode}| data | {shop} trajectories in {worlds} generated shops (train goals), {market}{qa} in {worlds} generated \
encyclopedias |
{filter}| seeds of the worlds | {first} to {last} (those of training and tests, seed 0, were never seen) |
| cost | {tokens:.1f} M trained tokens, {minutes:.0f} minutes on {threads} CPU {thread} |
{before}{scores}
## How to load it

```python
from transformers import AutoModelForCausalLM, {tokenizer}

model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="float32")
tokenizer = {tokenizer}.from_pretrained("FOLDER")
```

In lightning_mem1: `mem1 fit CONFIG --model.policy FOLDER`. Weights are stored as float16 and loaded as float32.

Licence of the weights: {licence}
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


def _results(numbers: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """``{"shop_reward": 0.5}`` -> ``[("shop", "reward", 0.5)]``, of every world that was played."""
    found = [(world, metric, f"{world}_{metric}") for world in SCORES for metric in ("reward", "success", "valid")]
    return [(world, metric, numbers[key]) for world, metric, key in found if key in numbers]


def made_before(folder: str | None) -> list[tuple[str, str]]:
    """How the policy that a warm start continues from was made: (name, value) rows of its card."""
    card = Path(folder, "README.md") if folder else None
    if card is None or not card.is_file():
        return []
    rows: list[tuple[str, str]] = re.findall(
        r"^\| (?:before that: )?(command|seed|data|seeds of the worlds|cost) \| (.*) \|$", card.read_text(), re.M
    )
    return rows
