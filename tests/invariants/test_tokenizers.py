"""Whatever the tokenizer: contexts are the sampled ids, turns end where they should, and their ends are learned from.

Random policies over every kind of tokenizer play environments that reply with what would be control tokens.
"""

import random
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from lightning_mem1.context.contexts import contexts, drift
from lightning_mem1.context.detokenizer import Detokenizer
from lightning_mem1.context.internal_state import state_lengths, state_mask, state_spans
from lightning_mem1.context.modes import MODES
from lightning_mem1.context.tags import QA_TAGS
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.evaluation.measures import answers
from lightning_mem1.evaluation.view import View
from lightning_mem1.policy.attention import register
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import StepResult, Task
from tiny import WordEnv
from tiny_tokenizers import KINDS, of_kind

HOSTILE = [
    "</s>",
    "<|im_end|>",
    "<end_of_turn>",
    "[INST]",
    "<\uff5cUser\uff5c>",
    "</state>",
    "</think>",
    "red 多",
    "\U0001f600",
]


@cache
def policy_of(kind):
    """Random weights; a few ids more than the tokenizer has, and one more end of turn than it knows."""
    tokenizer = of_kind(kind)
    torch.manual_seed(0)
    shape = dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    config = Qwen2Config(vocab_size=len(tokenizer) + 5, max_position_embeddings=1024, initializer_range=0.15, **shape)
    config._attn_implementation = register()
    model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    return Policy(model, tokenizer, source="tiny").eval()


def control_ids(tokenizer):
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=st.integers(0, 999), mode=st.sampled_from(list(MODES)))
def test_contexts_are_ids_ends_are_exact_and_the_end_has_a_gradient(kind, seed, mode):
    policy, rng = policy_of(kind), random.Random(seed)
    chosen = RolloutSettings(max_new_tokens=12, prompt="brief", max_information_tokens=60, format="qa")
    played = collect(episodes(rng, seed), LocalEngine(policy, EngineSettings(3, 1024)), policy.tokenizer, chosen, mode)
    assert [drift(t, mode) for t in played] == [0] * len(played)
    names = ("search", "answer", *MODES[mode].actions)
    stops = {"act": [f"</{name}>" for name in names], "memory": ["</think>"]}
    for turn in (turn for t in played for turn in t.turns):
        assert_ends_once(turn.action_ids, stops[turn.kind], policy, chosen.max_new_tokens)
        own = set(turn.information_ids)
        assert not control_ids(policy.tokenizer) & own
    assert_learned_from(policy, played, mode)


def episodes(rng, seed):
    replies = [[" ".join(rng.choices(HOSTILE, k=4)) for _ in range(rng.randint(1, 4))] for _ in range(4)]
    return [
        Episode(Task(f"t/{i % 2}", HOSTILE[i], (), 6), WordEnv(each), i % 2, seed + i) for i, each in enumerate(replies)
    ]


def assert_ends_once(ids, stops, policy, limit):
    """No token but the last ends the turn, and the last does unless it is cut off."""
    decode = Detokenizer(policy.tokenizer)
    ended = [ids[n - 1] in policy.end_ids or any(s in decode(ids[:n]) for s in stops) for n in range(1, len(ids) + 1)]
    assert not any(ended[:-1]) and (ended[-1] or len(ids) == limit)


def assert_learned_from(policy, played, mode):
    """Training sees each action token, the last of a turn too, with the rollout's log-prob; and each has a gradient."""
    batch = collate(played, "tree", mode)
    assert batch.action_ids.tolist() == [each for t in played for turn in t.turns for each in turn.action_ids]
    logprobs = policy.logprobs(batch)[0]
    assert (logprobs - batch.rollout_logprobs).abs().max() <= 1e-5
    lengths = torch.tensor([len(turn.action_ids) for t in played for turn in t.turns])
    head = policy.causal_lm.lm_head.weight
    for end in (lengths.cumsum(0) - 1).tolist()[:4]:
        (gradient,) = torch.autograd.grad(logprobs[end], head, retain_graph=True)
        assert gradient[batch.action_ids[end]].abs().max() > 0  # also where the end of text is the padding


STATE = "nothing known, é 多"


@pytest.mark.parametrize("kind", KINDS)
def test_the_internal_state_is_found_in_every_turn_whether_the_policy_or_its_template_opens_it(kind):
    tokenizer = of_kind(kind)
    chosen = RolloutSettings(format="qa", prompt="brief")
    opened = "<think>" in chosen.encoder(tokenizer).decode(chosen.encoder(tokenizer).turn_opening())
    assert opened == ("<think>\\n' }}" in (tokenizer.chat_template or ""))
    turn = ("" if opened else "<think>") + f"{STATE}</think><search>river of ulm</search>"
    env = RecordingEnv(3)
    t = scripted(turn, env, tokenizer, chosen)
    assert env.actions == ["search[river of ulm]"] * 3 and [turn.valid for turn in t.turns] == [True] * 3
    view = View(chosen.encoder(tokenizer).decode, QA_TAGS)
    spans = state_spans(t, view.decode, "think")
    for turn, (start, end) in zip(t.turns, spans, strict=True):
        assert STATE in view.decode(turn.action_ids[start:end])
    assert int(state_mask(t, spans).sum()) == sum(state_lengths(t, spans)) > 0
    assert answers(t, view)["exact_format"] == [1.0] * 3 and drift(t) == 0
    later = view.decode(contexts(t)[2])
    assert later.count("<think>") == 1 + opened and later.count(STATE) == 1  # the turn before, and what opens this one


def scripted(turn, env, tokenizer, chosen):
    """The trajectory of a policy that writes the same turn again and again."""
    engine, episode = ScriptedEngine(tokenizer, [lambda seen: turn]), Episode(Task("t", "Which river?", (), 6), env)
    return collect([episode], engine, tokenizer, chosen)[0]


class RecordingEnv:
    """Takes some turns and replies with the end of a state."""

    def __init__(self, num_turns):
        self.num_turns, self.actions = num_turns, []

    def observe(self):
        return ""

    def step(self, action):
        self.actions.append(action)
        return StepResult("</think> <think>blue</think>", done=len(self.actions) == self.num_turns)


def test_a_scripted_turn_is_not_opened_twice():
    tokenizer, chosen = of_kind("special tags"), RolloutSettings(format="qa", prompt="brief")
    turn = "<think>red</think><search>river</search>"
    t = scripted(turn, RecordingEnv(2), tokenizer, chosen)
    assert [tokenizer.decode(each.ids) for each in t.turns] == ["<think>\nred</think><search>river</search>"] * 2
