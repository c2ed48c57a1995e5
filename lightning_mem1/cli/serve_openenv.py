"""``mem1 serve-openenv``: serve tasks and their environment over OpenEnv's protocol, for anybody who trains on them."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from lightning_mem1.checks import PORT, Range, check_number
from lightning_mem1.environments.adapters import openenv_server
from lightning_mem1.environments.adapters.extras import needed
from lightning_mem1.io.dotted_names import imported
from lightning_mem1.io.redaction import shown
from lightning_mem1.types import TaskSource

WORLDS = {  # word -> data module, imported when it is asked for: that takes seconds
    "webshop": "lightning_mem1.data.webshop.WebShopData",
    "qa": "lightning_mem1.data.qa.QAData",
    "reading": "lightning_mem1.data.reading.ReadingData",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; returns the exit code."""
    given = parser().parse_args(argv)
    try:
        check_number("--port", given.port, PORT)
        check_number("--max-sessions", given.max_sessions, Range(1))
        uvicorn = needed("uvicorn", "uvicorn", "openenv", "OpenEnv")
        source = load(given.world, given.settings)
        app = openenv_server.app(source, given.world.rpartition(".")[2].lower(), given.max_sessions)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        listening = socket.create_server((given.host, given.port))
    except (OSError, ValueError, TypeError) as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 1
    address = f"http://{given.host}:{listening.getsockname()[1]}"
    print(f"serving {source.size('train'):,} training tasks of {given.world} at {address}", flush=True)
    server.run(sockets=[listening])
    return 0


def parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the command line, of a kind of parser."""
    made = kind("mem1 serve-openenv", description="Serve tasks of an environment over OpenEnv's protocol.")
    made.add_argument("--world", required=True, help="webshop, qa, reading, or the dotted name of a task source")
    made.add_argument("--settings", default="{}", help="its settings as YAML, such as '{num_products: 200}'")
    made.add_argument("--max-sessions", type=int, default=256, help="episodes at once")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on; there is no login")
    made.add_argument("--port", type=int, default=8000, help="0 for any free one")
    return made


def load(world: str, settings: str) -> TaskSource:
    """The task source of a command line.

    Args:
        world: One of `WORLDS`, or a dotted name.
        settings: Those of its data module, or of the task source that is named, as YAML.

    Raises:
        ValueError: there is no such world, or it has no such settings.
    """
    if world not in WORLDS and "." not in world:
        raise ValueError(
            f"no such world: expected one of {', '.join(WORLDS)}, or the dotted name of a task source, got '{world}'; "
            "set --world"
        )
    kind: Any = imported(WORLDS.get(world, world), "task source", "--world")
    try:
        given = yaml.safe_load(settings) or {}
        made = kind(**given)
    except (yaml.YAMLError, TypeError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"no settings of {world}: expected a YAML mapping such as '{{seed: 1}}', got '{settings[:80]}' "
            f"({why[:200]}); set --settings"
        ) from None
    return made.source if world in WORLDS else made
