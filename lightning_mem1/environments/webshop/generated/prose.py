"""Sentences of the generated catalogue: descriptions and bullets.

The text of a keyword-stuffed product lists popular searches for what it is not, in the words of a shopper's request.
Attributes stand there with a hyphen, so that a search engine counts them and the reward, which looks for
the phrase itself, does not.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from lightning_mem1.environments.webshop.generated.lexicon import Department

_OPENINGS = (
    "{brand} made this {noun} for {use} and {use2}.",
    "A {adjective} {noun} from {brand} with {adjective2} {thing}.",
    "Are you looking for a {adjective} {noun}? {brand} has it.",
    "We at {brand} want every {noun} to feel {adjective} and {adjective2}.",
    "The {thing} and {thing2} of this {noun} are {adjective}, just what you need for {use}.",
)
_HIDDEN = (
    "It is {attribute} too.",
    "You will find it {attribute} and {adjective}.",
    "Also {attribute}, with {adjective} {thing}.",
    "{attribute} as standard, good for {use}.",
)
_LOUD = (
    "Looking for {searches}? Find them at a price lower than 100 dollars!",
    "Need {searches}? Our price is lower by many dollars.",
    "If you want {searches}, show me a lower price in dollars.",
    "Shopping for {searches}? Buy at prices lower than other dollars can.",
    "Shoppers find {searches} here, price from 10 dollars and lower.",
)
_BULLETS = (
    "{Adjective} {thing} and {adjective2} {thing2} for {use}.",
    "The {thing} stays {adjective} after {use}.",
    "Made for {use}, {use2} and gifts.",
    "Please check the {thing} before you order.",
    "{brand} tests the {thing} and the {thing2} by hand.",
    "A {adjective} choice for {use} or {use2}.",
)
_ATTRIBUTE_BULLETS = (
    "{Attribute}: {adjective} {thing} for {use}.",
    "{adjective2} {thing}, {attribute}, made for {use}.",
    "With {attribute} in mind for {use}.",
)


class Prose:
    """Sentences about one product."""

    def __init__(self, rng: random.Random, department: Department, noun: str, brand: str) -> None:
        self.rng = rng
        self.department = department
        self.fixed = {"noun": noun, "brand": brand}

    def sentence(self, templates: Sequence[str], **slots: str) -> str:
        """Fill a random template; the words that no slot gives are drawn from the department's lists."""
        adjective, adjective2 = self.rng.sample(self.department.adjectives, 2)
        thing, thing2 = self.rng.sample(self.department.things, 2)
        use, use2 = self.rng.sample(self.department.uses, 2)
        text = self.rng.choice(templates).format(
            **self.fixed, **slots, adjective=adjective, adjective2=adjective2, Adjective=adjective.capitalize(),
            thing=thing, thing2=thing2, use=use, use2=use2,
        )  # fmt: skip
        return text[0].upper() + text[1:]

    def description(self, told: Sequence[str], searches: Sequence[str]) -> str:
        """One to three sentences: keyword-stuffed products list popular searches, the others a story."""
        if searches:
            sentences = [self.sentence(_LOUD, searches=", ".join(searches)) for _ in range(2)]
        else:
            sentences = [self.sentence(_OPENINGS), self.sentence(_BULLETS)]
        if told:
            sentences.append(self.sentence(_HIDDEN, attribute=" and ".join(told)))
        return " ".join(sentences)

    def bullets(self, hidden: Sequence[str], shown: Sequence[str], searches: Sequence[str]) -> list[str]:
        """Three to five sentences; every hidden attribute has one, and popular searches come first."""
        named = [*hidden, self.rng.choice(shown)][:4]
        bullets = [self.sentence(_ATTRIBUTE_BULLETS, attribute=each, Attribute=each.capitalize()) for each in named]
        while len(bullets) < 3 or (len(bullets) < 4 and self.rng.random() < 0.4):
            bullets.append(self.sentence(_BULLETS))
        self.rng.shuffle(bullets)
        return [self.sentence(_LOUD, searches=", ".join(searches)), *bullets] if searches else bullets
