"""The metrics page knows every key that a run logs, and names every measure of an evaluation."""

import re

from lightning_mem1 import callbacks
from lightning_mem1.engine.local.engine import EngineSettings
from lightning_mem1.evaluation.measures import MEASURES
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.credit.importance import MismatchSettings
from lightning_mem1.training.settings import LossSettings
from pages import ROOT

PAGE = (ROOT / "docs" / "reference" / "metrics.md").read_text()
KINDS = {"k": r"\d+", "kind": "(action|state)", "name": r"\w+"}
GPU_ONLY = {"memory/gpu_peak_gib"}
OF_WORKERS = {f"rollout/{name}" for name in ("staleness_max", "mixed_share", "waiting_share", "worker_restarts")}


def keys_of_the_table() -> list[str]:
    rows = re.findall(r"^\| (`[^|]*`) \|", PAGE, re.MULTILINE)
    return [key for row in rows for key in re.findall(r"`([a-z_]+/[^`]+)`", row)]


def pattern(key: str) -> str:
    return "".join(KINDS[part[1:-1]] if part.startswith("<") else re.escape(part) for part in re.split(r"(<\w+>)", key))


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
    assert unknown == [], "logged, and not in docs/reference/metrics.md"
    stale = {row for row in table if not any(re.fullmatch(pattern(row), key) for key in logged)} - GPU_ONLY
    stale -= OF_WORKERS  # held by tests/invariants/test_workers.py
    # a random policy writes no internal state, so nothing is said of its tokens
    assert stale <= {"memory/internal_state_copy_rate", "val/internal_state_copy_rate"}, (
        "in docs/reference/metrics.md only"
    )


def test_every_measure_of_an_evaluation_is_named():
    named = set(re.findall(r"`(\w+)`", PAGE.split("Measures: ")[1].split("\n")[0]))
    assert {measure.name for measure in MEASURES} <= named
