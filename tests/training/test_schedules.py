"""Learning rates by rl_step: worked by hand, by the names of transformers, and the same after a resume."""

import pytest
from lightning.pytorch import Callback

from lightning_mem1.training.schedules import SCHEDULES, learning_rate
from lightning_mem1.training.settings import OptimSettings

ARGUMENTS = {"cosine_with_min_lr": {"min_lr_rate": 0.1}, "warmup_stable_decay": {"num_decay_steps": 2}}


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 0.75, 0.5, 0.25]),  # a quarter less each rl_step, 0 only after the last
        ("polynomial", [0.5, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 0.853553, 0.5, 0.146447]),  # (1 + cos(k pi / 4)) / 2
        ("cosine_with_min_lr", [0.5, 1.0, 0.868198, 0.55, 0.231802]),  # 0.1 + 0.9 of that
        ("inverse_sqrt", [0.5, 1.0, 0.816497, 0.707107, 0.632456]),  # (2 / rl_step) ** 0.5
        ("warmup_stable_decay", [0.5, 1.0, 1.0, 1.0, 0.5]),
    ],
)
def test_rates_of_five_rl_steps_two_of_them_warm_up(name, rates):
    found = [learning_rate(1.0, rl_step, name, 2, 5, ARGUMENTS.get(name)) for rl_step in range(1, 6)]
    assert found == pytest.approx(rates, abs=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_rate_scales_with_the_highest_and_zero_stays_zero(name):
    one, small = (learning_rate(lr, 4, name, 1, 9, ARGUMENTS.get(name)) for lr in (1.0, 2e-5))
    assert small == pytest.approx(2e-5 * one, rel=5e-3)  # polynomial ends at 1e-7, not at 0
    assert learning_rate(0.0, 4, name, 1, 9, ARGUMENTS.get(name)) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "cosin"},
            "unknown learning-rate schedule: expected one of constant, .* got 'cosin'",
        ),
        ({"name": "linear"}, "expected a number of rl_steps for linear, got data.num_rl_steps null; set it"),
        (
            {"name": "cosine", "num_rl_steps": 5, "arguments": {"x": 1}},
            "cosine does not take: .* model.optim.schedule_a",
        ),
        ({"name": "cosine_with_min_lr", "num_rl_steps": 5}, "min_lr .*; set model.optim.schedule_args"),
    ],
)
def test_a_schedule_that_cannot_be_is_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        learning_rate(1.0, 1, **settings)
    assert "\n" not in str(caught.value)


class Rates(Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.found.append(float(trainer.callback_metrics["train/lr"]))


def test_a_training_follows_its_schedule_to_the_last_rl_step(make_module, make_data, fit):
    rates = Rates()
    fit(make_module(lr=0.01, optim=OptimSettings(schedule="linear")), make_data(), rates)
    assert rates.found == pytest.approx([0.0075, 0.005, 0.0025])


def test_a_schedule_without_an_end_ends_the_run_before_anything_is_played(make_module, make_data, fit):
    rates = Rates()
    with pytest.raises(ValueError, match="schedule without an end"):
        fit(make_module(optim=OptimSettings(schedule="cosine")), make_data(num_rl_steps=None), rates)
    assert rates.found == []
