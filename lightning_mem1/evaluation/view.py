"""What reports read a trajectory with."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightning_mem1.context.contexts import Contexts, derived
from lightning_mem1.context.memory import Decode
from lightning_mem1.context.settings import MemorySetting
from lightning_mem1.context.tags import Tags


@dataclass(frozen=True)
class View:
    """How trajectories were played, as far as reports need it.

    Args:
        decode: Ids -> text, the policy's, tags included.
        tags: Names of the blocks; where they name the actions, those of the memory mode are added.
        memory: The memory mode they were played in, or its contexts as they were derived before.

    Attributes:
        contexts: The contexts of trajectories, derived once for all reports that share this.
    """

    decode: Decode
    tags: Tags
    memory: MemorySetting | Contexts = "mem1"
    contexts: Contexts = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "contexts", derived(self.memory))
        object.__setattr__(self, "tags", self.tags.with_actions(self.contexts.memory.actions))
