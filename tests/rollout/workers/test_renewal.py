"""Weights that change while episodes are under way: every turn knows who wrote it, and is exact under those weights."""

import pytest
import torch

from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.workers.job import SentWeights
from lightning_mem1.rollout.workers.renewal import RenewableEngine
from lightning_mem1.training.layouts.microbatches import Microbatches
from tiny_tasks import LongTasks


class Store:
    """Has newer weights once, after so many steps of the engine."""

    def __init__(self, policy, after):
        self.policy, self.after, self.version, self.taken = policy, after, 3, []
        self.state = {
            name: value + 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
            for name, value in policy.adapter_state().items()
        }

    def newer(self):
        self.after -= 1
        return SentWeights(4, "new", lambda: self.state) if self.after == 0 else None

    def take(self, weights):
        self.policy.load_adapter_state(weights.fetch())
        self.version = weights.version
        self.taken.append(weights.version)


def play(module, source, store):
    episodes = [Episode(source.task("train", n), source.env(source.task("train", n)), n, seed=n) for n in range(3)]
    engine = RenewableEngine(module.engine, lambda: store.version, store.newer, store.take)
    with torch.no_grad():
        return collect(episodes, engine, module.policy.tokenizer, module.rollout_settings, "mem1")


def scores(module, trajectories):
    """(T,) log-probabilities of each trajectory, as training computes them with the weights as they are."""
    return module.microbatches.scores(
        trajectories, {"old": lambda batch: module.policy.logprobs(batch, 1.0)[0]}, module.policy.device
    )["old"]


def by_turn(trajectory, values):
    return values.split([len(turn.action_ids) for turn in trajectory.turns])


def test_a_turn_is_written_by_one_version_and_its_log_probabilities_are_those_of_that_version(make_module):
    module = make_module()
    assert isinstance(module.microbatches, Microbatches)
    store, before = Store(module.policy.eval(), after=9), module.policy.adapter_state()
    played = play(module, LongTasks(), store)
    versions = [[turn.version for turn in t.turns] for t in played]
    assert store.taken == [4] and all(each == sorted(each) for each in versions)
    assert {version for each in versions for version in each} == {3, 4}, "the change came in the middle"
    after = scores(module, played)
    module.policy.load_adapter_state(before)
    old = scores(module, played)
    gaps = []
    for trajectory, *known in zip(played, old, after, strict=True):
        for turn, *both in zip(trajectory.turns, *(by_turn(trajectory, each) for each in known), strict=True):
            own, other = both if turn.version == 3 else both[::-1]
            sampled = torch.tensor(turn.action_logprobs)
            torch.testing.assert_close(sampled, own, rtol=0, atol=1e-5)
            gaps.append(float((sampled - other).abs().max()))
    assert max(gaps) > 1e-3, "the two versions differ"


def test_without_newer_weights_it_is_the_engine_itself(make_module):
    module = make_module()
    store = Store(module.policy.eval(), after=-1)
    played = play(module, LongTasks(), store)
    episodes = [Episode(t.task, LongTasks().env(t.task), t.group, t.seed) for t in played]
    with torch.no_grad():
        alone = collect(episodes, module.engine, module.policy.tokenizer, module.rollout_settings, "mem1")
    assert [[turn.action_logprobs for turn in t.turns] for t in played] == [
        [turn.action_logprobs for turn in t.turns] for t in alone
    ]
    assert store.taken == [] and {turn.version for t in played for turn in t.turns} == {3}
    assert {turn.version for t in alone for turn in t.turns} == {None}


@pytest.mark.parametrize("after", [1, 4, 7])
def test_no_turn_is_lost_whenever_the_weights_come(make_module, after):
    module = make_module()
    store = Store(module.policy.eval(), after)
    played = play(module, LongTasks(), store)
    assert [len(t.turns) for t in played] == [4, 4, 4] and store.taken == [4]
