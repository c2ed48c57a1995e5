"""What is known of a model's layers: how it can be scored and played."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_mem1.policy.attention import AttentionLayer
from lightning_mem1.policy.rotary import LengthRule


@dataclass(frozen=True)
class Architecture:
    """What `policy.inspection` found out about a causal LM.

    Attributes:
        layers: The layers that attend, in the order in which a forward pass comes to them.
        keywords: Whether the model hands keyword arguments on to all of them.
        own: Why the model's own attention is used, on one context a row; empty when it is this package's.
        slots: Why the local engine cannot play it; empty when it can.
        padded: Whether rows of unlike length may be padded (own attention alone).
        max_positions: Positions that the model has learnt or tabulated; None when any can be computed.
        length: How rotary frequencies depend on the length of the context; None when they do not.
    """

    layers: tuple[AttentionLayer, ...] = ()
    keywords: bool = True
    own: str = ""
    slots: str = ""
    padded: bool = True
    max_positions: int | None = None
    length: LengthRule | None = None

    @property
    def slower(self) -> str:
        """What is slower than it could be and why, in a line; empty when nothing is."""
        if self.own:
            return (
                f"{self.own}; so contexts are scored one a row, and model.engine.kind local plays by transformers' "
                "generation, which is slower"
            )
        if self.slots:
            return f"{self.slots}; so model.engine.kind local plays by transformers' generation, which is slower"
        return ""
