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
    mode = "" if config.mode.name == "mem1" else f"| memory mode | {config.mode} |\n"
    scored = [text for world, text in SCORES.items() if f"{world}_reward" in numbers]
    licence = licence_of(resolve(config.init_from)) if config.init_from else "mit"
    experts = _experts(config)
    card = CARD.format(
        **numbers,
        header=front_matter(
            "transformers" if config.merged else "peft",
            licence,
            results=_results(numbers),
            name=Path(config.output).name,
        ),
        origin="" if config.init_from else ", both made by lightning_mem1 from generated text",
        loading=_loading(config),
        licence=f"{licence}." if licence else "the one of the policy it was made from.",
        scores="".join(scored).format(**numbers, tasks=config.num_val_tasks),
        mode=mode,
        before="".join(f"| before that: {name} | {told} |\n" for name, told in made_before(config.init_from)),
        minutes=numbers["seconds"] / 60,
        command=command,
        filter=kept,
        about=_about(config, experts),
        seed=config.seed,
        data=_played(config, worlds),
        worlds=""
        if config.data.own.given
        else SEEDS.format(first=config.data.first_seed, last=config.data.first_seed + worlds - 1),
        threads=torch.get_num_threads(),
        thread="thread" if torch.get_num_threads() == 1 else "threads",
    )
    Path(config.output, "README.md").write_text(card, encoding="utf-8")


CARD = """{header}
# MEM1 policy, cloned from demonstrations

A causal LM of {parameters:.2f} M parameters with a tokenizer of {vocab} tokens{origin}.

{about}

| | |
| --- | --- |
| command | `{command}` |
| seed | {seed} |
{mode}| data | {data} |
{filter}{worlds}| cost | {tokens:.1f} M trained tokens, {minutes:.0f} minutes on {threads} CPU {thread} |
{before}{scores}
## How to load it

{loading}

Licence of the weights: {licence}
"""


SEEDS = "| seeds of the worlds | {first} to {last} (those of training and tests, seed 0, were never seen) |\n"

ABOUT = """It was cloned from {experts}. {they} no mistakes in form or copying and often
{decide} wrongly, so RL has something to improve: it is a starting point for `mem1 fit`, not a good agent. It knows the
{known} of lightning_mem1 and nothing else."""

OWN = """It was cloned from {experts}. It knows the texts of that task and nothing else: it is a starting point for
`mem1 fit`, not a good agent."""

MODEL_LOADING = """```python
from transformers import AutoModelForCausalLM, {tokenizer}

model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="float32")
tokenizer = {tokenizer}.from_pretrained("FOLDER")
```

In lightning_mem1: `mem1 fit CONFIG --model.policy FOLDER`. Weights are stored as float16 and loaded as float32."""

ADAPTER_LOADING = """```python
import lightning_mem1

policy = lightning_mem1.load_policy("FOLDER")
model, tokenizer = policy.model, policy.tokenizer  # a model and a tokenizer of transformers
```

The weights are a LoRA adapter, which is merged into the policy that `adapter_config.json` names. In peft, load that
policy with transformers first, then `PeftModel.from_pretrained(base, "FOLDER")`. To train it further:
`mem1 fit CONFIG --model.policy FOLDER`."""


SCORES = {
    **{
        world: f"| {world}: {{tasks}} validation goals, greedy | reward {{{world}_reward:.3f}}, "
        f"success {{{world}_success:.3f}}, {{{world}_turns:.1f}} turns, {{{world}_valid:.1%}} valid |\n"
        for world in ("shop", "marketplace")
    },
    "qa": "| QA: {tasks} validation tasks, greedy | right answers {qa_reward:.3f}, all right {qa_success:.3f}, "
    "{qa_turns:.1f} turns, {qa_valid:.1%} valid |\n",
    "own": "| its task: {tasks} validation tasks, greedy | reward {own_reward:.3f}, success {own_success:.3f}, "
    "{own_turns:.1f} turns, {own_valid:.1%} valid |\n",
    "reading": "| reading: {tasks} validation documents, greedy | reward {reading_reward:.3f}, "
    "success {reading_success:.3f}, {reading_turns:.1f} turns, {reading_valid:.1%} valid |\n",
}


def _about(config: WarmStart, experts: list[str]) -> str:
    """Whom the policy was cloned from, and what it knows."""
    if config.data.own.given:
        return OWN.format(experts=experts[0])
    several = len(experts) > 1
    return ABOUT.format(
        experts=" and ".join(f"a scripted {expert}" for expert in experts),
        they="They make" if several else "It makes",
        decide="decide" if several else "decides",
        known="pages and questions" if several else "documents",
    )


def _played(config: WarmStart, worlds: int) -> str:
    """How many trajectories of each kind there were, and in how many worlds."""
    if config.data.own.given:
        return f"{sum(stage.steps * stage.episodes for stage in config.stages)} trajectories"
    kinds = {
        "shop_episodes": "in {} generated shops (train goals)",
        "marketplace_episodes": "in {} with marketplace listings",
        "qa_episodes": "in {} generated encyclopedias",
        "reading_episodes": "with generated documents of {} seeds",
    }
    counts = {where: sum(s.steps * getattr(s, name) for s in config.stages) for name, where in kinds.items()}
    parts = [f"{count} {where.format(worlds)}" for where, count in counts.items() if count]
    return ", ".join(parts).replace(" ", " trajectories ", 1)


def _experts(config: WarmStart) -> list[str]:
    """Who was cloned."""
    own = config.data.own
    if own.given:
        teacher = f"the teacher {own.teacher.endpoint.model}" if own.teacher else None
        return [teacher or (f"the scripted expert `{own.expert}`" if own.expert else f"the episodes of `{own.file}`")]
    reads = any(stage.reading_episodes for stage in config.stages)
    return ["reader"] if reads else ["shopper", "researcher"]


def _loading(config: WarmStart) -> str:
    """How what was written is loaded: a whole model by transformers, an adapter on its base by this package."""
    if not config.merged:
        return ADAPTER_LOADING
    kind = "PreTrainedTokenizerFast" if is_plain_tokenizer(config.output) else "AutoTokenizer"
    return MODEL_LOADING.format(tokenizer=kind)


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
