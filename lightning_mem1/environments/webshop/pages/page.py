"""Where a shopper is and what an action did, in both renderings of the shop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lightning_mem1.environments.webshop.goals.reward import Reward

PageKind = Literal["search", "results", "item", "description", "features", "reviews", "attributes", "done"]

MAX_ACTION_CHARS = 4096  # a longer action is invalid; no title or instruction comes near


@dataclass(frozen=True)
class Page:
    """Where a shopper is.

    Attributes:
        kind: Which page.
        asin: Product of an item page or sub page, else None.
        query: Words of the last search, None before the first.
        number: Page of the results, 1-based.
        num_pages: Pages of the results, 0 before the first search or when nothing was found.
        selected: Option name -> chosen value.
        results: Ids of the products on this page of the results, best first.
    """

    kind: PageKind
    asin: str | None = None
    query: str | None = None
    number: int = 1
    num_pages: int = 0
    selected: dict[str, str] = field(default_factory=dict)
    results: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What an action did: `why` says what was wrong with an invalid one; a purchase has a product and a reward."""

    valid: bool = True
    why: str = ""
    bought: str | None = None
    reward: Reward | None = None
