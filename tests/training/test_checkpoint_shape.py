"""A checkpoint that lacks something, or holds something else there, is one line, and no run is quietly another one."""

import math
import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from lightning_mem1.cli import evaluate, export
from lightning_mem1.cli import fit as command
from lightning_mem1.training.checkpoint_shape import check_memory, check_resumable, check_shape
from lightning_mem1.training.loading import load_policy
from lightning_mem1.training.module import Mem1Module
from tiny_checkpoint import tiny_checkpoint

GONE = object()


@pytest.fixture(scope="module")
def good(tmp_path_factory, tiny_folder):
    """A checkpoint after one rl_step."""
    return tiny_checkpoint(tiny_folder, tmp_path_factory.mktemp("good"))[1]


def spoilt(good, path, value):
    """A copy with another value in one place."""
    content = deepcopy(good)
    *above, name = path.split(".")
    place = content
    for key in above:
        place = place[key]
    if value is GONE:
        del place[name]
    else:
        place[name] = value
    return content


FOR_ALL = [
    ("lightning_mem1.rl_step", -5, "a whole number from 0, got -5"),
    ("lightning_mem1.rl_step", 1.5, "a whole number from 0, got 1.5"),
    ("lightning_mem1.rl_step", True, "a whole number from 0, got True"),
    ("lightning_mem1.rl_step", 2**63, "a whole number from 0, got 9223372036854775808"),
    ("lightning_mem1.rl_step", GONE, "a whole number from 0, got nothing"),
    ("lightning_mem1.base", GONE, "a text, got nothing"),
    ("lightning_mem1.policy", 5, "a text, got 5"),
    ("lightning_mem1.rng", [], r"the random state of each rank, got \[\]"),
    ("lightning_mem1.rng", [{"torch": 5}], "the random state of each rank, got"),
    ("state_dict", GONE, "weights by name, got nothing"),
    ("state_dict", {"x": 5}, "weights by name, got {'x': 5}"),
    ("lightning_mem1.rng", [{"torch": torch.zeros(3), "python": [3, [1], None]}], "the random state of each rank, got"),
    ("hyper_parameters", None, "settings by name, lora and memory among them, got nothing"),
    ("hyper_parameters.lora", 5, "settings by name, lora and memory among them, got"),
    ("hyper_parameters.memory", GONE, "settings by name, lora and memory among them, got"),
]
TO_RESUME = [
    ("optimizer_states", GONE, "the optimizer's state, got nothing"),
    ("optimizer_states", [], r"the optimizer's state, got \[\]"),
    ("optimizer_states", [{"state": {}}], "the optimizer's state, got"),
    ("lr_schedulers", GONE, "a list, got nothing"),
    ("loops", GONE, "states by name, got nothing"),
    ("callbacks", 5, "states by name, got 5"),
    ("global_step", -1, "a whole number from 0, got -1"),
    ("epoch", "x", "a whole number from 0, got 'x'"),
    ("pytorch-lightning_version", GONE, "a text, got nothing"),
]


def of_file(path):
    """The part that is named: settings as a whole."""
    return "hyper_parameters" if path.startswith("hyper_parameters") else re.escape(path)


@pytest.mark.parametrize(("path", "value", "message"), FOR_ALL)
def test_what_every_use_of_a_checkpoint_needs_is_named_when_it_is_missing(good, path, value, message):
    with pytest.raises(ValueError, match=f"^incomplete checkpoint 'x.ckpt': expected {of_file(path)} to be {message}"):
        check_shape(spoilt(good, path, value), "x.ckpt")
    with pytest.raises(ValueError, match="^incomplete checkpoint"):
        check_resumable(spoilt(good, path, value))


@pytest.mark.parametrize(("path", "value", "message"), TO_RESUME)
def test_what_a_resumed_run_needs_is_named_when_it_is_missing_and_is_not_asked_of_weights(good, path, value, message):
    content = spoilt(good, path, value)
    check_shape(content)
    with pytest.raises(
        ValueError, match=f"^incomplete checkpoint: expected {path}.* to be {message}.*new run with its"
    ):
        check_resumable(content)


def test_a_checkpoint_that_a_run_wrote_is_whole(good):
    check_resumable(good)


def test_an_optimizer_that_has_stepped_has_a_state(good):
    content = deepcopy(good)
    content["optimizer_states"][0]["state"] = {}
    with pytest.raises(ValueError, match="expected the optimizer's state after 1 steps, got none"):
        check_resumable(content)
    content["global_step"] = 0  # no rl_step had a signal: nothing was ever stepped
    check_resumable(content)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(good, broken):
    content = deepcopy(good)
    name = list(content["state_dict"])[3]
    content["state_dict"][name][0, 0] = broken
    with pytest.raises(
        ValueError, match=f"^broken checkpoint: expected finite weights, got nan or infinity in '{name}';"
    ):
        check_shape(content)


@pytest.mark.parametrize("number", [-1, "x", None, 2.5])
def test_a_format_that_is_none_is_another_programs(good, number):
    with pytest.raises(ValueError, match="^not a checkpoint of lightning_mem1: expected a format from 1 to 2, got"):
        check_shape(spoilt(good, "lightning_mem1.format", number))


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ("mem1", {"mode": "full"}, "expected model.memory.mode mem1, got full; set it to mem1, or begin a new run"),
        ({"mode": "window", "window": 3}, {"mode": "window", "window": 2}, "expected model.memory.window 3, got 2"),
    ],
)
def test_another_memory_mode_is_named(theirs, ours, message):
    with pytest.raises(ValueError, match=re.escape(f"the run was trained in another memory mode: {message}")):
        check_memory(theirs, ours)


def test_the_same_memory_mode_is_taken_with_settings_that_came_later():
    check_memory("mem1", {"mode": "mem1"})
    check_memory({"mode": "window", "window": 3}, {"mode": "window", "window": 3, "of_a_later_version": 1})


def line(capsys):
    (said,) = capsys.readouterr().err.splitlines()
    return said.removeprefix("error: ")


def test_a_command_line_names_the_file_and_leaves_it_as_it_is(good, config, capsys):
    quiet = ["--trainer.logger=false", "--ckpt_path=bad.ckpt"]
    torch.save(spoilt(good, "lightning_mem1.rl_step", -5), "bad.ckpt")
    before = Path("bad.ckpt").read_bytes()
    for main in (command.main, evaluate.main):
        assert main([config, *quiet]) == 1
        assert line(capsys).startswith(
            "incomplete checkpoint 'bad.ckpt': expected lightning_mem1.rl_step to be a whole"
        )
    assert export.main(["--ckpt_path=bad.ckpt", "--output=out"]) == 1
    assert line(capsys).startswith("incomplete checkpoint 'bad.ckpt'")
    torch.save(spoilt(good, "optimizer_states", GONE), "bad.ckpt")
    assert command.main([config, *quiet]) == 1
    assert line(capsys).startswith("incomplete checkpoint 'bad.ckpt': expected optimizer_states to be the optimizer's")
    assert before != Path("bad.ckpt").read_bytes() and not list(Path().glob("runs/tiny/*/checkpoints"))


def test_a_run_is_not_resumed_in_another_memory_mode_and_its_weights_may_still_play_in_one(good, config, capsys):
    torch.save(good, "last.ckpt")
    options = ["--trainer.logger=false", "--ckpt_path=last.ckpt", "--model.memory=full"]
    assert command.main([config, *options]) == 1
    assert line(capsys).startswith(
        "the run was trained in another memory mode: expected model.memory.mode mem1, got full; set it to mem1, or"
    )
    assert Mem1Module.load_from_checkpoint("last.ckpt", memory="full").rl_step == 1
    assert load_policy("last.ckpt").adapter_state().keys()
