"""The critic: its values, who trains with whom, and what ppo makes of it in a run."""

import random
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mem1.callbacks import MetricsCallback, RLCheckpoint
from lightning_mem1.policy.critic import CRITIC, Critic, CriticSettings
from lightning_mem1.policy.policy import LoraSettings, Policy, copies
from lightning_mem1.training.credit.filters import token_counts
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.gradients import critic_gradients
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.training.policy_loss import PolicyLoss
from lightning_mem1.training.settings import OptimSettings
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import random_ids, random_trajectory, task, tiny_policy
from tiny_tasks import RankedTasks

LENGTHS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), min_size=1, max_size=6)
POLICY_LOSS = PolicyLoss(temperature=1.0, clip=0.2, clip_high=0.2, unit="turn")


def with_critic(policy, **chosen):
    """A critic that is no longer 0: its head and the adapter's B matrices are random."""
    critic = Critic(policy, CriticSettings(r=4, **chosen))
    torch.manual_seed(7)
    adapter = [p for name, p in policy.named_parameters() if "lora_B.critic" in name]
    for parameter in [*adapter, *critic.head.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    return critic


POLICY = tiny_policy(LoraSettings(r=4))
CRITIC_OF_POLICY = with_critic(POLICY)
BATCH = collate([random_trajectory(random.Random(0), [(3, 4), (2, 2), (2, 0)], [5, 6, 7])])


@pytest.fixture
def parted(tiny_folder):
    """A policy whose critic has a base of its own, both no longer at their start."""
    policy = Policy.load(str(tiny_folder), lora=LoraSettings(r=4))
    critic = Critic(policy, CriticSettings(policy=str(tiny_folder), r=4))
    torch.manual_seed(7)
    for name, parameter in [*policy.named_parameters(), *critic.named_parameters()]:
        if "lora_B" in name or name.startswith("head."):
            torch.nn.init.normal_(parameter, std=0.1)
    return policy, critic


def trained(policy, critic):
    """The weights that train, by the names of a module that has both."""
    every = torch.nn.ModuleDict({"policy": policy, "critic": critic}).named_parameters()
    return {name: p for name, p in every if p.requires_grad}


def with_gradient(policy, critic):
    return {name for name, p in trained(policy, critic).items() if p.grad is not None and p.grad.any()}


def names_of(parameters, policy, critic):
    ids = {id(p) for p in parameters}
    return {name for name, p in trained(policy, critic).items() if id(p) in ids}


def test_a_new_critic_expects_nothing():
    assert Critic(tiny_policy(LoraSettings(r=4)), CriticSettings()).values(BATCH).tolist() == [0.0] * 7


def test_a_value_is_read_before_its_token_is_drawn():
    trajectory = random_trajectory(random.Random(1), [(3, 4), (3, 0)], [5, 6])
    before = CRITIC_OF_POLICY.values(collate([trajectory]))
    trajectory.turns[1].action_ids[1] = (trajectory.turns[1].action_ids[1] + 1) % 250
    after = CRITIC_OF_POLICY.values(collate([trajectory]))
    # tokens 0-2 | 3 4 5: token 4 was exchanged, and only the value before token 5 has seen it
    assert ((before - after).abs() > 1e-6).tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("mode", ["mem1", "full"])
@settings(max_examples=8, deadline=None)
@given(shapes=st.lists(LENGTHS, min_size=1, max_size=4), seed=st.integers(0, 99))
def test_tree_and_rows_agree_on_values_their_loss_and_every_gradient(mode, shapes, seed):
    rng = random.Random(seed)
    prompts = [random_ids(rng, 5), random_ids(rng, 3)]
    trajectories = [random_trajectory(rng, shape, prompts[i % 2], i) for i, shape in enumerate(shapes)]
    count = token_counts(trajectories)["num_tokens"]
    known = replace(TokenCredit.unknown(count), returns=torch.sin(torch.arange(count)), values=torch.ones(count) / 3)
    found = []
    for layout in ("tree", "rows"):
        batch = collate(trajectories, layout, mode)
        with POLICY.adapter(CRITIC):
            values = CRITIC_OF_POLICY.values(batch)
            loss = POLICY_LOSS.value_loss(values, batch, known, token_counts(trajectories), clip=0.1)
            found.append((values, loss, *torch.autograd.grad(loss, CRITIC_OF_POLICY.trained())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * max(1.0, float(b.detach().abs().max())), rtol=1e-4)
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=0)


def test_policy_and_critic_train_all_the_time_and_neither_gets_the_others_gradient():
    policy = tiny_policy(LoraSettings(r=4))
    critic = with_critic(policy)
    policys, critics = (names_of(p, policy, critic) for p in (policy.trained().values(), critic.trained()))
    assert {name.split(".")[-2] for name in policys} == {"policy"}
    assert {name.split(".")[-2] for name in critics} == {"critic", "head"}
    assert {name.replace(".critic.", ".policy.") for name in critics if "lora" in name} == policys  # the same layers
    critic.values(BATCH).sum().backward()
    assert with_gradient(policy, critic) == critics
    policy.zero_grad()
    critic.zero_grad()
    policy.logprobs(BATCH)[0].sum().backward()
    assert with_gradient(policy, critic) == policys
    with policy.reference():
        pass
    assert trained(policy, critic).keys() == policys | critics


def test_the_critic_hands_its_weights_to_the_optimizer_with_its_own_learning_rate():
    critic = with_critic(tiny_policy(LoraSettings(r=4)), lr=0.5)
    group = critic.optimizer_group()
    assert group["lr"] == 0.5 and [id(p) for p in group["params"]] == [id(p) for p in critic.trained()]
    assert [p.shape for p in group["params"][-2:]] == [(1, 32), (1,)]  # the head comes last


def test_a_critic_with_a_base_of_its_own_shares_nothing_with_the_policy(parted):
    policy, critic = parted
    names = trained(policy, critic).keys()
    own = {name for name in names if name.startswith("critic.")}
    assert names_of(critic.trained(), policy, critic) == own and "critic.head.bias" in own
    assert names_of(policy.trained().values(), policy, critic) == names - own != set()
    assert not any("critic" in name for name in policy.state_dict())
    critic.values(BATCH).sum().backward()
    assert with_gradient(policy, critic) == own
    critic.zero_grad()
    policy.logprobs(BATCH)[0].sum().backward()
    assert with_gradient(policy, critic) == names - own
    trajectory = random_trajectory(random.Random(3), [(3, 4), (2, 2), (2, 0)], [5, 6, 7])
    tree, rows = (critic.values(collate([trajectory], layout)) for layout in ("tree", "rows"))
    torch.testing.assert_close(tree, rows, atol=1e-5, rtol=0)
    assert tree.abs().max() > 1e-3


def test_a_critic_of_another_vocabulary_is_refused(tiny_folder):
    policy = Policy.load("bundled", lora=LoraSettings(r=4))
    with pytest.raises(
        ValueError, match="the critic reads other tokens than the policy: expected the vocabulary of 'b"
    ):
        Critic(policy, CriticSettings(policy=str(tiny_folder), r=4))


def test_policy_and_reference_are_what_they_are_without_a_critic_bit_for_bit():
    plain, policy = tiny_policy(LoraSettings(r=4)), tiny_policy(LoraSettings(r=4))
    with torch.no_grad(), plain.reference():
        reference = plain.logprobs(BATCH)[0]
    critic = with_critic(policy)
    with torch.no_grad():
        values = critic.values(BATCH)
        assert torch.equal(policy.logprobs(BATCH)[0], plain.logprobs(BATCH)[0])
        with policy.reference():
            assert torch.equal(policy.logprobs(BATCH)[0], reference)
        assert torch.equal(critic.values(BATCH), values)


def test_the_policys_adapter_is_back_after_the_critic_broke():
    with pytest.raises(RuntimeError, match="out of memory"), POLICY.adapter(CRITIC):
        raise RuntimeError("out of memory")
    assert POLICY.model.active_adapter == "policy"
    assert POLICY.trained() and POLICY.trained(CRITIC) and not POLICY.trained().keys() & POLICY.trained(CRITIC).keys()


def test_recomputed_activations_are_the_critics_too(tiny_folder):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        policy = Policy.load(str(tiny_folder), lora=LoraSettings(r=4), gradient_checkpointing=checkpointing).train()
        critic = with_critic(policy)
        trajectories = [random_trajectory(random.Random(2), [(3, 4), (2, 0)], [5, 6])]
        known = replace(TokenCredit.unknown(5), returns=torch.ones(5))
        passes = [(collate(trajectories), known)]
        critic_gradients(POLICY_LOSS, critic, passes, token_counts(trajectories), lambda loss: loss.backward())
        assert not any(p.grad is not None for p in policy.trained().values())
        gradients.append([p.grad for p in critic.trained()])
    assert any(g.any() for g in gradients[0])
    for once, again in zip(*gradients, strict=True):
        torch.testing.assert_close(once, again, atol=1e-6, rtol=1e-5)


def test_the_saved_adapter_is_the_policys_alone(tmp_path):
    POLICY.save(tmp_path)
    folders = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("adapter_model.safetensors")}
    assert folders == {"."}


def test_full_training_leaves_no_base_to_put_a_critic_on():
    with pytest.raises(
        ValueError, match="cannot add adapter 'critic': expected a policy with an adapter, got full training"
    ):
        Critic(tiny_policy(), CriticSettings())


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"algorithm": "ppo", "lora": None}, "no base to put a critic on: expected a policy that trains an adapter"),
        ({"critic": CriticSettings(r=0)}, "model.critic.r too small: expected at least 1, got 0; set model.critic.r"),
        ({"critic": CriticSettings(lr=-1.0)}, "model.critic.lr too small: expected at least 0, got -1.0"),
        ({"critic": CriticSettings(value_clip=-0.5)}, "model.critic.value_clip too small: expected at least 0"),
        ({"critic": CriticSettings(warmup_steps=-1)}, "model.critic.warmup_steps too small: expected at least 0"),
    ],
)
def test_a_setting_of_the_critic_that_cannot_be_is_named(chosen, message):
    with pytest.raises(ValueError, match=message):
        Mem1Module(**chosen)


# In a run


class Curve(MetricsCallback):
    """Keeps metrics and the weights before it; can change what the update sees, and keeps its reward."""

    def __init__(self, change=lambda module, trajectories: None):
        super().__init__()
        self.change, self.history, self.weights, self.rewards = change, [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.weights.append(copies(pl_module.trained()))
        self.change(pl_module, batch.trajectories)
        self.rewards.append(sum(t.reward for t in batch.trajectories) / len(batch.trajectories))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        kept = ("train/", "rollout/reward", "step")
        self.history.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(kept)})


def moved(before, after):
    """Whose weights are other ones now."""
    names = {name for name in before if not torch.equal(before[name], after[name])}
    return {CRITIC if "critic" in name else "policy" for name in names}


def test_credit_is_whitened_returns_are_not_and_a_broken_episode_has_neither(make_module):
    def played(reward, stop=StopReason.DONE):
        return Trajectory(task(), [1, 2], [Turn([3, 4], [-0.5] * 2, reward=reward)], stop)

    assigner = replace(make_module(algorithm="ppo").credit_assigner, total=lambda sums: sums)
    three = [played(1.0), played(3.0), played(9.0, StopReason.ERROR)]
    values = [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]), torch.tensor([5.0, 5.0])]
    first, second, broken = assigner.assign(three, {"values": values})
    # advantages 1 0 | 3 3: mean 7/4, variance 27/4 / 3 = 9/4
    assert first.advantages.tolist() == pytest.approx([-1 / 2, -7 / 6])
    assert second.advantages.tolist() == pytest.approx([5 / 6, 5 / 6])
    assert (first.returns.tolist(), second.returns.tolist()) == ([1.0, 1.0], [3.0, 3.0])
    assert first.values.tolist() == [0.0, 1.0] and first.credited.tolist() == [True, True]
    assert broken.advantages.tolist() == broken.returns.tolist() == [0.0, 0.0] and not broken.credited.any()


def test_rewards_that_are_all_equal_teach_the_critic_alone(make_module, make_data, fit):
    curve, module = Curve(), make_module(algorithm="ppo")
    fit(module, make_data(RankedTasks(equal=True), num_rl_steps=1, num_val_tasks=0), curve)
    assert moved(curve.weights[0], copies(module.trained())) == {CRITIC}
    metrics = curve.history[0]
    assert metrics["train/value_loss"] == pytest.approx(0.5**2 / 2)  # every value 0, every return 1/2
    assert metrics["train/value_mean"] == 0 and "train/value_explained_variance" not in metrics
    assert metrics["train/grad_norm"] == 0 and metrics["train/critic_grad_norm"] > 0
    assert 0 < metrics["train/rollout_gap_max"] < 1e-5  # measured all the same


def test_during_its_warm_up_the_critic_learns_alone(make_module, make_data, fit):
    curve = Curve()
    module = make_module(algorithm="ppo", critic=CriticSettings(r=4, lr=1e-2, warmup_steps=1))
    fit(module, make_data(num_rl_steps=2, num_val_tasks=0), curve)
    assert moved(*curve.weights) == {CRITIC}
    assert moved(curve.weights[1], copies(module.trained())) == {CRITIC, "policy"}
    assert [metrics["train/grad_norm"] > 0 for metrics in curve.history] == [False, True]


def test_small_passes_give_the_same_step_as_one_large_pass(make_module, make_data, fit):
    found = []
    for tokens in (100, 100_000):
        module = make_module(algorithm="ppo", max_tokens_per_microbatch=tokens, loss_unit="turn")
        fit(module, make_data(num_rl_steps=1, num_val_tasks=0))
        found.append(copies(module.trained()))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=1e-5)


def ppo(make_module, base=None):
    critic = CriticSettings(policy=base, r=4, lr=5e-3, value_clip=0.1, warmup_steps=1)
    return make_module(
        algorithm="ppo", critic=critic, optim=OptimSettings(warmup_steps=3, num_epochs=2, num_minibatches=2)
    )


@pytest.mark.parametrize(("stop_at", "apart"), [(1, False), (2, False), (2, True)])
def test_a_resumed_run_of_ppo_equals_the_uninterrupted_one(
    make_module, make_data, fit, tmp_path, tiny_folder, stop_at, apart
):
    base = str(tiny_folder) if apart else None
    whole, module = Curve(), ppo(make_module, base)
    fit(module, make_data(), whole)
    assert module.global_step == 3 * 2 * 2  # one optimizer for both
    part, checkpoint = ppo(make_module, base), RLCheckpoint(str(tmp_path / "part"))
    fit(part, make_data(num_rl_steps=stop_at), checkpoint, enable_checkpointing=True)
    rest, resumed = Curve(), ppo(make_module, base)
    fit(resumed, make_data(), rest, ckpt_path=str(checkpoint.last_path))
    assert rest.history == whole.history[stop_at:]
    assert moved(copies(resumed.trained()), copies(module.trained())) == set()


def test_a_checkpoint_without_a_critic_is_refused_with_the_settings_to_look_at(make_module, make_data, fit, tmp_path):
    checkpoint = RLCheckpoint(str(tmp_path))
    fit(make_module(), make_data(num_rl_steps=1), checkpoint, enable_checkpointing=True)
    with pytest.raises(
        ValueError, match=r"expected .*critic.* got nothing; use the .*model.algorithm and model.critic"
    ):
        fit(make_module(algorithm="ppo"), make_data(), ckpt_path=str(checkpoint.last_path))


def spoil_values(module, trajectories):
    values = module.critic.values
    module.critic.values = lambda batch: values(batch) * float("nan")


def spoil_rewards(module, trajectories):
    for trajectory in trajectories:
        trajectory.turns[0].reward = float("nan")


def spoil_the_error(module, trajectories):
    trajectories[0].turns[0].reward = 1e30  # finite, but not its square


@pytest.mark.parametrize(
    ("change", "counted", "count"),
    [
        (spoil_values, "train/bad_values", 6),
        (spoil_rewards, "train/bad_rewards", 6),
        (spoil_the_error, "train/skipped_updates", 1),
    ],
)
def test_what_is_no_number_is_counted_and_never_steps(make_module, make_data, fit, change, counted, count):
    curve, module = Curve(change), make_module(algorithm="ppo")
    fit(module, make_data(num_rl_steps=1, num_val_tasks=0), curve)
    assert curve.history[0][counted] == count
    assert moved(copies(module.trained()), curve.weights[0]) == set()


def test_ppo_learns_which_tokens_are_paid_for_and_its_critic_what_they_are_worth(make_module, make_data, fit):
    def pay_low_ids(module, trajectories):
        """A turn earns the share of its ids below 160, about half of the vocabulary."""
        for turn in (turn for trajectory in trajectories for turn in trajectory.turns):
            turn.reward = sum(i < 160 for i in turn.action_ids) / len(turn.action_ids)

    curve = Curve(pay_low_ids)
    module = make_module(algorithm="ppo", lr=3e-2, critic=CriticSettings(r=4, lr=1e-2))
    fit(module, make_data(num_rl_steps=12, num_val_tasks=0, group_size=8), curve)
    explained = [metrics["train/value_explained_variance"] for metrics in curve.history]
    assert fmean(curve.rewards[-4:]) > fmean(curve.rewards[:4]) + 0.15  # of at most 2
    assert explained[0] == 0 and fmean(explained[-3:]) > 0.1
