"""An update that breaks the weights ends the run before they are saved, and names them."""

import math

import pytest
import torch
from torch import nn

from lightning_mem1.callbacks import RLCheckpoint
from lightning_mem1.cli import fit as command
from lightning_mem1.engine.sampling import check_sampled, sample
from lightning_mem1.training.broken_weights import check_weights


def weights(**values):
    return {name: nn.Parameter(torch.tensor(value)) for name, value in values.items()}


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, 1e30, -1e20])
def test_a_weight_that_cannot_be_multiplied_is_named(broken):
    with pytest.raises(
        ValueError, match="^the update of rl_step 7 broke the weights: .*got .* in 'b' of 3; .*model.lr"
    ):
        check_weights(weights(a=[1.0], b=[0.0, broken], c=[]), 7)
    with pytest.raises(ValueError, match="in 'critic.head' and 1 more of 2; .* lower model.critic.lr"):
        check_weights(weights(**{"critic.head": [broken], "b": [broken]}), 7)


def test_large_weights_that_can_be_multiplied_are_kept():
    check_weights(weights(a=[1e18], b=[-1e18], c=[]), 1)
    check_weights({}, 1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "'policy.causal_lm.model.layers.0.self_attn.q_proj.lora_B.policy.weight'"),
        (["--model.lora=null"], "'policy.causal_lm.model.embed_tokens.weight'"),
    ],
)
def test_a_learning_rate_that_is_far_too_large_ends_the_run_with_the_weights_named(
    config, capsys, tmp_path, options, named
):
    quiet = ["--trainer.logger=false", "--model.engine.self_check=false"]
    assert command.main([config, "--model.lr=1e30", *quiet, *options]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: the update of rl_step 1 broke the weights: expected finite ones, got 1e+30 in ")
    assert named in said and said.endswith("lower model.lr and resume with --ckpt_path last, or start again")
    assert not list(tmp_path.glob("runs/tiny/*/checkpoints/last.ckpt"))


def test_the_last_good_checkpoint_stays(make_module, make_data, fit, tmp_path):
    module, checkpoint = make_module(), RLCheckpoint(str(tmp_path), save_adapter=False)
    fit(module, make_data(num_rl_steps=2, num_val_tasks=0), checkpoint, enable_checkpointing=True)
    before = checkpoint.last_path.read_bytes()
    resumed, again = make_module(lr=1e30), RLCheckpoint(str(tmp_path), save_adapter=False)
    with pytest.raises(ValueError, match="the update of rl_step 3 broke the weights"):
        fit(resumed, make_data(num_val_tasks=0), again, ckpt_path=str(again_path(tmp_path)), enable_checkpointing=True)
    assert checkpoint.last_path.read_bytes() == before
    assert {path.name for path in checkpoint.last_path.parent.iterdir()} == {
        "last.ckpt",
        "rl_step_000001.ckpt",
        "rl_step_000002.ckpt",
    }


def again_path(folder):
    return folder / "checkpoints" / "last.ckpt"


def test_probabilities_that_are_no_numbers_are_named_and_never_an_id_beyond_the_vocabulary():
    logits = torch.full((2, 5), math.nan)
    ids, logprobs = sample(logits, torch.ones(2), torch.ones(2), torch.tensor([0.0, 0.99], dtype=torch.float64))
    assert ids.max() < 5
    with pytest.raises(
        ValueError, match="^the policy's probabilities are no numbers: expected finite logits, got nan;"
    ):
        check_sampled(logprobs.tolist())
    check_sampled([-0.5, -math.inf])
