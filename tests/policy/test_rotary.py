import pytest
import torch
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from lightning_mem1.policy.attention import Pass, carrying
from lightning_mem1.policy.rotary import LengthRotary, LengthRule, adopt_rotary, length_rule

SHAPE = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1}
DYNAMIC = LlamaConfig(
    **SHAPE,
    max_position_embeddings=16,
    rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
)
LONG = Phi3Config(
    **SHAPE,
    original_max_position_embeddings=16,
    pad_token_id=0,
    rope_parameters={
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "original_max_position_embeddings": 16,
        "partial_rotary_factor": 1.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 2.0, 3.0, 4.0],
    },
)
MADE = {"dynamic": lambda: LlamaRotaryEmbedding(DYNAMIC), "longrope": lambda: Phi3RotaryEmbedding(LONG)}
X = torch.zeros(1, 1, 32)


def test_how_an_embedding_depends_on_the_length_is_read_off_it():
    assert length_rule(MADE["dynamic"]()) == LengthRule(16, two_sets=False)
    assert length_rule(MADE["longrope"]()) == LengthRule(16, two_sets=True)
    assert length_rule(LlamaRotaryEmbedding(LlamaConfig(**SHAPE))) is None
    assert length_rule(torch.nn.Linear(2, 2)) is None


def test_lengths_share_their_frequencies_up_to_the_original_one_and_beyond_it_only_with_two_sets():
    assert [LengthRule(16, two_sets=True).regime(n) for n in (1, 16, 17, 90)] == [0, 0, 17, 17]
    assert [LengthRule(16, two_sets=False).regime(n) for n in (1, 16, 17, 90)] == [0, 0, 17, 90]


def test_tokens_of_a_turn_have_the_length_they_are_written_at_and_its_context_the_one_it_starts_with():
    assert LengthRule(4, two_sets=False).of_row(context=3, length=6).tolist() == [3, 3, 3, 4, 5, 6]
    assert LengthRule(4, two_sets=True).of_row(context=3, length=6).tolist() == [6] * 6


@pytest.mark.parametrize("kind", MADE)
def test_each_token_of_a_pass_gets_what_transformers_gives_a_context_of_its_length(kind):
    rotary = LengthRotary(MADE[kind](), length_rule(MADE[kind]()))
    positions = torch.tensor([[0, 3, 9, 15, 20, 2, 40, 40], [1, 5, 30, 8, 22, 22, 60, 99]])
    lengths = torch.tensor([[4, 16, 16, 17, 21, 30, 41, 70], [2, 6, 31, 31, 23, 90, 61, 100]])
    with carrying(Pass(lengths=lengths)):
        found = rotary(X, positions)
    for row in range(2):
        for place in range(8):
            alone = MADE[kind]()  # has seen no other context
            context = torch.tensor([[*range(int(lengths[row, place]))]])
            expected = [each[0, positions[row, place]] for each in alone(X, context)]
            for ours, theirs in zip(found, expected, strict=True):
                assert torch.equal(ours[row, place], theirs)


@pytest.mark.parametrize("kind", MADE)
def test_without_lengths_in_the_pass_an_embedding_is_transformers_own(kind):
    rotary, plain = LengthRotary(MADE[kind](), length_rule(MADE[kind]())), MADE[kind]()
    for length in (5, 40, 20, 9):
        positions = torch.arange(length)[None]
        for ours, theirs in zip(rotary(X, positions), plain(X, positions), strict=True):
            assert torch.equal(ours, theirs)


def test_padding_beyond_the_original_length_changes_nothing():
    rotary = LengthRotary(MADE["dynamic"](), LengthRule(16, two_sets=False))
    with carrying(Pass(lengths=torch.tensor([[3, 3, 3, 1, 1]]))):
        padded = rotary(X, torch.tensor([[0, 1, 2, 50, 99]]))
    for ours, theirs in zip(padded, MADE["dynamic"]()(X, torch.tensor([[0, 1, 2]])), strict=True):
        assert torch.equal(ours[0, :3], theirs[0])


def test_a_model_is_adopted_once_and_keeps_its_weights_names():
    model = torch.nn.Module()
    model.rotary_emb, model.linear = MADE["longrope"](), torch.nn.Linear(2, 2)
    names = list(model.state_dict())
    assert adopt_rotary(model) == adopt_rotary(model) == LengthRule(16, two_sets=True)
    assert isinstance(model.rotary_emb, LengthRotary) and not isinstance(model.rotary_emb.inner, LengthRotary)
    assert list(model.state_dict()) == names
    assert model.rotary_emb.rope_type == "longrope"


def test_embeddings_that_change_at_different_lengths_are_refused_by_name():
    model = torch.nn.ModuleDict({"a": MADE["longrope"](), "b": MADE["dynamic"]()})
    with pytest.raises(ValueError, match="expected one original length, got 16 in a, 16 in b"):
        adopt_rotary(model)
