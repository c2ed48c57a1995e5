"""The card of a run's adapter: the hub's reader takes it, its numbers are the run's, its code loads the policy."""

import re

import pytest
import torch
from huggingface_hub import ModelCard

from lightning_mem1.callbacks import MetricsCallback, RLCheckpoint
from lightning_mem1.callbacks.card import report_of
from lightning_mem1.cli import export
from lightning_mem1.policy.policy import Policy

IDS = torch.tensor([[5, 6, 7, 8, 9, 200, 31]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def loaded(folder, text: str, placeholder: str = "FOLDER"):
    """What the card's own code makes: model and tokenizer."""
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(compile(code.replace(f'"{placeholder}"', repr(str(folder))), "README.md", "exec"), names)
    return names["model"], names["tokenizer"]


@pytest.fixture
def run(make_module, make_data, fit, tmp_path):
    """A run of three rl_steps with a validation after each: its module and its folder."""
    module = make_module(lr=0.1)
    callbacks = [MetricsCallback(), RLCheckpoint(str(tmp_path))]
    fit(module, make_data(), *callbacks, enable_checkpointing=True, val_check_interval=1)
    return module, tmp_path


def test_the_hub_reads_the_header_of_a_runs_adapter(run):
    card = ModelCard.load(run[1] / "adapter" / "README.md")
    assert card.data.library_name == "peft" and card.data.pipeline_tag == "text-generation"
    assert card.data.base_model is None and card.data.license is None  # the base is a folder that states none
    measured = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert measured["reward"] == 0.5 and measured["success"] == 0.0  # what RankedTasks pays in validation
    assert {each.dataset_type for each in card.data.eval_results} == {"RankedTasks"}


def test_the_text_states_data_seed_and_results(run):
    text = (run[1] / "adapter" / "README.md").read_text()
    assert "Last validation (rl_step 3, greedy on 4 tasks): reward 0.5, success 0, peak_tokens_max " in text
    rows = dict(re.findall(r"^\| ([\w ]+) \| (.*) \|$", text, re.MULTILINE))
    assert rows["data"] == "RankedTasks: 10 training tasks, 6 validation tasks"
    assert (rows["each rl_step"], rows["seed"], rows["rl_step"]) == ("2 tasks x 3 episodes", "0", "3")
    assert rows["base"].startswith(f"{run[0].policy.source} (")


def test_the_folder_of_a_run_loads_in_peft_by_the_code_of_its_card(run):
    folder = run[1] / "adapter"
    model, tokenizer = loaded(folder, (folder / "README.md").read_text())
    torch.testing.assert_close(logits(model), logits(run[0].policy.model), atol=1e-5, rtol=0)
    assert tokenizer.encode("red shoes") == run[0].policy.tokenizer.encode("red shoes")
    torch.testing.assert_close(logits(Policy.load(str(folder)).model), logits(model), atol=1e-5, rtol=0)


def test_an_export_of_its_checkpoint_states_the_same_results_and_loads_by_its_card(run, monkeypatch):
    module, folder = run
    monkeypatch.chdir(folder)
    path = "checkpoints/last.ckpt"
    assert report_of(torch.load(path, weights_only=True))["validation"]["val/reward"] == 0.5
    assert export.main(["--ckpt_path", path, "--output", "out", "--merged"]) == 0
    card = ModelCard.load("out/README.md")
    assert {each.metric_type: each.metric_value for each in card.data.eval_results}["reward"] == 0.5
    assert card.data.library_name == "transformers"
    model, tokenizer = loaded("out", card.content)
    torch.testing.assert_close(logits(model), logits(module.policy.model), atol=1e-5, rtol=0)
    assert tokenizer.encode("red shoes") == module.policy.tokenizer.encode("red shoes")


def test_a_resumed_run_keeps_the_validation_of_the_first_and_describes_its_own_tasks():
    checkpoint = RLCheckpoint()
    checkpoint.report = {"data": {"source": "New"}}
    validation = {"rl_step": 3, "val/reward": 0.5}
    checkpoint.load_state_dict({"best": 0.5, "report": {"data": {"source": "Old"}, "validation": validation}})
    assert checkpoint.report == {"data": {"source": "New"}, "validation": validation}
    checkpoint.load_state_dict({"best": 0.6})  # of an earlier version
    assert checkpoint.best == 0.6 and checkpoint.report["validation"] == validation
