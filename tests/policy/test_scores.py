import pytest
import torch

from lightning_mem1.policy import scores as scores_module
from lightning_mem1.policy.scores import PositionRule, Scores, attend


def drawn(rule, length=6):
    places = torch.arange(length)
    return (rule.sees(places[:, None], places) & (places[:, None] >= places)).int().tolist()


def test_a_window_counts_a_tokens_own_position_and_a_chunk_begins_at_its_multiples():
    assert drawn(PositionRule(window=3)) == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]
    assert drawn(PositionRule(chunk=3)) == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]


@pytest.mark.parametrize(
    ("rule", "firsts"),
    [
        (PositionRule(), [0, 0, 0, 0, 0, 0]),
        (PositionRule(window=3), [0, 0, 0, 1, 2, 3]),
        (PositionRule(chunk=2), [0, 0, 2, 2, 4, 4]),
        (PositionRule(window=2, chunk=4), [0, 0, 1, 2, 4, 4]),
    ],
)
def test_the_first_position_seen_is_the_first_one_drawn(rule, firsts):
    assert [rule.first_seen(position) for position in range(6)] == firsts
    assert [row.index(1) for row in drawn(rule)] == firsts


def test_a_soft_cap_and_a_sink_weigh_as_worked_by_hand():
    query, key = torch.tensor([[[[2.0]]]]), torch.tensor([[[[1.0], [3.0]]]])
    value = torch.tensor([[[[10.0], [20.0]]]])
    mask = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    # scores 2 and 6; capped at 4 they are 4 tanh(0.5) = 1.848 and 4 tanh(1.5) = 3.621, and the sink adds one of 3
    weights = torch.tensor([1.8484687, 3.6205935, 3.0]).softmax(0)
    out = attend(query, key, value, mask, Scores(scaling=1.0, softcap=4.0, sinks=torch.tensor([3.0])))
    assert out.item() == pytest.approx(float(10 * weights[0] + 20 * weights[1]), abs=1e-5)


@pytest.mark.parametrize("mask_of", [lambda seen: seen, lambda seen: torch.zeros(seen.shape).masked_fill(~seen, -1e9)])
def test_chunks_of_queries_give_the_same_outputs_and_gradients_as_all_at_once(monkeypatch, mask_of):
    torch.manual_seed(0)
    inputs = [torch.randn(2, heads, 7, 4, requires_grad=True) for heads in (4, 2, 2)]
    sinks = torch.randn(4, requires_grad=True)
    seen = torch.ones(7, 7, dtype=torch.bool).tril()[None, None]
    results = []
    for most in (1 << 20, 2 * 4 * 7 * 2):  # all seven queries, two at a time
        monkeypatch.setattr(scores_module, "MAX_SCORES", most)
        out = attend(*inputs, mask_of(seen), Scores(softcap=3.0, sinks=sinks))
        results.append((out, *torch.autograd.grad((out * torch.sin(torch.arange(4))).sum(), [*inputs, sinks])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    # the third query sees three keys, whatever is in the others
    changed = [inputs[0], *(torch.cat([each[:, :, :3], torch.randn_like(each[:, :, 3:])], 2) for each in inputs[1:])]
    again = attend(*changed, mask_of(seen), Scores(softcap=3.0, sinks=sinks))
    torch.testing.assert_close(again[:, :, 2], results[0][0][:, :, 2])


def test_a_query_that_sees_nothing_has_numbers_and_gradients():
    query = torch.randn(1, 1, 1, 4, requires_grad=True)
    out = attend(
        query, torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4), torch.zeros(1, 1, 1, 3).bool(), Scores(softcap=2.0)
    )
    out.sum().backward()
    assert out.isfinite().all() and query.grad.isfinite().all()
