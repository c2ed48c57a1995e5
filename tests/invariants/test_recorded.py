"""Promises 1-3 for contexts that an agent sends as it likes: rewrites, forks, retries, calls side by side."""

import copy
import random
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mem1.context.contexts import drift
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.policy.reference import plain_logprobs
from lightning_mem1.training.layouts import trie
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.layouts.microbatches import num_tokens, split_by_tokens
from lightning_mem1.types import GenerationRequest, StopReason, Trajectory, Turn
from tiny import random_ids, task, tiny_policy, turns
from tiny_recurrent import limit, recurrent_policy

POLICY = tiny_policy(LoraSettings(r=4))
DOUBLE = copy.deepcopy(POLICY).double()
MOVES = ("extend", "rewrite", "fork", "retry", "parallel", "cut")


def agent_calls(rng, prompt, rows, move):
    """Contexts of the next calls, given the rows (context and turn) of those before."""
    last = rows[-1]
    if move == "extend":
        return [[*last, *random_ids(rng, rng.randrange(0, 5))]]
    if move == "rewrite":  # notes of its own in place of the history
        return [[*prompt, *random_ids(rng, rng.randrange(0, 9))]]
    if move == "fork":  # goes on from any earlier row
        return [[*rng.choice(rows), *random_ids(rng, 2)]]
    if move == "retry":  # the very same context once more
        kept = last[: -rng.randrange(1, 3)]
        return [kept if len(kept) >= len(prompt) else [*prompt]]
    if move == "parallel":
        return [[*last, *random_ids(rng, n)] for n in (1, 3, 1)]
    return [[*prompt, *last[len(prompt) + 2 :]] or [*prompt]]


def played(policy, seed, num_agents=3, num_moves=4):
    """Trajectories of agents that call a real engine; two of them have a prompt in common."""
    rng, engine = random.Random(seed), LocalEngine(policy, EngineSettings(num_slots=3, max_context_tokens=512))
    prompts, found = [random_ids(rng, 6), random_ids(rng, 4)], []
    for number in range(num_agents):
        prompt = prompts[number % 2]
        agent, rows = Trajectory(task(number % 2), prompt, [], StopReason.DONE), [[*prompt, *random_ids(rng, 2)]]
        contexts = [rows[0]]
        for _ in range(num_moves):
            asked = [
                GenerationRequest(n, each, rng.randrange(1, 7), seed=rng.randrange(99))
                for n, each in enumerate(contexts)
            ]
            with torch.no_grad():
                done = turns(engine, asked)
            for request, each in zip(asked, done, strict=True):
                agent.turns.append(Turn(each.ids, each.logprobs, context_ids=list(request.context_ids)))
                rows.append([*request.context_ids, *each.ids])
            contexts = agent_calls(rng, prompt, rows, rng.choice(MOVES))
        found.append(agent)
    return found


def gradients(policy, logprobs):
    weights = torch.sin(torch.arange(len(logprobs)))
    trained = [p for p in policy.parameters() if p.requires_grad]
    return torch.autograd.grad((logprobs * weights).sum(), trained, allow_unused=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_training_scores_what_a_foreign_agent_was_answered(seed):
    trajectories = played(DOUBLE, seed)
    assert [drift(t, "recorded") for t in trajectories] == [0, 0, 0]
    for layout in ("tree", "rows"):
        batch = collate(trajectories, layout, "recorded")
        logprobs, _ = DOUBLE.logprobs(batch)
        assert len(logprobs) == sum(len(turn.action_ids) for t in trajectories for turn in t.turns)
        assert (logprobs - batch.rollout_logprobs).abs().max() <= 1e-6


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_in_float32_too_and_as_plain_transformers_does(seed):
    trajectories = played(POLICY, seed)
    batch = collate(trajectories, "tree", "recorded")
    logprobs, _ = POLICY.logprobs(batch)
    assert (logprobs - batch.rollout_logprobs).abs().max() <= 1e-5
    plain = [plain_logprobs(POLICY, turn.context_ids, turn.action_ids) for t in trajectories for turn in t.turns]
    assert (logprobs - torch.cat(plain)).abs().max() <= 1e-5


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_tree_and_rows_agree_on_entropies_and_every_gradient(seed):
    trajectories = played(POLICY, seed)
    tree, rows = (POLICY.logprobs(collate(trajectories, layout, "recorded")) for layout in ("tree", "rows"))
    torch.testing.assert_close(tree[1], rows[1], atol=1e-5, rtol=1e-5)
    for a, b in zip(gradients(POLICY, tree[0]), gradients(POLICY, rows[0]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * max(1.0, float(b.abs().max())), rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_tree_holds_each_beginning_once(seed):
    trajectories = played(POLICY, seed, num_agents=2, num_moves=3)
    rows = [[*turn.context_ids, *turn.action_ids] for t in trajectories for turn in t.turns]
    different = {tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)}
    with mock.patch.object(trie, "SHORTEST", 1):  # longer beginnings alone are shared otherwise
        assert collate(trajectories, "tree", "recorded").num_tokens == len(different)


def test_passes_of_few_tokens_score_the_same():
    trajectories = played(POLICY, 5)
    whole, _ = POLICY.logprobs(collate(trajectories, "tree", "recorded"))
    limit = max(num_tokens(each, "tree", "recorded") for each in trajectories)
    parts = split_by_tokens(trajectories, limit, "tree", "recorded")
    assert len(parts) > 1
    found = [POLICY.logprobs(collate([trajectories[i] for i in part], "tree", "recorded"))[0] for part in parts]
    torch.testing.assert_close(torch.cat(found), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["tree", "rows"])
def test_a_token_that_only_one_context_holds_moves_only_its_turn(layout):
    rng = random.Random(8)
    prompt = random_ids(rng, 5)
    sent = [[*prompt, *random_ids(rng, 4)] for _ in range(3)]
    agent = Trajectory(task(), prompt, [Turn(random_ids(rng, 3), [0.0] * 3, context_ids=each) for each in sent], "done")
    before, _ = POLICY.logprobs(collate([agent], layout, "recorded"))
    agent.turns[1].context_ids = [*sent[1][:-1], (sent[1][-1] + 1) % 250]
    after, _ = POLICY.logprobs(collate([agent], layout, "recorded"))
    assert ((before - after).abs() > 1e-6).tolist() == [False] * 3 + [True] * 3 + [False] * 3


@pytest.mark.parametrize("family", ["qwen3_5", "lfm2"])
def test_layers_that_keep_a_state_read_recorded_contexts_as_rows_do(family):
    policy, _ = recurrent_policy(family, LoraSettings(r=4))
    trajectories = played(POLICY, 3)  # whoever wrote them
    found = [policy.logprobs(collate(trajectories, layout, "recorded"))[0] for layout in ("tree", "rows")]
    torch.testing.assert_close(found[0], found[1], atol=limit(family), rtol=0)
    pairs = zip(*(gradients(policy, each) for each in found), strict=True)
    for a, b in ((a, b) for a, b in pairs if b is not None):
        torch.testing.assert_close(a, b, atol=1e-3 * max(1.0, float(b.abs().max())), rtol=1e-3)
