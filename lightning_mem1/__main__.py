"""``python -m lightning_mem1 COMMAND``: the same as ``mem1 COMMAND``."""

from lightning_mem1.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
