"""Promise 1 on many families: rollout, `tree` and `rows` give the log-probabilities of plain transformers.

Some families by default, one of each mechanism; all of them with ``LIGHTNING_MEM1_ARCHITECTURES=all``.
"""

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from architectures import FAMILIES, FAST, measure, save
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import GenerationRequest, StopReason, Trajectory, Turn
from tiny import task, turns

EVERY = os.environ.get("LIGHTNING_MEM1_ARCHITECTURES") == "all"


@pytest.mark.parametrize("name", FAMILIES if EVERY else FAST)
def test_rollout_and_layouts_equal_plain_transformers_in_every_memory_mode(name):
    family, found = FAMILIES[name], measure(name)
    assert found.plain <= family.tolerance
    assert all(gap <= family.tolerance for gap in found.layouts.values()), found.layouts
    assert found.gradient <= 1e-4
    assert found.engine == {"local": "LocalEngine", "transformers": "TransformersEngine"}[family.engine]
    assert found.packed is family.packed
    assert found.num_tokens > 300 and found.longest > 90


def test_forty_families_are_known_and_each_fast_one_is_among_them():
    assert len(FAMILIES) >= 40 and set(FAST) <= set(FAMILIES)


EXPERTS = ["Qwen3-MoE, windows", "Mixtral", "DeepSeek-V3", "gpt-oss"]


@pytest.mark.parametrize("name", EXPERTS)
def test_routers_choose_the_same_experts_in_the_rollout_and_in_training(name, tmp_path):
    save(FAMILIES[name], str(tmp_path))
    policy = Policy.load(str(tmp_path), lora=LoraSettings(r=2)).eval()
    engine = LocalEngine(policy, EngineSettings(num_slots=1, max_context_tokens=128, merge_lora=False))
    context = list(range(5, 65))
    with chosen_experts(policy.causal_lm) as rollout:
        (turn,) = turns(engine, [GenerationRequest(0, context, max_new_tokens=12, temperature=0.8, seed=1)])
    trajectory = Trajectory(task(), context, [Turn(turn.ids, turn.logprobs)], StopReason.DONE)
    policy.train()
    with chosen_experts(policy.causal_lm) as training:
        policy.logprobs(collate([trajectory]), 0.8)
    # a pass of the whole context and one for each new token, against one pass of the packed row
    num_layers = len(training)
    passes = [rollout[start : start + num_layers] for start in range(0, len(rollout), num_layers)]
    assert num_layers >= 1 and len(passes) == len(turn.ids)
    for layer in range(num_layers):
        assert torch.equal(torch.cat([each[layer] for each in passes]), training[layer][: 60 + len(turn.ids) - 1])


class chosen_experts:
    """Inside, what every router chose: (tokens, experts) in the order of calls."""

    def __init__(self, model):
        self.routers = [m for name, m in model.named_modules() if name.endswith((".gate", ".router"))]
        self.found = []

    def __enter__(self):
        def keep(module, args, output):
            choices = [each for each in output if torch.is_tensor(each) and each.dtype == torch.int64]
            self.found.append(choices[0].flatten(0, -2).sort(dim=-1).values)

        self.hooks = [router.register_forward_hook(keep) for router in self.routers]
        return self.found

    def __exit__(self, *args):
        for hook in self.hooks:
            hook.remove()


def test_a_pass_of_the_engine_is_what_a_pass_of_plain_transformers_is_for_every_slot(tmp_path):
    save(FAMILIES["Laguna"], str(tmp_path))
    policy = Policy.load(str(tmp_path)).eval()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    engine = LocalEngine(policy, EngineSettings(num_slots=3, max_context_tokens=64))
    shapes = [(layer.num_key_heads, layer.key_width, layer.value_width) for layer in policy.architecture.layers]
    assert shapes == [(2, 8, 8), (2, 8, 8)]
    asked = [GenerationRequest(n, list(range(3 + n, 40 - 5 * n)), 4, seed=n) for n in range(5)]
    for request, turn in zip(asked, turns(engine, asked), strict=True):
        ids = torch.tensor([[*request.context_ids, *turn.ids]])
        with torch.no_grad():
            logps = torch.log_softmax(plain(input_ids=ids, use_cache=False).logits[0], -1)
        start = len(request.context_ids) - 1
        expected = [float(logps[start + n, token]) for n, token in enumerate(turn.ids)]
        assert turn.logprobs == pytest.approx(expected, abs=1e-5)


def test_the_page_on_models_has_a_row_of_every_family_within_its_tolerance():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "models.md").read_text()
    cells = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    rows = {row[0]: row for row in cells if len(row) == 8 and row[0] in FAMILIES}
    assert list(rows) == list(FAMILIES)
    for name, (_, about, layouts, engine, *gaps, gradient) in rows.items():
        family = FAMILIES[name]
        assert (about, engine, "unpacked" in layouts) == (family.about, family.engine, not family.packed)
        assert max(map(float, gaps)) <= family.tolerance and float(gradient) <= 1e-4
