"""Imitation of one's own best trajectories: the filter, the loss, whole rl_steps."""

import pytest
import torch

from lightning_mem1.callbacks import MetricsCallback
from lightning_mem1.training.credit.advantages import best_of
from lightning_mem1.training.credit.algorithms import ALGORITHMS, CreditSettings, GroupedRollouts
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.losses import likelihood_loss
from lightning_mem1.training.settings import LossSettings, OptimSettings
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

REWARDS = [0.2, 0.9, 0.9, 0.5, 0.0, 0.0, 1.0, 1.0]
GROUPS = [0, 0, 0, 0, 1, 1, 2, 2]


def raft(**credit):
    return {"algorithm": "raft", "credit": CreditSettings(**credit)}


@pytest.mark.parametrize(
    ("keep", "threshold", "kept"),
    [
        (1, None, [0, 1, 0, 0, 0, 0, 0, 0]),  # of equal ones the first; equal groups have no best
        (3, None, [0, 1, 1, 1, 0, 0, 0, 0]),
        (None, 0.5, [0, 1, 1, 1, 0, 0, 1, 1]),  # the threshold itself is enough
        (1, 0.5, [0, 1, 0, 0, 0, 0, 1, 0]),
        (9, 0.95, [0, 0, 0, 0, 0, 0, 1, 1]),
        (1, 2.0, [0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_the_best_of_a_group_and_what_reaches_the_threshold_are_kept(keep, threshold, kept):
    assert best_of(torch.tensor(REWARDS), torch.tensor(GROUPS), keep, threshold).tolist() == kept


def test_groups_need_not_stand_together():
    kept = best_of(torch.tensor([0.1, 5.0, 0.2, 4.0]), torch.tensor([0, 1, 0, 1]), 1)
    assert kept.tolist() == [0, 1, 1, 0]


def test_every_action_token_of_a_kept_trajectory_has_credit_one():
    def played(reward, lengths):
        turns = [Turn([7] * n, [-0.5] * n) for n in lengths]
        turns[-1].reward = reward
        return Trajectory(task(), [1, 2], turns, StopReason.DONE)

    both = GroupedRollouts.of([played(0.0, [2, 1]), played(1.0, [1, 2])])
    found = ALGORITHMS["raft"].credit(both, CreditSettings())
    assert [a.tolist() for a in found.advantages] == [[0, 0, 0], [1, 1, 1]]


def test_the_loss_is_the_negative_log_likelihood_of_what_has_credit():
    logprobs = torch.tensor([-1.0, -2.0, -4.0], requires_grad=True)
    old, weights = torch.tensor([-1.5, -2.0, -9.0]), torch.tensor([0.5, 0.25, 0.25])
    loss, stats = likelihood_loss(logprobs, old, torch.tensor([1.0, 1.0, 0.0]), weights)
    loss.backward()
    assert loss.item() == 0.5 * 1 + 0.25 * 2
    assert logprobs.grad.tolist() == [-0.5, -0.25, 0]  # however far from the old policy: nothing is clipped
    assert stats["pull"].tolist() == [0.5, 0.25, 0] and stats["clip_fraction"].item() == 0
    assert stats["approx_kl"].item() == -(0.5 * 0.5 + 0.25 * 5)


class Watch(MetricsCallback):
    """Pays by the number in the group (0, 1/2, 1), or by the share of even ids; keeps logs and gradients."""

    def __init__(self, even=False):
        super().__init__()
        self.even, self.logged, self.shares, self.kept, self.gradients = even, [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        shares = [even_share(t) for t in batch.trajectories]
        self.shares.append(sum(shares) / len(shares))
        if self.even:
            for t, share in zip(batch.trajectories, shares, strict=True):
                t.turns[0].reward, t.turns[-1].reward = 0.0, share

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append([p.grad.clone() for p in pl_module.policy.parameters() if p.requires_grad])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.kept = [t for t in batch.trajectories if t.reward == 1.0]
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def even_share(trajectory):
    ids = [token for turn in trajectory.turns for token in turn.action_ids]
    return sum(token % 2 == 0 for token in ids) / len(ids)


@pytest.mark.parametrize("layout", ["tree", "rows"])
def test_the_gradient_is_that_of_the_likelihood_of_the_kept_ones_alone(make_module, make_data, fit, layout):
    watch = Watch()
    module = make_module(
        layout=layout, optim=OptimSettings(max_grad_norm=None), max_tokens_per_microbatch=100, **raft()
    )
    fit(module, make_data(num_rl_steps=1, num_val_tasks=0), watch)
    assert len(watch.kept) == 2 and watch.logged[0]["train/kept_trajectories"] == 2
    fresh = make_module(**raft())  # the weights before the step
    logprobs, _ = fresh.policy.logprobs(collate(watch.kept, "rows"))
    trained = [p for p in fresh.policy.parameters() if p.requires_grad]
    for found, expected in zip(watch.gradients[0], torch.autograd.grad(-logprobs.mean(), trained), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert watch.logged[0]["train/loss"] == pytest.approx(-logprobs.mean().item(), rel=1e-5)


def test_two_epochs_and_minibatches_never_clip(make_module, make_data, fit):
    watch = Watch()
    twice = OptimSettings(num_epochs=3, num_minibatches=2)
    fit(make_module(optim=twice, **raft(keep=2)), make_data(num_rl_steps=1), watch)
    assert len(watch.gradients) == 6
    assert watch.logged[0]["train/clip_fraction"] == 0 and watch.logged[0]["train/kept_trajectories"] == 4
    assert watch.logged[0]["train/rollout_gap_max"] < 1e-5


def test_when_nothing_is_kept_no_step_is_taken_and_it_is_logged(make_module, make_data, fit):
    watch, loss = Watch(), LossSettings(kl_coef=0.1, entropy_coef=0.1)
    module = make_module(loss=loss, **raft(threshold=2.0))
    before = module.policy.adapter_state()
    fit(module, make_data(num_rl_steps=2), watch)
    assert watch.gradients == [] and module.global_step == 0 and module.rl_step == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.policy.adapter_state().items())
    for metrics in watch.logged:
        assert (metrics["train/kept_trajectories"], metrics["train/zero_signal_groups"]) == (0, 2)
        assert metrics["train/loss"] == 0 and 0 < metrics["train/rollout_gap_max"] < 1e-5


def test_imitating_the_best_learns(make_module, make_data, fit):
    watch = Watch(even=True)
    module = make_module(lora=None, optim=OptimSettings(num_epochs=2), **raft(keep=2))
    fit(module, make_data(num_rl_steps=8, num_val_tasks=0, tasks_per_step=4, group_size=6), watch)
    assert sum(watch.shares[-2:]) / 2 > sum(watch.shares[:2]) / 2 + 0.1


def test_without_any_limit_the_setting_to_set_is_named(make_module):
    with pytest.raises(ValueError, match="raft would imitate whatever was played: .*set model.credit.keep or model"):
        make_module(**raft(keep=None))
    with pytest.raises(ValueError, match="model.credit.keep too small: expected at least 1, got 0"):
        make_module(**raft(keep=0))
