"""What a process holds in memory."""

from __future__ import annotations

import os
import sys

import torch

from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.training.module import Mem1Module

GIB = 2**30


def process_memory(module: Mem1Module) -> dict[str, float]:
    """``process_gib`` (resident memory now), ``engine_kv_mib`` (the pool of keys and values of an engine in this
    process), ``gpu_peak_gib`` (most that the GPU held since the start; CUDA)."""
    numbers = {"process_gib": _resident_gib()}
    if isinstance(module.engine, LocalEngine):
        numbers["engine_kv_mib"] = module.engine.pool.num_bytes / 2**20
    if module.device.type == "cuda":
        numbers["gpu_peak_gib"] = torch.cuda.max_memory_allocated(module.device) / GIB
    return numbers


def _resident_gib() -> float:
    """Resident memory of this process now (Linux), else its peak."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / GIB
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
