"""The command line that trains: defaults, overrides, what it leaves behind, resume."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_mem1.cli import fit as command

ROOT = Path(__file__).parents[2]


def test_a_run_leaves_curves_parameters_transcripts_and_the_adapter(config, mlflow_uri, capsys):
    from mlflow.tracking import MlflowClient

    assert command.main([config, "--tracking_uri", mlflow_uri, "--model.lr", "0.005", "--data.group_size=2"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"loading {config} ...\n") and err == ""
    assert "val reward 0.50 -> 0.50  (rule 0.25, oracle 1.00)" in out
    client = MlflowClient(mlflow_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert run.data.params["model.lr"] == "0.005" and run.data.params["data.init_args.group_size"] == "2"
    curve = client.get_metric_history(run.info.run_id, "rollout/reward")
    assert [point.step for point in curve] == [1, 2]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val/reward")] == [0, 2]
    assert run.info.status == "FINISHED"
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {"adapter", "pictures", "transcripts"}
    assert {each.dataset.name for each in run.inputs.dataset_inputs} == {"RankedTasks/train", "RankedTasks/val"}
    assert run.data.tags["environment.torch"] and len(run.outputs.model_outputs) == 1
    assert len(client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)) == 2 * 4 + 2 * 2
    logged = {Path(a.path).name for a in client.list_artifacts(run.info.run_id, "transcripts")}
    assert logged == {"val_00000.txt", "val_00000.html", "val_00002.txt", "val_00002.html"}
    folder = Path("runs/tiny/0")
    assert {p.name for p in folder.iterdir()} == {"adapter", "checkpoints", "config.yaml", "pictures", "transcripts"}
    assert {p.name for p in (folder / "pictures").iterdir()} == {"advantages.png", "curve.png", "layouts.png"}
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["lr"] == 0.005


def test_a_development_run_trains_and_validates_once_and_ends_without_an_error(config, mlflow_uri, capsys):
    options = ["--trainer.fast_dev_run", "true", "--tracking_uri", mlflow_uri, "--experiment", "developed"]
    assert command.main([config, *options]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("step    1/2  reward 0.500") == 1 and "mlflow ui" not in out
    assert out.splitlines()[-1].startswith("adapter runs/developed/0/adapter, checkpoint runs/developed/0/checkpoints/")


def test_last_goes_on_where_the_run_stopped_and_a_new_run_takes_a_new_folder(config, capsys):
    quiet = ["--trainer.logger", "false"]
    assert command.main([config, *quiet]) == 0
    assert command.main([config, *quiet, "--ckpt_path", "last", "--data.init_args.num_rl_steps", "3"]) == 0
    out = capsys.readouterr().out
    assert "step    2/2" in out and "step    3/3" in out and out.count("step    1/") == 1
    assert command.main([config, *quiet]) == 0
    assert sorted(p.name for p in Path("runs/tiny").iterdir()) == ["0", "1"]


def test_ctrl_c_says_what_is_kept_and_exits_with_130(config, capsys):
    source = "--data.init_args.source.class_path=tiny_tasks.InterruptedTasks"
    assert command.main([config, source, "--data.num_rl_steps=4", "--trainer.logger=false"]) == 130
    assert capsys.readouterr().err == (
        "interrupted after 2 rl_steps; resume with --ckpt_path runs/tiny/0/checkpoints/last.ckpt\n"
    )


def test_ctrl_c_between_two_checkpoints_says_how_much_is_kept(config, capsys):
    source = "--data.init_args.source.class_path=tiny_tasks.InterruptedTasks"
    callbacks = '[{"class_path": "lightning_mem1.callbacks.RLCheckpoint", "init_args": {"every_n_rl_steps": 5}}]'
    options = [source, "--data.num_rl_steps=4", "--trainer.logger=false", "--trainer.callbacks", callbacks]
    assert command.main([config, *options]) == 130
    assert capsys.readouterr().err == "interrupted after 2 rl_steps; no checkpoint was written\n"


def test_sigterm_ends_the_rl_step_with_a_checkpoint_and_exit_code_0(config, capsys):
    source = "--data.init_args.source.class_path=tiny_tasks.TerminatedTasks"
    callbacks = '[{"class_path": "lightning_mem1.callbacks.RLCheckpoint", "init_args": {"every_n_rl_steps": 5}}]'
    options = [source, "--data.num_rl_steps=4", "--trainer.logger=false", "--trainer.callbacks", callbacks]
    assert command.main([config, *options]) == 0
    last = "runs/tiny/0/checkpoints/last.ckpt"
    assert capsys.readouterr().err == f"interrupted after 2 rl_steps; resume with --ckpt_path {last}\n"
    assert command.main([config, "--data.num_rl_steps=3", "--trainer.logger=false", "--ckpt_path=last"]) == 0
    assert "step    3/3" in capsys.readouterr().out


def test_callbacks_of_the_config_take_the_place_of_the_default_ones(config, capsys):
    callbacks = '[{"class_path": "lightning_mem1.callbacks.ProgressCallback", "init_args": {"show_loss": true}}]'
    assert command.main([config, "--trainer.callbacks", callbacks, "--trainer.logger=false"]) == 0
    assert capsys.readouterr().out.count("  gap ") == 2


@pytest.mark.parametrize("layout", ["stitched", "official"])
def test_a_layout_is_chosen_on_the_command_line_and_its_gap_is_shown(config, capsys, layout):
    callbacks = '[{"class_path": "lightning_mem1.callbacks.ProgressCallback", "init_args": {"show_loss": true}}]'
    source = "--data.init_args.source.class_path=tiny_tasks.LongTasks"
    options = ["--trainer.callbacks", callbacks, "--trainer.logger=false", "--data.num_rl_steps=1", source]
    assert command.main([config, "--model.layout", layout, *options]) == 0
    (gap,) = re.findall(r"  gap (\S+)", capsys.readouterr().out)
    assert float(gap) > 1e-3


def test_groups_of_one_are_one_line_where_groups_are_compared(config, capsys):
    assert command.main([config, "--data.group_size", "1", "--trainer.logger=false"]) == 1
    assert capsys.readouterr().err == (
        "error: nothing to compare: expected data.group_size 2 or more, since grpo compares the episodes of a task, "
        "got 1; raise it or set model.algorithm reinforce_pp or ppo\n"
    )
    assert not any(Path("runs").glob("**/*.ckpt"))


def test_print_config_prints_yaml_and_nothing_else(config, capsys):
    assert command.main([config, "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["memory"] == "mem1" and printed["data"]["init_args"]["num_rl_steps"] == 2
    assert not Path("runs").exists()


def test_interpolation_works_inside_a_config(config, capsys):
    content = yaml.safe_load(Path(config).read_text())
    content["data"]["init_args"]["group_size"] = "${data.init_args.tasks_per_step}"
    Path(config).write_text(yaml.safe_dump(content))
    assert command.main([config, "--print_config"]) == 0


def test_the_full_help_lists_the_settings_without_importing_mlflow():
    script = (
        "import sys; from lightning_mem1.cli import fit; code = fit.main(['--help', 'all']); "
        "assert 'mlflow' not in sys.modules; sys.exit(code)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--model.memory" in done.stdout and "Memory mode" in done.stdout
