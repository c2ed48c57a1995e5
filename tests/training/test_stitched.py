"""The inexact layouts: what their masks show, what they equal nevertheless, and how far they are from the rollout."""

import json
import random
from pathlib import Path

import pytest
import torch

from lightning_mem1.context.modes import MODES
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import random_ids, random_trajectory, task, tiny_policy

GOLDEN = Path(__file__).parents[2].parent / "shared/golden/rl/official_stitch.json"
POLICY = tiny_policy(LoraSettings(r=4))
SHAPE = [(4, 3), (3, 5), (4, 2), (3, 0)]  # lengths of actions and information, four turns
COPIES = ("stitched", "official")


def state_end(ids):
    return len(ids) // 2


def logprobs(trajectories, layout, mode="mem1"):
    return POLICY.logprobs(collate(trajectories, layout, mode, state_end=state_end))[0]


def drawn(trajectories, layout, **more):
    """Each row's mask as text; a line per token, in it what the token sees."""
    masks = collate(trajectories, layout, **more).attention_mask
    assert masks.dtype == torch.bool
    return [[" ".join("1" if cell else "." for cell in line) for line in mask[0].tolist()] for mask in masks]


def lines(text):
    return [line.split(maxsplit=1)[1] for line in text.strip().splitlines()]


def played():
    turns = [Turn([10, 11], [0.0] * 2, [20]), Turn([12, 13], [0.0] * 2, [21, 22]), Turn([14], [0.0])]
    return Trajectory(task(), [1, 2], turns, StopReason.DONE)


def test_the_stitched_mask_shows_the_context_that_a_token_was_written_in():
    assert drawn([played()], "stitched") == [
        lines("""
        P 1 . . . . . . . . .
        P 1 1 . . . . . . . .
        A 1 1 1 . . . . . . .
        A 1 1 1 1 . . . . . .
        I 1 1 1 1 1 . . . . .
        A 1 1 1 1 1 1 . . . .
        A 1 1 1 1 1 1 1 . . .
        I 1 1 . . . 1 1 1 . .
        I 1 1 . . . 1 1 1 1 .
        A 1 1 . . . 1 1 1 1 1
        """)
    ]


def test_the_official_mask_hides_internal_states_and_shows_information_only_itself():
    assert drawn([played()], "official", state_end=lambda ids: 1) == [
        lines("""
        P 1 . . . . . . . . .
        P 1 1 . . . . . . . .
        T 1 1 1 . . . . . . .
        R 1 1 1 1 . . . . . .
        I . . . . 1 . . . . .
        T 1 1 . 1 1 1 . . . .
        R 1 1 . 1 1 1 1 . . .
        I . . . . . . . 1 . .
        I . . . . . . . 1 1 .
        T 1 1 . . . . 1 1 1 1
        """)
    ]


def test_a_shorter_prompt_is_padded_on_the_left_and_padding_sees_and_shows_itself_alone():
    short = Trajectory(task(), [3], [Turn([15], [0.0])], StopReason.DONE)
    long = Trajectory(task(), [1, 2], [Turn([16], [0.0], [23]), Turn([17], [0.0])], StopReason.DONE)
    batch = collate([short, long], "stitched")
    assert batch.input_ids.tolist() == [[0, 3, 15, 0, 0], [1, 2, 16, 23, 17]]
    assert batch.position_ids.tolist() == [[0, 0, 1, 0, 0], [0, 1, 2, 3, 4]]
    assert batch.predict_index.tolist() == [1, 5 + 1, 5 + 3]
    assert (batch.action_ids.tolist(), batch.num_tokens) == ([15, 16, 17], 7)
    assert drawn([short, long], "stitched")[0] == lines("""
        . 1 . . . .
        P . 1 . . .
        A . 1 1 . .
        . . . . 1 .
        . . . . . 1
        """)


def test_the_public_codes_stitch_is_that_of_the_official_layout():
    if not GOLDEN.exists():
        pytest.skip(f"golden cases are not here: {GOLDEN.name}")
    for case in json.loads(GOLDEN.read_text())["cases"]:
        trajectories, ends = [], {}
        for pieces in case["trajectories"]:
            turns = []
            for n in range(pieces["num_rounds"]):
                action = pieces[f"t{n}"] + pieces[f"r{n}"]
                ends[tuple(action)] = len(pieces[f"t{n}"])
                turns.append(Turn(action, [0.0] * len(action), pieces.get(f"i{n}", [])))
            trajectories.append(Trajectory(task(), pieces["q"], turns, StopReason.DONE))
        batch = collate(trajectories, "official", state_end=lambda ids, ends=ends: ends[tuple(ids)])
        assert batch.input_ids.tolist() == case["input_ids"]
        assert batch.position_ids.tolist() == case["position_ids"]
        golden = torch.tensor(case["mask"], dtype=torch.bool)
        own = torch.eye(golden.shape[-1], dtype=torch.bool)
        padding = ~golden.diagonal(dim1=1, dim2=2)[:, :, None]
        assert torch.equal(batch.attention_mask[:, 0], golden | (own & padding))  # no softmax row may be empty
        known = torch.tensor(case["info_mask"])  # 1 on prompts and on what is scored
        prompt_width = max(len(t.prompt_ids) for t in trajectories)
        scored = known.flatten()[batch.predict_index + 1]
        assert scored.all() and len(scored) == known[:, prompt_width:].sum()


def test_the_official_layout_asks_where_internal_states_end():
    with pytest.raises(ValueError, match="expected state_end, which says where they end"):
        collate([played()], "official")


@pytest.mark.parametrize(("layout", "mode"), [("official", "mem1"), *(("stitched", mode) for mode in MODES)])
def test_a_changed_token_changes_what_the_mask_lets_it_reach_and_nothing_else(layout, mode):
    rng = random.Random(4)
    staged = MODES[mode]().staged
    shorter = random_trajectory(rng, SHAPE[1:], random_ids(rng, 2), staged=staged)
    longer = random_trajectory(rng, SHAPE, random_ids(rng, 3), staged=staged)
    batch = collate([longer, shorter], layout, mode, state_end)
    sees = batch.attention_mask[:, 0].float()
    reach = (sees @ sees) > 0  # two layers: what is seen, and what that has seen
    dropping = ("mem1", "window", "summary", "compaction", "recall")
    assert bool((reach & (sees == 0)).any()) == (mode in dropping)  # a turn has seen its own past
    assert torch.equal(reach.tril(), reach)  # never the future
    before = hidden(batch, batch.input_ids)
    for place in range(batch.input_ids.shape[1]):
        ids = batch.input_ids.clone()
        ids[:, place] = (ids[:, place] + 1) % 250
        changed = (hidden(batch, ids) - before).abs().amax(-1) > 1e-6
        assert torch.equal(changed, reach[:, :, place])


@torch.no_grad()
def hidden(batch, input_ids):
    return POLICY.hidden(input_ids, batch.position_ids, attention_mask=batch.attention_mask)


@pytest.mark.parametrize("layout", COPIES)
def test_with_a_single_turn_every_layout_is_the_same(layout):
    rng = random.Random(5)
    trajectories = [random_trajectory(rng, [(n, 0)], random_ids(rng, n)) for n in (4, 6)]
    torch.testing.assert_close(logprobs(trajectories, layout), logprobs(trajectories, "tree"), atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", COPIES)
def test_other_trajectories_in_the_batch_change_nothing(layout):
    rng = random.Random(8)
    first, longer = random_trajectory(rng, SHAPE, random_ids(rng, 3)), random_trajectory(rng, SHAPE * 2, [5] * 9)
    none = Trajectory(task(), [], [], StopReason.ERROR)
    together = logprobs([longer, none, first], layout)[-14:]
    torch.testing.assert_close(together, logprobs([first], layout), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", COPIES)
def test_turns_without_action_or_information_are_scored_around(layout):
    turns = [Turn([7], [0.0], []), Turn([], [], [20]), Turn([8, 9], [0.0] * 2)]
    batch = collate([Trajectory(task(), [1, 2], turns, StopReason.DONE)], layout, state_end=state_end)
    assert (batch.input_ids.tolist(), batch.predict_index.tolist()) == ([[1, 2, 7, 20, 8, 9]], [1, 3, 4])
    assert batch.turn_index.tolist() == [0, 2, 2]


def gap_by_turn(layout, shape=SHAPE, mode="mem1"):
    rng = random.Random(6)
    trajectories = [random_trajectory(rng, shape, random_ids(rng, n)) for n in (3, 5)]
    with torch.no_grad():
        gap = (logprobs(trajectories, layout, mode) - logprobs(trajectories, "tree", mode)).abs()
    turns = collate(trajectories, "tree", mode).turn_index
    return [float(gap[turns == turn].max()) for turn in range(len(shape))]


def test_stitched_is_exact_while_nothing_has_been_dropped_and_no_longer():
    gaps = gap_by_turn("stitched")
    assert max(gaps[:2]) < 1e-5 and min(gaps[2:]) > 1e-2


def test_official_is_exact_in_the_first_turn_alone():
    gaps = gap_by_turn("official", SHAPE[:2])
    assert gaps[0] < 1e-5 and gaps[1] > 1e-2


def test_a_full_history_has_no_gap_in_a_single_copy_and_a_window_gets_one_when_it_moves():
    assert max(gap_by_turn("stitched", mode="full")) < 1e-5
    moving = gap_by_turn("stitched", mode="window")
    assert max(moving[:3]) < 1e-5 and moving[3] > 1e-2


@pytest.mark.parametrize("layout", COPIES)
def test_every_parameter_that_trains_gets_a_gradient(layout):
    rng = random.Random(7)
    trajectories = [random_trajectory(rng, SHAPE, random_ids(rng, n)) for n in (3, 5)]
    trained = [p for p in POLICY.parameters() if p.requires_grad]
    for gradient in torch.autograd.grad(logprobs(trajectories, layout).sum(), trained):
        assert torch.isfinite(gradient).all() and gradient.abs().max() > 0
