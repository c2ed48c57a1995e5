"""``mem1 export CONFIG|--ckpt_path PATH --output DIR [--merged] [--push_to_hub ORG/NAME]``: a checkpoint as a folder.

The trained adapter in peft's format, or with ``--merged`` a whole model with its tokenizer: in the formats that
transformers, peft and vLLM read (vLLM was not run), and ``model.policy`` too, with a README.md that says what it
is. A CONFIG finds its own last checkpoint and says where the base is; all other settings are the checkpoint's.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser

from lightning_mem1.callbacks.card import report_of
from lightning_mem1.cli import commands, hub, startup
from lightning_mem1.cli.alone import check_dtype, free_folder
from lightning_mem1.cli.lightning_cli import CommandLine, checkpoint_path, no_progress_bars
from lightning_mem1.cli.weights import LAST, NONE, TRAIN_FIRST, Asked
from lightning_mem1.io.disk_room import room_for
from lightning_mem1.policy.adapter_files import MAX_LOST, lost_line
from lightning_mem1.policy.loading import resolve
from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.checkpoint_state import entry_of, settings_of
from lightning_mem1.training.loading import load_policy
from lightning_mem1.training.model_card import HERE, card

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
        _export(load_policy(path, cli.config.model.policy), path, output, cli.config)
    return 0


def _export_alone(given: argparse.Namespace) -> int:
    """Export a checkpoint without a config: it says which base and settings it belongs to."""
    no_progress_bars()
    path = checkpoint_path(Asked(given.ckpt_path, None, ""))
    assert path is not None
    _export(load_policy(path), path, free_folder(given.output, given.force), given)
    return 0


class ExportingCommandLine(CommandLine):
    """The settings, and the folder that is written."""

    command = "export"
    about = "Write the adapter or the merged weights of a checkpoint as a folder."
    without_checkpoint = TRAIN_FIRST

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the folder."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"ckpt_path": LAST})
        add = parser.add_argument
        add("--output", type=str | None, default=None, help="The folder to write.")
        add("--merged", action="store_true", help="Write the whole model, the adapter in its weights.")
        add("--dtype", type=str | None, default=None, help="Of merged weights, e.g. float32; null: as it was trained.")
        add("--force", action="store_true", help="Write into a folder that is not empty, over an earlier export.")
        hub.add_hub_options(add)

    def before_instantiate_classes(self) -> None:
        """Check the folder, before seconds are spent on loading."""
        free_folder(self.config.output, self.config.force)
        hub.check_push(self.config)
        check_dtype(self.config.dtype, self.config.merged)
        self.config.ckpt_path = self.config.ckpt_path or LAST
        if self.config.ckpt_path == NONE:
            raise ValueError("nothing to export: expected --ckpt_path last, best or a file, got none; leave it out")
        super().before_instantiate_classes()

    def instantiate_classes(self) -> None:
        """Nothing: the checkpoint's own settings count, and the scale of an adapter is one of them."""


def _export(policy: Policy, path: str, output: Path, given: Any) -> None:
    """Write the folder, and push it where that is asked for."""
    whole = given.merged or policy.model is policy.causal_lm
    if given.push_to_hub:
        hub.check_base(resolve(policy.source), whole)
    _write(policy, path, output, given, given.push_to_hub or HERE)
    if given.push_to_hub:
        print(f"pushing {output} to {given.push_to_hub} ...", flush=True)
        print(f"pushed to {hub.push(output, WRITTEN, given, given.force)}")


def _write(policy: Policy, path: str, output: Path, given: Any, name: str) -> None:
    """Write into a temporary folder and then move, so that a failure leaves no half of an export."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    entry = {**entry_of(checkpoint), "settings": settings_of(checkpoint)}
    whole = given.merged or policy.model is policy.causal_lm
    output.mkdir(parents=True, exist_ok=True)
    with room_for(output), tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as beside:
        made = save(policy, Path(beside), given.merged, given.dtype)
        (made / "README.md").write_text(card(entry, policy, whole, report_of(checkpoint), name), encoding="utf-8")
        for pattern in WRITTEN:
            for old in output.glob(pattern):
                old.unlink()
        for file in sorted(made.iterdir()):
            shutil.move(file, output / file.name)
    kind = "merged weights" if whole else "adapter"
    print(f"wrote the {kind} of {path} (rl_step {entry['rl_step']}) to {output}")


def save(policy: Policy, folder: Path, merged: bool, dtype: str | None = None) -> Path:
    """Write the adapter, or the whole model where `merged` or where there is none; returns the folder of the files.

    A policy that is saved merged is used up: it has no adapter afterwards.

    Args:
        policy: What is written.
        folder: Where.
        merged: Whether the adapter goes into the weights. That is done in float32; a line says when rounding to `dtype`
            loses some of what the adapter adds.
        dtype: Of merged weights; None for the base's.

    Raises:
        ValueError: a base in 4 bits, or an adapter on weights that two modules share, cannot be merged.
    """
    if merged:
        if dtype:
            policy.causal_lm.to(getattr(torch, dtype))
        if (lost := policy.merge()) > MAX_LOST:
            print(lost_line("the adapter", lost, policy.causal_lm.dtype, "--dtype float32 keeps it"), file=sys.stderr)
    policy.save(folder)
    return folder
