"""Which episodes failed, and when a run in which all of them fail ends."""

import json

import pytest

from lightning_mem1.callbacks import FailuresCallback
from tiny_tasks import BrokenEnv, BrokenTasks, RankedTasks


class OnFire(RankedTasks):
    """Every episode breaks; with `until`, those of the first tasks only."""

    def __init__(self, until: int | None = None) -> None:
        super().__init__()
        self.until = until

    def env(self, task):
        made = sum(self.made.values())
        env = super().env(task)
        return BrokenEnv(0.0) if self.until is None or made < self.until else env


def test_a_run_ends_with_the_first_error_its_file_and_line_when_every_episode_of_two_rl_steps_failed(
    make_module, make_data, fit, tmp_path
):
    line = (
        r"every episode of 2 rl_steps failed, so there is nothing to learn from; the first error: RuntimeError: the "
        r"shop is on fire \(at .*tiny_tasks\.py:\d+\); fix the environment, all errors are in .*failures\.jsonl"
    )
    with pytest.raises(RuntimeError, match=line):
        fit(make_module(), make_data(OnFire(), num_rl_steps=4, num_val_tasks=0), FailuresCallback())
    records = [json.loads(each) for each in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert [record["rl_step"] for record in records] == [1] * 6 + [2] * 6
    assert all(record["at"].rpartition(":")[0].endswith("tiny_tasks.py") for record in records)


def test_one_rl_step_of_failures_or_one_episode_that_is_played_lets_a_run_continue(make_module, make_data, fit):
    for source in (OnFire(until=6), BrokenTasks()):
        module = make_module()
        fit(module, make_data(source, num_rl_steps=3, num_val_tasks=0), FailuresCallback())
        assert module.rl_step == 3


def test_the_limit_is_a_setting(make_module, make_data, fit):
    module = make_module()
    fit(module, make_data(OnFire(), num_rl_steps=3, num_val_tasks=0), FailuresCallback(max_failed_steps=None))
    assert module.rl_step == 3
