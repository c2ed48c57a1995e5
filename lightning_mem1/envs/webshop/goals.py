"""Goals: what a shopper is asked to buy, in the reference's canonical order.

The order (and with it every split) never depends on the seed; the seed only draws the prices of products with a
price range and the price bounds, in that order, as the reference does after ``random.seed(seed)``.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lightning_mem1.envs.webshop.catalogue import Product

NO_PRICE_BOUND = 1_000_000.0
SHUFFLE_SEED = 233  # the reference's constant: never change it, or every published split moves
_PRICE_BOUNDS = [10.0 * i for i in range(1, 100)]


@dataclass(frozen=True)
class Goal:
    """What the shopper is asked for.

    Attributes:
        index: Place in the canonical order, 0-based.
        asin: A product that fulfils the goal.
        instruction: Text shown to the shopper, price bound included.
        attributes: Attributes asked for, at least one.
        options: Option name -> value for a synthetic goal, a list of values for a human one.
        price_upper: The most it may cost, in dollars; 1,000,000 for no bound.
        query: Query of the product; the same query counts as the same type.
        category: Department of the product.
        product_category: Category levels of the product.
        name: Title of the product.
        weight: Sampling weight of the reference: rare attributes weigh more.
    """

    index: int
    asin: str
    instruction: str
    attributes: tuple[str, ...]
    options: Mapping[str, str] | Sequence[str]
    price_upper: float
    query: str
    category: str
    product_category: str
    name: str
    weight: float = 1.0


def with_prices(products: Sequence[Product], rng: random.Random) -> list[Product]:
    """Draw the price of every product that has a range, one uniform number each, in order."""
    return [
        replace(product, price=rng.uniform(*product.prices) if len(product.prices) > 1 else product.prices[0])
        for product in products
    ]


def make_goals(products: Sequence[Product], rng: random.Random, human: bool = False) -> list[Goal]:
    """Return the goals of products in canonical order.

    Args:
        products: Products whose prices are drawn.
        rng: The generator that drew the prices.
        human: Instructions written by people instead of the synthetic ones.
    """
    goals = list(_human_goals(products, rng) if human else _synthetic_goals(products, rng))
    if not human:
        goals = _weighted(goals)
    random.Random(SHUFFLE_SEED).shuffle(goals)
    return [replace(goal, index=index) for index, goal in enumerate(goals)]


def _synthetic_goals(products: Sequence[Product], rng: random.Random) -> Iterator[Goal]:
    """Yield one goal for every combination of a product's option values, option names sorted."""
    for product in products:
        if product.instruction is None or not product.instruction_attributes:
            continue
        price_upper, price_text = _price_bound(product.price, rng)
        names = sorted(product.options)
        for values in itertools.product(*(product.options[name] for name in names)):
            options = dict(zip(names, values, strict=True))
            asked = ", and ".join(f"{name}: {value}" for name, value in options.items())
            text = product.instruction + (f" with {asked}" if asked else "") + price_text
            yield _goal(product, text, product.instruction_attributes, options, price_upper)


def _human_goals(products: Sequence[Product], rng: random.Random) -> Iterator[Goal]:
    for product in products:
        for instruction in product.human_instructions:
            if instruction.attributes:
                price_upper, price_text = _price_bound(product.price, rng)
                text = instruction.text.strip(".") + price_text
                yield _goal(product, text, instruction.attributes, list(instruction.options), price_upper)


def _goal(
    product: Product,
    text: str,
    attributes: tuple[str, ...],
    options: Mapping[str, str] | Sequence[str],
    price_upper: float,
) -> Goal:
    return Goal(
        index=-1,
        asin=product.asin,
        instruction=text,
        attributes=attributes,
        options=options,
        price_upper=price_upper,
        query=product.query,
        category=product.category,
        product_category=product.product_category,
        name=product.title,
    )


def _price_bound(price: float, rng: random.Random) -> tuple[float, str]:
    """Draw two of the first four multiples of ten above the price and keep the larger."""
    bounds = [bound for bound in _PRICE_BOUNDS if bound > price][:4]
    if len(bounds) < 2:
        return NO_PRICE_BOUND, ""
    price_upper = max(rng.sample(bounds, 2))
    return price_upper, f", and price lower than {price_upper:.2f} dollars"


def _weighted(goals: Sequence[Goal]) -> list[Goal]:
    counts = Counter(attribute for goal in goals for attribute in goal.attributes)
    weights = (sum(1.0 / counts[a] for a in goal.attributes) / len(goal.attributes) for goal in goals)
    return [replace(goal, weight=weight) for goal, weight in zip(goals, weights, strict=True)]
