"""``mem1 export CONFIG|--ckpt_path PATH --output DIR [--merged]``: a checkpoint as a folder.

The trained adapter in peft's format, or with ``--merged`` a whole model with its tokenizer: in the formats that
transformers, peft and vLLM read (vLLM was not run), and ``model.policy`` too; beside it a README.md that says what it
is. A CONFIG finds its own last checkpoint and says where the base is; all other settings are the checkpoint's.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser

from lightning_mem1.cli import commands, startup
from lightning_mem1.cli.alone import free_folder
from lightning_mem1.cli.lightning_cli import CommandLine, checkpoint_path, no_progress_bars
from lightning_mem1.io.disk_room import room_for
from lightning_mem1.policy.loading import BUNDLED_POLICIES, is_plain_tokenizer, name_of_base, resolve
from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.checkpoint_state import entry_of, settings_of
from lightning_mem1.training.loading import load_policy

WRITTEN = (  # what an export may consist of, and what --force takes away
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
SHOWN = ("layout", "lr")  # settings in the card, next to the algorithm and the memory mode with its own


def main(argv: Sequence[str] | None = None) -> int:
    """Export; returns the exit code (0 done, 1 a mistake, 130 interrupted)."""
    return commands.run("export", argv)


def run(given: startup.Opened) -> int:
    """Export as an opened command line says; returns the exit code."""
    with startup.quiet():
        if given.options is not None:
            return _export_alone(given.options)
        cli = startup.built(ExportingCommandLine, given)
        if cli is None:
            return 0
        path, output = cli.resume_path, Path(cli.config.output).expanduser()
        _write(load_policy(path, cli.config.model.policy), path, output, cli.config.merged)
    return 0


def _export_alone(given: argparse.Namespace) -> int:
    """Export a checkpoint without a config: it says which base and settings it belongs to."""
    no_progress_bars()
    path = checkpoint_path(given.ckpt_path, None, "")
    assert path is not None
    _write(load_policy(path), path, free_folder(given.output, given.force), given.merged)
    return 0


class ExportingCommandLine(CommandLine):
    """The settings, and the folder that is written."""

    command = "export"
    about = "Write the adapter or the merged weights of a checkpoint as a folder."
    without_checkpoint = "train first (mem1 fit), or set --ckpt_path to a file"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the folder."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"ckpt_path": "last"})
        add = parser.add_argument
        add("--output", type=str | None, default=None, help="The folder to write.")
        add("--merged", action="store_true", help="Write the whole model, the adapter in its weights.")
        add("--force", action="store_true", help="Write into a folder that is not empty, over an earlier export.")

    def before_instantiate_classes(self) -> None:
        """Check the folder, before seconds are spent on loading."""
        free_folder(self.config.output, self.config.force)
        self.config.ckpt_path = self.config.ckpt_path or "last"
        super().before_instantiate_classes()

    def instantiate_classes(self) -> None:
        """Nothing: the checkpoint's own settings count, and the scale of an adapter is one of them."""


def _write(policy: Policy, path: str, output: Path, merged: bool) -> None:
    """Write beside the folder and then move, so that whatever fails leaves no half of an export."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    entry = {**entry_of(checkpoint), "settings": settings_of(checkpoint)}
    whole = merged or policy.model is policy.causal_lm
    output.mkdir(parents=True, exist_ok=True)
    with room_for(output), tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as beside:
        made = save(policy, Path(beside), merged)
        (made / "README.md").write_text(card(entry, policy, whole), encoding="utf-8")
        for pattern in WRITTEN:
            for old in output.glob(pattern):
                old.unlink()
        for file in sorted(made.iterdir()):
            shutil.move(file, output / file.name)
    kind = "merged weights" if whole else "adapter"
    print(f"wrote the {kind} of {path} (rl_step {entry['rl_step']}) to {output}")


def save(policy: Policy, folder: Path, merged: bool) -> Path:
    """Write the adapter, or the whole model where `merged` or where there is none; returns the folder of the files.

    A policy that is saved merged is used up: it has no adapter afterwards.
    """
    if merged and getattr(policy.causal_lm, "is_quantized", False):
        raise ValueError(
            "cannot merge into a base in 4 bits: expected whole weights, got model.compute.quantization nf4; leave "
            "--merged out, and put the adapter on the base as it was published"
        )
    if merged:
        policy.merge()
    policy.save(folder)
    inner = folder / "policy"  # peft gives each named adapter a folder of its own; the tokenizer lies above it
    if not inner.is_dir():
        return folder
    for file in folder.iterdir():
        if file.is_file():
            shutil.move(file, inner / file.name)
    return inner


def card(entry: Mapping[str, Any], policy: Policy, whole: bool) -> str:
    """The README.md of an export.

    Args:
        entry: This package's entry of the checkpoint, with the module's settings.
        policy: What was written.
        whole: Whether it is a whole model.
    """
    settings, base = entry["settings"], name_of_base(policy.source)
    rows: dict[str, Any] = {
        "base": f"{base} ({entry['base']})",
        "rl_step": entry["rl_step"],
        "algorithm": settings["algorithm"],
        "memory": settings["memory"]["mode"],
        **{key: value for key, value in settings["memory"].items() if key != "mode"},
        **{key: settings[key] for key in SHOWN},
        "dtype": settings["compute"]["dtype"],
    }
    if settings["lora"]:
        rows["LoRA"] = f"r {settings['lora']['r']}, alpha {settings['lora']['alpha']:g}"
    rollout = settings["rollout"]
    rows |= {
        key: rollout[key] for key in ("format", "prompt", "max_new_tokens", "max_information_tokens", "temperature")
    }
    tags = rollout["tags"]
    rows["tags"] = ", ".join(f"{key} <{tags[key]}>" for key in ("internal_state", "action", "information"))
    if tags["actions"]:
        rows["tags"] += ", actions " + " ".join(f"<{name}>" for name in tags["actions"])
    table = "\n".join(f"| {key} | {_cell(value)} |" for key, value in rows.items())
    told_base = BUNDLED_BASE.format(base) if base in BUNDLED_POLICIES else repr(base)
    library = "transformers" if whole else "peft"
    return CARD.format(
        front=f"library_name: {library}\npipeline_tag: text-generation\ntags:\n- lightning_mem1",
        what="whole model: the base with the adapter merged into its weights" if whole else "LoRA adapter",
        table=table,
        use=USE_WHOLE if whole else USE_ADAPTER.format(base=told_base),
        tokenizer=PLAIN_TOKENIZER if is_plain_tokenizer(resolve(policy.source)) else "",
    )


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


CARD = """---
{front}
---
# MEM1 policy

A {what}, trained by lightning_mem1. It writes its memory anew each turn, and is to be played in the memory mode and
the format it was trained in:

| | |
| --- | --- |
{table}

{use}{tokenizer}
In lightning_mem1: `--model.policy FOLDER`, with the settings of the table.
"""
USE_WHOLE = """In transformers: `AutoModelForCausalLM.from_pretrained(FOLDER)`; in vLLM (not tried):
`vllm serve FOLDER`.
"""
USE_ADAPTER = """In peft: `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), FOLDER)`; in vLLM (not
tried): `vllm serve BASE --enable-lora --lora-modules mem1=FOLDER`; where BASE is {base}.
"""
BUNDLED_BASE = "`lightning_mem1.policy.loading.BUNDLED_POLICIES['{}']`, which comes with the package"
PLAIN_TOKENIZER = """The tokenizer is `PreTrainedTokenizerFast.from_pretrained(FOLDER)`: `AutoTokenizer`, and so
vLLM, goes by the model's type and would split text otherwise. Give vLLM ids in place of text.
"""
