"""A generated document of any length: the facts of its story spread over rivals and filler."""

from __future__ import annotations

import random

from lightning_mem1.environments.reading import facts
from lightning_mem1.environments.reading.parts import num_tokens
from lightning_mem1.environments.reading.stories import Story

RIVALS = 0.5  # part of the other sentences that look like the facts


def sentences(story: Story, length: int, rng: random.Random) -> list[str]:
    """The sentences of a document.

    Args:
        story: What it is about.
        length: Tokens of the document (see `num_tokens`); it ends with the first sentence that reaches them. Where the
            facts alone are longer, the document is the facts.
        rng: Draws the rest and the places of the facts; at each place every order-keeping choice is as likely.
    """
    missing = length - sum(map(num_tokens, story.facts))
    others: list[str] = []
    while missing > 0:
        others.append(story.rival(rng) if rng.random() < RIVALS else facts.filler(rng))
        missing -= num_tokens(others[-1])
    total = len(others) + len(story.facts)
    places = set(rng.sample(range(total), len(story.facts)))
    told, rest = iter(story.facts), iter(others)
    return [next(told) if place in places else next(rest) for place in range(total)]
