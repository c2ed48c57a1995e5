"""Gap and drift of episodes that a foreign agent plays through the gateway are those of native ones."""

import asyncio
import copy
import random

import pytest

from foreign import chat_policy, played
from lightning_mem1.context.contexts import drift
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.training.layouts.collate import collate

pytest.importorskip("openai")

POLICY = chat_policy()
DOUBLE = copy.deepcopy(POLICY).double()


async def restless(task, client):
    """Goes on, rewrites its history, branches, asks twice at once, tries again."""
    rng = random.Random(task.id)
    messages = [{"role": "user", "content": task.prompt}]

    async def ask(sent):
        answer = await client.chat.completions.create(model="m", messages=sent)
        return answer.choices[0].message.model_dump(exclude_none=True)

    for turn in range(4):
        answer = await ask(messages)
        move = rng.choice(["on", "notes", "twice", "again"])
        if move == "on":
            messages = [*messages, answer, {"role": "user", "content": f"reply {turn}"}]
        elif move == "notes":
            messages = [messages[0], answer, {"role": "user", "content": f"found {turn}"}]
        elif move == "twice":
            both = await asyncio.gather(*(ask([*messages, answer, {"role": "user", "content": w}]) for w in "ab"))
            messages = [*messages, answer, {"role": "user", "content": "b"}, both[1], {"role": "user", "content": "on"}]
    return rng.random()


@pytest.mark.parametrize(("policy", "limit"), [(DOUBLE, 1e-6), (POLICY, 1e-5)], ids=["float64", "float32"])
def test_training_scores_what_was_sampled_through_the_gateway(policy, limit):
    engine = LocalEngine(policy, EngineSettings(num_slots=3, max_context_tokens=1024))
    trajectories = played(restless, 6, policy, engine)
    assert [(t.error, drift(t, "recorded")) for t in trajectories] == [("", 0)] * 6
    shared, rows = (collate(trajectories, layout, "recorded") for layout in ("tree", "rows"))
    for batch in (shared, rows):
        logprobs, _ = policy.logprobs(batch)
        assert len(logprobs) == sum(len(turn.action_ids) for t in trajectories for turn in t.turns)
        assert (logprobs - batch.rollout_logprobs).abs().max() <= limit
    assert shared.num_tokens < 0.6 * rows.num_tokens  # an agent's contexts begin alike
