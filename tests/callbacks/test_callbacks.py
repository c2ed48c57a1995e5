"""The callbacks: what they play, log, write and print."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch

from lightning_mem1.callbacks import (
    MetricsCallback,
    PicturesCallback,
    ProgressCallback,
    RLCheckpoint,
    RolloutCallback,
    TranscriptCallback,
)
from lightning_mem1.callbacks.collector import Collector
from lightning_mem1.callbacks.metrics import outcome_numbers
from lightning_mem1.callbacks.pictures import of_batch
from lightning_mem1.callbacks.transcripts import known_advantages
from lightning_mem1.context.internal_state import state_span
from lightning_mem1.context.tags import printable
from lightning_mem1.data.task_data import TaskBatch
from lightning_mem1.evaluation.measures import cost
from lightning_mem1.evaluation.metrics import ContextByTurn
from lightning_mem1.evaluation.transcript import readable, transcript
from lightning_mem1.evaluation.view import View
from lightning_mem1.rollout.seeds import trajectory_seed
from lightning_mem1.training.credit.algorithms import CreditSettings
from lightning_mem1.training.settings import LossSettings
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task
from tiny_tasks import InterruptedTasks, RankedTasks


class Keeper(RolloutCallback):
    """Keeps what was played."""

    def __init__(self):
        super().__init__()
        self.trained, self.validated = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.trained.append(batch)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        self.validated.append((pl_module.rl_step, batch.trajectories))


class Scores(MetricsCallback):
    """Validation rewards that rise and then fall."""

    def on_validation_epoch_end(self, trainer, pl_module):
        self.score = [0.3, 0.5, 0.9, 0.4][pl_module.rl_step]
        super().on_validation_epoch_end(trainer, pl_module)

    def _flush(self, prefix, *more):
        metrics = super()._flush(prefix, *more)
        return {**metrics, "val/reward": self.score} if prefix == "val" else metrics


def sampled(trajectories):
    return [[turn.action_ids for turn in t.turns] for t in trajectories]


def test_a_task_is_played_group_size_times_with_seeds_of_its_own(make_module, make_data, fit):
    keeper = Keeper()
    fit(make_module(), make_data(num_rl_steps=2), keeper)
    first = keeper.trained[0].trajectories
    assert [t.group for t in first] == [0, 0, 0, 1, 1, 1]
    assert [t.task.id for t in first[::3]] == [t.id for t in keeper.trained[0].tasks]
    seeds = [t.seed for batch in keeper.trained for t in batch.trajectories]
    assert len(set(seeds)) == 12
    assert seeds[4] == trajectory_seed(seed=0, rl_step=1, position=1, sample=1)
    assert len({str(ids) for ids in sampled(first)}) > 1


def test_a_trajectory_does_not_depend_on_who_plays_the_other_tasks(make_module, make_data, fit):
    """Two ranks would each play half of these tasks; here one task is played without its neighbour."""
    from lightning_mem1.data.task_data import TaskBatch

    keeper, module, data = Keeper(), make_module(), make_data(num_rl_steps=1, num_val_tasks=0)
    weights = {}

    class Before(MetricsCallback):
        def on_train_start(self, trainer, pl_module):
            weights.update(pl_module.policy.adapter_state())

    fit(module, data, keeper, Before())
    both = keeper.trained[0]
    module.policy.load_adapter_state(weights)
    alone = TaskBatch(1, both.tasks[1:], both.positions[1:])
    played = Collector(module, make_data()).play(alone, 3, module.rollout_settings)
    assert sampled(played) == sampled(both.trajectories[3:])


def test_validation_is_greedy_on_the_same_tasks_before_during_and_after(make_module, make_data, fit):
    keeper = Keeper()
    fit(make_module(lr=0.0), make_data(num_rl_steps=3), keeper, val_check_interval=2)
    assert [rl_step for rl_step, _ in keeper.validated] == [0, 2, 3]
    first, second, last = (sampled(played) for _, played in keeper.validated)
    assert first == second == last and len(first) == 4


def test_outcomes_count_every_trajectory_and_every_turn():
    won = Trajectory(task(0), [1], [Turn([2], [0.0], valid=False), Turn([2], [0.0], reward=1.0)], StopReason.DONE)
    won.turns[-1].info = {"success": 1.0}
    lost = Trajectory(task(0), [1], [Turn([2], [0.0])], StopReason.MAX_TURNS)
    broken = Trajectory(task(1), [1], [], StopReason.ERROR, group=1)
    numbers = outcome_numbers([won, lost, broken])
    assert numbers["reward"] == [1.0, 0.0, 0.0]
    assert numbers["success"] == [1.0, 0.0, 0.0]
    assert numbers["group_std"] == [0.5]  # who failed is compared with nobody
    assert numbers["invalid_action_rate"] == [1.0, 0.0, 0.0]
    assert numbers["turns"] == [2.0, 1.0, 0.0]
    assert numbers["stop_error"] == [0.0, 0.0, 1.0]


def test_an_environment_that_fails_once_is_no_reward_of_0_in_its_group():
    stops = [StopReason.DONE] * 3 + [StopReason.ERROR]
    played = [Trajectory(task(0), [1], [Turn([2], [0.0], reward=1.0)], stop) for stop in stops]
    played[3].turns[0].reward = 0.0
    assert outcome_numbers(played)["group_std"] == [0.0]


def test_a_reward_that_is_no_number_is_told_and_its_group_still_has_a_deviation():
    played = [Trajectory(task(0), [1], [Turn([2], [0.0], reward=r)], StopReason.DONE) for r in (float("nan"), 1.0, 3.0)]
    played.append(replace(played[0], group=1))
    numbers = outcome_numbers(played)
    assert [math.isnan(reward) for reward in numbers["reward"]] == [True, False, False, True]
    assert numbers["group_std"] == [1.0]


def test_context_by_turn_averages_over_the_trajectories_that_got_there():
    metric = ContextByTurn()
    metric.update([[10, 20, 30], [20]])
    assert metric.compute() == {0: 15.0, 1: 20.0, 2: 30.0}


def test_an_internal_state_that_was_cut_off_counts_to_the_end_of_the_turn():
    def count(text):
        start, end = state_span([ord(c) for c in text], lambda ids: "".join(map(chr, ids)), "s")
        return end - start

    assert count("<s>red</s><a>x</a>") == 3
    assert count("<s>red shoes and") == 13
    assert count("<s></s>") == 0 and count("no state") == 0 and count("") == 0
    assert count("so <s>red</s> and <s>blue</s>") == 3


def test_internal_states_are_counted_in_the_ids_that_were_sampled(make_module):
    module = make_module()
    encode = module.policy.tokenizer.encode
    opening, state = encode("<summary>"), encode("red") + encode(" shoes")
    closed = [*opening, *state, *encode("</summary>"), *encode("<answer>")]
    turns = [Turn(ids, [0.0] * len(ids)) for ids in (closed, [*opening, *state, *state])]
    played = Trajectory(task(0), [1], turns, StopReason.DONE)
    found = cost(played, View(module.encoder.decode, module.rollout_settings.tags))
    assert found["internal_state_tokens"] == [len(state), 2 * len(state)]


def test_an_environment_that_cannot_be_made_ends_its_own_episode(make_module, make_data, fit):
    class Unmakeable(RankedTasks):
        def env(self, task):
            env = super().env(task)
            if env.reward == 0.0:
                raise RuntimeError("no such shop")
            return env

    keeper = Keeper()
    fit(make_module(), make_data(Unmakeable(), num_rl_steps=1), keeper)
    played = keeper.trained[0].trajectories
    assert [t.stop_reason for t in played[:3]] == [StopReason.ERROR, StopReason.DONE, StopReason.DONE]
    assert played[0].error == "RuntimeError: no such shop" and played[0].turns == []


def test_validation_lets_go_of_what_it_played(make_module, make_data, fit):
    class Batches(MetricsCallback):
        seen = ()

        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
            self.seen = (*self.seen, batch)
            super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    batches = Batches()
    fit(make_module(), make_data(num_rl_steps=1, val_batch_size=2), batches)
    assert len(batches.seen) == 4 and all(batch.trajectories == [] for batch in batches.seen)


def test_metrics_of_training_and_validation_are_logged_beside_the_baselines(make_module, make_data, fit):
    trainer = fit(make_module(), make_data(num_rl_steps=1), MetricsCallback())
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["rollout/reward"] == pytest.approx(0.5)  # paid 0, 0.5 and 1 in every group
    assert metrics["rollout/reward_std"] == pytest.approx((1 / 6) ** 0.5)
    assert metrics["rollout/success"] == pytest.approx(1 / 3)
    assert metrics["rollout/turns"] == 2 and metrics["rollout/stop_done"] == 1
    assert metrics["val/reward"] == 0.5
    assert (metrics["val/baseline_rule"], metrics["val/baseline_oracle"]) == (0.25, 1.0)
    assert metrics["val/peak_tokens_mean"] == metrics["val/context_tokens_turn_1"] + 6  # every turn writes 6 tokens
    assert metrics["val/peak_tokens_mean"] - metrics["val/peak_tokens_without_prompt_mean"] > 6  # the prompt
    # 2 (keys, values) x 2 layers x 8 slots x 2 heads x 160 tokens x 8 numbers x 4 bytes
    assert metrics["memory/engine_kv_mib"] * 2**20 == 2 * 2 * 8 * 2 * 160 * 8 * 4


def test_transcripts_tell_each_turn_and_what_was_dropped(make_module, make_data, fit, tmp_path):
    fit(make_module(), make_data(num_rl_steps=1), TranscriptCallback(num_trajectories=2))
    names = {path.name for path in (tmp_path / "transcripts").iterdir()}
    steps, ends = ("train_00001", "val_00000", "val_00001"), ("jsonl", "txt", "html")
    assert names == {f"{step}.{end}" for step in steps for end in ends}
    lines = (tmp_path / "transcripts" / "train_00001.jsonl").read_text().splitlines()
    record = json.loads(lines[0])
    assert len(lines) == 2 and len(record["turns"]) == 2
    assert record["turns"][0]["information"].endswith("red shoes")
    assert record["memory"] == "mem1" and record["stop_reason"] == "done"


def test_a_page_of_what_is_learnt_from_holds_advantages_and_one_of_validation_none(
    make_module, make_data, fit, tmp_path
):
    fit(
        make_module(credit=CreditSettings(scale="none")),
        make_data(num_rl_steps=1),
        TranscriptCallback(num_page_trajectories=5),
    )

    def shown(name: str) -> list:
        text = (tmp_path / "transcripts" / name).read_text()
        return json.loads(re.search(r'id="data">(.*?)</script>', text)[1])["episodes"]

    train = shown("train_00001.html")
    assert [t["reward"] for t in train] == [0.0, 0.5, 1.0, 0.0, 0.5]  # of two groups of three
    assert [t["turns"][0]["advantages"][0] for t in train] == [-0.5, 0.0, 0.5, -0.5, 0.0]  # against the group's mean
    assert len(train[0]["turns"][0]["logprobs"]) == 6 and train[0]["turns"][1]["context"][1][:2] == ["turn", 0]
    assert "1 more left out" in (tmp_path / "transcripts" / "train_00001.html").read_text()
    assert [t["turns"][0]["advantages"] for t in shown("val_00001.html")] == [None] * 4


def test_advantages_that_take_a_forward_pass_or_other_ranks_are_not_known(make_module):
    turns = [Turn([5], [0.0])]
    batch = [Trajectory(task(0), [1], turns, StopReason.DONE)]
    for settings in (
        {"algorithm": "ppo"},
        {"algorithm": "reinforce_pp"},
        {"loss": LossSettings(kl_coef=0.1, kl_in="reward")},
    ):
        assert known_advantages(batch, make_module(**settings)) is None


def test_a_resumed_run_draws_the_whole_curve(make_module, make_data, fit, tmp_path):
    first = PicturesCallback()
    fit(make_module(), make_data(num_rl_steps=1), MetricsCallback(), first, RLCheckpoint(), enable_checkpointing=True)
    again = PicturesCallback()
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    callbacks = MetricsCallback(), again, RLCheckpoint()
    fit(make_module(), make_data(num_rl_steps=2), *callbacks, ckpt_path=last, enable_checkpointing=True)
    steps = [(point["rl_step"], "val/reward" in point) for point in again.points]
    assert steps == [(0.0, True), (1.0, False), (1.0, True), (2.0, False), (2.0, True)]
    assert again.points[:3] == first.points and first.points[1]["rollout/reward"] == pytest.approx(0.5)
    assert (tmp_path / "pictures" / "curve.png").is_file()


def test_the_pictured_trajectory_is_one_that_teaches_something(make_module):
    played = [Turn([5, 6], [0.0] * 2, [8]), Turn([5], [0.0])]
    paid = [Turn([5, 6], [0.0] * 2, reward=1.0)]
    silent = [Trajectory(task(1), [1], [*played, *played], StopReason.DONE, group=1) for _ in range(2)]
    loud = [Trajectory(task(0), [1], turns, StopReason.DONE) for turns in (paid, played)]
    batch = TaskBatch(1, [], [])
    assert of_batch(batch, make_module()) == {}
    batch.trajectories = [*silent, *loud]
    figures = of_batch(batch, make_module(credit=CreditSettings(scale="none")))
    assert figures["advantages"].axes[0].get_title() == "tiny/0, reward 0.00"
    assert figures["advantages"].axes[0].get_lines()[0].get_ydata().tolist() == [-0.5, -0.5, -0.5]
    assert len(figures["layouts"].axes) == 4


def test_dropped_tokens_are_the_turns_that_memory_mode_mem1_no_longer_shows(make_module):
    turns = [Turn([5, 6, 7], [0.0] * 3, [8, 9]), Turn([5], [0.0], [8]), Turn([5], [0.0])]
    record = transcript(Trajectory(task(0), [1, 2], turns, StopReason.DONE), make_module())
    assert [turn["context_tokens"] for turn in record["turns"]] == [2, 7, 4]
    assert [turn["dropped_tokens"] for turn in record["turns"]] == [0, 0, 5]


def test_a_memory_written_apart_stands_behind_its_turn_in_a_transcript(make_module):
    module = make_module(memory="summary")
    opening, words = (module.policy.tokenizer.encode(text) for text in ("<summary>", "red</summary>"))
    turns = [
        Turn([5, 6, 7], [0.0] * 3, [8, 9], action="a"),
        Turn(words, [0.0] * len(words), kind="memory", opening_ids=opening),
        Turn([5], [0.0], action="b"),
    ]
    record = transcript(Trajectory(task(0), [1, 2], turns, StopReason.DONE), module)
    assert [(turn["turn"], turn["kind"]) for turn in record["turns"]] == [(0, "act"), (0, "memory"), (1, "act")]
    assert [turn["context_tokens"] for turn in record["turns"]] == [2, 2 + 5 + 1, 2 + 1 + len(words) + 2]
    assert [turn["dropped_tokens"] for turn in record["turns"]] == [0, 0, 3]
    assert record["turns"][1]["internal_state"] == "red"
    told = readable(record)
    assert told.count("--- turn ") == 2 and "--- memory after turn 0: saw 8 tokens, 0 dropped" in told
    assert "internal state: red" in told and told.count("action: ") == 2


def test_what_a_policy_wrote_cannot_move_the_cursor_of_a_terminal(make_module):
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\nc"
    turn = Turn([5], [0.0], action="\x1b]0;title\x07", information="\x1b[31mred")
    record = transcript(Trajectory(task(0), [1], [turn], StopReason.DONE), make_module())
    assert "\x1b" not in readable(record) and "\x07" not in readable(record)


def test_progress_prints_a_line_per_rl_step_and_the_way_from_first_to_last(make_module, make_data, fit, capsys):
    fit(make_module(), make_data(num_rl_steps=2), Scores(), ProgressCallback())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("grpo, memory mem1, 2 tasks x 3 episodes per rl_step")
    assert lines[0].endswith("; in the loss every token counts the same, in its paper every trajectory")
    assert lines[1].startswith("val     0  reward 0.300")
    assert lines[2].startswith("step    1/2  reward 0.500  success 0.33  peak")
    assert "tokens/s" in lines[2] and "ETA" in lines[2]
    assert lines[-1] == "val reward 0.30 -> 0.90  (rule 0.25, oracle 1.00)"


def test_best_is_the_checkpoint_of_the_best_validation(make_module, make_data, fit, tmp_path):
    checkpoint = RLCheckpoint()
    fit(make_module(), make_data(), Scores(), checkpoint, enable_checkpointing=True, val_check_interval=1)
    steps = [
        torch.load(p, weights_only=True)["lightning_mem1"]["rl_step"]
        for p in (checkpoint.best_path, checkpoint.last_path)
    ]
    assert steps == [2, 3] and checkpoint.best == pytest.approx(0.9)
    assert not list(tmp_path.glob("**/*.tmp"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def rl_step(path):
    return torch.load(path, weights_only=True)["lightning_mem1"]["rl_step"]


def test_best_is_there_after_the_first_validation_and_a_run_starts_from_it_as_from_the_beginning(
    make_module, make_data, fit, tmp_path
):
    whole, checkpoint = make_module(), RLCheckpoint(str(tmp_path / "whole"), save_adapter=False)
    fit(whole, make_data(), MetricsCallback(), checkpoint, enable_checkpointing=True)  # 0.5 in every validation
    assert (rl_step(checkpoint.best_path), rl_step(checkpoint.last_path), checkpoint.best) == (0, 3, 0.5)
    again, second = make_module(), RLCheckpoint(str(tmp_path / "again"), save_adapter=False)
    best = str(checkpoint.best_path)
    fit(again, make_data(), MetricsCallback(), second, enable_checkpointing=True, ckpt_path=best)
    assert again.rl_step == 3
    expected, found = whole.policy.adapter_state(), again.policy.adapter_state()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_that_resumes_in_another_folder_has_a_best_there_whatever_the_score_was_before(
    make_module, make_data, fit, tmp_path
):
    first = RLCheckpoint(str(tmp_path / "first"), save_adapter=False)
    often = {"enable_checkpointing": True, "val_check_interval": 1}
    fit(make_module(), make_data(num_rl_steps=2), Scores(), first, **often)
    assert (first.best, rl_step(first.best_path)) == (pytest.approx(0.9), 2)
    second = RLCheckpoint(str(tmp_path / "second"), save_adapter=False)
    fit(make_module(), make_data(), Scores(), second, ckpt_path=str(first.last_path), **often)
    assert (second.best, rl_step(second.best_path)) == (pytest.approx(0.4), 3)


def test_a_misspelled_metric_of_best_is_named_once_with_the_nearest_one(make_module, make_data, fit, tmp_path, capsys):
    checkpoint, module = RLCheckpoint(monitor="val/sucess", save_adapter=False), make_module()
    capsys.readouterr()
    fit(module, make_data(num_rl_steps=1), MetricsCallback(), checkpoint, enable_checkpointing=True)
    assert capsys.readouterr().err == (
        "no best.ckpt: expected RLCheckpoint.monitor to be a metric that is logged, got 'val/sucess'; did you mean "
        "'val/success'?\n"
    )
    assert not checkpoint.best_path.exists() and rl_step(checkpoint.last_path) == 1


def test_ctrl_c_in_a_rollout_leaves_the_last_whole_rl_step_on_disk(make_module, make_data, fit):
    checkpoint = RLCheckpoint()
    with pytest.raises(SystemExit):
        fit(make_module(), make_data(InterruptedTasks()), checkpoint, enable_checkpointing=True)
    assert torch.load(checkpoint.last_path, weights_only=True)["lightning_mem1"]["rl_step"] == 2


def test_rollouts_without_a_task_datamodule_say_what_is_missing(make_module):
    from types import SimpleNamespace

    with pytest.raises(ValueError, match="rollouts need a TaskDataModule, got NoneType"):
        RolloutCallback().on_train_batch_start(SimpleNamespace(datamodule=None), make_module(), None, 0)


def test_the_ranked_source_pays_every_rank_of_a_group():
    source = RankedTasks()
    envs = [source.env(source.task("train", 0)) for _ in range(6)]
    assert [env.reward for env in envs] == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0]
