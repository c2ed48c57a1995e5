"""An export on the Hugging Face hub: `mem1 export --push_to_hub ORG/NAME`.

The token comes from the environment alone, so that no config and no shell history holds it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOKEN = "HF_TOKEN"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
DEFAULT_MESSAGE = "Upload policy with lightning_mem1"


def add_hub_options(add: Any) -> None:
    """Add the options of pushing, by the `add_argument` of a parser."""
    add("--push_to_hub", default=None, type=str, help="Also push the export to this repository, ORG/NAME.")
    add("--private", action="store_true", help="Make the repository private when it is created.")
    add("--commit_message", default=DEFAULT_MESSAGE, type=str, help="Message of the commit on the hub.")


def check_push(given: Any) -> None:
    """Check what can be known before anything is loaded.

    Args:
        given: Has `push_to_hub`, `private` and `commit_message`.

    Raises:
        ValueError: the name is none of a repository, there is no token, or the hub is switched off.
    """
    repository = given.push_to_hub
    if repository is None:
        if given.private or given.commit_message != DEFAULT_MESSAGE:
            option = "private" if given.private else "commit_message"
            raise ValueError(f"--{option} has no effect: expected --push_to_hub ORG/NAME next to it, got none")
        return
    if not REPOSITORY.fullmatch(repository):
        raise ValueError(f"not a repository of the hub: expected ORG/NAME, got '{repository}'; set --push_to_hub")
    if name := next(
        (name for name in SWITCHES if os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON")), None
    ):
        raise ValueError(f"cannot push to '{repository}': the hub is switched off by {name}; unset it")
    if not os.environ.get(TOKEN):
        raise ValueError(
            f"no token for the hub: expected {TOKEN} in the environment, got none; make a token that may write at "
            f"https://huggingface.co/settings/tokens and export {TOKEN}"
        )


def check_base(base: str, whole: bool) -> None:
    """Refuse to push an adapter whose base nobody else has.

    Raises:
        ValueError: the base is a folder of this machine.
    """
    if not whole and Path(base).expanduser().exists():
        raise ValueError(
            f"cannot push an adapter on a folder of this machine: expected a base of the hub, got '{base}'; give "
            "--merged to push the whole model, or train on a base of the hub"
        )


def push(folder: Path, files: Sequence[str], given: Any, replace: bool) -> str:
    """Create a repository and commit the files of a folder; returns its address.

    Args:
        folder: What `export` wrote.
        files: Patterns of its files; others in the folder stay here, and earlier ones in the repository go.
        given: Has `push_to_hub`, `private` and `commit_message`, see `check_push`.
        replace: Whether the repository may exist already.

    Raises:
        ValueError: one line on what the hub answered, and what to do.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api, repository = HfApi(token=os.environ[TOKEN]), given.push_to_hub
    try:
        address = api.create_repo(repository, private=given.private or None, exist_ok=replace)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=given.commit_message,
            allow_patterns=list(files),
            delete_patterns=list(files) if replace else None,
        )
    except Exception as error:  # the client and its HTTP library each raise their own kinds
        raise ValueError(f"cannot push to '{repository}': {_reason(error)}; the export is in '{folder}'") from error
    return str(address)


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"the hub does not know the token (401); set {TOKEN} to a valid one"
    if status == 403:
        return f"the token may not write there (403); set {TOKEN} to one with write access to that organisation"
    if status == 409:
        return "the repository exists (409); choose another name, or give --force to commit to it"
    text = " ".join(str(error).split())[:200]
    if status is not None:
        return f"the hub answered {status} ({text}); try again later"
    return f"the hub cannot be reached ({type(error).__name__}: {text}); check the network and HF_ENDPOINT"
