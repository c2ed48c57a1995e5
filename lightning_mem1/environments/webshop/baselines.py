"""Scripted shoppers to measure a policy against: a rule, an attentive reader, the oracle.

They play an environment to its end. Only the oracle looks at the goal; the others read what a policy reads.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from lightning_mem1.context.tags import parse_turn
from lightning_mem1.environments.webshop import WebShopEnv
from lightning_mem1.environments.webshop.scripted_shopper import EXPERT_SHOPPER, ScriptedShopper, ShopperSkill
from lightning_mem1.types import StepResult

__all__ = ["EXPERT_SHOPPER", "Play", "ScriptedShopper", "ShopperSkill", "attentive", "oracle", "play", "rule_baseline"]

_BUTTONS = frozenset(
    f"click[{name}]"
    for name in ("buy now", "description", "features", "reviews", "attributes", "< prev", "next >", "back to search")
)


@dataclass
class Play:
    """A played episode.

    Attributes:
        actions: The actions carried out.
        texts: The turns as written (novices only), one per action.
        replies: What the shop replied to each action.
        reward: Total reward, 0.0 when nothing was bought.
        success: 1.0 when the reward is full.
        valid: Whether every action was valid.
    """

    actions: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    reward: float = 0.0
    success: float = 0.0
    valid: bool = True

    def act(self, env: WebShopEnv, action: str) -> StepResult:
        """Carry out one action and note what came of it."""
        result = env.step(action)
        self.actions.append(action)
        self.replies.append(result.information)
        self.reward += result.reward
        self.success = float(result.info.get("success", 0.0))
        self.valid = self.valid and result.valid
        return result


def play(env: WebShopEnv, novice: ScriptedShopper, max_turns: int = 10) -> Play:
    """Let a novice play one episode of a shop with ``strict=False``."""
    game, previous, information = Play(), None, env.observe()
    for turns_left in range(max_turns, 0, -1):
        previous = novice.turn(env.goal.instruction, previous, information, turns_left)
        game.texts.append(previous)
        result = game.act(env, parse_turn(previous, novice.tags).action or "")
        if result.done:
            break
        information = result.information
    return game


def attentive(env: WebShopEnv, max_turns: int = 10) -> Play:
    """Search the wanted words, open the result whose title and price fit best, choose its options, buy.

    Goes back once or twice when an item lacks a wanted option and turns allow it.
    """
    return play(env, ScriptedShopper(random.Random(0), EXPERT_SHOPPER), max_turns)


def rule_baseline(env: WebShopEnv, max_turns: int = 10) -> Play:
    """Search the whole instruction, open the first item, click the options that the instruction names, buy.

    Stops after `max_turns` actions, as an agent has to; without a purchase the reward is 0.
    """
    return _follow(env, _rule(env), max_turns)


def oracle(env: WebShopEnv, max_turns: int = 10) -> Play:
    """Buy the product the goal was made from, with its options; 1.0 wherever it can be reached in `max_turns` actions.

    It finds the product by searching its title, and leafs through the results when it is not on the first page.
    """
    return _follow(env, _knowing(env), max_turns)


def _follow(env: WebShopEnv, actions: Iterator[str], max_turns: int) -> Play:
    """Carry out the first `max_turns` actions; each is made after the one before was carried out."""
    game = Play()
    for action in islice(actions, max_turns):
        game.act(env, action)
    return game


def _rule(env: WebShopEnv) -> Iterator[str]:
    instruction = env.goal.instruction.lower()
    yield f"search[{_searchable(instruction)}]"
    if not env.page.results:
        return
    yield f"click[{env.page.results[0].lower()}]"
    yield from _named(instruction, env.available_actions)
    yield "click[buy now]"


def _knowing(env: WebShopEnv) -> Iterator[str]:
    goal = env.goal
    yield f"search[{_searchable(goal.name)}]"
    while goal.asin not in env.page.results:
        if "click[next >]" not in env.available_actions or not env.page.results:
            return
        yield "click[next >]"
    yield f"click[{goal.asin.lower()}]"
    if isinstance(goal.options, dict):
        for name, value in goal.options.items():
            shared = f"click[{name}: {value}]".lower()
            yield shared if shared in env.available_actions else f"click[{value}]"
    else:
        for value in goal.options:
            if f"click[{value}]".lower() in env.available_actions:
                yield f"click[{value}]".lower()
    yield "click[buy now]"


def _named(instruction: str, actions: list[str]) -> list[str]:
    """Return the clicks whose words the instruction holds, longer ones first in line for the same words."""
    left, named = instruction, set()
    for action in sorted((each for each in actions if each not in _BUTTONS), key=len, reverse=True):
        words = re.compile(rf"(?<![\w-]){re.escape(action[len('click[') : -1])}(?![\w-])")
        if words.search(left):
            left = words.sub(" ", left)
            named.add(action)
    return [action for action in actions if action in named]


def _searchable(text: str) -> str:
    return re.sub(r"[\[\]]", " ", text)
