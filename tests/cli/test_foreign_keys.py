"""Keys of other tools are met halfway: the hint names a key that exists here."""

import pytest

from lightning_mem1.cli import completion, fit, warmstart
from lightning_mem1.cli.foreign_keys import FOREIGN, foreign_key
from lightning_mem1.cli.lightning_cli import flat, known_keys


@pytest.fixture(scope="module")
def known() -> set:
    parsers = completion.PARSERS
    warm = flat(parsers["warmstart"]().get_defaults(skip_validation=True).as_dict())
    return {*known_keys(parsers["fit"]()), *warm}


def failure(capsys, main, *arguments: str) -> str:
    assert main(list(arguments)) == 1
    return capsys.readouterr().err.splitlines()[-1].removeprefix("error: ")


def test_every_hint_names_a_key_that_exists(known):
    targets = {target.split()[0] for targets in FOREIGN.values() for target in targets}
    assert len(FOREIGN) > 200 and targets - known == set()


def test_no_hint_leads_back_to_the_key_that_was_given(known):
    assert {name for name, targets in FOREIGN.items() if name in targets and name in known} == set()


@pytest.mark.parametrize(
    "target", sorted({each for targets in FOREIGN.values() for each in targets if " " in each}), ids=str
)
def test_a_hint_with_a_value_is_a_setting_that_is_accepted(target, capsys):
    key, value = target.split()
    assert fit.main([f"--{key}={value}", "--print_config"]) == 0
    assert f"{key.rpartition('.')[2]}: {value}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("learning_rate", "'model.lr' (learning rate)"),  # TrainingArguments, TRL
        ("num_train_epochs", "'data.num_rl_steps' (rl_steps of the whole run)"),
        ("num_generations", "'data.group_size' (episodes of each task)"),
        ("bf16", "'model.compute.dtype bfloat16'"),
        ("trainer.total_epochs", "'data.num_rl_steps' (rl_steps of the whole run)"),  # verl
        ("actor_rollout_ref.rollout.n", "'data.group_size' (episodes of each task)"),
        ("actor_rollout_ref.actor.optim.lr", "'model.lr' (learning rate)"),
        ("critic.optim.lr", "'model.critic.lr'"),
        ("n_samples_per_prompt", "'data.group_size' (episodes of each task)"),  # OpenRLHF
        ("zero_stage", "'trainer.strategy' (ddp with several devices; see docs/how-to/several_gpus.md)"),
        ("model.gradient_clip_val", "'model.optim.max_grad_norm'"),  # Lightning
    ],
)
def test_a_key_of_another_tool_is_answered_with_the_one_here(option, hint, config, capsys):
    assert failure(capsys, fit.main, config, f"--{option}=1") == (
        f"unknown key '{option}' in the command line; here it is {hint}"
    )


def test_a_key_that_is_two_things_here_names_both(config, capsys):
    message = failure(capsys, fit.main, config, "--per_device_train_batch_size=8")
    assert "here it is 'model.max_tokens_per_microbatch' (" in message and "or 'data.tasks_per_step' (" in message


def test_a_config_with_the_keys_of_another_tool_is_answered_alike(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trl.yaml").write_text("model: {policy: bundled}\nmax_completion_length: 64\n")
    assert failure(capsys, fit.main, "trl.yaml") == (
        "unknown key 'max_completion_length' in 'trl.yaml', line 2; here it is 'model.rollout.max_new_tokens' (most "
        "tokens of a turn)"
    )


def test_a_warm_start_is_answered_with_keys_of_its_own(capsys):
    assert failure(capsys, warmstart.main, "warmstart", "--learning_rate=1") == (
        "unknown key 'learning_rate' in the command line; here it is 'warmstart.optim.lr' (peak learning rate)"
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "gradient_clip_val=1.5",
            "trainer.gradient_clip_val has no effect here: expected null, got 1.5; set 'model.optim.max_grad_norm'",
        ),
        (
            "accumulate_grad_batches=4",
            "trainer.accumulate_grad_batches has no effect here: expected null, got 4; set "
            "'model.max_tokens_per_microbatch' (tokens per forward pass; lower it when memory runs out)",
        ),
    ],
)
def test_settings_of_the_trainer_that_would_do_nothing_are_refused(option, message, config, capsys):
    assert failure(capsys, fit.main, config, f"--trainer.{option}", "--trainer.logger=false") == message


def test_a_name_that_no_tool_has_is_left_to_the_nearest_key():
    assert foreign_key("model.lrr", ["model.lr"]) == ""
