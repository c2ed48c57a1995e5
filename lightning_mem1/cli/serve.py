"""``mem1 serve CONFIG|FOLDER [--ckpt_path last] [--port 8000]``: serve a trained agent.

It speaks OpenAI's completions protocol with token ids, over the local engine; FOLDER may also be ``bundled`` or a hub
id. It listens on this machine only unless told otherwise. With ``LIGHTNING_MEM1_API_KEY`` in the environment clients
have to send that key.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_mem1.checks import check_least
from lightning_mem1.cli import errors, startup

if TYPE_CHECKING:
    from lightning_mem1.cli.lightning_cli import CommandLine
    from lightning_mem1.policy.policy import Policy

CONFIGS = (".yaml", ".yml")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; returns the exit code (1 a mistake, 130 interrupted)."""
    return errors.run(_serve, argv)


def _serve(argv: list[str]) -> int:
    named = bool(argv) and not argv[0].startswith("-") and not argv[0].endswith(CONFIGS)
    return _serve_folder(argv) if named else _serve_config(argv)


def _serve_folder(argv: list[str]) -> int:
    """Serve a policy that is named by itself."""
    from lightning_mem1.engine.settings import EngineSettings

    parser = argparse.ArgumentParser(prog="mem1 serve", exit_on_error=False)
    parser.add_argument("policy")
    _add_options(parser.add_argument)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--num_slots", type=int, default=EngineSettings.num_slots)
    parser.add_argument("--max_context_tokens", type=int, default=EngineSettings.max_context_tokens)
    try:
        given, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if unknown:
        raise ValueError(f"unknown option '{unknown[0]}'; --help lists the options")
    print(f"loading {given.policy} ...", flush=True)
    with startup.no_news():
        import torch
        from transformers.utils import logging

        from lightning_mem1.policy.policy import Policy

        logging.disable_progress_bar()
        policy = Policy.load(given.policy, dtype=given.dtype)
        policy.to("cuda" if torch.cuda.is_available() else "cpu")
        settings = EngineSettings(given.num_slots, given.max_context_tokens)
        return _listen(policy, settings, given.name or given.policy, given)


def _serve_config(argv: list[str]) -> int:
    """Serve the policy of a config, with the weights of a checkpoint where one is given."""
    argv, config = startup.opened(argv)
    with startup.quiet():
        cli = startup.built(_command_line_class(), argv, config)
        if cli is None:
            return 0
        from lightning_mem1.engine.settings import EngineSettings

        model = cli.config.model
        engine = {key: model.engine[key] for key in ("num_slots", "max_context_tokens", "max_prefill_tokens")}
        device = "cpu" if cli.config.trainer.accelerator == "cpu" else "cuda"
        policy = trained(model.policy, model.compute.dtype, cli.resume_path).to(device)
        return _listen(policy, EngineSettings(**engine), cli.config.name or cli.experiment, cli.config)


def trained(source: str, dtype: str, checkpoint: str | None) -> Policy:
    """A policy with the weights of a checkpoint, if any, merged into its own."""
    from lightning_mem1.policy.policy import Policy
    from lightning_mem1.training.loading import policy_of

    if checkpoint is None:
        return Policy.load(source, dtype=dtype)
    policy = policy_of(checkpoint, source)
    policy.merge()
    return policy


def _command_line_class() -> type[CommandLine]:
    """The command line of serving (made here because importing Lightning takes seconds)."""
    from lightning.pytorch.cli import LightningArgumentParser

    from lightning_mem1.cli.lightning_cli import CommandLine

    class ServingCommandLine(CommandLine):
        command = "serve"
        about = "Serve the policy of a config over OpenAI's completions protocol."

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            super().add_arguments_to_parser(parser)
            _add_options(parser.add_argument)

        def instantiate_classes(self) -> None:
            """Nothing: neither tasks nor a trainer are served."""

    return ServingCommandLine


def _add_options(add: Any) -> None:
    add("--name", default=None, type=str, help="What the model is called; left out: as it was named.")
    add("--host", default="127.0.0.1", type=str, help="Address to listen on.")
    add("--port", default=8000, type=int, help="Port to listen on; 0 for a free one.")
    add("--allow_adapters", action="store_true", help="Let clients load adapters from folders of this machine.")


def _listen(policy: Policy, settings: Any, name: str, given: Any) -> int:
    from lightning_mem1.engine.serving.endpoint import endpoint
    from lightning_mem1.engine.settings import ServerSettings

    check_least("num_slots", settings.num_slots, 1)
    check_least("max_context_tokens", settings.max_context_tokens, 2)
    key = os.environ.get(ServerSettings().key_variable, "")
    serving = endpoint(policy, settings, name, given.host, given.port, given.allow_adapters, key)
    print(f"serving {name} at http://{given.host}:{serving.server_port}", flush=True)
    return serving.serve_until_interrupted()
