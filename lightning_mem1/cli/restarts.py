"""Ranks that torchrun starts again (``--max-restarts``): they resume the run that they had begun, by themselves.

The first rank leaves the name of its launch in the run's folder. After a restart every rank looks for that name and
resumes the folder's `last.ckpt`; where none was written yet, the run begins again in a new folder.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from lightning_mem1.io.atomic_files import write_atomic

LAUNCH = "torchrun.txt"


def launch() -> str | None:
    """What all ranks and restarts of a torchrun command share, and no other command; None where nothing is sure.

    On several machines that is torchrun's ``--rdzv-id``; on one, without such an id, the process of torchrun itself.
    """
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    if run_id is None or run_id != "none":
        return run_id
    return f"{socket.gethostname()}:{os.getppid()}" if os.environ.get("GROUP_WORLD_SIZE") == "1" else None


def is_restart() -> bool:
    """Whether torchrun has started this process in place of one that died."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def begun_in(root: Path) -> Path | None:
    """The newest folder at or below `root` whose run this launch began before a restart; None without one."""
    if not is_restart():
        return None
    found = [path for path in root.glob(f"**/{LAUNCH}") if is_ours(path.parent)]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def is_ours(folder: Path) -> bool:
    """Whether the run in a folder was begun by this launch."""
    try:
        return (folder / LAUNCH).read_text(encoding="utf-8") == launch()
    except OSError:
        return False


def leave_name(folder: Path) -> None:
    """Note in a run's folder which launch writes it; nothing without torchrun."""
    if name := launch():
        write_atomic(folder / LAUNCH, name.encode())


def take_back_name(folder: Path) -> None:
    """Remove the note from a folder that holds nothing else."""
    if [path.name for path in folder.iterdir()] == [LAUNCH]:
        (folder / LAUNCH).unlink()


def meet_again(strategy: Any) -> None:
    """After a restart, have the ranks meet under keys that no earlier attempt has used.

    torchrun's agent keeps its store over restarts (torch 2.13, ``--standalone`` and ``--rdzv-backend c10d``): in it,
    ranks would find the addresses of those that died and wait for them. Lightning takes over a group that is there.

    Args:
        strategy: The trainer's; one of a single process needs no group.
    """
    if not is_restart() or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    import torch.distributed as dist

    from lightning_mem1.training.lightning_internals import process_group_arguments

    if (arguments := process_group_arguments(strategy)) is None:
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world_size, is_master=False)
    attempt = dist.PrefixStore(f"attempt_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(store=attempt, rank=rank, world_size=world_size, **arguments)
