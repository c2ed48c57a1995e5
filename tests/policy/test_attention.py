import pytest
import torch

from lightning_mem1.policy.attention import attention_forward
from lightning_mem1.policy.blocks import Block
from lightning_mem1.policy.scores import EVERYTHING, PositionRule, Scores
from lightning_mem1.policy.scores import attend as written_out
from lightning_mem1.policy.tree_kernels import flex_tree_attention, segment_attention
from lightning_mem1.policy.tree_table import tree_table, visible_tiles

# a prompt of two tokens, the segments of two turns, and a second prompt with its own segment
BLOCKS = [Block(0, 2), Block(2, 3), Block(5, 2, 0), Block(7, 2, 0), Block(9, 1, 1)]
MASK = [
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 1, 1, 0, 0, 0, 0, 0, 0],
    [0, 0, 1, 1, 1, 0, 0, 0, 0, 0],
    [1, 1, 0, 0, 0, 1, 0, 0, 0, 0],
    [1, 1, 0, 0, 0, 1, 1, 0, 0, 0],
    [1, 1, 0, 0, 0, 0, 0, 1, 0, 0],
    [1, 1, 0, 0, 0, 0, 0, 1, 1, 0],
    [0, 0, 1, 1, 1, 0, 0, 0, 0, 1],
]


def dense(query, key, value):
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    mask = torch.tensor(MASK, dtype=torch.bool)
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def qkv(heads=4, kv_heads=2):
    torch.manual_seed(0)
    return torch.randn(1, heads, 10, 8), torch.randn(1, kv_heads, 10, 8), torch.randn(1, kv_heads, 10, 8)


def test_the_table_draws_the_mask_of_the_tree():
    index = torch.arange(10)
    assert tree_table(BLOCKS).visible(index[:, None], index[None]).int().tolist() == MASK


def test_segment_attention_equals_attention_under_the_drawn_mask_and_so_do_its_gradients():
    inputs = [t.requires_grad_() for t in qkv()]
    ours = segment_attention(*inputs, tree_table(BLOCKS), Scores())
    theirs = dense(*inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    weights = torch.randn_like(ours)
    got = torch.autograd.grad((ours * weights).sum(), inputs)
    expected = torch.autograd.grad((theirs * weights).sum(), inputs)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, atol=1e-5, rtol=0)


def test_a_mask_of_ones_and_zeros_is_refused_because_it_would_hide_nothing():
    query, key, value = qkv(kv_heads=4)
    module, drawn = torch.nn.Module(), torch.tensor(MASK)
    out, _ = attention_forward(module, query, key, value, drawn.bool()[None, None])
    torch.testing.assert_close(out, dense(query, key, value), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="hides nothing: expected bool, got torch.float32"):
        attention_forward(module, query, key, value, drawn.float()[None, None])


def test_flex_attention_follows_the_same_table():
    inputs = qkv()
    torch.testing.assert_close(
        flex_tree_attention(*inputs, tree_table(BLOCKS), Scores()), dense(*inputs), atol=1e-6, rtol=0
    )


def test_the_block_mask_is_built_once_for_all_layers():
    table = tree_table(BLOCKS)
    assert table.block_mask is table.block_mask


RULES = [PositionRule(window=3), PositionRule(chunk=3), PositionRule(window=4, chunk=5), EVERYTHING]
LONG = [Block(0, 7), Block(7, 4), Block(11, 6, 0), Block(17, 5, 0), Block(22, 3, 1), Block(25, 9, 1), Block(34, 2, 0)]


def test_positions_go_on_from_the_end_of_the_prompt():
    assert tree_table(BLOCKS).positions.tolist() == [0, 1, 0, 1, 2, 2, 3, 2, 3, 3]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_by_position_is_drawn_by_positions_in_the_context_not_by_places_in_the_row(rule):
    table = tree_table(LONG)
    places, positions = torch.arange(36), table.positions
    expected = table.visible(places[:, None], places) & rule.sees(positions[:, None], positions)
    assert torch.equal(table.visible(places[:, None], places, rule), expected)
    for bucket in table.buckets_under(rule):
        for queries, keys, mask in zip(bucket.query_index, bucket.key_index, bucket.mask[:, 0], strict=True):
            for query, sees in zip(queries.tolist(), mask, strict=True):
                if query in (bucket.query_index.flatten()[bucket.places]).tolist():
                    assert sorted(keys[sees].tolist()) == expected[query].nonzero().flatten().tolist()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("more", [{}, {"softcap": 2.0}, {"softcap": 1.5, "sinks": True}])
def test_segments_under_a_rule_a_cap_and_sinks_equal_scores_written_out_for_the_whole_row(rule, more):
    torch.manual_seed(2)
    inputs = [torch.randn(1, heads, 36, width, requires_grad=True) for heads, width in ((4, 8), (2, 8), (2, 5))]
    sinks = torch.randn(4, requires_grad=True) if "sinks" in more else None
    scores = Scores(scaling=0.4, rule=rule, softcap=more.get("softcap"), sinks=sinks)
    table, places = tree_table(LONG), torch.arange(36)
    mask = table.visible(places[:, None], places, rule)[None, None]
    trained = [*inputs, *([] if sinks is None else [sinks])]
    results = []
    for out in (segment_attention(*inputs, table, scores), written_out(*inputs, mask, scores).transpose(1, 2)):
        results.append((out, *torch.autograd.grad((out * torch.sin(torch.arange(5))).sum(), trained)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_flex_attention_follows_rules_and_caps(rule, softcap):
    torch.manual_seed(3)
    inputs = torch.randn(1, 4, 36, 16), torch.randn(1, 2, 36, 16), torch.randn(1, 2, 36, 16)
    table, scores = tree_table(LONG), Scores(rule=rule, softcap=softcap)
    torch.testing.assert_close(
        flex_tree_attention(*inputs, table, scores), segment_attention(*inputs, table, scores), atol=1e-5, rtol=0
    )


def test_prompt_tokens_that_no_token_behind_them_sees_are_left_out():
    (bucket,) = tree_table([Block(0, 100), Block(100, 10, 0)]).buckets_under(PositionRule(window=4))[1:]
    assert bucket.key_index.tolist() == [[97, 98, 99, *range(100, 110)]]


@pytest.mark.parametrize("turns", [4, 32])
def test_no_mask_grows_with_the_square_of_the_row(turns):
    blocks = [Block(0, 20)] + [Block(20 + 30 * t, 30, 0) for t in range(turns)]
    cells = sum(bucket.mask.numel() for bucket in tree_table(blocks).buckets)
    assert cells == 20 * 20 + turns * 30 * (20 + 30)


def test_segments_of_unlike_length_are_not_padded_to_the_longest():
    blocks = [Block(0, 4), Block(4, 100, 0), Block(104, 10, 0), Block(114, 9, 0)]
    shapes = [tuple(bucket.query_index.shape) for bucket in tree_table(blocks).buckets]
    assert shapes == [(1, 100), (2, 10), (1, 4)]


def test_flex_attention_lists_only_tiles_that_can_see_each_other():
    blocks = [Block(0, 100), Block(100, 200, 0), Block(300, 84, 0), Block(384, 256, 0)]
    assert visible_tiles(blocks) == [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4]]


def test_flex_attention_equals_segment_attention_over_many_tiles():
    torch.manual_seed(1)
    blocks = [Block(0, 150), Block(150, 90), *(Block(240 + 70 * n, 70, n % 2) for n in range(6))]
    query, key, value = torch.randn(1, 4, 660, 16), torch.randn(1, 2, 660, 16), torch.randn(1, 2, 660, 16)
    table = tree_table(blocks)
    flex = flex_tree_attention(query, key, value, table, Scores())
    torch.testing.assert_close(flex, segment_attention(query, key, value, table, Scores()), atol=1e-5, rtol=0)


def test_the_sequences_of_flash_attention_see_what_the_mask_shows():
    blocks = [*BLOCKS, Block(10, 0, 0), Block(10, 3, 1)]
    table = tree_table(blocks)
    index, ends_q, ends_k, longest_q, longest_k = table.sequences
    seen = torch.zeros(13, 13, dtype=torch.bool)
    lengths = []
    for (q, q_end), (k, k_end) in torch.stack([ends_q, ends_k], 1).unfold(0, 2, 1).tolist():
        lengths.append((q_end - q, k_end - k))
        for query in range(q, q_end):  # causal from the right: the last query sees every key
            seen[query, index[k : k_end - (q_end - 1 - query)]] = True
    places = torch.arange(13)
    assert torch.equal(seen, table.visible(places[:, None], places[None, :]))
    assert (longest_q, longest_k) == tuple(max(each) for each in zip(*lengths, strict=True))


def test_flash_attention_over_blocks_says_where_it_runs():
    with pytest.raises(
        ValueError, match="model.compute.attention varlen runs in 16 bits on a GPU, got torch.float32 on cpu"
    ):
        attention_forward(
            torch.nn.Module(), *torch.zeros(3, 1, 2, 10, 8), None, tree=tree_table(BLOCKS), tree_kernel="varlen"
        )


# a prompt of two tokens, two that hang on it, one and two that hang on those, and one more on the prompt
NESTED = [Block(0, 2), Block(2, 2, 0), Block(4, 1, 1), Block(5, 2, 1), Block(7, 1, 0)]


def test_a_block_that_hangs_on_another_sees_all_that_the_other_hangs_on():
    table, index = tree_table(NESTED), torch.arange(8)
    assert table.visible(index[:, None], index[None]).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 1, 0, 0],
        [1, 1, 1, 1, 0, 1, 1, 0],
        [1, 1, 0, 0, 0, 0, 0, 1],
    ]
    assert table.positions.tolist() == [0, 1, 2, 3, 4, 4, 5, 2]
    keys, ends_q, ends_k, longest_q, longest_k = table.sequences
    assert keys.tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2, 3, 5, 6, 0, 1, 7]
    assert (ends_q.tolist(), ends_k.tolist()) == ([0, 2, 4, 5, 7, 8], [0, 2, 6, 11, 17, 20])
    assert (longest_q, longest_k) == (2, 6)


@pytest.mark.parametrize("rule", RULES)
def test_kernels_follow_blocks_that_hang_on_blocks_under_every_rule(rule):
    torch.manual_seed(4)
    blocks, start = [], 0
    for length, root in ((150, None), (7, 0), (3, 0), (40, None), (9, 3), (5, 4), (130, 5), (6, 6)):
        blocks.append(Block(start, length, root))
        start += length
    inputs = [torch.randn(1, heads, start, 16, requires_grad=True) for heads in (4, 2, 2)]
    table, scores, places = tree_table(blocks), Scores(scaling=0.4, rule=rule), torch.arange(start)
    mask = table.visible(places[:, None], places, rule)[None, None]
    expected = written_out(*inputs, mask, scores).transpose(1, 2)
    ours = segment_attention(*inputs, table, scores)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    flex = flex_tree_attention(*(each.detach() for each in inputs), table, scores)
    torch.testing.assert_close(flex, expected.detach(), atol=1e-5, rtol=0)
    weights = torch.randn_like(expected)
    pairs = (torch.autograd.grad((out * weights).sum(), inputs) for out in (ours, expected))
    for got, wanted in zip(*pairs, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
