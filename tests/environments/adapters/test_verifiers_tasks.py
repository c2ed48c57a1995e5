"""Environments of verifiers as tasks, with the real package: its own loop asks, its own rubric pays."""

import gc
import math
import weakref

import cloudpickle
import pytest
import yaml

pytest.importorskip("verifiers", reason="the extra verifiers is not installed")

from lightning_mem1.callbacks import RolloutCallback  # noqa: E402
from lightning_mem1.cli import fit as fit_command  # noqa: E402
from lightning_mem1.data.agents import AgentData  # noqa: E402
from lightning_mem1.environments.adapters.verifiers import VerifiersTasks  # noqa: E402
from lightning_mem1.environments.adapters.verifiers_bridge import written  # noqa: E402
from lightning_mem1.testing import check_env  # noqa: E402
from lightning_mem1.types import StepResult  # noqa: E402
from tiny_tasks import tiny_config  # noqa: E402


def played(name, actions, split="val", index=1, **settings):
    source = VerifiersTasks(f"verifiers_worlds.{name}", **settings)
    env = source.env(source.task(split, index))
    return [env.observe(), *(env.step(action) for action in actions)]


def test_a_row_is_a_task_and_its_rubric_pays_the_only_turn():
    source = VerifiersTasks("verifiers_worlds.single")
    assert [source.size(split) for split in ("train", "val", "test")] == [16, 2, 2]
    task = source.task("val", 1)
    assert (task.prompt, task.objectives[0].answers, task.max_turns) == ("Add.\n17 + 1?", ("18",), 1)
    seen, result = played("single", ["18"])
    assert (seen, result.reward, result.done, result.information) == ("", 1.0, True, "")
    assert (result.info["right"], result.info["success"], result.info["num_turns"]) == (1.0, 1.0, 1.0)
    assert played("single", ["19"])[1].reward == 0.0


def test_rows_of_no_two_splits_are_the_same():
    source = VerifiersTasks("verifiers_worlds.single", {"number": 3})
    prompts = [source.task(s, n).prompt for s in ("train", "val", "test") for n in range(source.size(s))]
    assert prompts == ["Add.\n0 + 1?", "Add.\n1 + 1?", "Add.\n2 + 1?"]
    source = VerifiersTasks("verifiers_worlds.guessing")
    assert [source.size(split) for split in ("train", "val", "test")] == [8, 3, 2]
    assert source.task("test", 0).prompt == "3 + 1?"
    with pytest.raises(IndexError, match="0 to 1 in split 'test', got 2"):
        source.task("test", 2)


def test_what_the_parser_looks_for_is_put_around_the_action():
    assert played("tagged", ["18"])[1].reward == 0.0
    assert played("tagged", ["18"], template="<answer>{action}</answer>")[1].reward == 1.0


def test_a_conversation_goes_turn_by_turn_and_ends_by_its_own_rules():
    seen, low, high, word, won, after = played("guessing", ["1", "9", "two", "2", "2"])
    assert (seen, low.information, high.information, word.information) == ("", "higher", "lower", "a number, please")
    assert [each.reward for each in (low, high, word)] == [0.0, 0.0, 0.0]
    assert (won.reward, won.done, won.info["stop_condition"]) == (1.0, True, "has_final_env_response")
    assert after == StepResult("", done=True, valid=False, info={"invalid": "the episode is over"})


@pytest.mark.parametrize(("own", "ours", "turns"), [(-1, 3, 3), (9, 3, 3), (2, 3, 2)])
def test_an_episode_is_paid_when_its_turns_are_spent(own, ours, turns):
    source = VerifiersTasks("verifiers_worlds.guessing", {"max_turns": own}, max_turns=ours)
    task = source.task("val", 1)
    env = source.env(task)
    results = [env.step("9") for _ in range(turns)]
    assert task.max_turns == turns and [result.done for result in results] == [False] * (turns - 1) + [True]
    assert results[-1].info["stop_condition"] == "max_turns_reached"


def test_tools_are_offered_and_called():
    seen, added, looked, unclear, broken, answered = played(
        "tools", ['add[{"a": 16, "b": 1}]', "look[the shelf]", "add[3]", 'add[{"a": "x"}]', "answer[18]"]
    )
    assert seen == 'Tools:\nadd[{"a": ..., "b": ...}] Add two numbers.\nlook[{"at": ...}] Look somewhere.'
    assert (added.information, looked.information) == ("17", "nothing at the shelf")
    assert (unclear.valid, unclear.information) == (
        False,
        'Invalid action: expected add[{"a": ..., "b": ...}].\nnothing at the shelf',
    )
    assert broken.valid and "missing 1 required positional argument: 'b'" in broken.information
    assert (answered.reward, answered.done, answered.info["add_calls"]) == (1.0, True, 2.0)


def test_the_kit_finds_nothing_wrong():
    for name, actions in (("single", ["18"]), ("guessing", ["1", "2"]), ("tools", ["look[x]", "18"])):
        source = VerifiersTasks(f"verifiers_worlds.{name}")
        assert check_env(source, source.task("val", 1), actions=actions, strangers=True).num_done >= 1


def test_an_error_of_the_environment_is_raised_and_one_given_up_is_let_go():
    source = VerifiersTasks("verifiers_worlds.broken")
    env = source.env(source.task("val", 0))
    env.observe()
    with pytest.raises(RuntimeError, match="ToolError: the tool broke"):
        env.step("x")
    left = VerifiersTasks("verifiers_worlds.guessing")
    env = left.env(left.task("val", 0))
    env.observe()
    rollout, gone = env.game._task, weakref.ref(env)
    del env
    gc.collect()
    assert gone() is None
    left.env(left.task("val", 0)).observe()  # the loop has come by
    assert rollout.cancelled()


def test_another_process_loads_its_own():
    source = VerifiersTasks("verifiers_worlds.single")
    assert source.size("val") == 2
    again = cloudpickle.loads(cloudpickle.dumps(source))
    assert again._loaded is None and again.task("val", 1) == source.task("val", 1)


def test_messages_as_text():
    messages = [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]},
    ]
    assert written(messages) == "Add.\n1 + 1?"
    shot = [*messages, {"role": "assistant", "content": "2"}, {"role": "user", "content": "2 + 1?"}]
    assert written(shot) == "Add.\nuser: 1 + 1?\nassistant: 2\nuser: 2 + 1?"
    assert written("1 + 1?") == "1 + 1?"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobodys-environment", "no such verifiers environment: .* got 'nobodys-environment'"),
        ("verifiers_worlds.nobody", "no such function: expected 'nobody' in .*; set data.source.environment"),
        ("nobody.here", "there is no module 'nobody'; set data.source.environment"),
        ("verifiers_worlds.compared", "expected rewards of single episodes, got rewards of groups"),
        ("verifiers_worlds.nothing", "to return a vf.Environment, got int; set data.source.environment"),
    ],
)
def test_what_cannot_be_played_is_one_line(name, message, caplog):
    with pytest.raises(ValueError, match=message) as error:
        VerifiersTasks(name).size("train")
    assert "\n" not in str(error.value) and not caplog.records


def test_a_template_needs_a_place_for_the_action():
    with pytest.raises(ValueError, match="expected {action} in data.source.template, got 'x'"):
        VerifiersTasks("verifiers_worlds.single", template="x")


def test_a_yaml_trains_in_it(tmp_path, monkeypatch, tiny_folder, capsys):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(str(tiny_folder), num_rl_steps=1)
    kind = "lightning_mem1.environments.adapters.verifiers.VerifiersTasks"
    settings = {"environment": "verifiers_worlds.guessing", "args": {"max_turns": 3}}
    config["data"]["init_args"]["source"] = {"class_path": kind, "init_args": settings}
    (tmp_path / "guessing.yaml").write_text(yaml.safe_dump(config))
    assert fit_command.main(["guessing.yaml", "--trainer.logger=false"]) == 0
    assert "step    1/1" in capsys.readouterr().out


def test_its_own_loop_trains_through_the_gateway(make_module, fit):
    pytest.importorskip("openai", reason="the extra agents is not installed")

    class Keeper(RolloutCallback):
        played = ()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            Keeper.played = (*Keeper.played, *batch.trajectories)

    agent = "lightning_mem1.environments.adapters.verifiers.play"
    source = VerifiersTasks("verifiers_worlds.guessing", {"max_turns": 2})
    data = AgentData(agent, source=source, tasks_per_step=2, group_size=2, num_rl_steps=1, num_val_tasks=0)
    trainer = fit(make_module(memory="recorded"), data, Keeper())
    assert [t.error for t in Keeper.played] == [""] * 4
    assert [len(t.turns) for t in Keeper.played] == [2] * 4
    assert trainer.callback_metrics["train/drift"] == 0 and math.isfinite(trainer.callback_metrics["train/loss"])
