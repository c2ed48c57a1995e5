"""A policy that acts: alone, and loaded back from a real MLflow store."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import MLFlowLogger
from mlflow.tracking import MlflowClient

from lightning_mem1.callbacks import ModelCallback
from lightning_mem1.evaluation.player import Player
from lightning_mem1.tracking.model_package import EXAMPLE, copy_code
from lightning_mem1.tracking.pyfunc_agent import Agent
from tiny_tasks import LongTasks


def greedy(module, source, task):
    player = Player(module, source, "mem1")
    (trajectory,) = player.play([task], player.engine(player.engine_settings([task])))
    return trajectory, player


def as_row(trajectory, player, source, turns):
    task = trajectory.task
    told = [{"text": player.view.decode(t.action_ids), "information": t.information} for t in trajectory.turns[:turns]]
    shown = source.env(task).observe()
    return {"prompt": task.prompt, "observation": shown, "max_turns": task.max_turns, "turns": told}


def strengthened(module):
    """The same module with an adapter that matters."""
    torch.manual_seed(1)
    for parameter in module.policy.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return module


def test_its_turn_is_the_one_that_a_rollout_would_take(make_module):
    module, source = strengthened(make_module()), LongTasks()
    trajectory, player = greedy(module, source, source.task("val", 0))
    rows = [as_row(trajectory, player, source, turns) for turns in (0, 1, 2)]
    first, second, third = Agent(module.policy, module.hparams).predict(rows)
    assert first["text"] == player.view.decode(trajectory.turns[0].action_ids)
    prompt, replies = len(trajectory.prompt_ids), [len(turn.information_ids) for turn in trajectory.turns]
    written = [len(module.policy.tokenizer.encode(turn["text"])) for turn in rows[2]["turns"]]
    contexts = [prompt, prompt + written[0] + replies[0], prompt + written[1] + replies[1]]  # mem1: the last turn only
    assert [each["context_tokens"] for each in (first, second, third)] == contexts


def test_a_run_logs_its_policy_as_a_model_that_loads_back_and_acts(mlflow_uri, make_module, make_data, fit):
    import mlflow

    logger = MLFlowLogger("models", tracking_uri=mlflow_uri)
    module = strengthened(make_module(algorithm="ppo"))
    fit(module, make_data(num_rl_steps=1, num_val_tasks=0), ModelCallback(), logger=logger)
    client = MlflowClient(mlflow_uri)
    (output,) = client.get_run(logger.run_id).outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.name, str(model.status), output.step) == ("policy", "READY", 1)
    assert model.params["algorithm"] == "ppo" and model.params["rl_step"] == "1"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(mlflow_uri)
    try:
        loaded = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    finally:
        mlflow.set_tracking_uri(before)
    files = [path.name for path in Path(mlflow.artifacts.download_artifacts(model.artifact_location)).rglob("*")]
    assert "adapter_model.safetensors" in files and not [name for name in files if name.endswith((".pkl", ".bin"))]
    rows = [{"prompt": "count to 3", "observation": "search page"}, {"prompt": "count to 4", "max_turns": 2}]
    assert loaded.predict(rows) == Agent(module.policy, module.hparams).predict(rows)


LOAD = """
import json, sys
import mlflow
loaded = mlflow.pyfunc.load_model(sys.argv[1])
said = loaded.predict([{"prompt": "count to 3"}, {"prompt": "count to 4", "max_turns": 2, "turns": []}])
import lightning_mem1
print(json.dumps([lightning_mem1.__file__, said]))
"""


def test_a_model_brings_its_code_its_signature_and_the_versions_of_its_libraries(
    mlflow_uri, make_module, make_data, fit, tmp_path
):
    import mlflow

    logger = MLFlowLogger("models", tracking_uri=mlflow_uri)
    module = make_module()
    fit(module, make_data(num_rl_steps=1, num_val_tasks=0), ModelCallback(), logger=logger)
    client = MlflowClient(mlflow_uri)
    (output,) = client.get_run(logger.run_id).outputs.model_outputs
    source = client.get_logged_model(output.model_id).artifact_location
    folder = mlflow.artifacts.download_artifacts(source, dst_path=str(tmp_path / "model"))
    told = mlflow.models.Model.load(folder)
    assert [(each.name, each.required) for each in told.signature.inputs] == [
        ("prompt", True),
        ("observation", False),
        ("max_turns", False),
        ("turns", False),
    ]
    assert told.load_input_example(folder) == EXAMPLE
    pinned = Path(folder, "requirements.txt").read_text().split()
    assert f"peft=={version('peft')}" in pinned and not [each for each in pinned if "+" in each or "==" not in each]
    code = Path(folder, "code", "lightning_mem1")
    assert not [path for path in (code / "policy" / "assets").glob("*")]  # the policy was made from other weights
    done = subprocess.run(
        [sys.executable, "-c", LOAD, folder], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    file, said = json.loads(done.stdout.splitlines()[-1])
    assert Path(file) == code / "__init__.py"
    rows = [{"prompt": "count to 3"}, {"prompt": "count to 4", "max_turns": 2}]
    assert said == Agent(module.policy, module.hparams).predict(rows)


def test_of_the_bundled_weights_a_model_brings_those_of_its_policy(tmp_path):
    assets = copy_code(tmp_path, "bundled") / "policy" / "assets"
    assert [path.name for path in assets.iterdir()] == ["policy"] and (assets / "policy" / "config.json").is_file()


def test_an_episode_that_cannot_be_gone_on_with_is_refused(make_module):
    module = make_module()
    agent = Agent(module.policy, module.hparams)
    assert agent.predict([]) == []
    with pytest.raises(ValueError, match="episode 1 has no prompt: expected a dict with 'prompt', got {'task': 'x'}"):
        agent.predict([{"prompt": "a"}, {"task": "x"}])
    module.policy.config.max_position_embeddings = 20
    with pytest.raises(ValueError, match="episode 0 is too long: expected a context of at most 14 tokens, got"):
        agent.predict([{"prompt": "count to 3", "observation": "search page"}])


def test_a_run_asked_for_no_model_logs_none(mlflow_uri, make_module, make_data, fit):
    logger = MLFlowLogger("models", tracking_uri=mlflow_uri)
    fit(make_module(), make_data(num_rl_steps=1, num_val_tasks=0), ModelCallback(log_model=False), logger=logger)
    assert MlflowClient(mlflow_uri).get_run(logger.run_id).outputs.model_outputs == []


def test_a_mode_that_writes_its_memory_apart_is_refused(make_module):
    module = make_module()
    with pytest.raises(ValueError, match="got 'summary'; play it with"):
        Agent(module.policy, {**module.hparams, "memory": "summary"})
