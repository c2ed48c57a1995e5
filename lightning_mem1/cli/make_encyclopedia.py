"""``mem1 make-encyclopedia FILE``: write the passages of the generated encyclopedia."""

from __future__ import annotations

import argparse
import json

from lightning_mem1.environments.qa.encyclopedia.world import Encyclopedia


def main(argv: list[str] | None = None) -> int:
    """``mem1 make-encyclopedia FILE``: write the passages as wiki-18's JSON lines."""
    parser = argparse.ArgumentParser(prog="mem1 make-encyclopedia", description=main.__doc__)
    parser.add_argument("file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--passages", type=int, default=5400)
    given = parser.parse_args(argv)
    with open(given.file, "w", encoding="utf-8") as file:
        for number, passage in enumerate(Encyclopedia(given.seed, given.passages).passages):
            file.write(json.dumps({"id": str(number), "contents": passage.contents}) + "\n")
    return 0
