"""When the engine takes its next step: turns that run together cost less, and an agent that was answered calls soon.

Agents call whenever they like. An engine that steps as soon as anything is there runs a few turns at a time, several
times as many passes in all. So it waits for the agents that were just answered or begun, while calls keep coming.
Where that does not pay, because agents are at work elsewhere, it is tried only now and then.
"""

from __future__ import annotations

LEAST_S, MOST_S = 0.005, 0.1  # of a wait for one more call; between them it is as long as the engine's last step
PAYS = 0.3  # share of the calls waited for that came; below it waiting is tried every `SELDOM` steps
SELDOM = 8
MEMORY = 0.9  # of the running share


class Pacing:
    """How long to wait for the next call before a step.

    Attributes:
        expected: Agents that were answered or begun and have not called again.
    """

    def __init__(self) -> None:
        self.expected = 0
        self._share, self._step_s, self._skipped = 1.0, LEAST_S, 0

    def stepped(self, seconds: float, num_answered: int) -> None:
        """A step of the engine is done, and so many calls were answered."""
        self._step_s = seconds
        self.expected += num_answered

    def wait_s(self) -> float:
        """How long to wait for one more call now; 0 for not at all."""
        if self.expected <= 0:
            return 0.0
        if self._share < PAYS and self._skipped < SELDOM:
            self._skipped += 1
            return 0.0
        return min(max(self._step_s, LEAST_S), MOST_S)

    def came(self) -> None:
        """An agent called, or ended."""
        self.expected = max(0, self.expected - 1)
        self._share = MEMORY * self._share + (1 - MEMORY)

    def missed(self) -> None:
        """Nobody came in the time that was waited: the others are at work elsewhere."""
        self._share *= MEMORY ** min(self.expected, 10)
        self.expected = self._skipped = 0
