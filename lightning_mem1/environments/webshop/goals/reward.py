"""Reward of a purchase: how much of what was asked the bought product fulfils.

    total = r_type * (attributes met + options met + price met) / (attributes asked + options asked + 1)

Strict scoring repeats the reference, which compares a purchased value with the pair (name, value) of a synthetic
goal, so that 458 of 6,910 goals of the 1,000 products cannot reach 1.0 while "large" passes for "x-large".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from lightning_mem1.environments.webshop.catalogue.catalogue import Product
from lightning_mem1.environments.webshop.goals.fuzzy import alike
from lightning_mem1.environments.webshop.goals.goals import Goal
from lightning_mem1.environments.webshop.goals.nouns import Nouns

# The reference's colour words in its order: the first one found inside a value stands for the whole value.
_COLOUR_WORDS = (
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo "
    "caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream "
    "crystal dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather "
    "indigo ivory ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha "
    "multicolor mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal "
    "rust sand sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise "
    "violet walnut wheat white wine yellow"
)
COLOURS = tuple(_COLOUR_WORDS.split())


@dataclass(frozen=True)
class Reward:
    """A purchase's score and its parts.

    Attributes:
        total: 0..1.
        r_type: 1.0, 0.5, 0.1 or 0.0: is it the kind of product that was asked for.
        r_att: Share of the attributes met.
        r_option: Share of the options met, None when none was asked.
        r_price: Whether the price is within the bound.
        num_attributes: Attributes met.
        num_options: Options met.
        w_att, w_option, w_price: Share of each part in the sum.
        query_match, category_match, title_score: What `r_type` was judged by.
        noun_source: Where the nouns behind `title_score` came from.
    """

    total: float
    r_type: float
    r_att: float
    r_option: float | None
    r_price: bool
    num_attributes: int
    num_options: int
    w_att: float
    w_option: float
    w_price: float
    query_match: bool
    category_match: bool
    title_score: float
    noun_source: str


def score(
    goal: Goal,
    product: Product,
    options: Mapping[str, str],
    price: float,
    strict: bool = False,
    nouns: Nouns | None = None,
) -> Reward:
    """Score the purchase of a product.

    Args:
        goal: What was asked for.
        product: What was bought.
        options: Chosen value of each option name that was chosen.
        price: What it cost, in dollars.
        strict: Compare options as the reference does. Otherwise see `options_met`.
        nouns: Where nouns of titles come from; by default spaCy when installed, else a rule.
    """
    num_attributes = sum(_attribute_met(attribute, product) for attribute in goal.attributes)
    num_options = _strict_options_met(goal, options) if strict else options_met(goal, product, options)
    r_price = price <= goal.price_upper
    asked_attributes, asked_options = len(goal.attributes), len(goal.options)
    asked = asked_attributes + asked_options + 1
    r_type, query_match, category_match, title_score, source = _type_reward(goal, product, nouns or _default_nouns())
    return Reward(
        total=(num_attributes + num_options + r_price) / asked * r_type,
        r_type=r_type,
        r_att=num_attributes / asked_attributes,
        r_option=num_options / asked_options if asked_options else None,
        r_price=r_price,
        num_attributes=num_attributes,
        num_options=num_options,
        w_att=asked_attributes / asked,
        w_option=asked_options / asked,
        w_price=1 / asked,
        query_match=query_match,
        category_match=category_match,
        title_score=title_score,
        noun_source=source,
    )


def reachable(goal: Goal, product: Product, strict: bool = False, nouns: Nouns | None = None) -> float:
    """Return the most that buying a product can be worth for a goal, whatever is chosen.

    Of the goal's own product this is 1.0, except that strict scoring cannot meet some of its options.
    """
    asked, chosen = len(goal.options), {}
    best: dict[frozenset[int], dict[str, str]] = {frozenset(): {}}  # options met -> what to choose for them
    for name, values in product.options.items():
        for met, others in list(best.items()):
            for value in dict.fromkeys(values):
                more = met | _met_by(goal, product, name, value, strict)
                best.setdefault(more, {**others, name: value})
    if asked:
        chosen = best[max(best, key=len)]
    return score(goal, product, chosen, product.price, strict, nouns).total


def _met_by(goal: Goal, product: Product, name: str, value: str, strict: bool) -> frozenset[int]:
    """Return which of the goal's options, by place, are met by one chosen value."""
    keys = list(goal.options)
    alone = [{key: goal.options[key]} if isinstance(goal.options, Mapping) else [key] for key in keys]
    met = set()
    for place, options in enumerate(alone):
        single = replace(goal, options=options)
        if _strict_options_met(single, {name: value}) if strict else options_met(single, product, {name: value}):
            met.add(place)
    return frozenset(met)


def normalize_color(value: str) -> str:
    """Return the first colour word contained in a value, or the value.

    A word is found anywhere: ``"standard"`` holds ``"tan"``. That is how the reference compares.
    """
    return next((colour for colour in COLOURS if colour in value), value)


def options_met(goal: Goal, product: Product, options: Mapping[str, str]) -> int:
    """Count the goal's options that the chosen values meet, by value.

    An option of a synthetic goal looks only at the value chosen under its own name. Where the product offers the
    very value asked for, that value must be chosen (spaces at the ends and case aside); where it does not, an alike
    one counts (token set ratio above 85 after colour normalisation). A human goal's options have no names: each
    counts when any chosen value equals it or is alike.
    """
    if not isinstance(goal.options, Mapping):
        return sum(any(_value_met(asked, chosen) for chosen in options.values()) for asked in goal.options)
    met = 0
    for name, asked in goal.options.items():
        chosen = options.get(name, "")
        offered = any(_plain(asked) == _plain(value) for value in product.options.get(name, ()))
        met += _plain(asked) == _plain(chosen) if offered else _value_met(asked, chosen)
    return met


def _plain(value: str) -> str:
    return " ".join(value.lower().split())


def _value_met(asked: str, chosen: str) -> bool:
    return _plain(asked) == _plain(chosen) or alike(normalize_color(chosen), normalize_color(asked))


def _strict_options_met(goal: Goal, options: Mapping[str, str]) -> int:
    """Count options as the reference does: a synthetic goal's option is the text of the pair (name, value)."""
    if isinstance(goal.options, Mapping):
        asked = [_pair_text(name, value) for name, value in goal.options.items()]
    else:
        asked = [normalize_color(value) for value in goal.options]
    chosen = [normalize_color(value) for value in options.values()]
    return sum(any(alike(value, text) for value in chosen) for text in asked)


def _pair_text(name: str, value: str) -> str:
    """Return the first colour that is the name or the value itself, or else the pair as Python prints it."""
    return next((colour for colour in COLOURS if colour in (name, value)), str((name, value)))


def _attribute_met(attribute: str, product: Product) -> bool:
    """Return whether an attribute is like an annotated one or is in the title, the bullets or the description."""
    if any(alike(own, attribute) for own in product.attributes):
        return True
    texts = (product.title, " ".join(product.bullets), product.description)
    return any(attribute in text.lower() for text in texts)


def _type_reward(goal: Goal, product: Product, nouns: Nouns) -> tuple[float, bool, bool, float, str]:
    query_match = product.query == goal.query
    shared_levels = _levels(product.product_category) & _levels(goal.product_category)
    category_match = len(shared_levels) >= 2
    bought, asked, source = nouns.of_pair(product.asin, product.title, goal.asin, goal.name)
    title_score = len(set(bought) & set(asked)) / len(asked) if asked else 0.2
    r_type = 1.0 if query_match or category_match or title_score > 0.2 else 0.5
    if title_score < 0.1:  # stronger than a match of query or category
        r_type = 0.1 if title_score else 0.0
    return r_type, query_match, category_match, title_score, source


def _levels(product_category: str) -> set[str]:
    return {level.strip() for level in product_category.split("›")}


@lru_cache(maxsize=1)
def _default_nouns() -> Nouns:
    return Nouns()
