"""Promises 1 and 3 with tool calls as actions, and that every world is played through them as it is through tags."""

import copy
import random

import pytest
import torch

from foreign import chat_policy
from lightning_mem1.context.call_tags import SYNTAXES
from lightning_mem1.context.contexts import contexts, drift
from lightning_mem1.context.modes import MODES
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.environments.qa.scripted_researcher.researcher import ResearcherSkill, ScriptedResearcher
from lightning_mem1.environments.qa.tasks import EncyclopediaTasks
from lightning_mem1.environments.reading.scripted_reader import ReaderSkill, ScriptedReader
from lightning_mem1.environments.reading.tasks import ReadingTasks
from lightning_mem1.environments.webshop.scripted_shopper import ScriptedShopper
from lightning_mem1.environments.webshop.tasks import ShopTasks
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from tiny import WordEnv, task

POLICY = chat_policy()
TOKENIZER = POLICY.tokenizer
DOUBLE = copy.deepcopy(POLICY).double()


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize(("syntax", "begin_with_state"), [("hermes", True), ("qwen_coder", False), ("llama", True)])
def test_training_scores_what_the_rollout_saw(syntax, begin_with_state, mode):
    engine = LocalEngine(DOUBLE, EngineSettings(num_slots=3, max_context_tokens=900))
    plans = [[3, 0, 2], [1, 1], [0, 4, 0, 2]]
    episodes = [
        Episode(task(i % 2), WordEnv(["red " * n for n in plan]), i % 2, seed=i) for i, plan in enumerate(plans)
    ]
    settings = RolloutSettings(
        max_new_tokens=8, prompt="brief", format=f"qa_{syntax}", begin_with_state=begin_with_state
    )
    with torch.no_grad():
        trajectories = collect(episodes, engine, TOKENIZER, settings, mode)
    assert [drift(t, mode) for t in trajectories] == [0] * len(plans)
    for layout in ("tree", "rows"):
        batch = collate(trajectories, layout, mode)
        with torch.no_grad():
            logprobs, _ = DOUBLE.logprobs(batch)
        assert (logprobs - batch.rollout_logprobs).abs().max() <= 1e-6


def qa(tags):
    source = EncyclopediaTasks(seed=0, num_passages=600, objectives=2)
    one = source.task("val", 1)
    reader = ScriptedResearcher(random.Random(0), ResearcherSkill(query=1.0), tags)
    asked = [each.question for each in one.objectives]
    return source, one, lambda env, previous, left: reader.turn(asked, previous, env.observe(), left)


def reading(tags):
    source = ReadingTasks(["needle"], [200], 60, seed=0)
    one = source.task("val", 0)
    reader = ScriptedReader(random.Random(0), ReaderSkill(), tags)
    question = one.objectives[0].question
    return source, one, lambda env, previous, left: reader.turn(question, previous, env.observe(), left)


def shop(tags):
    source = ShopTasks(seed=0, num_products=200)
    one = source.task("val", 0)
    shopper = ScriptedShopper(random.Random(0), None, tags)
    return source, one, lambda env, previous, left: shopper.turn(env.goal.instruction, previous, env.observe(), left)


WORLDS = {"qa": qa, "reading": reading, "shop": shop}


def play(world, chosen):
    """An episode of a world's scripted agent in a format."""
    settings = RolloutSettings(format=chosen, max_new_tokens=400, max_information_tokens=3000)
    source, one, turn = WORLDS[world](settings.tags)
    env, written = source.env(one), []

    def write(context):
        written.append(turn(env, written[-1] if written else None, one.max_turns - len(written)))
        return written[-1]

    engine = ScriptedEngine(TOKENIZER, [write])
    (played,) = collect([Episode(one, env)], engine, TOKENIZER, settings)
    return played, settings


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("world", list(WORLDS))
def test_a_world_is_played_through_tool_calls_as_it_is_through_tags(world, syntax):
    by_tags, _ = play(world, {"shop": "plain"}.get(world, world))
    by_calls, settings = play(world, f"{world}_{syntax}")
    assert [turn.action for turn in by_calls.turns] == [turn.action for turn in by_tags.turns]
    assert all(turn.valid for turn in by_calls.turns) and len(by_calls.turns) > 1
    assert (by_calls.reward, by_calls.stop_reason) == (by_tags.reward, by_tags.stop_reason)
    assert by_calls.reward > 0
    last = TOKENIZER.decode(contexts(by_calls)[-1])
    roles = [line for line in last.splitlines() if line.startswith("<|im_start|>")]
    assert [line.removeprefix("<|im_start|>") for line in roles] == ["system", "user", "assistant", "tool", "assistant"]
    assert last.endswith(f"{TOKENIZER.eos_token}\n<|im_start|>assistant\n")


def test_a_call_that_cannot_be_read_is_an_invalid_turn_and_the_reply_says_so():
    lines = iter(["<think>a</think><tool_call>search</tool_call>", "<think>a</think> I do not know."])
    engine = ScriptedEngine(TOKENIZER, [lambda context: next(lines)])
    env = WordEnv(["a page", ""])
    settings = RolloutSettings(format="qa_hermes", max_new_tokens=90)
    (played,) = collect([Episode(task(), env)], engine, TOKENIZER, settings)
    assert [turn.valid for turn in played.turns] == [False, False] and env.actions == ["", ""]
    shape = '<tool_call>{"name": ..., "arguments": {...}}</tool_call>'
    reply = f"expected {shape}, got a tool call that cannot be read: Expecting value: line 1 column 1 (char 0)\na page"
    assert played.turns[0].information == reply
    seen = TOKENIZER.decode(played.turns[0].information_ids)
    assert "that cannot be read" in seen and "<tool_call>" not in seen
