"""Wrong settings are refused before torch is imported, in the line that the command itself would say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_mem1.cli import commands, early_check, errors, signatures, startup
from lightning_mem1.cli.evaluate import EvaluatingCommandLine
from lightning_mem1.cli.fit import TrainingCommandLine
from lightning_mem1.cli.lightning_cli import known_keys

FIT = commands.COMMANDS["fit"].keys
SCRIPT = """
import sys
from lightning_mem1.cli.main import main
code = main(sys.argv[1:])
print(code, [name for name in ("torch", "lightning", "transformers", "numpy") if name in sys.modules])
"""
MISTAKES = [
    "--model.optim.lr=abc",
    "--model.lr=abc",
    "--model.lr=-1",
    "--model.loss_unit=word",
    "--model.loss.clip=many",
    "--model.lora.rank=4",
    "--model.lora.r=0",
    "--model.engine.num_slots=0",
    "--model.optim.num_epochs=1.5",
    "--model.credit.anchor=page",
    "--model.critic.lr=fast",
    "--model.max_epochs=3",
    "--model.algorithm=grop",
    "--model.layout=bush",
    "--model.memory=men1",
    "--model.beta=0.1",
    "--data.group_size=x",
    "--data.group_sise=3",
    "--data.num_rl_steps=0",
    "--data.results_per_page=0",
    "--modl.lr=3",
    "--seed_everything=-1",
]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["fit", "webshop", "--model.optim.lr", "abc"],
            "unknown key 'model.optim.lr' in the command line; here it is 'model.lr' (learning rate)",
        ),
        (
            ["fit", "qa", "--data.compose", "odd"],
            "wrong value for 'data.compose' in the command line: expected one of 'mixed', 'paper', 'interdependent', "
            "'alike', 'paired', got 'odd'",
        ),
        (
            ["evaluate", "webshop", "--model.engine.num_slots=0"],
            "model.engine.num_slots too small: expected at least 1, got 0; set model.engine.num_slots",
        ),
    ],
)
def test_a_mistake_is_said_before_torch_is_imported(tmp_path, arguments, line):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stderr == f"error: {line}\n"
    assert done.stdout.splitlines()[-1] == "1 []"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_line_is_the_one_that_the_command_itself_says(config, mistake):
    given = startup.opened(["webshop", mistake, "--trainer.logger=false"], FIT)
    with pytest.raises(ValueError) as early:
        early_check.check(given.argv, given.config, FIT)
    with startup.quiet(), pytest.raises(ValueError) as late:
        startup.built(TrainingCommandLine, given)
    assert errors.one_line(early.value) == errors.one_line(late.value)


@pytest.mark.parametrize(
    "options",
    [
        ["--model.memory", "full", "--model.lr", "1e-4", "--trainer.max_epochs", "3", "--data.group_size=2"],
        ["--model.lora", "null", "--model.memory.mode=window", "--model.memory.window=3"],
        ["--data", "lightning_mem1.data.qa.QAData", "--data.objectives", "{1: 2, 10: 4}"],
        ["--data.class_path=my_data.MyData", "--data.init_args.anything=1"],
        ["--trainer.limit_val_batches=0", "--trainer.callbacks+=lightning.pytorch.callbacks.Timer", "--print_config"],
    ],
)
def test_what_is_right_or_cannot_be_known_yet_passes(config, options):
    given = startup.opened([config, *options], FIT)
    early_check.check(given.argv, given.config, FIT)


@pytest.mark.parametrize(("name", "line"), [("fit", TrainingCommandLine), ("evaluate", EvaluatingCommandLine)])
def test_the_keys_and_the_defaults_of_the_model_are_those_of_the_command(name, line):
    parser, keys = line.full_parser(), commands.COMMANDS[name].keys
    assert early_check.known_keys(keys) == known_keys(parser)
    assert early_check._parser(keys).get_defaults().model == parser.get_defaults().model


@pytest.mark.parametrize("name", errors.DATA_CLASSES)
def test_a_stand_in_has_the_ranges_of_its_class(name):
    import lightning_mem1
    from lightning_mem1.checks import _ranges

    kind = getattr(lightning_mem1, name)
    assert signatures.stand_in(errors.DATA_CLASSES[name], name).ranges == _ranges(kind)


def test_a_module_that_imports_torch_anywhere_above_is_heavy():
    assert signatures.is_light("lightning_mem1.training.settings")
    assert not signatures.is_light("lightning_mem1.training.module")
    assert not signatures.is_light("lightning_mem1.data.qa")
