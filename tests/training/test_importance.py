"""An engine that is off: it samples from another policy than the one that trains, or misreports its log-probs."""

import itertools
import math
import random
from dataclasses import replace

import pytest
import torch

from lightning_mem1.callbacks import MetricsCallback
from lightning_mem1.context.internal_state import state_mask, state_spans
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.engine.scripted import ScriptedEngine
from lightning_mem1.policy.policy import Policy
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.training.credit.importance import (
    MismatchSettings,
    corrected,
    correction_numbers,
    importance_weights,
)
from lightning_mem1.training.credit.token_credit import TokenCredit
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.losses import clipped_policy_loss
from lightning_mem1.training.policy_loss import PolicyLoss
from lightning_mem1.training.settings import LossSettings, OptimSettings
from lightning_mem1.training.update_stats import mismatch, rollout_gap
from lightning_mem1.types import Completion
from tiny import WordEnv, random_trajectory, task, tiny_policy

CORRECTIONS = ("none", "tis", "mis")


def settings(correction="tis", cap=2.0, level="token"):
    return MismatchSettings(correction, cap, level)


# --- engines that are off ---------------------------------------------------------------------------------------------


class Misreporting(LocalEngine):
    """Samples from the right policy and reports other log-probs: `spoil(turn number, log-probs)`."""

    def __init__(self, policy, engine_settings, spoil):
        super().__init__(policy, engine_settings)
        self.spoil, self.turns = spoil, {}

    def reset(self):
        super().reset()
        self.turns = {}

    def step(self):
        found = []
        for done in super().step():
            turn = self.turns[done.session] = self.turns.get(done.session, -1) + 1
            found.append(Completion(done.session, done.ids, self.spoil(turn, done.logprobs)))
        return found


class Tempered(LocalEngine):
    """Samples at another temperature than it is told to, and reports truly what it sampled from."""

    def submit(self, request):
        super().submit(replace(request, temperature=request.temperature * 1.5))


class Quantised(LocalEngine):
    """Samples from weights that are rounded to a grid, taken from the policy as it is when a rollout begins."""

    def __init__(self, policy, engine_settings, folder, grid=0.1):
        self.trained, self.grid = policy, grid
        super().__init__(Policy.load(str(folder)), engine_settings)

    def reset(self):
        super().reset()
        trained = dict(self.trained.causal_lm.named_parameters())
        for name, parameter in self.policy.causal_lm.named_parameters():
            parameter.data.copy_((trained[name].data / self.grid).round() * self.grid)


def put(engine, module):
    """Give a module another engine than its own."""
    assert module.sampling_policy.policy is module.policy  # made before, or the engine would be made anew with it
    module._engine = engine


# --- the size of the gap ----------------------------------------------------------------------------------------------

POLICY_LOSS = PolicyLoss(temperature=1.0, clip=0.2, clip_high=0.2, unit="token")


def gap_of(policy, trajectories, states=None):
    credit = TokenCredit.unknown(sum(len(turn.action_ids) for t in trajectories for turn in t.turns))
    credit = replace(credit, advantages=credit.advantages + 1)
    if states is not None:
        credit = replace(credit, is_state=states)
    totals = {"num_trajectories": 9, "num_turns": 99, "num_tokens": 999}
    step = POLICY_LOSS.loss(policy, collate(trajectories), credit, totals)[1].named()
    return {**rollout_gap(step), **mismatch(step)}


def play(policy, engine):
    episodes = [Episode(task(i), WordEnv(["red", "blue", "red"]), i, seed=i) for i in range(3)]
    return collect(episodes, engine, policy.tokenizer, RolloutSettings(max_new_tokens=6, prompt="brief"))


@pytest.mark.parametrize("bias", [0.5, -0.125])
def test_the_gap_tells_the_turn_and_the_size_of_a_misreport(bias):
    policy = tiny_policy()
    spoil = lambda turn, logprobs: [p + bias * (turn == 1) for p in logprobs]  # noqa: E731
    found = gap_of(policy, play(policy, Misreporting(policy, EngineSettings(8, 256), spoil)))
    assert found["train/rollout_gap_turn_1"] == pytest.approx(abs(bias), abs=1e-5)
    assert found["train/rollout_gap_turn_0"] < 1e-5 and found["train/rollout_gap_turn_2"] < 1e-5
    assert found["train/rollout_gap_max"] == pytest.approx(abs(bias), abs=2e-5)
    outside = 1 / 3 if bias == 0.5 else 0.0  # exp(-0.5) = 0.61 leaves 0.8 to 1.2, exp(0.125) = 1.13 does not
    assert found["train/ratio_outside_clip"] == pytest.approx(outside, abs=0.1)
    assert (found["train/ratio_outside_clip"] == 0) == (outside == 0)


def test_noise_in_the_report_shows_in_every_turn_at_its_size():
    policy, rng = tiny_policy(), random.Random(0)
    spoil = lambda turn, logprobs: [p + rng.choice([-0.25, 0.25]) for p in logprobs]  # noqa: E731
    found = gap_of(policy, play(policy, Misreporting(policy, EngineSettings(8, 256), spoil)))
    for turn in range(3):
        assert found[f"train/rollout_gap_turn_{turn}"] == pytest.approx(0.25, abs=1e-5)


def test_the_gap_tells_the_kind_of_token_of_a_misreport():
    policy = tiny_policy()
    text = "<summary>red shoes</summary><answer>click[red]</answer>"
    engine = ScriptedEngine(policy.tokenizer, [lambda context: text])
    (played,) = collect([Episode(task(), WordEnv(["red", "blue"]))], engine, policy.tokenizer, RolloutSettings())
    spans = state_spans(played, policy.tokenizer.decode, "summary")
    states = state_mask(played, spans)
    assert 0 < int(states.sum()) < len(states)
    with torch.no_grad():
        logprobs = policy.logprobs(collate([played]))[0] - 0.75 * states
    for turn, part in zip(played.turns, logprobs.split([len(turn.action_ids) for turn in played.turns]), strict=True):
        turn.action_logprobs = part.tolist()
    found = gap_of(policy, [played], states)
    assert found["train/rollout_gap_state"] == pytest.approx(0.75, abs=1e-5)
    assert found["train/rollout_gap_action"] < 1e-5


def test_another_temperature_and_rounded_weights_show_in_every_turn(tmp_path):
    policy = tiny_policy()
    policy.save(tmp_path)
    for engine in (Tempered(policy, EngineSettings(8, 256)), Quantised(policy, EngineSettings(8, 256), tmp_path)):
        found = gap_of(policy, play(policy, engine))
        assert all(found[f"train/rollout_gap_turn_{turn}"] > 0.05 for turn in range(3))


# --- the weights ------------------------------------------------------------------------------------------------------


def weigh(ratios, lengths=None, **given):
    ratios = torch.tensor(ratios, dtype=torch.float64)
    found = importance_weights(ratios.log(), torch.zeros_like(ratios), lengths or [len(ratios)], settings(**given))
    return [pytest.approx(numbers.tolist(), nan_ok=True) for numbers in found]


def test_truncation_caps_large_ratios_and_leaves_small_ones():
    assert weigh([0.4, 0.8, 2.5]) == [[0.4, 0.8, 2.0], [0.4, 0.8, 2.5], [False, False, True]]


def test_the_mask_drops_ratios_on_both_sides():
    assert weigh([0.4, 0.8, 2.5], correction="mis") == [[0, 0.8, 0], [0.4, 0.8, 2.5], [True, False, True]]


def test_a_ratio_may_be_that_of_a_turn_or_of_a_trajectory():
    # turns 2 * 3 = 6 and 1/2; trajectory 3
    assert weigh([2.0, 3.0, 0.5], [2, 1], cap=4.0, level="turn")[0] == [4, 4, 0.5]
    assert weigh([2.0, 3.0, 0.5], [2, 1], cap=4.0, level="trajectory")[0] == [3, 3, 3]
    assert weigh([2.0, 3.0, 0.5], [2, 0, 1], cap=5.0, correction="mis", level="turn")[0] == [0, 0, 0.5]


@pytest.mark.parametrize("correction", ["tis", "mis"])
def test_a_log_prob_that_is_no_number_weighs_nothing_and_counts_as_held_back(correction):
    reported = torch.tensor([math.nan, math.inf, -math.inf, -1.0])
    weights, _, held = importance_weights(torch.full((4,), -1.0), reported, [4], settings(correction))
    # exp(-1 - inf) = 0 and exp(-1 + inf) is beyond every cap
    assert weights.tolist() == pytest.approx([0, 0, 2 if correction == "tis" else 0, 1], abs=1e-8)
    assert held.tolist() == [True, correction == "mis", True, False]


@pytest.mark.parametrize("level", ["token", "turn", "trajectory"])
@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_a_trajectory_without_action_tokens_has_no_weights(level, lengths):
    nothing = torch.zeros(0)
    assert [len(n) for n in importance_weights(nothing, nothing, lengths, settings(level=level))] == [0, 0, 0]


def test_corrected_columns_hold_old_policy_and_weights_and_the_sums_are_over_tokens():
    trajectory = random_trajectory(random.Random(0), [(1, 1), (2, 0)], [5])
    trajectory.turns[0].action_logprobs, trajectory.turns[1].action_logprobs = [-1.0], [-2.0, -1.0]
    column = TokenCredit.unknown(3)
    old = torch.tensor([-1.0, -2.0 + math.log(4), -1.0 - math.log(4)])
    (found,), sums = corrected([column], [trajectory], {"old": [old]}, settings("tis", 3.0))
    assert torch.equal(found.old_logprobs, old)
    assert found.correction.tolist() == pytest.approx([1, 3, 0.25])
    double = correction_numbers(sums, settings("tis", 3.0), lambda s: 2 * s)  # two equal ranks
    assert double == {"train/is_ratio_mean": pytest.approx(1.75), "train/is_truncated": pytest.approx(1 / 3)}
    _, sums = corrected([column], [trajectory], {"old": [old]}, settings("mis", 3.0))
    assert correction_numbers(sums, settings("mis", 3.0), lambda s: s)["train/is_masked"] == pytest.approx(2 / 3)


def test_without_a_correction_columns_stay_as_they_are():
    column = TokenCredit.unknown(1)
    found, sums = corrected([column], [], {}, settings("none"))
    assert found == [column] and correction_numbers(sums, settings("none"), lambda s: s) == {}


# --- the gradient, by enumeration -------------------------------------------------------------------------------------

# Three tokens; the engine samples from the second row. Ratios policy / engine: 2, 1, 1/2.
POLICY = torch.tensor([1 / 2, 1 / 4, 1 / 4], dtype=torch.float64)
ENGINE = torch.tensor([1 / 4, 1 / 4, 1 / 2], dtype=torch.float64)
ADVANTAGES = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
# The policy gradient by the logits is p(a) (A(a) - mean A); mean A = 1/2 - 1/4 = 1/4
EXACT = [1 / 2 * 3 / 4, -1 / 4 * 1 / 4, -1 / 4 * 5 / 4]


def expected_gradient(given):
    """Ascent direction by the logits, expected over what the engine samples: each token once, as often as it comes."""
    logits = POLICY.log().requires_grad_()
    logprobs = logits.log_softmax(0)
    old, weights = ENGINE.log(), ENGINE
    if given.on:
        old = logprobs.detach()
        weights = ENGINE * importance_weights(old, ENGINE.log(), [1, 1, 1], given)[0]
    loss, _ = clipped_policy_loss(logprobs, old, ADVANTAGES, weights)
    return (-torch.autograd.grad(loss, logits)[0]).tolist()


def test_without_a_correction_the_clip_takes_the_gap_for_learning_and_the_gradient_is_wrong():
    # token 0: ratio 2 > 1.2, advantage 1; token 2: ratio 1/2 < 0.8, advantage -1. Both are clipped: nothing is left
    assert expected_gradient(settings("none")) == [0, 0, 0]


def test_truncation_with_a_large_cap_gives_the_exact_policy_gradient():
    assert expected_gradient(settings("tis", 100.0)) == pytest.approx(EXACT)


def test_a_cap_that_bites_costs_what_it_cuts():
    # token 0 weighs 1.5 in place of 2, so 1/4 * 1.5 = 3/8 in place of 1/2 of (1 - p0, -p1, -p2) = (1/2, -1/4, -1/4)
    missing = [(1 / 2 - 3 / 8) * direction for direction in (1 / 2, -1 / 4, -1 / 4)]
    assert expected_gradient(settings("tis", 1.5)) == pytest.approx(
        [exact - cut for exact, cut in zip(EXACT, missing, strict=True)]
    )


def test_the_mask_leaves_tokens_out_of_range_no_gradient_at_all():
    logprobs = POLICY.log().requires_grad_()
    weights, _, held = importance_weights(POLICY.log(), ENGINE.log(), [3], settings("mis", 1.5))
    loss, _ = clipped_policy_loss(logprobs, POLICY.log(), torch.ones(3).double(), weights)
    loss.backward()
    assert held.tolist() == [True, False, True]
    assert logprobs.grad.tolist() == [0.0, -1.0, 0.0]


def test_only_the_ratio_of_whole_trajectories_is_unbiased_for_more_than_one_token():
    """All nine sequences of two tokens; the second one's distribution depends on the first token."""
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    engine_logits = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_()  # row 0 first, row 1 + a next
    policy, engine = logits.log_softmax(1), engine_logits.log_softmax(1)
    pairs = list(itertools.product(range(3), range(3)))
    chances = torch.stack([policy[0, a] + policy[1 + a, b] for a, b in pairs]).exp()
    gain = (chances * torch.stack([rewards[a, b] for a, b in pairs])).sum()
    (exact,) = torch.autograd.grad(gain, logits, retain_graph=True)

    def expected(level):
        total = torch.zeros_like(logits)
        for a, b in pairs:
            logprobs = torch.stack([policy[0, a], policy[1 + a, b]])
            rollout = torch.stack([engine[0, a], engine[1 + a, b]])
            weights = importance_weights(logprobs.detach(), rollout, [1, 1], settings("tis", 1e6, level))[0]
            loss, _ = clipped_policy_loss(logprobs, logprobs.detach(), rewards[a, b].expand(2), weights)
            total -= rollout.sum().exp() * torch.autograd.grad(loss, logits, retain_graph=True)[0]
        return total

    torch.testing.assert_close(expected("trajectory"), exact)
    assert not torch.allclose(expected("token"), exact, rtol=0.05)


# --- whole runs -------------------------------------------------------------------------------------------------------


def even_share(trajectory):
    ids = [token for turn in trajectory.turns for token in turn.action_ids]
    return sum(token % 2 == 0 for token in ids) / len(ids)


class EvenTokens(MetricsCallback):
    """Pays the share of even ids, which a policy of any quality can learn; keeps what was logged."""

    def __init__(self):
        super().__init__()
        self.shares, self.logged = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for t in batch.trajectories:
            for turn in t.turns:
                turn.reward = 0.0
            t.turns[-1].reward = even_share(t)
        self.shares.append(sum(map(even_share, batch.trajectories)) / len(batch.trajectories))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_learning_goes_on_with_an_engine_of_rounded_weights(make_module, make_data, fit, tiny_folder):
    module, record = make_module(mismatch=settings("tis", 5.0), lora=None, lr=1e-2), EvenTokens()
    put(Quantised(module.policy, module.engine_settings, tiny_folder), module)
    fit(module, make_data(num_rl_steps=8, num_val_tasks=0, tasks_per_step=4, group_size=6), record)
    assert record.logged[0]["train/rollout_gap_mean"] > 0.05
    assert record.logged[0]["train/is_ratio_mean"] == pytest.approx(1, abs=0.25)  # its expectation is 1
    assert 0 <= record.logged[0]["train/is_truncated"] < 0.2
    assert sum(record.shares[-2:]) / 2 > sum(record.shares[:2]) / 2 + 0.1


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_an_engine_that_reports_nonsense_raises_nothing(make_module, make_data, fit, correction):
    nonsense = itertools.cycle([math.nan, -math.inf, math.inf, 7.0, -1e9])
    spoil = lambda turn, logprobs: [next(nonsense) if i == turn else p for i, p in enumerate(logprobs)]  # noqa: E731
    module, record = make_module(mismatch=settings(correction)), EvenTokens()
    put(Misreporting(module.policy, module.engine_settings, spoil), module)
    fit(module, make_data(num_rl_steps=2, num_val_tasks=0), record)
    # nothing can be done without a correction: the update is skipped; with one only the tokens themselves are lost
    assert [m["train/skipped_updates"] for m in record.logged] == ([1, 1] if correction == "none" else [0, 0])
    assert all(torch.isfinite(p).all() for p in module.policy.parameters())


def test_an_exact_engine_trains_the_same_with_and_without_a_correction(make_module, make_data, fit):
    moved, logged = [], []
    for correction in CORRECTIONS:
        module, record = (
            make_module(mismatch=settings(correction), optim=OptimSettings(num_minibatches=2)),
            EvenTokens(),
        )
        fit(module, make_data(num_rl_steps=1, num_val_tasks=0), record)
        moved.append(module.policy.adapter_state())
        logged.append(record.logged[0])
    for name, tensor in moved[0].items():
        torch.testing.assert_close(moved[1][name], tensor, rtol=0, atol=1e-5)
        torch.testing.assert_close(moved[2][name], tensor, rtol=0, atol=1e-5)
    assert logged[1]["train/is_ratio_mean"] == pytest.approx(1, abs=1e-5)
    assert (logged[1]["train/is_truncated"], logged[2]["train/is_masked"]) == (0, 0)
    assert not [name for name in logged[0] if "is_" in name and name.startswith("train/is_")]


def test_without_a_correction_there_is_no_extra_pass(make_module, make_data, fit, monkeypatch):
    counts, score = [], Policy.logprobs
    engine = EngineSettings(num_slots=8, max_context_tokens=160, self_check=False)  # which scores once as well
    monkeypatch.setattr(Policy, "logprobs", lambda *args, **kwargs: counts.append(1) or score(*args, **kwargs))
    for correction, passes in (("none", 1), ("tis", 2)):
        counts.clear()
        module = make_module(mismatch=settings(correction), engine=engine)
        fit(module, make_data(num_rl_steps=1, num_val_tasks=0), EvenTokens())
        assert len(counts) == passes


def test_the_kl_in_the_reward_is_taken_of_the_trainers_own_policy(make_module, make_data, fit):
    """At the start the trainer is its own reference: an engine that misreports must not look like a divergence."""
    found = []
    for correction in ("none", "tis"):
        loss = LossSettings(kl_coef=0.1, kl_in="reward", kl_estimator="k3")
        module, record = make_module(mismatch=settings(correction), loss=loss), EvenTokens()
        put(Misreporting(module.policy, module.engine_settings, lambda turn, lp: [p + 0.5 for p in lp]), module)
        fit(module, make_data(num_rl_steps=1, num_val_tasks=0), record)
        found.append(record.logged[0]["train/kl_reference"])
    assert found[0] == pytest.approx(math.exp(-0.5) - 0.5, abs=1e-4)  # k3 of d = 0.5: exp(-d) - 1 + d
    assert found[1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("layout", ["tree", "official"])
def test_a_correction_takes_an_inexact_layout_for_an_engine_that_is_off_with_a_critic_too(
    make_module, make_data, fit, layout
):
    module, record = make_module(algorithm="ppo", layout=layout, mismatch=settings("mis", 1.0001)), EvenTokens()
    fit(module, make_data(num_rl_steps=1, num_val_tasks=0), record)
    assert (record.logged[0]["train/is_masked"] > 0) == (layout == "official")
    assert record.logged[0]["train/value_loss"] > 0 and record.logged[0]["train/skipped_updates"] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (settings("tsi"), "unknown correction: expected one of none, tis, mis, got 'tsi'; set model.mismatch"),
        (settings(level="word"), "unknown level: expected one of token, turn, trajectory, got 'word'"),
        (settings(cap=0.5), "model.mismatch.cap too small: expected at least 1, got 0.5"),
    ],
)
def test_a_setting_that_cannot_be_is_named(make_module, given, message):
    with pytest.raises(ValueError, match=message):
        make_module(mismatch=given)
