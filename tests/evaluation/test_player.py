"""Playing outside of training: the engine fits the memory mode, weights are told apart."""

import pytest
import torch

from lightning_mem1.engine.local.engine import EngineSettings
from lightning_mem1.engine.sizing import fitting
from lightning_mem1.evaluation.player import Player, weights_fingerprint
from lightning_mem1.types import StopReason
from tiny_tasks import BrokenTasks, RankedTasks


@pytest.mark.parametrize(
    ("longest", "positions", "slots", "tokens"),
    [(90, None, 8, 90), (250, None, 3, 250), (900, None, 1, 900), (900, 400, 2, 400), (90, 400, 8, 90)],
)
def test_an_engine_fits_the_longest_context_and_holds_no_more_tokens_than_it_was_given(
    longest, positions, slots, tokens
):
    budget = EngineSettings(num_slots=8, max_context_tokens=100, max_prefill_tokens=7)
    assert fitting(budget, longest, positions) == EngineSettings(slots, tokens, 7)


def test_the_full_history_gets_room_for_all_its_turns_and_memory_for_one(make_module):
    module, source = make_module(), RankedTasks()
    task = source.task("val", 0)  # four turns of at most 6 tokens, replies of at most 40
    prompt = len(
        Player(module, source, "mem1")
        .play([task], Player(module, source, "mem1").engine(EngineSettings(1, 160)))[0]
        .prompt_ids
    )
    assert Player(module, source, "mem1").engine_settings([task]).max_context_tokens == prompt + 46 + 6
    assert Player(module, source, "full").engine_settings([task]).max_context_tokens == prompt + 3 * 46 + 6
    # the old memory, a turn and its reply, the new memory; each memory with its opening of 1
    assert Player(module, source, "summary").engine_settings([task]).max_context_tokens == prompt + 7 + 46 + 7


def test_an_episode_that_outgrows_the_policys_positions_ends_by_context(make_module):
    module, source = make_module(), RankedTasks()
    task = source.task("val", 0)
    player = Player(module, source, "full")
    whole = player.engine_settings([task]).max_context_tokens
    module.policy.config.max_position_embeddings = whole - 3 * 46  # room for the first turn
    settings = player.engine_settings([task])
    assert settings.max_context_tokens == whole - 3 * 46
    (trajectory,) = player.play([task], player.engine(settings))
    assert trajectory.stop_reason == StopReason.CONTEXT and len(trajectory.turns) == 1


def test_an_environment_that_fails_ends_its_own_episode_alone(make_module):
    source = BrokenTasks(group_size=2)
    player = Player(make_module(), source, "mem1")
    tasks = [source.task("train", 0), source.task("val", 0)]
    broken, fine = player.play(tasks, player.engine(EngineSettings(2, 160)))
    assert (broken.stop_reason, fine.stop_reason) == (StopReason.ERROR, StopReason.DONE)
    assert broken.error == "RuntimeError: the shop is on fire"


def test_greedy_play_is_repeatable_and_sampling_is_another_thing(make_module):
    module, source = make_module(), RankedTasks()
    tasks = [source.task("val", n) for n in range(3)]

    def ids(temperature: float) -> list[list[int]]:
        player = Player(module, source, "mem1", temperature)
        return [t.turns[0].action_ids for t in player.play(tasks, player.engine(EngineSettings(4, 160)))]

    assert ids(0.0) == ids(0.0) != ids(1.5)


def test_weights_are_told_apart_by_any_one_of_them(make_module):
    module = make_module()
    first = weights_fingerprint(module.policy)
    assert weights_fingerprint(make_module().policy) == first
    with torch.no_grad():
        next(p for p in module.policy.parameters() if p.requires_grad).view(-1)[0] += 1e-3
    assert weights_fingerprint(module.policy) != first
