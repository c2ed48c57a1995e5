"""``mem1 serve CONFIG|FOLDER [--ckpt_path last] [--port 8000] [--chat]``: serve a trained agent.

With ``--chat`` the agent of a config answers chat completions in its memory mode, see `serve_chat`. Else the policy
speaks OpenAI's completions protocol with token ids, over the local engine; FOLDER may also be ``bundled`` or a hub
id. It listens on this machine only by default. With ``LIGHTNING_MEM1_API_KEY`` in the environment clients
have to send that key.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser

from lightning_mem1.checks import PORT, check_number, check_numbers
from lightning_mem1.cli import commands, startup
from lightning_mem1.cli.alone import add_serving_options
from lightning_mem1.cli.lightning_cli import CommandLine, no_progress_bars
from lightning_mem1.cli.serve_chat import chat_settings, serve_chat
from lightning_mem1.engine.serving.endpoint import endpoint
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.policy.adapter_files import MAX_LOST, lost_line
from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.loading import load_policy

REMEDY = "serve the base with --allow_adapters, and load the exported adapter"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; returns the exit code (1 a mistake, 130 interrupted)."""
    return commands.run("serve", argv)


def run(given: startup.Opened) -> int:
    """Serve as an opened command line says; returns the exit code."""
    if given.options is not None:
        with startup.no_news():
            return _serve_policy(given.options)
    with startup.quiet():
        cli = startup.built(ServingCommandLine, given)
        return 0 if cli is None else _serve_config(cli)


def _serve_policy(given: argparse.Namespace) -> int:
    """Serve a policy that is named by itself."""
    if given.chat:
        raise ValueError(
            f"--chat needs the settings that an agent was trained with: expected CONFIG, got the policy "
            f"'{given.policy}' alone; mem1 serve CONFIG --chat --model.policy {given.policy}"
        )
    no_progress_bars()
    settings = _checked(EngineSettings(given.num_slots, given.max_context_tokens), given)
    policy = Policy.load(given.policy, dtype=given.dtype)
    policy.to("cuda" if torch.cuda.is_available() else "cpu")
    return _listen(policy, settings, given.name or given.policy, given)


def _serve_config(cli: ServingCommandLine) -> int:
    """Serve the policy of a config, with the weights of a checkpoint where one is given."""
    model = cli.config.model
    engine = {key: model.engine[key] for key in ("num_slots", "max_context_tokens", "max_prefill_tokens")}
    settings = _checked(EngineSettings(**engine), cli.config)
    device = "cpu" if cli.config.trainer.accelerator == "cpu" else "cuda"
    name = cli.config.name or cli.experiment
    chat = chat_settings(cli.config) if cli.config.chat else None
    policy = trained(model.policy, model.compute.dtype, cli.resume_path).to(device)
    if chat is not None:
        return serve_chat(policy, settings, chat, name, cli.config)
    return _listen(policy, settings, name, cli.config)


def trained(source: str, dtype: str, checkpoint: str | None) -> Policy:
    """A policy with the weights of a checkpoint, if any, merged into its own."""
    if checkpoint is None:
        return Policy.load(source, dtype=dtype)
    policy = load_policy(checkpoint, source)
    if (lost := policy.merge()) > MAX_LOST:
        print(lost_line("the adapter", lost, policy.causal_lm.dtype, REMEDY), file=sys.stderr)
    return policy


class ServingCommandLine(CommandLine):
    """The settings, and where the server listens."""

    command = "serve"
    about = "Serve the policy of a config over OpenAI's completions protocol, or its agent as chat completions."
    plays = True

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where the server listens."""
        super().add_arguments_to_parser(parser)
        add_serving_options(parser.add_argument)

    def instantiate_classes(self) -> None:
        """Nothing: neither tasks nor a trainer are served."""


def _checked(settings: EngineSettings, given: Any) -> EngineSettings:
    """The settings, before anything is loaded for them; raises ValueError for numbers that cannot be."""
    check_numbers("", EngineSettings, vars(settings))
    check_number("--port", given.port, PORT)
    return settings


def _listen(policy: Policy, settings: EngineSettings, name: str, given: Any) -> int:
    key = os.environ.get(ServerSettings().key_variable, "")
    serving = endpoint(policy, settings, name, given.host, given.port, given.allow_adapters, key, given.allow_weights)
    print(f"serving {name} at http://{given.host}:{serving.server_port}", flush=True)
    return serving.serve_until_interrupted()
