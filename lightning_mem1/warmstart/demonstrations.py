"""What a warm start clones: trajectories of a scripted shopper, researcher and reader in freshly generated worlds.

Every few steps draw a new catalogue, encyclopedia and documents: with fixed ones a model learns them by heart instead
of learning to read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from lightning_mem1.context.contexts import next_kind
from lightning_mem1.context.formats import PRESETS, PromptFormat
from lightning_mem1.engine.scripted import ScriptedEngine, Writer
from lightning_mem1.environments.qa.scripted_researcher import researcher
from lightning_mem1.environments.qa.scripted_researcher.notation import NUMBERED
from lightning_mem1.environments.qa.scripted_researcher.researcher import ScriptedResearcher
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks
from lightning_mem1.environments.webshop import WebShopEnv, baselines
from lightning_mem1.environments.webshop.scripted_shopper import ScriptedShopper
from lightning_mem1.environments.webshop.tasks import ShopTasks
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.types import Env, Task, Trajectory, Turn
from lightning_mem1.warmstart.hands import Play, hand
from lightning_mem1.warmstart.numbered_tasks import NumberedTasks
from lightning_mem1.warmstart.own.play import OwnPlay
from lightning_mem1.warmstart.reading_play import reading_play
from lightning_mem1.warmstart.settings import Stage, WarmStart
from lightning_mem1.warmstart.subtasks import of_questions


class Demonstrations(IterableDataset[list[Trajectory]]):
    """Yields one list of expert trajectories per step; step s is a function of (seed, s) alone.

    A step holds what of its episodes reaches `data.min_reward` and has a valid turn, perhaps nothing.
    """

    def __init__(self, config: WarmStart, tokenizer: Any) -> None:
        self.config, self.tokenizer = config, tokenizer

    def __iter__(self) -> Iterator[list[Trajectory]]:
        data, made_for = self.config.data, None
        plays: list[tuple[Play, int]] = []
        own = OwnPlay.of(self.config) if data.own.given else None
        worker = get_worker_info()  # loader workers take turns, so that no step is played twice
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        stages = [(number, stage) for number, stage in enumerate(self.config.stages) for _ in range(stage.steps)]
        for step in range(first, len(stages), stride):
            number, stage = stages[step]
            if own:
                found = own.trajectories(step, stage.episodes, self.tokenizer)
                yield [t for t in found if _worth_cloning(t, data.min_reward)]
                continue
            seed = data.first_seed + step // data.steps_per_world
            if made_for != (number, seed):
                made_for, plays = (number, seed), self._plays(stage, seed)
            rng = random.Random(f"{self.config.seed}/{step}")
            played = [t for play, num_episodes in plays for t in self._trajectories(play, num_episodes, rng)]
            yield [t for t in played if _worth_cloning(t, data.min_reward)]

    def _plays(self, stage: Stage, seed: int) -> list[tuple[Play, int]]:
        """The worlds of a seed, those that the stage plays in, and how many episodes it plays in each."""
        data, plays = self.config.data, []
        if stage.shop_episodes:
            plays.append((shop_play(self.config, stage, seed, data.shop.num_products), stage.shop_episodes))
        if stage.qa_episodes:
            plays.append((qa_play(self.config, stage, seed, data.qa.num_passages), stage.qa_episodes))
        if stage.marketplace_episodes:
            untidy = shop_play(self.config, stage, seed, data.shop.num_products, marketplace=True)
            plays.append((untidy, stage.marketplace_episodes))
        if stage.reading_episodes:
            plays.append((reading_play(self.config, stage, seed), stage.reading_episodes))
        return plays

    def _trajectories(self, play: Play, num_episodes: int, rng: random.Random) -> list[Trajectory]:
        source, settings, writer = play
        episodes, writers = [], []
        for group in range(num_episodes):
            task = source.task("train", rng.randrange(source.size("train")))
            episodes.append(Episode(task, env := source.env(task), group))
            writers.append(writer(random.Random(rng.random()), env, task))
        engine = ScriptedEngine(self.tokenizer, writers)
        played = collect(episodes, engine, self.tokenizer, settings, self.config.mode)
        for trajectory in played:
            if "carried" in trajectory.task.data:
                leave_out_first_state(trajectory, self.config.mode.staged)
        return played


def _worth_cloning(trajectory: Trajectory, min_reward: float | None) -> bool:
    reached = min_reward is None or trajectory.reward >= min_reward
    return reached and any(turn.valid for turn in trajectory.turns)


def leave_out_first_state(trajectory: Trajectory, staged: bool) -> None:
    """Do not clone the turn, if there is one, that says what no policy could know: it is shown only."""
    kind = "memory" if staged else "act"
    for turn in [turn for turn in trajectory.turns if turn.kind == kind][:1]:
        turn.valid = False


def shop_play(
    config: WarmStart, stage: Stage, seed: int, num_products: int = 1000, *, marketplace: bool = False
) -> Play:
    """A shop and the shopper in it."""
    data, tags = config.data.shop, config.rollout.tags
    source = ShopTasks(
        seed=seed,
        num_products=num_products,
        max_turns=data.max_turns,
        results_per_page=stage.results_per_page,
        marketplace=marketplace,
    )

    def writer(rng: random.Random, env: Env, task: Task) -> Writer:
        assert isinstance(env, WebShopEnv)
        novice, instruction = ScriptedShopper(rng, data.skill, tags), env.goal.instruction

        def turn(previous: str | None, left: int) -> str:
            return novice.turn(instruction, previous, env.observe(), left)

        return hand(config, tags, turn, env, rng, task.max_turns)

    return source, config.rollout, writer


def qa_play(config: WarmStart, stage: Stage, seed: int, num_passages: int = 5400) -> Play:
    """An encyclopedia and the researcher who reads it."""
    data, settings = config.data.qa, replace(config.rollout, format="qa")
    variant = "numbered" if data.notation in NUMBERED else "fixed"
    asked_as = {
        "objectives": stage.objectives,
        "compose": stage.compose,
        "top_k": stage.passages,
        "variant": variant,
        "wording": data.wording,
    }
    # a list to carry on is shown in the first state: where acts write none and no memory follows at once, never
    shown = not config.mode.staged or next_kind([Turn([], [])], config.mode) == "memory"
    carried = data.carried if shown else 0.0
    source = NumberedTasks(data.largest_first, carried, seed, num_passages, stage.hops, **asked_as)

    def writer(rng: random.Random, env: Env, task: Task) -> Writer:
        first, carried = task.data.get("first", 1), task.data.get("carried", "")
        reader = ScriptedResearcher(rng, data.skill, settings.tags, data.notation, first, carried)
        asked = [each.question for each in task.objectives]

        def turn(previous: str | None, left: int) -> str:
            return reader.turn(asked, previous, env.observe(), left)

        # else what comes behind a broken first turn (a new start, in `react` the same) is what no policy can know
        knows_start = task.prompt.startswith(f"{first} ") and not (data.notation == "react" and carried)
        parts = of_questions(asked, settings.tags, first)
        return hand(config, settings.tags, turn, env, rng, task.max_turns, knows_start, parts)

    return source, settings, writer


def tokenizer_texts(config: WarmStart) -> Iterator[str]:
    """Numbers up to the years, products and passages as they are shown, and played episodes."""
    yield from (" ".join(map(str, range(400))) for _ in range(50))  # each its own token: prices are compared by these
    yield from (" ".join(map(str, range(1100, 2000))) for _ in range(50))  # years likewise
    for seed in range(config.data.first_seed, config.data.first_seed + 4):
        yield from _shop_texts(config, seed)
        yield from _qa_texts(config, seed)


def _shop_texts(config: WarmStart, seed: int) -> Iterator[str]:
    shop = ShopTasks(seed=seed, num_products=1000).shop
    for product in shop.products:
        options = " ".join(f"[{value}]" for values in product.options.values() for value in values)
        yield f"{product.title} ${product.price:.2f} [{product.asin}]\n{options}\n{product.description}"
        yield "\n".join(product.bullets)
    for goal in shop.goals[:300]:
        game = baselines.play(WebShopEnv(shop, goal, results_per_page=5), ScriptedShopper(random.Random(goal.index)))
        yield "\n".join([f"Instruction: {goal.instruction}", *game.texts])
        yield from (PromptFormat(config.rollout.tags).block(reply, 9) for reply in game.replies)


def _qa_texts(config: WarmStart, seed: int) -> Iterator[str]:
    source = EncyclopediaTasks(seed, 1500, config.stages[-1].hops, objectives=config.stages[-1].objectives)
    for number in range(min(300, source.size("train"))):
        task = source.task("train", number)
        skill, notation = config.data.qa.skill, config.data.qa.notation
        game = researcher.play(source.env(task), task, skill, seed=number, notation=notation)
        yield "\n".join([task.prompt, *game.texts])
        yield from (PRESETS["qa"].block(reply, 9) for reply in game.replies)
