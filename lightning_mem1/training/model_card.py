"""The model card of a trained policy: what it is, what it was trained on, how good it is and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_mem1.policy.loading import BUNDLED_POLICIES, is_plain_tokenizer, name_of_base, resolve
from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.published_card import front_matter, licence_of

HERE = "FOLDER"  # what a card calls the folder that it is in, until that is on the hub
SHOWN = ("layout", "lr")  # settings of the module, next to the algorithm and the memory mode with its own
PLAYED = ("format", "prompt", "max_new_tokens", "max_information_tokens", "temperature")  # settings of the rollouts


def card(entry: Mapping[str, Any], policy: Policy, whole: bool, report: Mapping[str, Any], name: str = HERE) -> str:
    """The README.md of a policy, with a header that the hub reads.

    Args:
        entry: This package's entry of the checkpoint, with the module's settings.
        policy: What is written.
        whole: Whether it is a whole model, not an adapter.
        report: ``data`` (what it was trained on) and ``validation`` (the last one), see `RLCheckpoint`; may be empty.
        name: Where it can be loaded from: a repository of the hub, or `HERE`.
    """
    base, settings = name_of_base(policy.source), entry["settings"]
    licence = licence_of(resolve(policy.source))
    header = front_matter(
        library="transformers" if whole else "peft",
        licence=licence,
        base=None if base in BUNDLED_POLICIES or Path(base).exists() else base,
        relation="finetune" if whole else "adapter",
        results=[((report.get("data") or {}).get("source", "tasks"), *each) for each in _metrics(report).items()],
        name="mem1-policy" if name == HERE else name.rpartition("/")[2],
    )
    rows = _made_of(entry, base, settings) | _trained_on(report, settings) | _played_with(settings)
    if whole:  # merged weights may be in another dtype than the training was
        rows["dtype"] = str(policy.causal_lm.dtype).removeprefix("torch.")
    return CARD.format(
        header=header,
        what="causal LM, trained" if whole else "LoRA adapter for a causal LM, trained",
        scores=_scores(report),
        table="\n".join(f"| {key} | {_cell(value)} |" for key, value in rows.items()),
        use=_use(policy, whole, base, name),
        licence=f"{licence}, as the base." if licence else "the one of the base: see its card.",
        name=name,
    )


def _made_of(entry: Mapping[str, Any], base: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    rows: dict[str, Any] = {
        "base": f"{base} ({entry['base']})",
        "rl_step": entry["rl_step"],
        "algorithm": settings["algorithm"],
        "memory": settings["memory"]["mode"],
        **{key: value for key, value in settings["memory"].items() if key != "mode"},
        **{key: settings[key] for key in SHOWN if key in settings},
        "dtype": settings["compute"]["dtype"],
    }
    if settings["lora"]:
        rows["LoRA"] = f"r {settings['lora']['r']}, alpha {settings['lora']['alpha']:g}"
    return rows


def _trained_on(report: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    data = report.get("data")
    if not data:
        return {}
    tasks = f"{data['source']}: {data['train_tasks']} training tasks"
    if "val_tasks" in data:
        tasks += f", {data['val_tasks']} validation tasks"
    step = f"{data['tasks_per_step']} tasks x {data['group_size']} episodes"
    return {"data": tasks, "each rl_step": step, "seed": data["seed"]}


def _played_with(settings: Mapping[str, Any]) -> dict[str, Any]:
    rollout = settings["rollout"]
    rows: dict[str, Any] = {key: rollout[key] for key in PLAYED}
    tags = rollout["tags"]
    rows["tags"] = ", ".join(f"{key} <{tags[key]}>" for key in ("internal_state", "action", "information"))
    if tags["actions"]:
        rows["tags"] += ", actions " + " ".join(f"<{name}>" for name in tags["actions"])
    return rows


def _metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """``{"val/reward": 0.5, "rl_step": 3}`` -> ``{"reward": 0.5}``."""
    validation = report.get("validation") or {}
    return {key.removeprefix("val/"): value for key, value in validation.items() if key.startswith("val/")}


def _scores(report: Mapping[str, Any]) -> str:
    found = _metrics(report)
    if not found:
        return "No validation was recorded in its checkpoint."
    shown = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
    validation, data = report["validation"], report.get("data") or {}
    tasks = f" on {data['num_val_tasks']} tasks" if data else ""
    return f"Last validation (rl_step {validation['rl_step']}, greedy{tasks}): {shown}."


def _use(policy: Policy, whole: bool, base: str, name: str) -> str:
    tokenizer = "PreTrainedTokenizerFast" if is_plain_tokenizer(resolve(policy.source)) else "AutoTokenizer"
    if whole:
        return USE_WHOLE.format(name=name, tokenizer=tokenizer, note=PLAIN if tokenizer != "AutoTokenizer" else "")
    local = base in BUNDLED_POLICIES or Path(base).exists()
    note = (MOVED_BASE if local else "") + (PLAIN if tokenizer != "AutoTokenizer" else "")
    served = "BASE" if local else base
    return USE_ADAPTER.format(name=name, tokenizer=tokenizer, note=note, base=served)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


CARD = """{header}
# MEM1 policy

A {what} with lightning_mem1 as an agent that manages its own context.
Play it in the memory mode and the format of the table: it was trained in them.

{scores}

| | |
| --- | --- |
{table}

## How to load it

{use}
In lightning_mem1: `mem1 evaluate CONFIG --model.policy {name}`, with the settings of the table.

Licence of the weights: {licence}
"""
USE_WHOLE = """```python
from transformers import AutoModelForCausalLM, {tokenizer}

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = {tokenizer}.from_pretrained("{name}")
```

In vLLM (not tried): `vllm serve {name}`.
{note}"""
USE_ADAPTER = """```python
from peft import AutoPeftModelForCausalLM
from transformers import {tokenizer}

model = AutoPeftModelForCausalLM.from_pretrained("{name}")
tokenizer = {tokenizer}.from_pretrained("{name}")
```

In vLLM (not tried): `vllm serve {base} --enable-lora --lora-modules mem1={name}`.
{note}"""
MOVED_BASE = """
The base is a folder of one machine; `adapter_config.json` names it as `base_model_name_or_path`. On another machine set
that to the base's folder there, or export with `--merged`. lightning_mem1 finds its bundled bases by itself.
"""
PLAIN = """
`AutoTokenizer`, and so vLLM, would go by the model's type and split text otherwise. Give vLLM ids in place of text.
"""
