"""Models with recurrent layers score every token as transformers does in its own context, with the same gradients."""

import copy
import importlib
import inspect
import pickle
import random

import pytest
import torch
import transformers

from lightning_mem1.policy.blocks import Block
from lightning_mem1.policy.critic import Critic, CriticSettings
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.policy.recurrent import (
    LayerStates,
    adopt,
    bypassed_linears,
    recurrent_layers,
    unknown_recurrent_layers,
)
from lightning_mem1.policy.recurrent_kernels import rows_from
from lightning_mem1.policy.recurrent_rows import segment_rows
from lightning_mem1.training.layouts.collate import collate
from tiny import random_ids, random_trajectory, tiny_policy, tiny_tokenizer
from tiny_recurrent import BASE, DELTA, FAMILIES, limit, plain_logprobs, recurrent_policy

MODES = ["mem1", "full", "summary"]
SHAPES = [[(5, 9), (1, 0), (7, 21)], [(3, 40), (12, 2)], [(1, 1), (1, 3), (4, 0)]]
LORA = LoraSettings(r=4, alpha=4)


def played(mode, seed=0):
    """Three trajectories, two of them of one prompt; segments of one token are among theirs."""
    rng = random.Random(seed)
    prompts = [random_ids(rng, 19), random_ids(rng, 7)]
    return [random_trajectory(rng, shape, prompts[i % 2], i, mode == "summary") for i, shape in enumerate(SHAPES)]


def gradients(policy, trajectories, layout, mode):
    """Of unlike weights on all log-probs, so that no token's gradient can hide; (log-probs, gradients by name)."""
    logprobs, _ = policy.logprobs(collate(trajectories, layout, mode))
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    total = (logprobs * torch.sin(torch.arange(len(logprobs)))).sum()
    found = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    return logprobs.detach(), {n: g for n, g in zip(trained, found, strict=True) if g is not None}


def assert_same_gradients(found, expected, rtol):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        largest = max(1e-3, float(gradient.abs().max()))
        assert float((found[name] - gradient).abs().max()) <= rtol * largest, name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_tree_and_rows_equal_plain_transformers_and_each_others_gradients(family, mode):
    policy, plain = recurrent_policy(family)
    trajectories = played(mode)
    expected = plain_logprobs(plain, trajectories, mode)
    results = {layout: gradients(policy, trajectories, layout, mode) for layout in ("tree", "rows")}
    for logprobs, _ in results.values():
        assert float((logprobs - expected).abs().max()) <= limit(family)
    assert_same_gradients(results["tree"][1], results["rows"][1], rtol=100 * limit(family))
    names = {name.partition("layers.")[2] for name in results["tree"][1]}
    assert any(name.startswith("0.") and "conv" in name for name in names)  # the recurrent layers' own weights train


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_on_all_linear_layers_trains_alike_in_both_layouts_with_activations_recomputed_or_not(family):
    targets = {} if family not in ("falcon_h1", "nemotron_h") else {"target_modules": ["in_proj", "q_proj", "o_proj"]}
    policy, plain = recurrent_policy(family, LoraSettings(r=4, alpha=4, **targets))
    trajectories = played("mem1")
    rows = gradients(policy, trajectories, "rows", "mem1")
    tree = gradients(policy, trajectories, "tree", "mem1")
    assert float((tree[0] - rows[0]).abs().max()) <= limit(family)
    assert float((tree[0] - plain_logprobs(plain, trajectories, "mem1")).abs().max()) > 0.01  # it does something
    assert_same_gradients(tree[1], rows[1], rtol=100 * limit(family))
    assert len(tree[1]) == sum(p.requires_grad for p in policy.parameters())  # none is there in vain
    policy.train()
    policy.recompute_activations(True)
    again = gradients(policy, trajectories, "tree", "mem1")
    assert torch.equal(again[0], tree[0])
    assert_same_gradients(again[1], tree[1], rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["tree", "rows"])
def test_a_segment_reaches_no_other_segment_and_a_prompt_reaches_all_of_its_own(family, layout):
    policy, _ = recurrent_policy(family)
    trajectories = played("mem1")

    @torch.no_grad()
    def scored():
        batch = collate(trajectories, layout, "mem1")
        return policy.logprobs(batch)[0], batch

    before, batch = scored()

    def changed():
        places = ((scored()[0] - before).abs() > 2e-4).nonzero()[:, 0].tolist()
        return {(int(batch.trajectory_index[n]), int(batch.turn_index[n])) for n in places}

    rng = random.Random(5)
    first = trajectories[0].turns[0]
    information, first.information_ids = first.information_ids, random_ids(rng, 9)
    assert changed() == {(0, 1)}  # turn 1 saw the reply to turn 0, and turn 2 what turn 1 wrote
    first.information_ids = information
    first.action_ids[-1] += 1
    assert changed() == {(0, 0), (0, 1)}
    first.action_ids[-1] -= 1
    assert changed() == set()
    trajectories[0].prompt_ids = trajectories[2].prompt_ids = [*random_ids(rng, 2), *trajectories[0].prompt_ids[2:]]
    assert changed() == {(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2)}  # through the state alone: it is far away


@pytest.mark.parametrize("family", [name for name in FAMILIES if name in ("qwen3_5", "olmo_hybrid")])
def test_in_double_precision_the_gated_delta_rule_is_exact(family, monkeypatch):
    for module in {type(layer).__module__ for layer in recurrent_layers(recurrent_policy(family)[0].causal_lm)}:
        modeling = importlib.import_module(module)
        for name in ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"):
            source = inspect.getsource(inspect.unwrap(getattr(modeling, name)))
            lines = [line for line in source.splitlines() if not line.startswith("@")]
            space = dict(vars(modeling))
            exec("\n".join(lines).replace("torch.float32", "torch.float64"), space)
            monkeypatch.setattr(modeling, name, space[name])
    policy, plain = recurrent_policy(family, change=lambda model: model.double())
    for mode in MODES:
        trajectories = played(mode)
        results = {layout: gradients(policy, trajectories, layout, mode) for layout in ("tree", "rows")}
        expected = plain_logprobs(plain, trajectories, mode)
        for logprobs, _ in results.values():
            assert float((logprobs - expected).abs().max()) <= 1e-6  # they are rounded to float32 in the end
        assert_same_gradients(results["tree"][1], results["rows"][1], rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_known_whatever_its_precision(family):
    policy, _ = recurrent_policy(family, LORA if family != "falcon_h1" and family != "nemotron_h" else None)
    assert recurrent_layers(policy.causal_lm)
    assert unknown_recurrent_layers(policy.causal_lm) == []
    policy.causal_lm.to(torch.bfloat16)
    assert unknown_recurrent_layers(policy.causal_lm) == []


def test_layers_that_keep_a_state_in_another_way_are_named():
    base = {**BASE, "vocab_size": 32}
    minimax = transformers.MiniMaxConfig(**base, head_dim=12, num_local_experts=2, num_experts_per_tok=1, block_size=8)
    gemma = transformers.RecurrentGemmaConfig(**{**base, "num_hidden_layers": 3}, lru_width=48, attention_window_size=8)
    rwkv = transformers.RwkvConfig(vocab_size=32, hidden_size=32, attention_hidden_size=32, num_hidden_layers=2)

    def unknown(config):
        model = transformers.AutoModelForCausalLM.from_config(config)
        adopt(model)
        return unknown_recurrent_layers(model)

    assert unknown(minimax) == ["model.layers.1.self_attn (MiniMaxLightningAttention)"]
    assert unknown(gemma)[0] == "model.layers.0.temporal_block (RecurrentGemmaRecurrentBlock)"
    assert unknown(rwkv)[0] == "rwkv.blocks.0 (RwkvBlock)"
    assert unknown(tiny_policy().config) == []


def test_a_layer_that_forgets_its_state_is_unknown(monkeypatch):
    policy, _ = recurrent_policy("qwen3_5")
    monkeypatch.setattr(LayerStates, "get_recurrent_state", lambda self, layer_idx, state_idx=0: None)
    assert unknown_recurrent_layers(policy.causal_lm) == ["model.layers.0.linear_attn (Qwen3_5GatedDeltaNet)"]


def test_a_model_without_recurrent_layers_stays_as_it_is():
    policy = tiny_policy()
    assert recurrent_layers(policy.causal_lm) == []
    batch = collate([random_trajectory(random.Random(0), [(3, 2), (2, 0)], [5, 6])])
    policy.logprobs(batch)
    assert batch.tree is not None and "state_rows" not in batch.tree.__dict__


def test_prompts_of_one_length_run_together_and_segments_from_their_states():
    blocks = [Block(0, 3), Block(3, 2), Block(5, 3), Block(8, 4, 2), Block(12, 1, 0), Block(13, 0, 0), Block(13, 3, 1)]
    plan = segment_rows(blocks, "cpu")
    found = [
        (group.index.tolist(), *(None if each is None else each.tolist() for each in (group.reads, group.writes)))
        for group in plan.groups
    ]
    assert found == [
        ([[0, 1, 2], [5, 6, 7]], None, [0, 1]),
        ([[3, 4]], None, [2]),
        ([[8, 9, 10, 11], [13, 14, 15, 15]], [1, 2], None),
        ([[12, 12]], [0], None),  # two tokens, so that the state is read and not overwritten
    ]
    assert [None if group.places is None else group.places.tolist() for group in plan.groups] == [
        None,
        None,
        [0, 1, 2, 3, 4, 5, 6],
        [0],
    ]
    assert plan.restore.tolist() == [0, 1, 2, 6, 7, 3, 4, 5, 8, 9, 10, 11, 15, 12, 13, 14]


def test_a_selective_scan_continues_from_a_state():
    modeling = importlib.import_module("transformers.models.jamba.modeling_jamba")
    recurrent_policy("jamba")  # puts its wrapper there
    generator = torch.Generator().manual_seed(0)
    rows, channels, width, tokens = 2, 6, 4, 9
    x, gate, step = (torch.randn(rows, channels, tokens, generator=generator) for _ in range(3))
    b, c = (torch.randn(rows, width, tokens, generator=generator) for _ in range(2))
    decay = -torch.rand(channels, width, generator=generator)
    bias, skip = torch.randn(channels, generator=generator), torch.randn(channels, generator=generator)

    def scan(part):
        taken = [each[..., part] for each in (x, step)] + [decay] + [each[..., part] for each in (b, c)]
        more = {"D": skip, "z": gate[..., part], "delta_bias": bias, "delta_softplus": True}
        return modeling.mamba_selective_scan(*taken, **more, return_last_state=True)

    with rows_from(None):
        whole, last = scan(slice(None))
        first, state = scan(slice(4))
    with rows_from(state):
        second, end = scan(slice(4, None))
    torch.testing.assert_close(torch.cat([first, second], dim=-1), whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(end, last, atol=1e-6, rtol=1e-5)
    assert torch.equal(
        scan(slice(4, None))[0],
        modeling.mamba_selective_scan.as_it_was(
            x[..., 4:],
            step[..., 4:],
            decay,
            b[..., 4:],
            c[..., 4:],
            D=skip,
            z=gate[..., 4:],
            delta_bias=bias,
            delta_softplus=True,
        ),
    )  # outside, transformers' own


def test_single_steps_keep_the_time_limits_that_scans_keep():
    policy, plain = recurrent_policy("nemotron_h")
    layer = recurrent_layers(policy.causal_lm)[0]
    assert layer.time_step_limit == (0.001, float("inf"))
    with torch.no_grad():
        layer.dt_bias.fill_(-9.0)  # steps far below the limit
        hidden = torch.randn(1, 6, 48, generator=torch.Generator().manual_seed(0))
        whole = layer.in_states(hidden, LayerStates())
        layer.in_states(hidden[:, :5], states := LayerStates())
        single = layer.in_states(hidden[:, 5:], states)
    torch.testing.assert_close(single, whole[:, 5:], atol=1e-6, rtol=1e-4)


def test_no_adapter_is_put_where_a_layer_reads_the_weights_itself():
    policy, _ = recurrent_policy("jamba", LORA)
    assert bypassed_linears(policy.causal_lm) == ["model.layers.0.mamba.dt_proj", "model.layers.2.mamba.dt_proj"]
    adapted = {name.partition(".lora_A")[0] for name, _ in policy.named_parameters() if "lora_A" in name}
    assert {"in_proj", "x_proj", "out_proj", "q_proj"} <= {name.rpartition(".")[2] for name in adapted}
    assert not any("dt_proj" in name for name in adapted)
    assert bypassed_linears(recurrent_policy("qwen3_5")[0].causal_lm) == []


def test_a_critic_shares_a_base_with_recurrent_layers():
    policy, _ = recurrent_policy("lfm2", LORA)
    batch = collate(played("mem1"))
    before = policy.logprobs(batch)[0]
    critic = Critic(policy, CriticSettings(r=2))
    torch.nn.init.normal_(critic.head.weight)
    values = {layout: critic.values(collate(played("mem1"), layout)) for layout in ("tree", "rows")}
    torch.testing.assert_close(values["tree"], values["rows"], atol=1e-5, rtol=1e-5)
    assert torch.equal(policy.logprobs(batch)[0], before)


@pytest.mark.parametrize("remade", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_layers_of_its_own(remade):
    policy, plain = recurrent_policy("lfm2")
    trajectories = played("mem1")
    before = policy.logprobs(collate(trajectories))[0]
    twin = Policy(remade(policy.causal_lm), tiny_tokenizer())
    assert torch.equal(twin.logprobs(collate(trajectories))[0], before)
    with torch.no_grad():
        for parameter in policy.causal_lm.parameters():
            parameter.zero_()
    assert torch.equal(twin.logprobs(collate(trajectories))[0], before)
    assert type(recurrent_layers(twin.causal_lm)[0]).__name__ == "Lfm2ShortConv"


def test_an_ordinary_call_generates_as_before():
    policy, plain = recurrent_policy("qwen3_5")
    ids = torch.tensor([random_ids(random.Random(0), 12)])
    ours, theirs = (
        model.generate(ids, max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(ids))
        for model in (policy.causal_lm, plain)
    )
    assert ours.tolist() == theirs.tolist()


def test_the_text_part_of_a_composite_checkpoint_scores_as_the_text_model(tmp_path):
    text = {**BASE, **DELTA, "vocab_size": len(tiny_tokenizer())}
    sizes = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 48}
    config = transformers.Qwen3_5Config(text_config=text, vision_config=sizes)
    torch.manual_seed(0)
    whole = transformers.Qwen3_5ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    policy = Policy.load(str(tmp_path)).eval()
    trajectories = played("mem1")
    expected = plain_logprobs(whole, trajectories, "mem1")
    for layout in ("tree", "rows"):
        gap = (policy.logprobs(collate(trajectories, layout))[0] - expected).abs().max()
        assert float(gap) <= limit("qwen3_5")


@pytest.mark.parametrize("layout", ["stitched", "official"])
def test_a_drawn_mask_is_refused_because_states_know_none(layout):
    policy, _ = recurrent_policy("lfm2")
    batch = collate(played("mem1"), layout, state_end=lambda ids: len(ids) // 2)
    with pytest.raises(ValueError, match=r"model.layers.0.conv \(Lfm2ShortConv\) keeps a state.*set model.layout tree"):
        policy.logprobs(batch)
