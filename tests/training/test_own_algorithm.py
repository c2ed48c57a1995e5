"""An algorithm in one file outside of the package, chosen by its dotted name."""

from pathlib import Path

import pytest
import torch
import yaml

from lightning_mem1.cli import fit
from lightning_mem1.training.credit.algorithms import ALGORITHMS, find_algorithm
from lightning_mem1.training.module import Mem1Module

OWN = '''
import torch

from lightning_mem1.training.credit.algorithms import Algorithm, Credit, CreditSettings, GroupedRollouts

calls = []


def against_the_median(played: GroupedRollouts, settings: CreditSettings) -> Credit:
    """Reward against the median of its group."""
    calls.append(settings.gamma)
    medians = {int(g): played.rewards[played.groups == g].median() for g in played.groups.unique()}
    return Credit(played.spread(played.rewards - torch.stack([medians[int(g)] for g in played.groups])))


imitation = Algorithm(against_the_median, likelihood=True, clip=0.1)
number = 3


def too_few(played, settings):
    return Credit([each[1:] for each in played.spread(played.rewards)])


def bare(played, settings):
    return played.rewards


def without_returns(played, settings):
    return Credit(played.spread(played.rewards))


valued = Algorithm(without_returns, critic=True)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder of a file `own_credit.py`, which is imported afresh."""
    (tmp_path / "own_credit.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_credit", raising=False)
    return tmp_path


def test_one_file_outside_the_package_and_one_yaml_train(config, own, capsys):
    content = yaml.safe_load(Path(config).read_text())
    content["model"] |= {"algorithm": "own_credit.against_the_median", "credit": {"gamma": 0.75}}
    Path(config).write_text(yaml.safe_dump(content))
    assert fit.main([config, "--trainer.logger=false"]) == 0
    import own_credit

    assert own_credit.calls[:1] == [0.75]
    assert "own_credit.against_the_median, memory mem1" in capsys.readouterr().out
    module = Mem1Module.load_from_checkpoint("runs/tiny/0/checkpoints/last.ckpt")
    assert module.rl_step == 2 and module.credit_assigner.algorithm.credit is own_credit.against_the_median
    before = Mem1Module(**module.hparams).trained()
    assert not all(torch.equal(before[name], weight) for name, weight in module.trained().items())


def test_a_function_goes_with_the_flags_that_grpo_has_and_an_algorithm_with_its_own(own):
    function, value = find_algorithm("own_credit.against_the_median"), find_algorithm("own_credit.imitation")
    assert (function.likelihood, function.relative, function.clip) == (False, True, ALGORITHMS["grpo"].clip)
    assert (value.likelihood, value.clip_range(None, None)) == (True, (0.1, 0.1))
    assert find_algorithm("grpo") is ALGORITHMS["grpo"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("median", "unknown algorithm: expected one of grpo, .*, raft, or a dotted name such as .*, got 'median'; set"),
        (
            "nowhere.median",
            "no such algorithm: .* got 'nowhere.median', and there is no module 'nowhere'; set model.alg",
        ),
        (
            "own_credit.more.median",
            "got 'own_credit.more.median', and there is no module 'own_credit.more'; set model.al",
        ),
        (
            "own_credit.against_the_mean",
            "expected 'against_the_mean' in '.*own_credit.py', got none; did you mean 'own_credit.against_the_median'",
        ),
        ("own_credit.xyz", "no such algorithm: expected 'xyz' in '.*own_credit.py', got none; set model.algorithm"),
        (
            "own_credit.number",
            "cannot give credit: expected an Algorithm, or a function from GroupedRollouts .* got 3;",
        ),
        ("own_credit.Algorithm", "cannot give credit: expected an Algorithm, or a function .*, got <class "),
    ],
)
def test_a_name_that_stands_for_no_algorithm_is_one_line_on_what_and_where(own, name, message):
    with pytest.raises(ValueError, match=message):
        find_algorithm(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import torch\n\nnothing_there\n", "NameError: name 'nothing_there' is not defined .*/broken.py', line 3"),
        ("def credit(:\n", "SyntaxError: invalid syntax .*/broken.py', line 1"),
        ("import not_installed\n", "ModuleNotFoundError: No module named 'not_installed' .*/broken.py', line 1"),
        ("import torch\n\n\ntorch.zeros(2).view(3)\n", "RuntimeError: shape .* is invalid .*/broken.py', line 4"),
        ("import json\njson.loads('{')\n", "JSONDecodeError: Expecting property name .*/broken.py', line 2"),
        ("from helper_of_broken import x\n", "ZeroDivisionError: division by zero .*/helper_of_broken.py', line 2"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(own, content, message):
    (own / "broken.py").write_text(content)
    (own / "helper_of_broken.py").write_text("\nx = 1 / 0\n")
    with pytest.raises(ValueError, match=rf"cannot import 'broken', which model.algorithm names: {message}\); fix"):
        find_algorithm("broken.credit")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "too_few",
            r"wrong credit: expected advantages of shape \(12,\) for trajectory 0, .* got shape \(11,\); correct",
        ),
        (
            "bare",
            r"the algorithm gives wrong credit: expected Credit, got tensor\(.*; correct what model.algorithm names",
        ),
        (
            "valued",
            r"expected returns of shape \(12,\) for trajectory 0, one number per action token, got nothing; corr",
        ),
    ],
)
def test_credit_that_does_not_fit_the_tokens_ends_the_run_in_one_line(make_module, make_data, fit, own, name, message):
    with pytest.raises(ValueError, match=message):
        fit(make_module(algorithm=f"own_credit.{name}"), make_data(num_rl_steps=1, num_val_tasks=0))
