"""``python -m lightning_mem1.fit CONFIG [--dotted.override value]``: the same as ``mem1 fit``."""

from lightning_mem1.cli.fit import main

if __name__ == "__main__":
    raise SystemExit(main())
