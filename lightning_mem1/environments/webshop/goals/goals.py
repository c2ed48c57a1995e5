"""Goals: what a shopper is asked to buy, in the reference's canonical order.

The order (and with it every split) never depends on the seed; the seed only draws the prices of products with a
price range and the price bounds, in that order, as the reference does after ``random.seed(seed)``.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from lightning_mem1.environments.webshop.catalogue.catalogue import Product
from lightning_mem1.environments.webshop.goals.requests import SYNTHETIC, Requests

NO_PRICE_BOUND = 1_000_000.0
MAX_REMEMBERED_GOALS = 1 << 14

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


@dataclass(frozen=True)
class Draws:
    """What a seed draws: (N,) float64 price of each product, (R,) float64 price bound of each request."""

    prices: np.ndarray
    bounds: np.ndarray


def draw(low: np.ndarray, high: np.ndarray, requests: Requests, seed: int) -> Draws:
    """Draw the prices, one uniform number for each range in catalogue order, then the bounds, in catalogue order.

    Args:
        low: (N,) price of each product or the lower end of its range.
        high: (N,) upper end, NaN without a range.
        requests: What may be asked.
        seed: Of Python's generator.
    """
    rng = random.Random(seed)
    prices = np.array(low)
    for place in np.flatnonzero(~np.isnan(high)):
        prices[place] = rng.uniform(float(low[place]), float(high[place]))
    return Draws(prices, np.array([_price_bound(price, rng) for price in prices[requests.places].tolist()]))


def _price_bound(price: float, rng: random.Random) -> float:
    """Draw two of the first four multiples of ten above the price and keep the larger."""
    first = bisect_right(_PRICE_BOUNDS, price)
    bounds = _PRICE_BOUNDS[first : first + 4]
    return max(rng.sample(bounds, 2)) if len(bounds) >= 2 else NO_PRICE_BOUND


class Goals(Sequence[Goal]):
    """All goals by index; each is made when it is asked for."""

    def __init__(self, products: Sequence[Product], requests: Requests, bounds: np.ndarray) -> None:
        self._products, self._requests, self._bounds = products, requests, bounds
        self._remembered: dict[int, Goal] = {}

    def __len__(self) -> int:
        return len(self._requests)

    @overload
    def __getitem__(self, index: int) -> Goal: ...
    @overload
    def __getitem__(self, index: slice) -> list[Goal]: ...
    def __getitem__(self, index: int | slice) -> Goal | list[Goal]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # also checks it
        if index not in self._remembered:
            if len(self._remembered) >= MAX_REMEMBERED_GOALS:
                self._remembered.clear()
            self._remembered[index] = self._make(index)
        return self._remembered[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Goal.__eq__, self, other))

    def _make(self, index: int) -> Goal:
        request, combination = self._requests.find(index)
        product = self._products[int(self._requests.places[request])]
        number, bound = int(self._requests.numbers[request]), float(self._bounds[request])
        text, attributes, options = _asked(product, number, combination)
        price_text = f", and price lower than {bound:.2f} dollars" if bound != NO_PRICE_BOUND else ""
        return Goal(
            index=index,
            asin=product.asin,
            instruction=text + price_text,
            attributes=attributes,
            options=options,
            price_upper=bound,
            query=product.query,
            category=product.category,
            product_category=product.product_category,
            name=product.title,
            weight=float(self._requests.weights[request]),
        )


def _asked(
    product: Product, number: int, combination: int
) -> tuple[str, tuple[str, ...], Mapping[str, str] | list[str]]:
    """Return text (without price), attributes and options of one goal."""
    if number != SYNTHETIC:
        written = product.human_instructions[number]
        return written.text.strip("."), written.attributes, list(written.options)
    options = nth_combination(product.options, combination)
    asked = ", and ".join(f"{name}: {value}" for name, value in options.items())
    assert product.instruction is not None  # it has a request
    return product.instruction + (f" with {asked}" if asked else ""), product.instruction_attributes, options


def nth_combination(options: Mapping[str, Sequence[str]], number: int) -> dict[str, str]:
    """Return one combination of values, names sorted and the last name changing fastest.

    >>> nth_combination({"size": ["s", "l"], "color": ["red", "blue", "tan"]}, 3)
    {'color': 'blue', 'size': 'l'}
    """
    values = []
    for name in sorted(options, reverse=True):
        number, digit = divmod(number, len(options[name]))
        values.append((name, options[name][digit]))
    return dict(reversed(values))
