"""The public API: complete, documented, and imported only when it is asked for."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_mem1

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "lightning", "transformers", "peft", "numpy", "mlflow", "jsonargparse"}


def test_importing_the_package_imports_nothing_heavy():
    script = f"import sys, lightning_mem1; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_the_public_names_are_these():
    names = (
        "Mem1Module TaskDataModule WebShopData QAData ReadingData AgentData Task Objective StepResult Turn "
        "Trajectory Env TaskSource collect Episode RolloutSettings Player load_policy default_callbacks "
        "trainer_defaults check_env check_memory EngineSettings collate context_parts known_advantages "
        "plot_advantages plot_curve plot_masks readable transcript"
    )
    assert lightning_mem1.__all__ == sorted(names.split())
    assert set(lightning_mem1.__all__) <= set(dir(lightning_mem1))


@pytest.mark.parametrize("name", lightning_mem1.__all__)
def test_a_public_name_is_there_and_says_what_it_is(name):
    assert inspect.getdoc(getattr(lightning_mem1, name))


def test_a_name_that_does_not_exist_is_named():
    with pytest.raises(AttributeError, match="module 'lightning_mem1' has no attribute 'Mem2Module'"):
        lightning_mem1.Mem2Module  # noqa: B018
