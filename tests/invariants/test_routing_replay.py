"""Routing replay: training takes the experts that the rollout chose, and nothing else changes."""

import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback

from architectures import FAMILIES, LAYOUTS, MODES, TEMPERATURE, play, save, stir
from lightning_mem1.callbacks import RLCheckpoint, RolloutCallback
from lightning_mem1.context.contexts import contexts
from lightning_mem1.engine.factory import make_engine
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.expert_choices import pack, shortened, unpacked
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.workers.settings import WorkerSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import GenerationRequest, Turn
from tiny import random_trajectory, turns

RECORDING = EngineSettings(num_slots=2, max_context_tokens=256, replay_routing=True)
ROUTERS = ["Qwen3-MoE, windows", "DeepSeek-V3", "gpt-oss", "Llama 4", "DBRX", "Granite hybrid, experts"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a family's tiny model."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = str(tmp_path_factory.mktemp("experts"))
            save(FAMILIES[name], made[name])
        return made[name]

    return of


def full(folder, name="Qwen3-MoE, windows", **settings):
    """A policy of which every weight trains, routers too."""
    return Policy.load(folder(name), **settings)


def played(policy, mode="mem1", engine=RECORDING):
    found = play(make_engine(policy.eval(), engine, lambda: 0, training=True), policy, mode)
    policy.train()
    return found


def perturbed(policy, scale=0.05):
    """The same policy whose routers see things a little differently."""
    other = copy.deepcopy(policy)
    torch.manual_seed(1)
    with torch.no_grad():
        for name in other.routers.names:
            weight = next(other.causal_lm.get_submodule(name).parameters())
            weight += scale * torch.randn_like(weight)
    return other


def gap(policy, batch, replay):
    with torch.no_grad():
        return float((policy.logprobs(batch, TEMPERATURE, replay)[0] - batch.rollout_logprobs).abs().mean())


class Chosen:
    """Inside, what the experts of each layer were given to do: (tokens, experts) by layer, in ascending order."""

    def __init__(self, policy):
        layers = policy.causal_lm.model.layers
        self.experts = [layer.mlp.experts for layer in layers if hasattr(layer.mlp, "experts")]
        self.found = [[] for _ in self.experts]

    def __enter__(self):
        def keep(number):
            return lambda module, args: self.found[number].append(args[1].sort(dim=-1).values)

        self.hooks = [each.register_forward_pre_hook(keep(n)) for n, each in enumerate(self.experts)]
        return self.found

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def by_layer(choices, num_layers):
    """Choices (..., layers * experts) as those of each layer (tokens, experts), in ascending order."""
    return [each.long().sort(dim=-1).values for each in choices.flatten(0, -2).chunk(num_layers, dim=-1)]


@pytest.mark.parametrize("name", ROUTERS)
def test_in_float32_it_changes_no_digit_of_scores_and_gradients(folder, name):
    policy = full(folder, name)
    for mode, layout in (("mem1", "tree"), ("full", "rows")):
        batch = collate(played(policy, mode), layout, mode)
        assert (batch.experts >= 0).any() and batch.experts.shape[2] == policy.routers.width
        found = [policy.logprobs(batch, TEMPERATURE, replay)[0] for replay in (True, False)]
        assert torch.equal(*found)
        weights = [p for p in policy.parameters() if p.requires_grad]
        one, other = (torch.autograd.grad(each.sum(), weights, allow_unused=True) for each in found)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True) if a is not None)


def test_the_engine_records_what_its_routers_choose(folder):
    policy = full(folder)
    engine = LocalEngine(policy.eval(), replace(RECORDING, num_slots=1))
    request = GenerationRequest(0, list(range(5, 65)), max_new_tokens=12, temperature=0.8, seed=1)
    with Chosen(policy) as ran:
        (turn,) = turns(engine, [request])
    (recorded,) = unpacked([turn.experts])
    assert recorded.shape == (60 + len(turn.ids) - 1, policy.routers.width)
    for layer, expected in zip(by_layer(recorded, len(ran)), ran, strict=True):
        assert torch.equal(layer, torch.cat(expected))


def test_slots_that_share_prompts_and_are_used_again_give_what_a_turn_by_itself_gives(folder):
    policy = full(folder)
    shared = list(range(5, 45))
    asked = [
        GenerationRequest(n, [*shared[: 40 - 7 * (n % 3)], 50 + n, *shared[:n]], 4 + n % 3, seed=n) for n in range(7)
    ]
    together = turns(LocalEngine(policy.eval(), RECORDING), asked)
    alone = [turns(LocalEngine(policy, replace(RECORDING, num_slots=1)), [each])[0] for each in asked]
    assert [each.experts for each in together] == [each.experts for each in alone]


@pytest.mark.parametrize("mode", MODES)
def test_a_trajectory_holds_what_is_new_in_each_turn_and_gives_it_all_back(folder, mode):
    trajectories = played(full(folder), mode)
    whole = [[*unpacked(turn.experts for turn in each.turns)] for each in pickle.loads(pickle.dumps(trajectories))]
    for trajectory, choices in zip(trajectories, whole, strict=True):
        lengths = [len(each) for each in choices]
        kept = [len(turn.experts.data) // turn.experts.width for turn in trajectory.turns]
        assert all(turn.experts.itemsize == 1 for turn in trajectory.turns)
        starts = [turn.experts.start for turn in trajectory.turns]
        assert [n + start for n, start in zip(kept, starts, strict=True)] == lengths
        assert starts[0] == 0 and min(starts[1:]) >= len(trajectory.prompt_ids) - 1


def test_choices_become_bytes_and_back():
    first = torch.tensor([[3, 300], [1, 2]], dtype=torch.int16)
    second = torch.tensor([[3, 300], [1, 9], [0, 0]], dtype=torch.int16)
    packed = [pack(first), pack(second)]
    short = shortened(packed[1], packed[0])
    assert (short.start, short.itemsize, len(short.data)) == (1, 2, 8)
    found = [*unpacked([packed[0], short, None])]
    assert torch.equal(found[0], first) and torch.equal(found[1], second) and found[2] is None
    assert shortened(packed[0], packed[0]).data == b""
    with pytest.raises(ValueError, match="expected 1 tokens in the turn before, got 0"):
        list(unpacked([short]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
def test_other_routers_take_the_experts_of_the_rollout_and_come_closer_to_it(folder, layout, mode):
    policy = full(folder)
    batch, other = collate(played(policy, mode), layout, mode), perturbed(policy)
    with Chosen(other) as ran:
        replayed = gap(other, batch, True)
    recorded = by_layer(batch.experts, len(ran))
    for layer, (taken,) in zip(recorded, ran, strict=True):
        known = (layer >= 0).all(dim=1)
        assert torch.equal(taken[known], layer[known]) and known.float().mean() > 0.5
    with Chosen(other) as ran:
        own = gap(other, batch, False)
    known = (recorded[0] >= 0).all(dim=1)
    assert any(not torch.equal(taken[known], layer[known]) for layer, (taken,) in zip(recorded, ran, strict=True))
    assert 0 < replayed < 0.7 * own


@pytest.mark.parametrize("name", ["Qwen3-MoE, windows", "DeepSeek-V3", "Granite hybrid, experts"])
def test_with_other_routers_the_layouts_take_the_same_experts_for_the_same_tokens(folder, name):
    policy = full(folder, name)
    trajectories = played(policy, "full")
    recorded = [as_recorded(each) for each in trajectories]
    batches = [collate(trajectories, layout, "full") for layout in LAYOUTS] + [collate(recorded, "tree", "recorded")]
    other = perturbed(policy)
    tree, rows, trie = (other.logprobs(batch, TEMPERATURE)[0] for batch in batches)
    assert torch.allclose(tree, rows, atol=1e-5) and torch.allclose(trie, rows, atol=1e-5)
    assert not torch.allclose(tree, other.logprobs(batches[0], TEMPERATURE, replay=False)[0], atol=1e-3)


def as_recorded(trajectory):
    """The same as an agent that sends its contexts itself would have left it."""
    seen = contexts(trajectory, "full")
    whole = unpacked(turn.experts for turn in trajectory.turns)
    rows = zip(trajectory.turns, seen, whole, strict=True)
    made = [
        replace(turn, context_ids=ids, opening_ids=[], experts=pack(choices.to(torch.uint8)))
        for turn, ids, choices in rows
    ]
    return replace(trajectory, turns=made)


def test_a_rollout_in_bfloat16_is_closer_to_training_in_float32(folder):
    rollout, training = full(folder, dtype="bfloat16"), full(folder)
    with torch.no_grad():
        for name in training.routers.names:  # as many near ties as a large model has
            next(training.causal_lm.get_submodule(name).parameters()).mul_(0.02)
        for theirs, ours in zip(rollout.causal_lm.parameters(), training.causal_lm.parameters(), strict=True):
            theirs.copy_(ours)
            ours.copy_(theirs)
    batch = collate(played(rollout, "full"), "tree", "full")
    assert 0 < gap(training, batch, True) < 0.8 * gap(training, batch, False)


def test_weights_of_experts_stay_the_routers_own_and_routers_learn(folder):
    policy = full(folder)
    batch, other = collate(played(policy)), perturbed(policy)
    weights = [next(other.causal_lm.get_submodule(name).parameters()) for name in other.routers.names]
    gradients = torch.autograd.grad(other.logprobs(batch, TEMPERATURE)[0].sum(), weights)
    assert all(float(each.abs().max()) > 1e-4 for each in gradients)
    step = 1e-3 * gradients[0] / gradients[0].norm()
    before = other.logprobs(batch, TEMPERATURE)[0].sum().double()
    with torch.no_grad():
        weights[0] += step
    after = other.logprobs(batch, TEMPERATURE)[0].sum().double()
    assert float((after - before).detach()) == pytest.approx(1e-3 * float(gradients[0].norm()), rel=0.1)


def test_activations_that_are_computed_again_take_the_same_experts(folder):
    policy = full(folder)
    batch, other = collate(played(policy)), perturbed(policy)
    found = []
    for again in (False, True):
        other.recompute_activations(again)
        other.train()
        weights = [p for p in other.parameters() if p.requires_grad]
        found.append(torch.autograd.grad(other.logprobs(batch, TEMPERATURE)[0].sum(), weights))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_reference_and_values_are_not_replayed(folder):
    policy = Policy.load(folder("Qwen3-MoE, windows"), lora=LoraSettings(r=2))
    stir(policy)
    batch, other = collate(played(policy)), perturbed(policy)
    bare = replace(batch, experts=None)
    assert torch.equal(other.predicting(batch), other.predicting(bare))
    assert not torch.equal(other.logprobs(batch)[0], other.logprobs(bare)[0])


def test_a_turn_without_choices_leaves_its_tokens_to_the_routers(folder):
    policy = full(folder)
    first, second = played(policy)[:2]
    second.turns = [replace(turn, experts=None) for turn in second.turns]
    for layout in LAYOUTS:
        batch = collate([first, second], layout)
        found, alone = policy.logprobs(batch, TEMPERATURE)[0], collate([second], layout)
        assert alone.experts is None and torch.isfinite(found).all() and (batch.experts < 0).any()


def test_turns_of_another_model_are_named(folder):
    policy = full(folder)
    trajectory = played(policy)[0]
    widths = [
        replace(turn, experts=pack(torch.zeros(9, 2 + n, dtype=torch.uint8))) for n, turn in enumerate(trajectory.turns)
    ]
    with pytest.raises(ValueError, match=r"expected turns of one model, got \[2, 3, 4\] choices"):
        collate([replace(trajectory, turns=widths)])
    with pytest.raises(ValueError, match="expected 4 choices of a token, got 2; train the model that played"):
        policy.logprobs(collate([replace(trajectory, turns=widths[:1])]))


# Refused in one line


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Qwen2", "expected a mixture of experts, got no router that calls topk"),
        ("Phi-MoE", "expected a mixture of experts, got no router that calls topk"),
        ("DiffLlama", "expected a policy that the local engine plays, got another"),
        ("Llama, dynamic", "expected rotary frequencies of every length alike"),
    ],
)
def test_models_without_routing_to_replay_are_refused(folder, name, line):
    policy = full(folder, name)
    with pytest.raises(ValueError, match=line) as caught:
        make_engine(policy, RECORDING, lambda: 0, training=True)
    assert "set model.engine.replay_routing false" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"engine": {"kind": "server"}}, "expected an engine that records it, local, got server"),
        ({"engine": {"kind": "transformers"}}, "expected an engine that records it, local, got transformers"),
        ({"engine": {"compile": "inductor"}}, "expected model.engine.compile null, got inductor"),
        ({"layout": "stitched"}, "expected tree or rows to replay routing"),
    ],
)
def test_settings_that_record_nothing_are_refused(make_module, settings, line):
    engine = {"replay_routing": True, **settings.pop("engine", {})}
    with pytest.raises(ValueError, match=line):
        make_module(engine=engine, **settings)


# Training


class Diary(Callback):
    """What was played and how far it was from training; presses Ctrl-C after an rl_step."""

    def __init__(self, last=None):
        self.last, self.played, self.gaps = last, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.last is not None and batch.rl_step == self.last + 1:
            raise KeyboardInterrupt

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.played.append([[(turn.action_ids, turn.experts) for turn in t.turns] for t in batch.trajectories])
        self.gaps.append(float(trainer.callback_metrics["train/rollout_gap_max"]))


ENGINE = EngineSettings(num_slots=8, max_context_tokens=160, replay_routing=True)
PLAYS = RolloutSettings(max_new_tokens=6, max_information_tokens=40, prompt="brief")


@pytest.fixture
def trained(folder, make_module, make_data, fit):
    def run(*callbacks, engine=ENGINE, rollout=PLAYS, num_rl_steps=2, **settings):
        module = make_module(policy=folder("Qwen3-MoE, windows"), engine=engine, rollout=rollout)
        fit(module, make_data(num_rl_steps=num_rl_steps, num_val_tasks=1), *callbacks, **settings)
        return module.policy.adapter_state()

    return run


@pytest.mark.parametrize("ahead", [False, True])
def test_a_resumed_run_equals_the_uninterrupted_one(trained, tmp_path, ahead):
    engine = replace(ENGINE, one_step_off=ahead, self_check=not ahead)
    checkpoint = RLCheckpoint(str(tmp_path / "cut"), save_adapter=False)
    diary, cut, rest = Diary(), Diary(1), Diary()
    whole = trained(diary, engine=engine)
    with pytest.raises(SystemExit):
        trained(cut, checkpoint, engine=engine, enable_checkpointing=True)
    resumed = trained(rest, engine=engine, ckpt_path=str(checkpoint.last_path))
    assert cut.played + rest.played == diary.played
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
    if not ahead:
        assert all(gap <= 1e-4 and math.isfinite(gap) for gap in diary.gaps)


def test_the_setting_alone_changes_nothing_in_float32(trained):
    with_it, without = Diary(), Diary()
    one, other = trained(with_it), trained(without, engine=replace(ENGINE, replay_routing=False))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert all(experts is not None for step in with_it.played for t in step for _, experts in t)
    assert all(experts is None for step in without.played for t in step for _, experts in t)


@pytest.mark.slow
def test_workers_record_what_this_process_would_have(trained):
    here, there = Diary(), Diary()
    trained(here)
    trained(there, RolloutCallback(), rollout=replace(PLAYS, workers=WorkerSettings("processes", 2)))
    assert there.played == here.played


def test_random_trajectories_have_none():
    import random

    assert collate([random_trajectory(random.Random(0), [(3, 2), (4, 0)], [1, 2])]).experts is None
    assert Turn([1], [0.0]).experts is None
