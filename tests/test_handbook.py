"""The handbook's blocks run, its commands are understood, and its table knows every key that a run logs."""

import re
import shlex
from pathlib import Path

import pytest

from lightning_mem1 import callbacks
from lightning_mem1.cli import fit
from lightning_mem1.cli.main import main as mem1
from lightning_mem1.engine.local.engine import EngineSettings
from lightning_mem1.evaluation.measures import MEASURES
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.credit.importance import MismatchSettings
from lightning_mem1.training.settings import LossSettings

ROOT = Path(__file__).parents[1]
HANDBOOK = (ROOT / "docs" / "handbook.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", HANDBOOK, re.DOTALL) for line in block.splitlines()]
OURS = [line for line in COMMANDS if line.startswith("mem1 ")]
KINDS = {"k": r"\d+", "kind": "(action|state)", "name": r"\w+"}
GPU_ONLY = {"memory/gpu_peak_gib"}


def blocks(language: str, text: str = HANDBOOK) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def arguments(line: str) -> list[str]:
    """The command and its arguments, the experiment where it lies."""
    return [str(ROOT / word) if word.startswith("experiments/") else word for word in shlex.split(line)[1:]]


def keys_of_the_table() -> list[str]:
    rows = re.findall(r"^\| (`[^|]*`) \|", HANDBOOK, re.MULTILINE)
    return [key for row in rows for key in re.findall(r"`([a-z_]+/[^`]+)`", row)]


def pattern(key: str) -> str:
    return "".join(KINDS[part[1:-1]] if part.startswith("<") else re.escape(part) for part in re.split(r"(<\w+>)", key))


def test_the_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "handbook"}
    for number, block in enumerate(blocks("python")):
        exec(compile(block, f"handbook.md, block {number}", "exec"), names)
    assert len(blocks("python")) == 4 and names["reply"].valid


@pytest.mark.parametrize("line", OURS)
def test_every_command_is_understood(line, capsys):
    assert mem1([*arguments(line), "--print_config"]) == 0
    assert "num_rl_steps" in capsys.readouterr().out


def test_the_first_run_leaves_what_the_handbook_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert mem1([*arguments(COMMANDS[0]), "--trainer.logger=false"]) == 0
    told = set(re.findall(r"`(\w+)/`", HANDBOOK.split("A run leaves")[1].split("\n")[0])) | {"config.yaml"}
    assert {path.name for path in (tmp_path / "runs" / "webshop" / "0").iterdir()} == told
    assert "step    2/2" in capsys.readouterr().out


def test_the_yaml_blocks_are_configs_and_name_the_environment_of_the_contributing_page(tmp_path, monkeypatch, capsys):
    (source,) = blocks("python", (ROOT / "CONTRIBUTING.md").read_text())
    (tmp_path / "guess.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for number, block in enumerate(blocks("yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        assert fit.main([str(path), "--print_config"]) == 0
        shown = capsys.readouterr().out
        assert ("guess.GuessTasks" in shown) == ("guess" in block)
        assert ("traces_per_step: null" in shown) == ("traces" in block)


def test_every_key_that_is_logged_stands_in_the_table_and_every_row_is_logged(make_module, make_data, fit):
    """Runs that have, between them, everything that may be logged: questions, a critic, corrections, imitation."""
    qa = RolloutSettings(format="qa", max_new_tokens=6, max_information_tokens=40, prompt="brief")
    roomy = EngineSettings(num_slots=8, max_context_tokens=400)
    corrected = MismatchSettings(correction="tis")
    runs = (
        {"algorithm": "ppo", "loss": LossSettings(kl_coef=0.1), "mismatch": corrected, "rollout": qa, "engine": roomy},
        {"algorithm": "raft", "mismatch": MismatchSettings(correction="mis")},
    )
    logged: set[str] = set()
    for settings in runs:
        trainer = fit(make_module(**settings), make_data(num_rl_steps=1), callbacks.MetricsCallback())
        logged |= {key for key in trainer.callback_metrics if key != "step"}
    table = keys_of_the_table()
    assert len(table) == len(set(table))
    unknown = [key for key in sorted(logged) if not any(re.fullmatch(pattern(row), key) for row in table)]
    assert unknown == [], "logged, and not in docs/handbook.md"
    stale = {row for row in table if not any(re.fullmatch(pattern(row), key) for key in logged)} - GPU_ONLY
    # a random policy writes no internal state, so nothing is said of its tokens
    assert stale <= {"memory/internal_state_copy_rate", "val/internal_state_copy_rate"}, "in docs/handbook.md only"


def test_every_measure_of_an_evaluation_is_named():
    named = set(re.findall(r"`(\w+)`", HANDBOOK.split("Measures: ")[1].split("\n")[0]))
    assert {measure.name for measure in MEASURES} <= named
