import pytest
import torch
from transformers import AutoModelForCausalLM

from architectures import FAMILIES, config_of, save
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.backbone import Head, backbone, decoder_layers
from lightning_mem1.policy.inspection import untouched
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.policy.scores import PositionRule
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task, tiny_policy


@pytest.fixture
def load(tmp_path):
    """Loads a policy of a family of `architectures`."""

    def made(name, **kwargs):
        save(FAMILIES[name], str(tmp_path))
        return Policy.load(str(tmp_path), **kwargs)

    return made


ALL, WINDOW, CHUNK = PositionRule(), PositionRule(window=24), PositionRule(chunk=24)


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("Qwen2", [ALL, ALL]),
        ("Qwen2, windows", [ALL, WINDOW]),
        ("Mistral", [WINDOW, WINDOW]),
        ("Gemma 2", [WINDOW, ALL]),
        ("Llama 4", [CHUNK, ALL]),
        ("StableLM", [ALL, ALL]),
        ("GPT-2", [ALL, ALL]),
    ],
)
def test_windows_and_chunks_are_read_off_the_masks_that_the_model_asks_for(load, name, rules):
    known = load(name).architecture
    assert [layer.rule for layer in known.layers] == rules
    assert [layer.number for layer in known.layers] == [0, 1]
    assert (known.own, known.slots, known.keywords) == ("", "", name != "StableLM")


def test_heads_and_widths_are_those_of_each_layer(load):
    layers = load("MiMo-V2").architecture.layers
    assert [(each.num_key_heads, each.key_width, each.value_width) for each in layers] == [(4, 8, 6), (2, 8, 6)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("BLOOM", "transformer.h.0 (BloomBlock) has attention of its own"),
        ("Falcon", "transformer.h.0 (FalconDecoderLayer) has attention of its own"),
        ("Doge", "model.layers.0.self_attn (DogeAttention) hides tokens by a rule of its own"),
        ("Inkling", "model.layers.0.self_attn (InklingAttention) attends by its own position_bias"),
    ],
)
def test_one_line_names_the_layer_that_keeps_its_own_attention(load, caplog, name, reason):
    policy = load(name)
    assert policy.architecture.own == policy.architecture.slots == reason and policy.architecture.layers == ()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("lightning_mem1")] == [
        f"policy '{policy.source}': {reason}; so contexts are scored one a row, and model.engine.kind local plays by "
        "transformers' generation, which is slower"
    ]
    with pytest.raises(ValueError, match="the local engine cannot play .* set model.engine.kind transformers"):
        LocalEngine(policy, EngineSettings(2, 64))


def test_a_layer_that_mixes_tokens_in_another_way_is_named_though_its_attention_is_known(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    from lightning_mem1.policy.attention import register
    from tiny import tiny_tokenizer

    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4
    )
    config._attn_implementation = register()
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.model.layers[1].mlp = Blur(model.model.layers[1].mlp)  # each token takes something of the one before it
    policy = Policy(model, tiny_tokenizer(), source="blurred")
    assert policy.architecture.own == "model.layers.1 (LlamaDecoderLayer) mixes tokens by itself"
    assert policy.architecture.padded  # nothing before a token is padding


class Blur(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, hidden):
        return self.inner(hidden + torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], dim=1))


def test_two_calls_in_a_layer_leave_the_packed_row_and_take_the_slots_away(load):
    known = load("DiffLlama").architecture
    assert known.own == "" and known.slots == "model.layers.0.self_attn attends more than once in a pass"
    assert known.slower.endswith("so model.engine.kind local plays by transformers' generation, which is slower")


@pytest.mark.parametrize(("name", "positions"), [("GPT-2", 1024), ("OPT", 1024), ("Qwen2", None), ("BLOOM", None)])
def test_contexts_longer_than_learnt_positions_are_refused(load, name, positions):
    policy = load(name)
    assert policy.architecture.max_positions == positions
    if name == "GPT-2":
        with pytest.raises(ValueError, match="at most 1024 tokens, the positions it has learnt, got 1025"):
            LocalEngine(policy, EngineSettings(1, 1025))


def test_inspecting_changes_neither_weights_nor_modes_nor_random_state(load):
    policy = load("Gemma 2", lora=LoraSettings(r=2)).train()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    modes, state = [m.training for m in policy.modules()], torch.get_rng_state()
    assert policy.architecture.layers
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())
    assert [m.training for m in policy.modules()] == modes and torch.equal(torch.get_rng_state(), state)


def test_untouched_is_eager_and_everything_is_as_before_afterwards(load):
    policy = load("Mistral").train()
    before = policy.causal_lm.config._attn_implementation
    with untouched(policy.causal_lm):
        assert policy.causal_lm.config._attn_implementation == "eager"
        assert not any(module.training for module in policy.causal_lm.modules()) and not torch.is_grad_enabled()
    assert policy.causal_lm.config._attn_implementation == before and policy.training


@pytest.mark.parametrize("name", ["Granite", "Cohere", "Gemma 2", "nanochat", "MiniCPM3", "OPT", "GPT-2", "MPT"])
def test_logits_of_hidden_states_are_the_models_own_bit_for_bit(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(FAMILIES[name]), attn_implementation="eager").eval()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits[0]
        hidden = backbone(model)(input_ids=ids, use_cache=False).last_hidden_state[0]
        assert torch.equal(Head(model)(hidden), expected)


def test_layers_are_named_by_where_they_are(load):
    assert list(decoder_layers(load("OPT").causal_lm)) == ["model.decoder.layers.0", "model.decoder.layers.1"]


def test_a_tokenizer_with_more_ids_than_the_model_embeds_is_refused(tmp_path):
    policy = tiny_policy()
    policy.causal_lm.resize_token_embeddings(300)
    policy.save(tmp_path)
    with pytest.raises(ValueError, match="expected at least 320 embeddings, one for each id, got 300; resize"):
        Policy.load(str(tmp_path))


@pytest.mark.parametrize("name", ["Mistral", "BLOOM"])
def test_layouts_that_draw_their_own_mask_are_refused_where_layers_see_by_other_rules(load, name):
    policy = load(name)
    batch = collate([Trajectory(task(), [5, 6, 7], [Turn([8], [0.0])], StopReason.DONE)], "stitched")
    with pytest.raises(ValueError, match="layouts stitched and official need full attention in every layer"):
        policy.logprobs(batch)


def test_routers_that_are_linear_layers_get_no_adapter(load):
    policy = load("Llama 4", lora=LoraSettings(r=2))
    adapted = {name for name, module in policy.causal_lm.named_modules() if hasattr(module, "lora_A")}
    assert adapted and not any(name.endswith("router") for name in adapted)


def test_a_linear_layer_that_is_read_and_not_called_gets_no_adapter(load):
    policy = load("LongCat-Flash", lora=LoraSettings(r=2))
    adapted = {
        name.rpartition(".")[2] for name, module in policy.causal_lm.named_modules() if hasattr(module, "lora_A")
    }
    assert "classifier" not in adapted and {"kv_b_proj", "o_proj"} <= adapted
    batch = collate([Trajectory(task(), [5, 6, 7], [Turn([8, 9, 10], [0.0] * 3)], StopReason.DONE)])
    policy.logprobs(batch)[0].sum().backward()
    trained = [(name, each) for name, each in policy.trained().items() if "lora_B" in name]
    assert trained and all(each.grad is not None for _, each in trained)


def test_an_adapter_whose_weights_peft_would_rename_is_what_it_was_when_it_is_loaded(load, tmp_path):
    policy = load("Laguna", lora=LoraSettings(r=2))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    policy.save(tmp_path / "adapter")
    again = Policy.load(str(tmp_path / "adapter"))
    batch = collate([Trajectory(task(), [5, 6, 7], [Turn([8, 9, 10], [0.0] * 3)], StopReason.DONE)])
    with torch.no_grad():
        torch.testing.assert_close(again.logprobs(batch)[0], policy.logprobs(batch)[0], atol=1e-5, rtol=0)
