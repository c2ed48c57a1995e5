"""``mem1 make-encyclopedia FILE``: write the passages of the generated encyclopedia."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from lightning_mem1.environments.qa.encyclopedia.world import Encyclopedia
from lightning_mem1.io.disk_room import room_for


def main(argv: Sequence[str] | None = None) -> int:
    """Write the passages as wiki-18's JSON lines; returns the exit code."""
    given = parser().parse_args(argv)
    with room_for(given.file), open(given.file, "w", encoding="utf-8") as file:
        for number, passage in enumerate(Encyclopedia(given.seed, given.passages).passages):
            file.write(json.dumps({"id": str(number), "contents": passage.contents}) + "\n")
    return 0


def parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the command line, of a kind of parser."""
    made = kind("mem1 make-encyclopedia", description="Write the passages of the generated encyclopedia as JSON lines.")
    made.add_argument("file", help="the file to write")
    made.add_argument("--seed", type=int, default=0, help="draws the encyclopedia")
    made.add_argument("--passages", type=int, default=5400, help="its size")
    return made
