"""What a model of MLflow needs next to its weights: this package's code, the versions of libraries, its signature.

With them `mlflow models serve` works where lightning_mem1 is not installed. Bundled weights go along only if the policy
was made from them; a base in another folder or on the hub has to be within reach there too.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from lightning_mem1 import __version__
from lightning_mem1.policy.loading import ASSETS, resolve

PACKAGE = Path(__file__).parents[1]
EXAMPLE = [{"prompt": "Find red shoes.", "observation": "search page", "max_turns": 10, "turns": []}]


def copy_code(folder: Path, policy: str) -> Path:
    """Copy this package into a folder.

    Args:
        folder: Where its folder is made.
        policy: What the policy was loaded from, see `loading.resolve`; of the bundled weights only these are copied.

    Returns:
        The package's new folder.
    """
    wanted = Path(resolve(policy))

    def left_out(parent: str, names: Iterable[str]) -> set[str]:
        unused = {name for name in names if Path(parent) == ASSETS and ASSETS / name != wanted}
        return unused | {name for name in names if name == "__pycache__"}

    target = folder / PACKAGE.name
    shutil.copytree(PACKAGE, target, ignore=left_out)
    return target


def requirements() -> list[str]:
    """The libraries that this package needs, each in the version that is installed, for pip.

    A version of one machine alone (``2.13.0+cpu``) is named without what follows the plus sign.
    """
    try:
        needed = [Requirement(each) for each in requires("lightning-mem1") or ()]
    except PackageNotFoundError:  # run from a folder that is on the path, not installed
        return [f"lightning-mem1=={__version__}"]
    needed = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [f"{_name(each)}=={re.sub(r'[+].*', '', version(each.name))}" for each in needed]


def _name(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}"


def signature() -> Any:
    """What `pyfunc_agent.Agent.predict` takes and returns, as MLflow spells it.

    ``max_turns`` and ``turns`` are of any type there: a column in which one row lacks its value has nan in it, which no
    other type takes. ``turns`` are dicts with ``text`` and ``information``.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    taken = [
        ColSpec(DataType.string, "prompt"),
        ColSpec(DataType.string, "observation", required=False),
        ColSpec(AnyType(), "max_turns", required=False),
        ColSpec(AnyType(), "turns", required=False),
    ]
    given = [
        ColSpec(DataType.string, "text"),
        ColSpec(DataType.string, "internal_state"),
        ColSpec(DataType.string, "action", required=False),
        ColSpec(DataType.long, "context_tokens"),
    ]
    return ModelSignature(Schema(taken), Schema(given))
