"""The shopping environment: one goal, one episode."""

from __future__ import annotations

from typing import Any

from lightning_mem1.environments.webshop.goals.goals import Goal
from lightning_mem1.environments.webshop.pages.compact import CompactBrowser
from lightning_mem1.environments.webshop.pages.page import Outcome, Page
from lightning_mem1.environments.webshop.pages.strict import Mode, StrictBrowser
from lightning_mem1.environments.webshop.shop import Shop
from lightning_mem1.types import StepResult


class WebShopEnv:
    """Single-use environment of one shopping goal.

    By default the shop is repaired where the reference would mislead a user:

    * Selected options are shown, because a policy that cannot see its own choice cannot learn to make one.
    * There is no page past the end and no button without effect, because such clicks only waste turns.
    * A search works only where a search bar is, as on a web page.
    * The episode ends at the purchase, because a second one would pay twice.
    * The score is hidden from the shopper; it is in `StepResult.reward`.
    * Options are matched by value (see `reward.options_met`), so every goal can reach 1.0: an option counts only for
      the value chosen under its own name, and that value must equal the one asked for when the product offers it.
    * Where two options share a value, each can be chosen: it is clicked as ``name: value``.
    * A product with a price range shows the price it will cost, which the goal's bound was drawn from.
    * Reviews are left out: they are never loaded and the page is always empty.
    * Actions may differ in case and in spaces at the ends; two actions in one are invalid, because it is unclear
      which was meant.
    * An invalid action is answered with the reason; the reference shows the same page as if nothing had been said.
    * ``<r>``, ``<c>``, ``<q>`` and ``<a>`` at the start of a search are words like any other: the first shows random
      products, which no policy can learn from, and the last crashes the reference.
    * Pages name what they show in a form a small policy can read: the instruction is in the prompt instead of on
      every page, what can be clicked is in brackets, and the last line lists the actions.
    * Control characters become spaces, titles are cut to 300 characters and other texts to 4,000, because a page
      must neither fill a context nor forge lines of its own. The reward always sees the whole texts.

    With ``strict=True`` pages, actions and reward are the reference's to the letter (`strict.StrictBrowser`).
    """

    def __init__(
        self,
        shop: Shop,
        goal: Goal,
        *,
        strict: bool = False,
        results_per_page: int = 10,
        mode: Mode = "text",
        show_attrs: bool = False,
        session: str | None = None,
        num_prev_obs: int = 0,
        num_prev_actions: int = 0,
    ) -> None:
        """Open the search page.

        Args:
            shop: The shop, shared by any number of environments.
            goal: One of ``shop.goals``.
            strict: The reference to the letter.
            results_per_page: Products on a page of results.
            mode: How a strict shop is written: ``text``, ``text_rich`` or ``url``.
            show_attrs: Item pages link to a page of annotated attributes.
            session: Name in a strict shop's urls, by default the index of the goal.
            num_prev_obs: Earlier observations put before each new one (strict only).
            num_prev_actions: Earlier actions put before each new observation (strict only).

        Raises:
            ValueError: An argument is outside its range, or a mode or history is given without `strict`.
        """
        _check(strict, results_per_page, mode, num_prev_obs, num_prev_actions)
        self.goal = goal
        self._browser: StrictBrowser | CompactBrowser
        if strict:
            name = str(goal.index) if session is None else session
            self._browser = StrictBrowser(shop, goal, mode, name, results_per_page, show_attrs)
        else:
            self._browser = CompactBrowser(shop, goal, results_per_page, show_attrs)
        self._history = (num_prev_obs, num_prev_actions)
        self._earlier_obs = [self.observe()] if num_prev_obs else []
        self._earlier_actions: list[str] = []

    def observe(self) -> str:
        """Return the page the shopper is on."""
        return self._browser.observation()

    @property
    def page(self) -> Page:
        """Where the shopper is."""
        return self._browser.page

    @property
    def available_actions(self) -> list[str]:
        """Actions that do something here; ``search[<words>]`` stands for any search."""
        return self._browser.actions()

    @property
    def available(self) -> dict[str, Any]:
        """The reference's ``{"has_search_bar": ..., "clickables": [...]}``."""
        if isinstance(self._browser, StrictBrowser):
            return self._browser.available()
        clicks = [action[len("click[") : -1] for action in self.available_actions if action.startswith("click[")]
        return {"has_search_bar": self.page.kind == "search", "clickables": clicks}

    def step(self, action: str) -> StepResult:
        """Carry out one action.

        An invalid one costs the turn: the reply says why and shows the page again (a strict shop just shows it). A
        purchase ends the episode; its `info` holds ``success`` (1.0 for a full reward), ``r_type``, ``r_att``,
        ``r_option`` (1.0 when no option was asked), ``r_price``, ``asin`` and ``noun_source``.
        """
        outcome = self._browser.act(action)
        strict = isinstance(self._browser, StrictBrowser)
        information = self._with_history(action) if strict else self.observe()
        if outcome.reward is not None:
            total = outcome.reward.total
            return StepResult(information if strict else "", total, True, True, _info(outcome))
        if not outcome.valid:
            over = not strict and self.page.kind == "done"
            information = information if strict else f"Invalid action: {outcome.why}.\n{'' if over else information}"
            return StepResult(information, 0.0, over, False, {"invalid": outcome.why})
        return StepResult(information)

    def _with_history(self, action: str) -> str:
        """Put earlier actions and observations before the page, oldest first, as the reference does."""
        num_obs, num_actions = self._history
        page = self.observe()
        if not num_obs and not num_actions:
            return page
        self._earlier_actions.append(action)
        texts = [page]
        for back in range(1, 1 + max(num_obs, num_actions)):
            if back <= min(num_actions, len(self._earlier_actions)):
                texts.append(self._earlier_actions[-back])
            if back <= min(num_obs, len(self._earlier_obs)):
                texts.append(self._earlier_obs[-back])
        self._earlier_obs.append(page)
        return " [SEP] ".join(reversed(texts))


def _info(outcome: Outcome) -> dict[str, Any]:
    reward = outcome.reward
    assert reward is not None
    return {
        "success": 1.0 if reward.total == 1.0 else 0.0,
        "r_type": reward.r_type,
        "r_att": reward.r_att,
        "r_option": 1.0 if reward.r_option is None else reward.r_option,
        "r_price": float(reward.r_price),
        "asin": outcome.bought,
        "noun_source": reward.noun_source,
    }


def _check(strict: bool, results_per_page: int, mode: str, num_prev_obs: int, num_prev_actions: int) -> None:
    if results_per_page < 1:
        raise ValueError(f"results_per_page must be at least 1, got {results_per_page}")
    if mode not in ("text", "text_rich", "url"):
        raise ValueError(f"mode must be text, text_rich or url, got {mode!r}")
    if min(num_prev_obs, num_prev_actions) < 0:
        raise ValueError(
            f"num_prev_obs and num_prev_actions must not be negative, got {num_prev_obs} and {num_prev_actions}"
        )
    if not strict and (mode != "text" or num_prev_obs or num_prev_actions):
        raise ValueError(
            f"mode, num_prev_obs and num_prev_actions belong to a strict shop, got mode={mode!r}, {num_prev_obs} and "
            f"{num_prev_actions} with strict=False: set strict=True or drop them"
        )
