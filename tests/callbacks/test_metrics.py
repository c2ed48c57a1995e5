"""What is logged, when: each rl_step its own keys, whatever was logged before, in every logger, also after a resume."""

import csv
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from mlflow.tracking import MlflowClient

from lightning_mem1 import callbacks
from lightning_mem1.callbacks import MetricsCallback, RLCheckpoint
from lightning_mem1.cli import fit as command
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.evaluation.measures import measures
from lightning_mem1.evaluation.view import View
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.tracking.mlflow_logger import ResumableMLflowLogger
from tiny_tasks import FirstStepIsLong, LongTasks

# what a clock or the machine says differs from run to run
MEASURED = ("seconds", "seconds_per_episode", "tokens_per_s", "process_gib")


def rows(folder: Path) -> list[dict[str, str]]:
    """Rows of all CSV files below a folder, oldest run first, without empty cells and what is measured."""
    found = []
    for path in sorted(folder.rglob("metrics.csv")):
        with open(path, newline="") as file:
            found += [{k: v for k, v in row.items() if v and not k.endswith(MEASURED)} for row in csv.DictReader(file)]
    return found


def csv_logger(folder: Path) -> CSVLogger:
    return CSVLogger(str(folder), "csv", flush_logs_every_n_steps=1)


def history(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, key)]


def test_a_key_that_one_rl_step_logs_is_in_the_row_of_that_step_alone(
    make_module, make_data, fit, mlflow_uri, tmp_path
):
    plain = MLFlowLogger("own-keys", tracking_uri=mlflow_uri)
    held = ResumableMLflowLogger("own-keys", "own-keys/0", mlflow_uri)
    loggers = [csv_logger(tmp_path), plain, held]
    checkpointing = {"enable_checkpointing": True, "logger": loggers}
    fit(
        make_module(), make_data(FirstStepIsLong(), num_val_tasks=0), MetricsCallback(), RLCheckpoint(), **checkpointing
    )
    found = rows(tmp_path)
    assert [row["step"] for row in found] == ["1", "2", "3"]
    for key in ("memory/context_tokens_turn_3", "train/rollout_gap_turn_3"):
        assert [row["step"] for row in found if key in row] == ["1"]
    assert [row["rollout/turns"] for row in found] == ["4.0", "2.0", "2.0"]
    client = MlflowClient(mlflow_uri)
    for run_id in (plain.run_id, held.run_id):
        assert [step for step, _ in history(client, run_id, "memory/context_tokens_turn_3")] == [1]
        assert [step for step, _ in history(client, run_id, "memory/context_tokens_turn_1")] == [1, 2, 3]


def test_validations_log_their_own_keys_with_the_rl_step_that_they_come_after(make_module, make_data, fit, tmp_path):
    class Remarks(Callback):
        """Logs after the first validation alone, and whether rl_step 2 was played."""

        def on_validation_epoch_end(self, trainer, pl_module):
            if pl_module.rl_step == 0:
                pl_module.log("val/remark", 1.0)

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch.rl_step == 2:
                pl_module.log("train/remark", 1.0, on_step=True)

    fit(make_module(), make_data(), Remarks(), MetricsCallback(), logger=csv_logger(tmp_path), val_check_interval=2)
    found = rows(tmp_path)
    assert [row["step"] for row in found if "val/reward" in row] == ["0", "2", "3"]
    assert [row["step"] for row in found if "rollout/reward" in row] == ["1", "2", "3"]
    assert [row["step"] for row in found if "val/remark" in row] == ["0"]
    assert [row["step"] for row in found if "train/remark" in row] == ["2"]


@pytest.mark.parametrize("stop_at", [1, 2])
def test_a_resumed_run_writes_the_rows_of_the_one_that_was_not_stopped(make_module, make_data, fit, tmp_path, stop_at):
    def run(name, num_rl_steps, ckpt_path=None):
        checkpoint = RLCheckpoint(str(tmp_path / name), save_adapter=False)
        data = make_data(FirstStepIsLong(), num_rl_steps=num_rl_steps)
        settings = {"enable_checkpointing": True, "logger": csv_logger(tmp_path / name), "ckpt_path": ckpt_path}
        fit(make_module(), data, MetricsCallback(), checkpoint, **settings)
        return str(checkpoint.last_path)

    run("whole", 3)
    run("resumed", 3, run("resumed", stop_at))
    whole, resumed = (
        {(row["step"], "val/reward" in row): row for row in rows(tmp_path / name)} for name in ("whole", "resumed")
    )
    assert {step for step, _ in whole} == {"0", "1", "2", "3"}
    assert {key: resumed[key] for key in whole} == whole


class Played(Callback):
    """Keeps the trajectories of the last rl_step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.trajectories = batch.trajectories


def test_what_a_training_logs_is_the_mean_of_what_a_table_has_of_the_same_trajectories(make_module, make_data, fit):
    rollout = RolloutSettings(format="qa", max_new_tokens=6, max_information_tokens=40, prompt="brief")
    module = make_module(rollout=rollout, engine=EngineSettings(num_slots=8, max_context_tokens=400))
    keeper = Played()
    trainer = fit(module, make_data(LongTasks(), num_rl_steps=1, num_val_tasks=0), MetricsCallback(), keeper)
    view = View(module.encoder.decode, rollout.tags, "mem1")
    found = [measures(t, view) for t in keeper.trajectories]
    keys = {
        "rollout/reward": "reward",
        "rollout/success": "success",
        "rollout/turns": "turns",
        "rollout/searches": "searches",
        "rollout/exact_format": "exact_format",
        "rollout/seconds_per_episode": "seconds",
        "memory/peak_tokens_mean": "peak_tokens",
        "memory/peak_tokens_without_prompt_mean": "peak_tokens_without_prompt",
        "memory/dependency": "dependency",
        "memory/internal_state_mean": "internal_state_tokens",
    }
    for key, name in keys.items():
        mean = sum(each[name] for each in found) / len(found)
        assert float(trainer.callback_metrics[key]) == pytest.approx(mean, rel=1e-6), key
    invalid = 1 - sum(each["valid"] for each in found) / len(found)  # all of them have as many turns
    assert float(trainer.callback_metrics["rollout/invalid_action_rate"]) == pytest.approx(invalid)
    assert found[0]["turns"] == 4 and found[0]["dependency"] > 0


def test_the_default_callbacks_are_one_of_each_in_the_order_they_need_and_own_ones_take_their_places():
    progress, mine = callbacks.ProgressCallback(show_loss=True), Callback()
    found = callbacks.default_callbacks(progress, mine)
    assert [type(each).__name__ for each in found[:2]] == ["RolloutCallback", "MetricsCallback"]
    assert len({type(each) for each in found}) == len(found)
    assert found[-1] is mine and [each for each in found if type(each) is type(progress)] == [progress]


def test_the_default_callbacks_train_with_an_ordinary_trainer_that_has_no_mlflow_and_its_own_defaults(
    make_module, make_data, tmp_path, capsys, monkeypatch
):
    from lightning.pytorch import Trainer

    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed: importing it fails
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=callbacks.default_callbacks(),
        logger=csv_logger(tmp_path),
        default_root_dir=str(tmp_path),
        log_every_n_steps=1,
    )
    module = make_module()
    trainer.fit(module, datamodule=make_data(num_rl_steps=2))
    assert module.rl_step == 2
    assert [row["step"] for row in rows(tmp_path) if "rollout/reward" in row] == ["1", "2"]
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter", "checkpoints", "pictures", "transcripts"} <= names and "mlruns" not in names
    assert "step    2/2  reward 0.500" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path", ["lightning_mem1.callbacks.RewardCallback", "lightning_mem1.callbacks.memory_usage.MemoryUsageCallback"]
)
def test_a_config_that_names_a_callback_of_before_is_answered_with_the_one_that_took_its_place(config, capsys, path):
    assert command.main([config, "--trainer.callbacks", f'[{{"class_path": "{path}"}}]']) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and path in said and said.count("\n") == 1
    assert "MetricsCallback" in said
