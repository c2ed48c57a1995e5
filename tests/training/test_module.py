"""Mem1Module: one rl_step's update, determinism, resume."""

from dataclasses import replace

import pytest
import torch

from lightning_mem1.callbacks import MetricsCallback, RLCheckpoint, RolloutCallback
from lightning_mem1.engine.local.engine import EngineSettings
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.credit.algorithms import ALGORITHMS, CreditSettings
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.training.settings import ComputeSettings, LossSettings, OptimSettings
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task
from tiny_tasks import BrokenTasks, LongTasks, RankedTasks

SHARED = ("train/", "rollout/reward", "rollout/success", "memory/peak", "memory/internal")


def adapter(module):
    return {name: tensor.clone() for name, tensor in module.policy.adapter_state().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trajectory(task, reward, group, stop=StopReason.DONE):
    return Trajectory(task, [1, 2], [Turn([3], [-0.5], reward=reward)], stop, group)


class Recorder(MetricsCallback):
    """Keeps every rl_step's metrics and can spoil what the update sees."""

    def __init__(self, spoil=lambda trajectories: None):
        super().__init__()
        self.spoil, self.history, self.weights = spoil, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.weights.append(adapter(pl_module))
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.spoil(batch.trajectories)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.history.append(
            {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(SHARED) or k == "step"}
        )


def test_training_logs_by_rl_step_and_the_first_pass_sees_what_the_rollout_saw(make_module, make_data, fit):
    record = Recorder()
    module = make_module(optim=OptimSettings(num_minibatches=2, num_epochs=2))
    fit(module, make_data(), record)
    assert [m["step"] for m in record.history] == [1, 2, 3]
    assert module.rl_step == 3 and module.global_step == 3 * 2 * 2
    for metrics in record.history:
        assert metrics["train/rollout_gap_max"] < 1e-5
        assert metrics["train/drift"] == metrics["train/skipped_updates"] == metrics["train/zero_signal_groups"] == 0
        assert metrics["train/grad_norm"] > 0


@pytest.mark.parametrize("memory", ["mem1", "full", "none", "summary", "amem"])
@pytest.mark.parametrize("layout", ["tree", "rows"])
def test_every_layout_and_memory_mode_trains_on_what_it_sampled(make_module, make_data, fit, memory, layout):
    record = Recorder()
    fit(make_module(memory=memory, layout=layout), make_data(num_rl_steps=1, num_val_tasks=0), record)
    assert record.history[0]["train/rollout_gap_max"] < 1e-5
    assert record.history[0]["train/drift"] == 0


def test_memories_written_apart_are_learnt_from_with_the_acts(make_module, make_data, fit):
    module, callbacks = make_module(memory="summary"), (RolloutCallback(), MetricsCallback())
    trainer = fit(module, make_data(LongTasks(), num_rl_steps=1, num_val_tasks=0), *callbacks)
    metrics = trainer.callback_metrics
    assert max(metrics[f"train/rollout_gap_turn_{turn}"] for turn in range(7)) < 1e-5  # four acts, three memories
    assert "train/rollout_gap_turn_7" not in metrics
    assert metrics["train/drift"] == 0 and metrics["train/grad_norm"] > 0
    assert metrics["rollout/turns"] == 4
    assert metrics["memory/peak_tokens_max"] == metrics["memory/context_tokens_turn_2"] + 6  # where M2 is written
    assert metrics["train/entropy_state"] > 0


@pytest.mark.parametrize(("layout", "first_inexact"), [("stitched", 2), ("official", 1)])
def test_a_single_copy_trains_and_tells_by_turn_how_far_it_is_from_the_rollout(
    make_module, make_data, fit, layout, first_inexact
):
    record, module = Recorder(), make_module(layout=layout, optim=OptimSettings(num_minibatches=2))
    before = adapter(module)
    fit(module, make_data(LongTasks(), num_rl_steps=2, num_val_tasks=0), record)
    assert not same(before, adapter(module))
    for metrics in record.history:
        gaps = [metrics[f"train/rollout_gap_turn_{turn}"] for turn in range(4)]
        assert max(gaps[:first_inexact]) < 1e-5 and min(gaps[first_inexact:]) > 1e-3
        assert metrics["train/rollout_gap_max"] > metrics["train/rollout_gap_mean"] > 1e-3
        assert metrics["train/rollout_gap_p99"] > metrics["train/rollout_gap_mean"]
        assert 0 < metrics["train/ratio_outside_clip"] < 1
        assert metrics["train/drift"] == metrics["train/skipped_updates"] == 0
        assert metrics["train/grad_norm"] > 0


def test_the_same_seed_twice_gives_the_same_metrics_to_the_last_digit(make_module, make_data, fit):
    runs = []
    for _ in range(2):
        torch.manual_seed(torch.randint(1000, ()).item())  # what ran before must not matter
        record = Recorder()
        module = make_module(optim=OptimSettings(num_minibatches=2))
        fit(module, make_data(), record)
        runs.append((record.history, adapter(module)))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])


def test_another_seed_gives_other_trajectories(make_module, make_data, fit):
    losses = []
    for seed in (0, 1):
        record = Recorder()
        fit(make_module(seed=seed), make_data(num_rl_steps=1), record)
        losses.append(record.history[0]["train/grad_norm"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("stop_at", [1, 2])
def test_a_resumed_run_equals_the_uninterrupted_one(make_module, make_data, fit, tmp_path, stop_at):
    optim = OptimSettings(num_minibatches=2, warmup_steps=3)
    settings = {"optim": optim, "lora": LoraSettings(r=4, alpha=8, dropout=0.1)}
    torch.manual_seed(0)  # dropout draws from the global state, which goes on where it stopped
    whole, module = Recorder(), make_module(**settings)
    fit(module, make_data(num_rl_steps=3), whole)
    torch.manual_seed(0)
    part, checkpoint = make_module(**settings), RLCheckpoint(str(tmp_path / "part"))
    fit(part, make_data(num_rl_steps=stop_at), Recorder(), checkpoint, enable_checkpointing=True)
    torch.manual_seed(1)
    rest, resumed = Recorder(), make_module(**settings)
    fit(resumed, make_data(num_rl_steps=3), rest, ckpt_path=str(checkpoint.last_path))
    assert rest.history == whole.history[stop_at:]
    assert same(adapter(resumed), adapter(module))


def test_an_information_id_changed_after_the_rollout_is_counted_as_drift(make_module, make_data, fit):
    def spoil(trajectories):
        trajectories[4].turns[0].information_ids[0] += 1

    record = Recorder(spoil)
    fit(make_module(), make_data(num_rl_steps=1, num_val_tasks=0), record)
    assert record.history[0]["train/drift"] == 1  # the one turn that stands behind the changed reply


def test_contexts_that_never_fit_end_the_run_with_the_setting_to_raise(make_module, make_data, fit):
    module = make_module(engine=EngineSettings(num_slots=8, max_context_tokens=8))
    with pytest.raises(ValueError, match="got all 6 trajectories of rl_step 1 cut off at 8 tokens; raise model.engine"):
        fit(module, make_data(num_val_tasks=0))


class Validated(RolloutCallback):
    """Notes which rl_steps were validated to the end; somebody presses Ctrl-C after rl_step 2, while it is `busy`."""

    def __init__(self, busy=""):
        super().__init__()
        self.busy, self.seen = busy, []

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if pl_module.rl_step == 2 and self.busy == "validating":
            raise KeyboardInterrupt
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.rl_step == 2 and self.busy == "training":
            raise KeyboardInterrupt
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_validation_end(self, trainer, pl_module):
        self.seen.append(pl_module.rl_step)
        super().on_validation_end(trainer, pl_module)


@pytest.mark.parametrize(
    ("busy", "before", "after"),
    [("validating", [0], [2, 3]), ("training", [0, 2], [3])],
)
def test_a_validation_is_done_once_whenever_the_run_was_stopped(
    make_module, make_data, fit, tmp_path, busy, before, after
):
    settings = {"enable_checkpointing": True, "val_check_interval": 2}
    first, checkpoint = Validated(busy), RLCheckpoint(str(tmp_path / "part"))
    with pytest.raises(SystemExit):
        fit(make_module(), make_data(), first, checkpoint, **settings)
    rest, path = Validated(), str(checkpoint.last_path)
    fit(make_module(), make_data(), rest, RLCheckpoint(str(tmp_path / "rest")), ckpt_path=path, **settings)
    assert (first.seen, rest.seen) == (before, after)


def test_a_checkpoint_holds_the_adapter_and_not_the_base(make_module, make_data, fit, tmp_path):
    module, checkpoint = make_module(), RLCheckpoint(str(tmp_path))
    fit(module, make_data(num_rl_steps=1), checkpoint, enable_checkpointing=True)
    content = torch.load(checkpoint.last_path, weights_only=True)
    assert content["state_dict"].keys() == {f"policy.{name}" for name in adapter(module)}
    assert all("lora" in name for name in content["state_dict"])
    assert content["lightning_mem1"]["rl_step"] == 1


def test_a_checkpoint_of_another_base_is_refused(make_module, make_data, fit, tmp_path):
    from tiny import tiny_policy

    module, checkpoint = make_module(), RLCheckpoint(str(tmp_path))
    fit(module, make_data(num_rl_steps=1), checkpoint, enable_checkpointing=True)
    tiny_policy(seed=1).save(tmp_path / "other")
    with pytest.raises(ValueError, match="checkpoint belongs to another base policy: expected '.*other'"):
        fit(make_module(policy=str(tmp_path / "other")), make_data(), ckpt_path=str(checkpoint.last_path))


def test_a_checkpoint_of_another_scale_is_refused(make_module, make_data, fit, tmp_path):
    module, checkpoint = make_module(lora=LoraSettings(r=4, alpha=8)), RLCheckpoint(str(tmp_path))
    fit(module, make_data(num_rl_steps=1), checkpoint, enable_checkpointing=True)
    with pytest.raises(ValueError, match=r"another scale: expected model\.lora\.alpha 8, got 16"):
        fit(make_module(lora=LoraSettings(r=4, alpha=16)), make_data(), ckpt_path=str(checkpoint.last_path))


def test_groups_of_equal_rewards_change_nothing(make_module, make_data, fit):
    record, module = Recorder(), make_module()
    before = adapter(module)
    fit(module, make_data(RankedTasks(equal=True), num_rl_steps=2), record)
    assert [m["train/zero_signal_groups"] for m in record.history] == [2, 2]
    assert all(0 < m["train/rollout_gap_max"] < 1e-5 for m in record.history)  # measured all the same
    assert same(before, adapter(module))


def test_leaving_silent_groups_out_of_the_pass_gives_the_same_step(make_module, make_data, fit):
    """An entropy bonus of almost nothing makes every trajectory be scored; the step must not notice."""

    def silence_one_group(trajectories):
        for t in trajectories:
            if t.group == 0:
                t.turns[-1].reward = 0.5

    moved = []
    for entropy_coef in (0.0, 1e-30):
        module = make_module(loss=LossSettings(entropy_coef=entropy_coef))
        fit(module, make_data(num_rl_steps=1, num_val_tasks=0), Recorder(silence_one_group))
        moved.append(adapter(module))
    for name in moved[0]:
        torch.testing.assert_close(moved[0][name], moved[1][name], rtol=0, atol=1e-6)


def test_small_passes_give_the_same_step_as_one_large_pass(make_module, make_data, fit):
    moved = []
    for tokens in (100, 100_000):
        module = make_module(max_tokens_per_microbatch=tokens, loss_unit="turn")
        fit(module, make_data(num_rl_steps=1, num_val_tasks=0))
        moved.append(adapter(module))
    for name in moved[0]:
        torch.testing.assert_close(moved[0][name], moved[1][name], rtol=0, atol=1e-5)


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(make_module, make_data, fit):
    def spoil(trajectories):
        trajectories[0].turns[0].action_logprobs[0] = float("nan")

    record, module = Recorder(spoil), make_module()
    before = adapter(module)
    fit(module, make_data(num_rl_steps=2), record)
    assert [m["train/skipped_updates"] for m in record.history] == [1, 1]
    assert same(before, adapter(module)) and module.rl_step == 2


def test_kl_to_the_reference_is_measured_against_the_adapter_switched_off(make_module, make_data, fit):
    record = Recorder()
    fit(make_module(loss=LossSettings(kl_coef=0.1)), make_data(num_rl_steps=2), record)
    assert record.history[0]["train/kl_reference"] == pytest.approx(0, abs=1e-6)  # B = 0 at the start
    assert record.history[1]["train/kl_reference"] > 1e-5


def test_the_learning_rate_rises_over_rl_steps(make_module, make_data, fit):
    record = Recorder()
    fit(make_module(lr=0.01, optim=OptimSettings(warmup_steps=2)), make_data(), record)
    assert [m["train/lr"] for m in record.history] == pytest.approx([0.005, 0.01, 0.01])


def test_a_broken_episode_is_counted_and_teaches_nothing(make_module, make_data, fit):
    record = Recorder()
    trainer = fit(make_module(), make_data(BrokenTasks(), num_rl_steps=1), record)
    assert float(trainer.callback_metrics["rollout/stop_error"]) == pytest.approx(1 / 3)
    assert record.history[0]["train/grad_norm"] > 0


def test_advantages_leave_broken_episodes_out_of_the_comparison(make_module):
    module = make_module(credit=CreditSettings(scale="none"))
    played = [
        trajectory(task(0), 1.0, group=0),
        trajectory(task(0), 0.0, group=0),
        trajectory(task(0), 0.0, group=0, stop=StopReason.ERROR),
        trajectory(task(1), 1.0, group=1),
        trajectory(task(1), 0.0, group=1, stop=StopReason.ERROR),  # the last one left is compared with nobody
    ]
    credit = TokenCredit.cat(module.credit_assigner.assign(played, {}))
    assert credit.advantages.tolist() == [0.5, -0.5, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("dr_grpo", [1 / 3, 1 / 3, -2 / 3, 0.0]),  # mean 2/3 of three; as a reward of 0 it would be 1/2 of four
        ("rloo", [1 / 2, 1 / 2, -1.0, 0.0]),
        ("grpo", [0.577349, 0.577349, -1.154699, 0.0]),  # deviation 0.577350
        ("raft", [1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_an_environment_that_fails_in_one_of_four_episodes_is_no_reward_of_0(make_module, algorithm, expected):
    stops = [StopReason.DONE] * 3 + [StopReason.ERROR]
    played = [
        trajectory(task(0), reward, 0, stop=stop) for reward, stop in zip((1.0, 1.0, 0.0, 0.0), stops, strict=True)
    ]
    credit = TokenCredit.cat(make_module(algorithm=algorithm).credit_assigner.assign(played, {}))
    assert credit.advantages.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("layout", ["tree", "rows"])
@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "grpo"])
def test_every_algorithm_takes_steps_on_what_it_sampled(make_module, make_data, fit, algorithm, layout):
    record = Recorder()
    module = make_module(algorithm=algorithm, layout=layout, optim=OptimSettings(num_minibatches=2))
    fit(module, make_data(num_rl_steps=2, num_val_tasks=0), record)
    for metrics in record.history:
        assert metrics["train/rollout_gap_max"] < 1e-5 and metrics["train/grad_norm"] > 0
        assert metrics["train/skipped_updates"] == 0


@pytest.mark.parametrize("algorithm", ["grpo", "reinforce_pp"])
def test_kl_in_the_reward_is_measured_before_the_update(make_module, make_data, fit, algorithm):
    record = Recorder()
    loss = LossSettings(kl_coef=0.1, kl_in="reward", kl_estimator="k3")
    fit(make_module(algorithm=algorithm, loss=loss), make_data(num_rl_steps=2), record)
    assert record.history[0]["train/kl_reference"] == pytest.approx(0, abs=1e-6)
    assert record.history[1]["train/kl_reference"] > 1e-5


def spoil_two(trajectories):
    trajectories[0].turns[0].reward = float("nan")
    trajectories[1].turns[-1].action_ids, trajectories[1].turns[-1].action_logprobs = [], []
    for turn in trajectories[1].turns:
        turn.action_ids, turn.action_logprobs, turn.context_hash = [], [], None


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_bad_rewards_and_empty_trajectories_are_counted_and_never_reach_the_weights(
    make_module, make_data, fit, algorithm
):
    record, module = Recorder(spoil_two), make_module(algorithm=algorithm)
    fit(module, make_data(num_rl_steps=1, num_val_tasks=0, group_size=4), record)
    metrics = record.history[0]
    assert (metrics["train/bad_rewards"], metrics["train/empty_trajectories"]) == (1, 1)
    assert metrics["train/skipped_updates"] == 0 and metrics["train/grad_norm"] > 0
    assert all(torch.isfinite(tensor).all() for tensor in adapter(module).values())


def test_a_group_of_one_keeps_its_raw_reward_and_is_counted(make_module, make_data, fit):
    record, module = Recorder(), make_module(algorithm="reinforce_pp")
    fit(module, make_data(num_rl_steps=1, num_val_tasks=0, group_size=1, tasks_per_step=3), record)
    assert record.history[0]["train/lone_groups"] == 3


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "dapo", "gigpo", "raft"])
def test_groups_of_one_are_refused_where_groups_are_compared(make_module, make_data, fit, algorithm):
    message = f"nothing to compare: expected data.group_size 2 or more, since {algorithm} compares the episodes"
    with pytest.raises(ValueError, match=message):
        fit(make_module(algorithm=algorithm), make_data(num_rl_steps=1, group_size=1))


def test_a_reward_that_is_imitated_from_a_threshold_on_needs_no_group(make_module, make_data, fit):
    module = make_module(algorithm="raft", credit={"threshold": 0.0, "keep": None})
    fit(module, make_data(num_rl_steps=1, num_val_tasks=0, group_size=1))
    assert module.rl_step == 1


@pytest.mark.parametrize("settings", [{"loss": {"drop_silent": True}}, {"algorithm": "dapo"}])
def test_groups_without_a_signal_dilute_the_loss_unless_they_are_dropped(make_module, make_data, fit, settings):
    """All turns are six tokens and all episodes two turns long, so that every unit counts the same."""
    norms = []
    for given in ({}, settings):

        def silence(trajectories):
            for t in trajectories:
                if t.group == 0:
                    t.turns[-1].reward = 0.5 - sum(turn.reward for turn in t.turns[:-1])

        record = Recorder(silence)
        module = make_module(loss_unit="trajectory", **given)
        fit(module, make_data(num_rl_steps=1, num_val_tasks=0), record)
        assert record.history[0]["train/zero_signal_groups"] == 1
        norms.append(record.history[0]["train/grad_norm"])
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-4)  # three trajectories of six count


def test_silent_groups_are_played_again_within_the_rl_step(make_module, make_data, fit):
    class Silent(RankedTasks):
        """The first six environments give the same reward, later ones their own."""

        num_made = 0

        def env(self, task):
            self.num_made += 1
            env = super().env(task)
            if self.num_made <= 6:
                step = env.step
                env.step = lambda action: replace(step(action), reward=0.0)
            return env

    rollout = RolloutSettings(max_new_tokens=6, max_information_tokens=40, prompt="brief", resample_rounds=1)
    source, module = Silent(), make_module(algorithm="dapo", rollout=rollout)
    logged = fit(module, make_data(source, num_rl_steps=1, num_val_tasks=0)).callback_metrics
    assert source.num_made == 12
    assert float(logged["rollout/resampled_groups"]) == 2
    assert float(logged["train/zero_signal_groups"]) == 0


def test_the_weight_on_internal_state_tokens_shares_the_pull(make_module, make_data, fit):
    record = Recorder()
    fit(make_module(loss=LossSettings(state_weight=0.0)), make_data(num_rl_steps=1, num_val_tasks=0), record)
    assert record.history[0].get("train/gradient_share_state", 0.0) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory": "mem2"}, "unknown memory mode: expected one of mem1, .*, got 'mem2'; set model.memory"),
        (
            {"layout": "bush"},
            "unknown layout: expected one of tree, rows, stitched, official, got 'bush'; set model.layout",
        ),
        ({"layout": "official", "memory": "none"}, "layout official knows one memory mode: expected mem1, got 'none'"),
        (
            {"algorithm": "ppo2"},
            "unknown algorithm: expected one of grpo, .*, got 'ppo2'; set model.algorithm",
        ),
        ({"optim": OptimSettings(num_epochs=0)}, "model.optim.num_epochs too small: expected at least 1, got 0"),
        ({"lr": -1.0}, "model.lr too small: expected at least 0, got -1.0; set model.lr"),
        ({"lr": float("nan")}, "model.lr is no number: expected at least 0, got nan; set model.lr"),
        ({"lora": LoraSettings(r=0)}, "model.lora.r too small: expected at least 1, got 0; set model.lora.r"),
        ({"engine": EngineSettings(num_slots=0)}, "model.engine.num_slots too small: expected at least 1, got 0"),
        (
            {"compute": ComputeSettings(kernels="cutlass")},
            "unknown kernels: expected one of torch, liger, got 'cutlass'; set model.compute.kernels",
        ),
        (
            {"loss_unit": "word"},
            "unknown loss unit: expected one of token, turn, trajectory, got 'word'; set model.loss",
        ),
        (
            {"rollout": RolloutSettings(resample_rounds=-1)},
            "model.rollout.resample_rounds too small: expected at least",
        ),
        ({"engine": EngineSettings(prefill_interval=0)}, "model.engine.prefill_interval too small: expected at"),
        ({"engine": EngineSettings(max_prefill_tokens=0)}, "model.engine.max_prefill_tokens too small: expected at"),
        ({"engine": EngineSettings(max_context_tokens=0)}, "model.engine.max_context_tokens too small: expected at"),
        ({"engine": EngineSettings(max_context_tokens=256)}, "no room for a context: .*max_new_tokens, 256, got 256"),
        ({"rollout": RolloutSettings(max_new_tokens=0)}, "model.rollout.max_new_tokens too small: expected at least 1"),
        ({"rollout": RolloutSettings(max_information_tokens=15)}, "max_information_tokens too small: .* at least 16"),
        (
            {"rollout": RolloutSettings(top_p=0.0)},
            "top_p too small: expected more than 0, got 0.0; set model.rollout.top_p",
        ),
        (
            {"rollout": RolloutSettings(top_p=1.5)},
            "top_p too large: expected at most 1, got 1.5; set model.rollout.top_p",
        ),
        (
            {"rollout": RolloutSettings(prompt="long")},
            "unknown prompt style: expected one of full, brief, got 'long'; set",
        ),
        (
            {"rollout": RolloutSettings(env_timeout_s=0)},
            "env_timeout_s too small: expected more than 0, got 0; set model",
        ),
        ({"rollout": RolloutSettings(temperature=0.0)}, "training needs sampling: expected a temperature above 0"),
        ({"loss": LossSettings(kl_coef=0.1), "lora": None}, "no reference policy: expected an adapter"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Mem1Module(**settings)


def test_a_batch_without_trajectories_names_the_missing_callback(make_module, make_data):
    from lightning_mem1.data.task_data import TaskBatch

    with pytest.raises(ValueError, match="rl_step 1 has no trajectories: expected RolloutCallback"):
        make_module().training_step(TaskBatch(1, [], []), 0)
