import random

import pytest
import torch

from lightning_mem1.policy.policy import Policy
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import StopReason, Trajectory, Turn
from lightning_mem1.warmstart.induction import start_with_induction
from lightning_mem1.warmstart.model import make_model
from lightning_mem1.warmstart.settings import Architecture
from tiny import task

SMALL = {
    "vocab_size": 300,
    "hidden_size": 96,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 4,
    "intermediate_size": 64,
}


def repeated_text_advantage(induction_start: bool) -> float:
    """How much likelier (nats per token) a text is when it has stood in the context once, before any training."""
    torch.manual_seed(0)
    model = make_model(Architecture(**SMALL, induction_start=induction_start), 300)
    policy, rng = Policy(model, None), random.Random(0)
    gains = []
    for _ in range(8):
        text, other = ([rng.randrange(300) for _ in range(20)] for _ in range(2))
        scores = []
        for context in (text, other):
            turn = Turn(text[1:], [0.0] * 19)
            batch = collate([Trajectory(task(), [*context, text[0]], [turn], StopReason.DONE)])
            with torch.no_grad():
                scores.append(float(policy.logprobs(batch)[0].mean()))
        gains.append(scores[0] - scores[1])
    return sum(gains) / len(gains)


def test_a_model_that_starts_with_induction_copies_before_any_training_and_an_ordinary_one_does_not():
    assert repeated_text_advantage(True) > 3.0
    assert abs(repeated_text_advantage(False)) < 0.2


def copied(architecture: Architecture, vocabulary: int, seed: int = 0) -> float:
    """Share of tokens that are the first choice when a text of so many different tokens comes a second time."""
    torch.manual_seed(seed)
    model = make_model(architecture, 4096)
    text = torch.randperm(4096)[:vocabulary][torch.randint(0, vocabulary, (2, 120))]
    ids = torch.cat([text, text], dim=1)
    with torch.no_grad():
        logits = model(ids, attention_mask=torch.ones_like(ids)).logits
    return float((logits[:, 120:-1].argmax(-1) == text[:, 1:]).float().mean())


def test_the_bundled_architecture_copies_random_tokens_over_a_context_of_usual_length():
    assert copied(Architecture(), 4096) > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_fewer_and_wider_heads_mistake_less_where_every_token_comes_again_and_again(seed):
    wide = copied(Architecture(num_heads=4, num_kv_heads=2), 40, seed)
    assert copied(Architecture(num_heads=8, num_kv_heads=4), 40, seed) + 0.01 < wide
    assert wide > 0.9


def test_without_a_rotary_pair_that_is_slow_enough_there_is_nothing_to_match_with():
    model = make_model(Architecture(**{**SMALL, "rope_theta": 10.0}, induction_start=False), 300)
    with pytest.raises(ValueError, match="slow rotary pairs, got none"):
        start_with_induction(model)


def test_the_look_back_heads_attend_one_position_back():
    torch.manual_seed(0)
    model = make_model(Architecture(**SMALL), 300)
    model.set_attn_implementation("eager")
    weights = model(torch.randint(0, 300, (1, 12)), output_attentions=True).attentions[0][0, :2]
    assert weights.diagonal(offset=-1, dim1=1, dim2=2)[:, 2:].min() > 0.8


def test_one_layer_is_too_few():
    model = make_model(Architecture(**{**SMALL, "num_layers": 1}, induction_start=False), 300)
    with pytest.raises(ValueError, match="at least 2 layers and an even number of key heads, got 1 and 4"):
        start_with_induction(model)
