"""Seeds of trajectories and of turns, which depend on what is played and not on what else is in the batch."""

from __future__ import annotations

import hashlib


def trajectory_seed(seed: int, rl_step: int, position: int, sample: int) -> int:
    """63-bit seed of one trajectory."""
    digest = hashlib.blake2b(f"{seed}/{rl_step}/{position}/{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def turn_seed(seed: int, turn: int) -> int:
    """Seed of one turn's sampling, from the trajectory's seed alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{turn}".encode(), digest_size=8).digest(), "big")
