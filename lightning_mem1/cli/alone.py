"""Command lines without a config, ``export --ckpt_path FILE`` and ``serve FOLDER``, read before heavy imports."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lightning_mem1.checks import DTYPES, check_choice
from lightning_mem1.cli import experiments
from lightning_mem1.cli.hub import add_hub_options, check_push
from lightning_mem1.cli.weights import WORDS
from lightning_mem1.engine.settings import EngineSettings

ASKS_FOR_A_CONFIG = ("--config", "-c", "--print_config")
CONFIGS = (".yaml", ".yml")


def export(argv: list[str]) -> argparse.Namespace | None:
    """The options of an export without a config; None when the command line has one.

    Raises:
        ValueError: an option is unknown or missing, or the folder cannot be written.
    """
    if not argv or not argv[0].startswith("-") or any(a.partition("=")[0] in ASKS_FOR_A_CONFIG for a in argv):
        return None
    parser = argparse.ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
    for name in ("--ckpt_path", "--output", "--dtype"):
        parser.add_argument(name)
    for name in ("--merged", "--force"):
        parser.add_argument(name, action="store_true")
    add_hub_options(parser.add_argument)
    given = _parsed(parser, argv, ": expected --ckpt_path, --output, --merged, --dtype or --force without a CONFIG")
    if given.ckpt_path in (None, *WORDS):
        raise ValueError(
            f"no checkpoint: expected CONFIG, or --ckpt_path with a file, got {given.ckpt_path or 'neither'}; e.g. "
            "mem1 export experiments/webshop.yaml --output DIR"
        )
    free_folder(given.output, given.force)
    check_push(given)
    check_dtype(given.dtype, given.merged)
    given.loads = given.ckpt_path
    return given


def check_dtype(given: str | None, merged: bool) -> None:
    """Raise ValueError for a dtype that merged weights cannot be written in, or where none are written."""
    if given is None:
        return
    check_choice("dtype", given, DTYPES, "--dtype")
    if not merged:
        raise ValueError(f"--dtype is for merged weights: expected --merged as well, got --dtype {given} alone")


def free_folder(given: str | None, force: bool) -> Path:
    """The folder to write, checked.

    Raises:
        ValueError: none is given, it is a file, or it holds something and `force` is not set.
    """
    if not given:
        raise ValueError("no output: expected a folder to write, got none; set --output")
    folder = Path(given).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot write '{given}': expected a folder, got a file; set --output")
    if folder.is_dir() and not force and (names := sorted(path.name for path in folder.iterdir())):
        raise ValueError(
            f"output is not empty: expected no or an empty folder, got '{given}' with {len(names)} entries "
            f"('{names[0]}'); set --output to another one, or give --force to write over an earlier export"
        )
    return folder


def serve(argv: list[str]) -> argparse.Namespace | None:
    """The options of serving a policy that is named by itself; None when the command line names a config.

    Raises:
        ValueError: an option is unknown or has a wrong value.
    """
    if not argv or argv[0].startswith("-"):
        return None
    if not Path(argv[0]).is_dir() and experiments.found(argv[0]).endswith(CONFIGS):
        return None
    parser = argparse.ArgumentParser(prog="mem1 serve", exit_on_error=False, add_help=False, allow_abbrev=False)
    parser.add_argument("policy")
    add_serving_options(parser.add_argument)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--num_slots", type=int, default=EngineSettings.num_slots)
    parser.add_argument("--max_context_tokens", type=int, default=EngineSettings.max_context_tokens)
    given = _parsed(parser, argv, "; mem1 serve --help shows the options")
    given.loads = given.policy
    return given


def add_serving_options(add: Any) -> None:
    """Add what serving takes with and without a config, by the `add_argument` of a parser."""
    add("--name", default=None, type=str, help="What the model is called; left out: as it was named.")
    add("--host", default="127.0.0.1", type=str, help="Address to listen on.")
    add("--port", default=8000, type=int, help="Port to listen on; 0 for a free one.")
    add("--allow_adapters", action="store_true", help="Let clients load adapters.")
    add("--allow_weights", action="store_true", help="Let clients put whole weights in the place of those served.")
    add("--chat", action="store_true", help="Serve the trained agent as chat completions, in its memory mode.")
    add("--max_turns", default=10, type=int, help="With --chat: turns of a session whose client names no number.")
    add("--max_sessions", default=1000, type=int, help="With --chat: most sessions at once.")
    add("--session_timeout_s", default=3600.0, type=float, help="With --chat: an unused session is over after it.")


def _parsed(parser: argparse.ArgumentParser, argv: list[str], otherwise: str) -> argparse.Namespace:
    try:
        given, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    if unknown:
        raise ValueError(f"unknown option '{unknown[0]}'{otherwise}")
    return given
