"""``python -m lightning_mem1.fit CONFIG [--dotted.override value]``: the same as ``mem1 fit``."""

from collections.abc import Sequence

from lightning_mem1.cli import commands


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code (0 done or ended by SIGTERM, 1 a mistake, 130 interrupted)."""
    return commands.run("fit", argv)


if __name__ == "__main__":
    raise SystemExit(main())
