"""What a warm start clones: trajectories of a scripted shopper on freshly generated catalogues.

Every few steps draw a new catalogue: with a fixed one a model learns products by heart instead of learning to read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset

from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.envs.webshop import WebShopEnv
from lightning_mem1.rollout import Episode, collect
from lightning_mem1.tasks.novice import Novice
from lightning_mem1.tasks.shoppers import play
from lightning_mem1.tasks.webshop import ShopTasks
from lightning_mem1.text import information_block
from lightning_mem1.types import Trajectory
from lightning_mem1.warmstart import Stage, WarmStart


class ExpertStream(IterableDataset[list[Trajectory]]):
    """Yields one list of expert trajectories per step; step s is a function of (seed, s) alone."""

    def __init__(self, config: WarmStart, tokenizer: Any) -> None:
        self.config, self.tokenizer = config, tokenizer

    def __iter__(self) -> Iterator[list[Trajectory]]:
        step = 0
        for stage in self.config.stages:
            source = None
            for _ in range(stage.steps):
                if step % self.config.data.steps_per_catalogue == 0 or source is None:
                    source = self._source(step // self.config.data.steps_per_catalogue, stage)
                yield self._play(source, step)
                step += 1

    def _source(self, number: int, stage: Stage) -> ShopTasks:
        data = self.config.data
        return ShopTasks(
            seed=data.first_seed + number,
            num_products=data.num_products,
            max_turns=data.max_turns,
            results_per_page=stage.results_per_page,
        )

    def _play(self, source: ShopTasks, step: int) -> list[Trajectory]:
        rng = random.Random(f"{self.config.seed}/{step}")
        episodes, writers = [], []
        for group in range(self.config.data.episodes_per_step):
            task = source.task("train", rng.randrange(source.size("train")))
            env = source.env(task)
            novice = Novice(random.Random(rng.random()), self.config.data.skill, self.config.rollout.tags)
            episodes.append(Episode(task, env, group))
            writers.append(_Hand(novice, env, task.max_turns).write)
        return collect(episodes, ScriptedEngine(self.tokenizer, writers), self.tokenizer, self.config.rollout)


class _Hand:
    """Lets a novice write through a `ScriptedEngine`, turn by turn."""

    def __init__(self, novice: Novice, env: WebShopEnv, max_turns: int) -> None:
        self.novice, self.env, self.turns_left = novice, env, max_turns
        self.previous: str | None = None

    def write(self, context: str) -> str:
        self.previous = self.novice.turn(self.env.goal.instruction, self.previous, self.env.observe(), self.turns_left)
        self.turns_left -= 1
        return self.previous


def tokenizer_texts(config: WarmStart) -> Iterator[str]:
    """Small numbers, products of a few catalogues as the shop shows them, and played episodes."""
    yield from (" ".join(map(str, range(400))) for _ in range(50))  # each its own token: prices are compared by these
    for number in range(4):
        shop = ShopTasks(seed=config.data.first_seed + number, num_products=1000).shop
        for product in shop.products:
            options = " ".join(f"[{value}]" for values in product.options.values() for value in values)
            yield f"{product.title} ${product.price:.2f} [{product.asin}]\n{options}\n{product.description}"
            yield "\n".join(product.bullets)
        for goal in shop.goals[:300]:
            game = play(WebShopEnv(shop, goal, results_per_page=5), Novice(random.Random(goal.index)))
            yield "\n".join([f"Instruction: {goal.instruction}", *game.texts])
            yield from (information_block(reply, 9, config.rollout.tags) for reply in game.replies)
