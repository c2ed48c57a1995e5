import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mem1.training.losses import (
    clipped_policy_loss,
    clipped_value_loss,
    entropy_loss,
    kl_penalty,
    token_weights,
)

GOLDEN = Path(__file__).parents[2].parent / "shared/golden/rl/ppo_grpo.json"


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def loss_of_ratios(ratios, advantages, **clip):
    logprobs = tensor(*ratios).log()
    weights = torch.full_like(logprobs, 1 / len(ratios))
    return clipped_policy_loss(logprobs, torch.zeros_like(logprobs), tensor(*advantages), weights, **clip)


def test_the_clip_takes_the_worse_of_the_free_and_the_clipped_gain():
    # ratio      1.5         1.5          0.5          0.5          1.1
    # advantage  +1          -1           +1           -1           +2
    # -A r      -1.5         1.5         -0.5          0.5         -2.2
    # -A clip   -1.2         1.2         -0.8          0.8         -2.2
    # maximum   -1.2*        1.5         -0.5          0.8*        -2.2       sum -1.6; the clip holds two of five
    loss, stats = loss_of_ratios([1.5, 1.5, 0.5, 0.5, 1.1], [1, -1, 1, -1, 2])
    assert loss.item() == pytest.approx(-1.6 / 5)
    assert stats["clip_fraction"].item() == pytest.approx(2 / 5)
    assert stats["ratio_max"].item() == pytest.approx(1.5)
    # mean of -log ratio: -(2 ln 1.5 + 2 ln 0.5 + ln 1.1) / 5
    assert stats["approx_kl"].item() == pytest.approx(-(2 * math.log(0.75) + math.log(1.1)) / 5)


def test_the_upper_clip_can_be_wider_than_the_lower_one():
    loss, stats = loss_of_ratios([1.5, 0.5], [1, -1], epsilon=0.2, epsilon_high=0.4)
    assert loss.item() == pytest.approx((-1.4 + 0.8) / 2)
    assert stats["clip_fraction"].item() == 1.0


def test_at_ratio_one_the_gradient_is_the_policy_gradient():
    logprobs = tensor(-1.0, -2.0).requires_grad_()
    loss, _ = clipped_policy_loss(logprobs, logprobs.detach(), tensor(3.0, -1.0), tensor(0.25, 0.75))
    loss.backward()
    assert logprobs.grad.tolist() == pytest.approx([-0.75, 0.75])


def test_a_clipped_token_has_no_gradient():
    logprobs = tensor(math.log(1.5)).requires_grad_()
    clipped_policy_loss(logprobs, tensor(0.0), tensor(1.0), tensor(1.0))[0].backward()
    assert logprobs.grad.item() == 0.0


def test_a_token_that_became_infinitely_likelier_gives_a_finite_loss():
    loss, stats = clipped_policy_loss(tensor(0.0), tensor(-2000.0), tensor(-1.0), tensor(1.0))
    assert torch.isfinite(loss) and torch.isfinite(stats["ratio_max"])


def test_a_batch_without_action_tokens_has_loss_zero():
    empty = torch.zeros(0)
    loss, stats = clipped_policy_loss(empty, empty, empty, empty)
    assert loss.item() == 0.0 and stats["ratio_max"].item() == 0.0


def test_the_statistics_hold_no_graph():
    logprobs = tensor(-1.0).requires_grad_()
    _, stats = clipped_policy_loss(logprobs, tensor(-1.0), tensor(1.0), tensor(1.0))
    assert not any(value.requires_grad for value in stats.values())


def test_a_tensor_that_does_not_align_is_named():
    with pytest.raises(ValueError, match=r"advantages must hold one entry per action token.*\(2,\), got \(1,\)"):
        clipped_policy_loss(tensor(1, 2), tensor(1, 2), tensor(1), tensor(1, 2))


def test_a_sequence_has_one_ratio_the_geometric_mean_of_its_tokens():
    # sequence 0: ratios 2 and 1/2 -> 1; sequence 1: ratio 1.5, clipped to 1.2
    logprobs = tensor(2.0, 0.5, 1.5).log().requires_grad_()
    weights, sequences = tensor(0.25, 0.25, 0.5), torch.tensor([4, 4, 7])
    loss, stats = clipped_policy_loss(logprobs, tensor(0, 0, 0), tensor(1, 1, 1), weights, sequence_index=sequences)
    assert loss.item() == pytest.approx(-(0.5 * 1 + 0.5 * 1.2))
    assert stats["clip_fraction"].item() == 0.5
    loss.backward()
    # each token of sequence 0 carries half of its derivative -1/2; sequence 1 is held by the clip
    assert logprobs.grad.tolist() == pytest.approx([-0.25, -0.25, 0.0])
    assert stats["pull"].tolist() == pytest.approx([0.25, 0.25, 0.0])


def test_the_pull_of_a_token_is_the_size_of_the_losss_derivative_by_its_log_probability():
    logprobs = tensor(1.1, 1.5, 1.5).log().requires_grad_()
    loss, stats = clipped_policy_loss(logprobs, tensor(0, 0, 0), tensor(2, 1, -1), tensor(0.5, 0.25, 0.25))
    loss.backward()
    assert stats["pull"].tolist() == pytest.approx([1.1, 0.0, 0.375])
    assert logprobs.grad.abs().tolist() == pytest.approx(stats["pull"].tolist())


def test_the_value_loss_takes_the_worse_of_the_free_and_the_held_value():
    # old 0, clip 1/2    value 1    1/4     2     -1
    #                  return 2      1      0      2
    # free error             1    9/16     4      9
    # held value           1/2     1/4    1/2   -1/2
    # held error           9/4    9/16    1/4   25/4      worse: 9/4  9/16  4  9
    values = tensor(1, 0.25, 2, -1).requires_grad_()
    weights = tensor(0.1, 0.2, 0.3, 0.4)
    loss = clipped_value_loss(values, tensor(0, 0, 0, 0), tensor(2, 1, 0, 2), weights, clip=0.5)
    assert loss.item() == pytest.approx((0.1 * 9 / 4 + 0.2 * 9 / 16 + 0.3 * 4 + 0.4 * 9) / 2)
    loss.backward()  # w (V - R), and nothing where the held value is the worse one
    assert values.grad.tolist() == pytest.approx([0.0, 0.2 * -0.75, 0.3 * 2, 0.4 * -3])


def test_without_a_clip_the_value_loss_is_half_the_squared_error():
    assert clipped_value_loss(tensor(1, 5), tensor(0, 0), tensor(2, 1), tensor(0.5, 0.5)).item() == (1 + 16) / 4


def test_values_that_do_not_align_are_named():
    with pytest.raises(ValueError, match=r"returns must hold one entry per action token.*\(2,\), got \(1,\)"):
        clipped_value_loss(tensor(1, 2), tensor(1, 2), tensor(1), tensor(1, 2))


# Two trajectories: turns of 3 and 1 tokens, and one turn of 2 tokens.
TRAJECTORY, TURN = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 0, 0])


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("token", [1 / 6] * 6),
        ("turn", [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6]),
        ("trajectory", [1 / 8, 1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 4]),
    ],
)
def test_weights_share_one_equally_between_tokens_turns_or_trajectories(unit, expected):
    assert token_weights(TRAJECTORY, TURN, unit).tolist() == pytest.approx(expected)


def test_an_empty_trajectory_takes_its_share_along():
    assert token_weights(TRAJECTORY, TURN, "trajectory", num_trajectories=4).sum().item() == pytest.approx(0.5)


def test_a_count_below_what_is_present_is_refused():
    with pytest.raises(ValueError, match="num_trajectories counts the whole batch: expected at least the 2 .* got 1"):
        token_weights(TRAJECTORY, TURN, "trajectory", num_trajectories=1)


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="'token', 'turn' or 'trajectory', got 'row'"):
        token_weights(TRAJECTORY, TURN, "row")  # type: ignore[arg-type]


def test_no_tokens_have_no_weights():
    empty = torch.zeros(0, dtype=torch.long)
    assert [token_weights(empty, empty, unit).tolist() for unit in ("token", "turn", "trajectory")] == [[], [], []]


@settings(max_examples=40, deadline=None)
@given(
    batch=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=5),
    cut=st.integers(0, 5),
    unit=st.sampled_from(["token", "turn", "trajectory"]),
)
def test_micro_batches_of_any_split_add_up_to_the_loss_of_the_whole_batch(batch, cut, unit):
    counts: dict[str, Any] = {
        "num_trajectories": len(batch),
        "num_turns": sum(len(turns) for turns in batch),
        "num_tokens": sum(sum(turns) for turns in batch),
    }
    torch.manual_seed(0)
    new, old, advantages = torch.randn(3, counts["num_tokens"], dtype=torch.float64)
    whole, stats = clipped_policy_loss(new, old, advantages, token_weights(*index(batch), unit=unit))
    total, start = torch.zeros(2, dtype=torch.float64), 0
    for part in (batch[:cut], batch[cut:]):
        weights = token_weights(*index(part), unit=unit, **counts)
        here = slice(start, start + len(weights))
        loss, part_stats = clipped_policy_loss(new[here], old[here], advantages[here], weights)
        total, start = total + torch.stack([loss, part_stats["approx_kl"]]), here.stop
    assert total.tolist() == pytest.approx([whole.item(), stats["approx_kl"].item()], abs=1e-5)


def index(batch: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Trajectory and turn of each token; a batch is a list of trajectories, a trajectory the lengths of its turns."""
    pairs = [(i, j) for i, turns in enumerate(batch) for j, length in enumerate(turns) for _ in range(length)]
    trajectory_index, turn_index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return trajectory_index, turn_index


def test_the_three_kl_estimators_on_a_hand_worked_pair():
    logprobs, ref_logprobs = tensor(math.log(0.5), math.log(0.5)), tensor(math.log(0.25), math.log(1.0))  # d = +-ln 2
    d = math.log(2)
    assert kl_penalty(logprobs, ref_logprobs, "k1").tolist() == pytest.approx([d, -d])
    assert kl_penalty(logprobs, ref_logprobs, "k2").tolist() == pytest.approx([d * d / 2, d * d / 2])
    assert kl_penalty(logprobs, ref_logprobs, "k3").tolist() == pytest.approx([0.5 - 1 + d, 2 - 1 - d])


def test_k1_and_k3_are_unbiased_estimates_of_the_divergence():
    policy, reference = tensor(0.7, 0.2, 0.1), tensor(0.3, 0.3, 0.4)
    exact = (policy * (policy / reference).log()).sum().item()
    for estimator in ("k1", "k3"):
        assert (policy * kl_penalty(policy.log(), reference.log(), estimator)).sum().item() == pytest.approx(exact)


def test_an_unknown_kl_estimator_is_refused():
    with pytest.raises(ValueError, match="'k1', 'k2' or 'k3', got 'abs'"):
        kl_penalty(tensor(0.0), tensor(0.0), "abs")  # type: ignore[arg-type]


def test_the_entropy_loss_is_the_negative_weighted_entropy():
    assert entropy_loss(tensor(2.0, 4.0), tensor(0.25, 0.75)).item() == -3.5


def golden_cases():
    return json.loads(GOLDEN.read_text())["cases"] if GOLDEN.exists() else []


def test_the_reference_implementation_gives_the_same_policy_loss_and_kl():
    if not GOLDEN.exists():
        pytest.skip(f"golden cases are not here: {GOLDEN.name}")
    for case in golden_cases():
        mask = tensor(*case["mask"]).bool()
        rows = [
            tensor(*case[key])[mask] for key in ("logprobs", "old_logprobs", "gae_whitened_advantages", "ref_logprobs")
        ]
        logprobs, old_logprobs, advantages, ref_logprobs = rows
        weights = torch.full_like(logprobs, 1 / len(logprobs))
        loss, stats = clipped_policy_loss(logprobs, old_logprobs, advantages, weights, epsilon=case["clip"])
        assert loss.item() == pytest.approx(case["policy_loss"], abs=1e-6)
        assert stats["clip_fraction"].item() == pytest.approx(case["clip_fraction"], abs=1e-9)
        assert stats["approx_kl"].item() == pytest.approx(case["approx_kl"], abs=1e-9)
        ours = [kl_penalty(logprobs, ref_logprobs, "k1"), kl_penalty(logprobs, ref_logprobs, "k2")]
        ours.append(kl_penalty(logprobs, ref_logprobs, "k3"))
        theirs = [tensor(*case["kl_penalties"][name])[mask] for name in ("kl", "mse", "low_var_kl")]
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_the_reference_implementation_gives_the_same_value_loss():
    if not GOLDEN.exists():
        pytest.skip(f"golden cases are not here: {GOLDEN.name}")
    for case in golden_cases():
        mask = tensor(*case["mask"]).bool()
        values, old_values, returns = (tensor(*case[key])[mask] for key in ("new_values", "values", "gae_returns"))
        weights = torch.full_like(values, 1 / len(values))
        loss = clipped_value_loss(values, old_values, returns, weights, case["value_clip"])
        assert loss.item() == pytest.approx(case["value_loss"], abs=1e-9)
