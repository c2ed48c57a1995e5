"""The shop as a Gymnasium environment; needs the extra ``gym``.

Importing this module registers ``lightning_mem1/WebShop-v0`` (Gymnasium 1 looks for no plugins), and nothing else in
the package imports it::

    import gymnasium
    import lightning_mem1.environments.webshop.gym

    env = gymnasium.make("lightning_mem1/WebShop-v0", split="train", max_turns=10)
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step("search[red shoes]")

``gymnasium.make("lightning_mem1.environments.webshop.gym:lightning_mem1/WebShop-v0")`` does without the second import.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gymnasium

from lightning_mem1.environments.adapters.any_text import AnyText
from lightning_mem1.environments.webshop.env import WebShopEnv
from lightning_mem1.environments.webshop.pages.page import MAX_ACTION_CHARS
from lightning_mem1.environments.webshop.shop import Shop, SplitRule
from lightning_mem1.types import Split

ENV_ID = "lightning_mem1/WebShop-v0"
MAX_OBSERVATION_CHARS = 1 << 16  # what an observation is cut to


class WebShopGym(gymnasium.Env[str, str]):
    """One goal an episode; the reward comes with the purchase.

    An observation is the instruction and the page. `info` lists ``available_actions`` and ``goal``, after the
    purchase also what `WebShopEnv.step` reports, ``success`` among it.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}

    def __init__(
        self,
        catalogue: str | None = None,
        *,
        split: Split = "train",
        rule: SplitRule = "canonical",
        max_turns: int | None = 10,
        results_per_page: int = 10,
        strict: bool = False,
        human_goals: bool = False,
        nouns: str = "auto",
        shop_seed: int = 0,
        num_products: int = 1000,
        render_mode: str | None = None,
    ) -> None:
        """Open a shop; environments with the same settings share it.

        Args:
            catalogue: Folder with the official files, None for the generated catalogue.
            split: The goals to draw from.
            rule: How goals are split, see `Shop.split`.
            max_turns: Actions until an episode is truncated, None for no end.
            results_per_page: Products on a page of results.
            strict: The reference environment to the letter.
            human_goals: Instructions written by people (official files only).
            nouns: See `Nouns` (official files only).
            shop_seed: Draws prices, price bounds and the generated catalogue.
            num_products: Size of the generated catalogue.
            render_mode: ``ansi``: `render` returns the observation.

        Raises:
            ValueError: The split has no goal, or a setting is none of those above.
        """
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode must be None or 'ansi', got {render_mode!r}")
        if max_turns is not None and max_turns < 1:
            raise ValueError(f"max_turns must be at least 1, got {max_turns}")
        self.shop = _shop(catalogue, human_goals, nouns, shop_seed, num_products)
        self.goals = self.shop.split(split, rule)
        if not len(self.goals):
            raise ValueError(f"expected goals in split {split!r} ({rule}), got none: take a larger catalogue")
        self.max_turns, self.render_mode = max_turns, render_mode
        self._settings: dict[str, Any] = {"strict": strict, "results_per_page": results_per_page}
        self.observation_space = AnyText(MAX_OBSERVATION_CHARS)
        self.action_space = AnyText(MAX_ACTION_CHARS)
        self._visit: WebShopEnv | None = None
        self._turns = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode; ``options={"goal": i}`` takes goal i of the shop instead of one drawn from the split."""
        super().reset(seed=seed)
        drawn = self.goals[int(self.np_random.integers(len(self.goals)))]
        goal = self.shop.goals[(options or {}).get("goal", drawn)]
        self._visit, self._turns = WebShopEnv(self.shop, goal, **self._settings), 0
        return self._observation(), self._info({})

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out one action."""
        if self._visit is None:
            raise gymnasium.error.ResetNeeded("expected reset() before step(), got step(): call reset() first")
        result = self._visit.step(action)
        self._turns += 1
        truncated = not result.done and self.max_turns is not None and self._turns >= self.max_turns
        info = self._info({**result.info, "valid": result.valid})
        return self._observation(), float(result.reward), result.done, truncated, info

    def render(self) -> str | None:  # type: ignore[override]
        """Return the observation (``ansi``)."""
        return self._observation() if self.render_mode == "ansi" and self._visit else None

    def _observation(self) -> str:
        assert self._visit is not None
        page = self._visit.observe()
        text = page if self._settings["strict"] else f"Instruction: {self._visit.goal.instruction}\n{page}"
        return text[:MAX_OBSERVATION_CHARS]

    def _info(self, more: dict[str, Any]) -> dict[str, Any]:
        assert self._visit is not None
        return {**more, "goal": self._visit.goal.index, "available_actions": self._visit.available_actions}


@lru_cache(maxsize=4)
def _shop(catalogue: str | None, human_goals: bool, nouns: str, seed: int, num_products: int) -> Shop:
    if catalogue is not None:
        return Shop.from_folder(catalogue, human_goals=human_goals, seed=seed, nouns=nouns)
    if human_goals or nouns not in ("auto", "rule"):
        raise ValueError("human_goals and nouns belong to official files, got the generated catalogue: give catalogue")
    return Shop.generated(seed, num_products)


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point=f"{__name__}:{WebShopGym.__name__}")
