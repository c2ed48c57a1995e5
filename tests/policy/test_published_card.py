"""Headers of model cards: what the hub's reader finds in them, and the cards of the bundled policies."""

import re

import pytest
import torch
from huggingface_hub import ModelCard

from lightning_mem1.policy.loading import BUNDLED_POLICIES
from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.published_card import front_matter, licence_of


def test_a_header_is_read_back_by_the_hubs_reader(tmp_path):
    results = [("shop", "reward", 0.52345), ("qa", "reward", 0.95)]
    text = front_matter("peft", "apache-2.0", base="Qwen/Qwen2.5-0.5B", relation="adapter", results=results, name="x")
    (tmp_path / "README.md").write_text(f"{text}\n# x\n")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.base_model, data.base_model_relation) == ("Qwen/Qwen2.5-0.5B", "adapter")
    assert (data.library_name, data.license, data.model_name) == ("peft", "apache-2.0", "x")
    assert [(each.dataset_type, each.metric_value) for each in data.eval_results] == [("shop", 0.5234), ("qa", 0.95)]
    assert licence_of(str(tmp_path)) == "apache-2.0"


def test_a_header_states_nothing_that_is_not_known():
    assert front_matter("transformers", None) == (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- lightning_mem1\n"
        "- reinforcement-learning\n- agent\n---"
    )


@pytest.mark.parametrize("text", [None, "# no header", "---\n- 1\n---\n", "---\nlicense: [mit, gpl]\n---\n"])
def test_a_folder_without_a_readable_licence_states_none(tmp_path, text):
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert licence_of(str(tmp_path)) is None


@pytest.mark.parametrize("name", BUNDLED_POLICIES)
def test_the_card_of_a_bundled_policy_is_read_by_the_hubs_reader_and_agrees_with_its_table(name):
    card = ModelCard.load(BUNDLED_POLICIES[name] / "README.md")
    library = "transformers" if (BUNDLED_POLICIES[name] / "config.json").is_file() else "peft"
    assert (card.data.license, card.data.library_name) == ("mit", library)
    measured = {(each.dataset_type, each.metric_type): each.metric_value for each in card.data.eval_results}
    rewards = re.findall(
        r"^\| (shop|marketplace|QA|reading): .*\| (?:reward|right answers) ([\d.]+)", card.content, re.M
    )
    assert {world.lower(): float(reward) for world, reward in rewards} == {
        world: value for (world, metric), value in measured.items() if metric == "reward"
    }
    assert re.search(r"^\| seed \| \d \|$", card.content, re.M) and "| command | `mem1 warmstart " in card.content


@pytest.mark.parametrize("name", BUNDLED_POLICIES)
def test_a_bundled_policy_loads_by_the_code_of_its_card(name):
    folder = BUNDLED_POLICIES[name]
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(code.replace("FOLDER", str(folder)), "README.md", "exec"), names)
    policy, ids = Policy.load(name), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(names["model"](ids).logits, policy.model.eval()(ids).logits, atol=1e-4, rtol=0)
    assert names["tokenizer"].encode("Red SHOES") == policy.tokenizer.encode("Red SHOES")
