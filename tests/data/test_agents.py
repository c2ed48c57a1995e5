"""Tasks for agents: where they come from, and a training on what agents did with them."""

import math
import pickle
from pathlib import Path

import cloudpickle
import pytest
import yaml

from lightning_mem1.callbacks import RolloutCallback
from lightning_mem1.cli import fit
from lightning_mem1.data.agents import AgentData
from lightning_mem1.data.qa import QAData
from lightning_mem1.rollout.gateway.agent import AgentEnv
from tiny_agents import counter, player
from tiny_tasks import RankedTasks, tiny_config

pytest.importorskip("openai")


def test_a_task_is_that_of_the_source_and_its_environment_the_agent():
    source = AgentData("tiny_agents.counter", source=RankedTasks(), timeout_s=3.0, max_calls=5).source
    assert (source.size("train"), source.task("train", 4).id) == (10, "ranked/train/4")
    played = source.env(source.task("train", 4))
    assert isinstance(played, AgentEnv)
    assert (played.agent, played.env, played.settings.timeout_s, played.settings.max_calls) == (counter, None, 3.0, 5)
    third = AgentData(player, source=RankedTasks()).source
    assert third.env(third.task("train", 4)).env.reward == RankedTasks().env(RankedTasks().task("train", 4)).reward


def test_the_tasks_of_another_data_module_come_with_its_curriculum_and_its_baselines():
    data = AgentData(counter, tasks=QAData(objectives={0: 1, 5: 2}, hops=[1]), tasks_per_step=2, seed=0)
    assert len(data.source.task_at(1, 0, 0).objectives) == 1
    assert len(data.source.task_at(6, 0, 0).objectives) == 2
    ranked = AgentData(counter, source=RankedTasks())
    assert ranked.source.baselines("val", [0, 1]) == RankedTasks().baselines("val", [0, 1])
    assert not hasattr(ranked.source, "task_at")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agent": "tiny_agents.nobody"}, "no such agent: expected 'nobody' in "),
        ({"agent": "counter"}, "no such agent: expected a dotted name such as my_file.my_agent, got 'counter'; set"),
        ({"agent": "tiny_agents..x"}, "no such agent: expected a dotted name such as my_file.my_agent, got 'tiny"),
        ({"agent": "tiny_agents.word"}, "expected data.agent to name a function, got str; set it"),
        (
            {"agent": "tiny_agents.counter", "timeout_s": 0},
            "data.timeout_s too small: expected more than 0, got 0",
        ),
        ({"agent": "tiny_agents.counter", "max_running": 0}, "data.max_running too small: expected at least 1"),
        ({"agent": "os.getcwd"}, "an agent is called with a task and a client"),
    ],
)
def test_what_cannot_be_an_agent_is_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        AgentData(source=RankedTasks(), **settings)


@pytest.mark.parametrize("given", [{}, {"tasks": QAData(), "source": RankedTasks()}])
def test_tasks_come_from_one_place(given):
    with pytest.raises(ValueError, match="expected data.tasks or data.source, got (neither|both); set one of them"):
        AgentData(counter, **given).source  # noqa: B018


def test_the_tasks_of_another_data_module_are_made_again_in_a_worker():
    data = AgentData(counter, tasks=QAData(objectives=2, hops=[1]))
    here = data.source.task("train", 3)
    there = pickle.loads(cloudpickle.dumps(data.source_maker()))()
    assert there.task("train", 3) == here
    assert there.agent is counter


@pytest.mark.parametrize("agent", ["counter", "player"])
def test_a_training_learns_from_what_agents_did(agent, make_module, fit):
    class Keeper(RolloutCallback):
        played = ()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            Keeper.played = (*Keeper.played, *batch.trajectories)

    data = AgentData(f"tiny_agents.{agent}", source=RankedTasks(), tasks_per_step=2, group_size=3, num_rl_steps=2)
    keeper = Keeper()
    trainer = fit(make_module(memory="recorded"), data, keeper)
    assert len(Keeper.played) == 12
    assert [t.error for t in Keeper.played] == [""] * 12
    assert all(turn.context_ids for t in Keeper.played for turn in t.turns)
    assert trainer.callback_metrics["train/drift"] == 0
    assert math.isfinite(trainer.callback_metrics["train/loss"])
    assert trainer.callback_metrics["train/rollout_gap_max"] < 1e-4


def test_a_yaml_names_the_agent_and_whose_tasks_it_plays(tmp_path, monkeypatch, tiny_folder, capsys):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(str(tiny_folder), num_rl_steps=1)
    config["model"]["memory"] = "recorded"
    config["data"]["class_path"] = "AgentData"
    config["data"]["init_args"] |= {"agent": "tiny_agents.counter", "timeout_s": 60.0}
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    assert fit.main(["mine.yaml"]) == 0
    said = capsys.readouterr()
    assert "memory recorded" in said.out + said.err
    assert fit.main(["mine.yaml", "--experiment=none", "--data.agent=tiny_agnts.counter"]) == 1
    assert "no such agent: expected a word, or a dotted name" in capsys.readouterr().err
    config["model"]["memory"] = "mem1"
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    assert fit.main(["mine.yaml", "--experiment=second"]) == 1
    assert "expected memory mode recorded, got 'mem1'; set model.memory" in capsys.readouterr().err
