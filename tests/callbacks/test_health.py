"""The line after the first rl_step: what is off, and which key changes it."""

from types import SimpleNamespace

import pytest

from lightning_mem1.callbacks import HealthCallback, MetricsCallback
from lightning_mem1.callbacks.health import remarks
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task

HEALTHY = {"train/zero_signal_groups": 4.0, "train/rollout_gap_mean": 1e-6, "train/drift": 0.0, "rollout/staleness": 0}


def played(*turns: tuple[int, bool]) -> list[Trajectory]:
    """One trajectory of turns that are so many tokens long, and valid or not."""
    made = [Turn([5] * length, [0.0] * length, valid=valid) for length, valid in turns]
    return [Trajectory(task(0), [1], made, StopReason.DONE)]


def test_a_healthy_rl_step_has_no_remark(make_module):
    assert remarks(played((5, True), (5, True), (5, True), (6, False)), HEALTHY, make_module(), 8) == []


def test_turns_that_are_invalid_or_cut_off_are_named_with_their_share_and_key(make_module):
    turns = played((6, False), (6, True), (5, False), (5, True))
    assert remarks(turns, HEALTHY, make_module(), 8) == [
        "50% of turns are invalid (set model.rollout.prompt full to explain the format, or begin with mem1 warmstart)",
        "50% of turns are cut off at 6 tokens (raise model.rollout.max_new_tokens)",
    ]
    full = make_module(rollout=RolloutSettings(max_new_tokens=9, prompt="full"))
    assert remarks(turns, HEALTHY, full, 8) == [
        "50% of turns are invalid (take another model.policy, or begin with mem1 warmstart)"
    ]


def test_groups_without_a_signal_are_named_where_groups_are_compared(make_module):
    metrics = {**HEALTHY, "train/zero_signal_groups": 5.0}
    assert remarks(played((1, True)), metrics, make_module(), 8) == [
        "5 of 8 groups have no signal (raise data.group_size or model.rollout.temperature, or take easier tasks; "
        "model.loss.drop_silent true keeps them from diluting the loss of the others)"
    ]
    (line,) = remarks(played((1, True)), metrics, make_module(loss={"drop_silent": True}), 8)
    assert line.endswith("or take easier tasks)")
    assert remarks(played((1, True)), metrics, make_module(algorithm="reinforce_pp"), 8) == []


@pytest.mark.parametrize(
    ("settings", "gap", "said"),
    [
        ({}, 1e-4, None),
        ({}, 2e-4, "at most 0.0001 (set model.compute.dtype float32 or model.mismatch.correction tis)"),
        ({"layout": "stitched"}, 7e-3, "(layout stitched does not score what was played: set model.layout tree)"),
        ({"compute": {"dtype": "bfloat16"}}, 1e-2, None),
        ({"compute": {"dtype": "bfloat16"}}, 0.2, "rollout gap 2.0e-01 nats, expected at most 0.05"),
    ],
)
def test_a_gap_beyond_what_rounding_explains_is_named(make_module, settings, gap, said):
    found = remarks(played((1, True)), {**HEALTHY, "train/rollout_gap_mean": gap}, make_module(**settings), 8)
    assert len(found) == (said is not None) and all(said in each for each in found)


def test_a_gap_of_weights_that_lag_behind_is_no_fault_and_drift_always_is(make_module):
    metrics = {**HEALTHY, "train/rollout_gap_mean": 0.1, "rollout/staleness": 1.0, "train/drift": 3.0}
    assert remarks(played((1, True)), metrics, make_module(), 8) == [
        "3 turns drift: training scores other contexts than were played (memory mode mem1: check it with "
        "lightning_mem1.testing.check_memory, or set model.memory)"
    ]


def test_a_run_says_it_once_after_its_first_rl_step(make_module, make_data, fit, capsys):
    fit(make_module(), make_data(num_rl_steps=3), MetricsCallback(), HealthCallback())
    out = capsys.readouterr().out  # a random policy writes neither a tag nor an end
    assert out.count("health after rl_step") == 1 and out.count("\n") == 1
    assert out.startswith("health after rl_step 1: 100% of turns are invalid (set model.rollout.prompt full")


def test_a_policy_that_breaks_later_is_named_once_with_when_it_was_well(make_module, capsys):
    callback, module = HealthCallback(), make_module(lr=1e3)
    trainer = SimpleNamespace(
        is_global_zero=True, callback_metrics=HEALTHY, datamodule=SimpleNamespace(tasks_per_step=8)
    )
    shares = [(4, 0), (3, 1), (2, 2), (0, 4), (0, 4)]  # valid and invalid turns of each rl_step
    for rl_step, (valid, invalid) in enumerate(shares, start=1):
        turns = [(5, True)] * valid + [(5, False)] * invalid
        batch = SimpleNamespace(rl_step=rl_step, trajectories=played(*turns))
        callback.on_train_batch_end(trainer, module, None, batch, rl_step)
    assert capsys.readouterr().out == (
        "health after rl_step 4: 100% of turns are invalid, 0% at rl_step 1: updates broke the policy (lower model.lr, "
        "now 1000, and begin again; best.ckpt has the best weights so far)\n"
    )
