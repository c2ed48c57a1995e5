import random

import pytest
import torch

from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.policy.merged import Merged
from lightning_mem1.policy.policy import ADAPTER, LoraSettings
from lightning_mem1.types import GenerationRequest
from tiny import random_ids, tiny_policy, turns


def logits(model, ids):
    tokens = torch.tensor([ids])
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits


def test_the_view_computes_what_the_adapted_model_does_and_shares_all_other_weights():
    policy = tiny_policy(LoraSettings(r=4, target_modules=["q_proj"]))
    view, ids = Merged(policy.causal_lm).model, random_ids(random.Random(0), 20)
    torch.testing.assert_close(logits(view, ids), logits(policy.causal_lm, ids), atol=1e-5, rtol=0)
    own = {id(parameter) for parameter in policy.causal_lm.parameters()}
    added = {name for name, parameter in view.named_parameters() if id(parameter) not in own}
    assert added == {f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)}


def test_the_policy_itself_stays_as_it_trains():
    policy = tiny_policy(LoraSettings(r=4))
    before = {name: parameter.clone() for name, parameter in policy.named_parameters()}
    Merged(policy.causal_lm)
    assert all(torch.equal(parameter, before[name]) for name, parameter in policy.named_parameters())
    assert {name for name, parameter in policy.named_parameters() if parameter.requires_grad} == {
        name for name in before if f".{ADAPTER}." in name
    }


def test_only_the_adapters_that_are_on_are_in_the_view():
    policy, ids = tiny_policy(LoraSettings(r=4)), random_ids(random.Random(1), 12)
    policy.add_adapter("critic", LoraSettings(r=2))
    with_policy = logits(Merged(policy.causal_lm).model, ids)
    torch.testing.assert_close(with_policy, logits(policy.causal_lm, ids), atol=1e-5, rtol=0)
    with policy.reference():
        assert torch.equal(logits(Merged(policy.causal_lm).model, ids), logits(policy.causal_lm, ids))
        assert (logits(Merged(policy.causal_lm).model, ids) - with_policy).abs().max() > 0.1


def test_without_an_adapter_there_is_nothing_to_copy():
    model = tiny_policy().causal_lm
    assert Merged(model).model is model


@pytest.mark.parametrize("choice", [True, None])
def test_an_engine_decodes_with_the_weights_as_they_are_at_each_reset(choice):
    policy = tiny_policy(LoraSettings(r=4))
    settings = {merge: EngineSettings(2, 64, merge_lora=merge) for merge in (choice, False)}
    engine, plain = LocalEngine(policy, settings[choice]), LocalEngine(policy, settings[False])
    asked = [GenerationRequest(i, random_ids(random.Random(i), 9), 12, seed=i) for i in range(4)]
    found = []
    for _ in range(2):
        here, there = turns(engine, asked), turns(plain, asked)
        assert [each.ids for each in here] == [each.ids for each in there]
        for a, b in zip(here, there, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
        found.append([each.ids for each in here])
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data.neg_()
    assert found[0] != found[1]
