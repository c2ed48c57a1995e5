"""Begins the rl_steps that workers play before their turn, no further ahead than `max_staleness` allows.

With `max_staleness` 2, weights 0 begin rl_steps 1, 2 and 3: what the third one learns from is then two rl_steps old at
most. Each update lets one rl_step more begin::

    here      wait for 1 | update 1 | update 2 | update 3 |        update 1 makes weights 1
    workers   1  2  3    | 2  3     | 3  4  5                      2 and 3 are continued with weights 1

Which tasks and seeds belong to an rl_step does not depend on who plays them or when.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightning_mem1.callbacks.collector import Collector


@dataclass
class LookAhead:
    """How far ahead rl_steps were begun.

    Attributes:
        max_staleness: rl_steps beyond the next one that may be under way.
        begun: The last rl_step that was begun.
    """

    max_staleness: int
    begun: int = 0

    def begin(self, collector: Collector, next_step: int) -> None:
        """Have the workers play with the weights as they are now, up to `max_staleness` beyond the next rl_step."""
        collector.renew()
        for rl_step in range(max(self.begun + 1, next_step), next_step + self.max_staleness + 1):
            batch = collector.data.train_batch(rl_step, whole=True)
            if batch is None:
                return
            collector.begin(batch)
            self.begun = rl_step
