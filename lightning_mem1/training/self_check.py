"""A check at the start of training: a few invented turns, scored by the engine, the layout and plain transformers.

Whatever a model's layers do, these three have to agree, or the policy would be trained on what it never saw. Windows,
chunks and rotary lengths are shrunk meanwhile, so that a few dozen tokens come to their ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_mem1.context.contexts import context_ids
from lightning_mem1.engine.factory import local_engine
from lightning_mem1.engine.generation import TransformersEngine
from lightning_mem1.engine.settings import EngineSettings
from lightning_mem1.policy.policy import Policy
from lightning_mem1.policy.reference import plain_logprobs, shrunk
from lightning_mem1.policy.stillness import still
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.types import Engine, GenerationRequest, StopReason, Task, Trajectory, Turn

TURNS, PROMPT, ACTION, INFORMATION = 3, 24, 6, 10  # of the invented trajectories, in tokens
NUM_TRAJECTORIES = 2
WINDOW, LENGTH = 12, PROMPT + 3  # what windows are shrunk to, and where rotary frequencies change: within a turn
TOLERANCE, ROUGH = 1e-3, 0.1  # nats: of any token in float32; of the mean over tokens in 16 bits
TEXT = (
    "You look for a thing that nobody has named yet. Search, read what is found, and keep only what you need for the "
    "next step. Page 1 of 5 lists 23 things; the price of the third is 40.50, and it comes in red, green or blue. "
)


@dataclass(frozen=True)
class Gaps:
    """How far apart two ways to score the same tokens are, in nats: largest in float32, mean in 16 bits."""

    layout_engine: float
    engine_plain: float
    layout_plain: float


def self_check(policy: Policy, settings: EngineSettings, layout: str = "tree") -> Gaps:
    """Play and score invented turns.

    Args:
        policy: As it trains, on the device where it trains.
        settings: Of the engine in this process; its pool is made small.
        layout: An exact one; `tree` takes the place of the others, which do not score what was sampled.

    Raises:
        ValueError: a gap above the dtype's tolerance, with the three numbers.
    """
    exact = layout if layout in ("tree", "rows") else "tree"
    with shrunk(policy, WINDOW, LENGTH):
        played = _played(policy, settings)
        batch = collate(played, exact, "mem1").to(policy.device)
        with still(policy.causal_lm), torch.enable_grad():  # as in training, where activations may be computed again
            scored = policy.logprobs(batch)[0].detach().cpu()
        plain = torch.cat([_plain(policy, trajectory) for trajectory in played])
        sampled = batch.rollout_logprobs.cpu()
        known = policy.architecture
    rough = policy.computes_in in (torch.bfloat16, torch.float16)
    gaps = Gaps(*(_gap(a, b, rough) for a, b in ((scored, sampled), (sampled, plain), (scored, plain))))
    if not max(gaps.layout_engine, gaps.engine_plain, gaps.layout_plain) <= (ROUGH if rough else TOLERANCE):
        raise ValueError(_explain(policy, exact, gaps, ROUGH if rough else TOLERANCE, known.own or known.slots))
    return gaps


def _gap(a: Tensor, b: Tensor, rough: bool) -> float:
    gaps = (a.float() - b.float()).abs()
    return float(gaps.mean() if rough else gaps.max())


def _explain(policy: Policy, layout: str, gaps: Gaps, tolerance: float, reason: str) -> str:
    return (
        f"training would not score what '{policy.source}' samples: expected log-probabilities at most {tolerance:g} "
        f"nats apart, got {gaps.layout_engine:.2g} between layout {layout} and the engine, {gaps.engine_plain:.2g} "
        f"between the engine and plain transformers, {gaps.layout_plain:.2g} between layout {layout} and plain "
        f"transformers{f' ({reason})' if reason else ''}; use another model.policy, or set model.engine.self_check "
        "false"
    )


def _played(policy: Policy, settings: EngineSettings) -> list[Trajectory]:
    """Trajectories of invented replies to turns that the policy samples; they share a prompt, as those of a group."""
    text = policy.tokenizer.encode(TEXT, add_special_tokens=False)
    ids = (text * (1 + (PROMPT + TURNS * INFORMATION) // len(text)))[: PROMPT + TURNS * INFORMATION]
    replies = [ids[PROMPT + turn * INFORMATION :][:INFORMATION] for turn in range(TURNS)]
    task = Task("self-check", TEXT, (), TURNS)
    played = [Trajectory(task, ids[:PROMPT], [], StopReason.MAX_TURNS) for _ in range(NUM_TRAJECTORIES)]
    training = policy.training
    policy.eval()
    try:
        engine = _engine(policy, settings)
        for turn in range(TURNS):
            _play_turn(engine, played, turn, replies[turn])
    finally:
        policy.train(training)
    return played


def _engine(policy: Policy, settings: EngineSettings) -> Engine:
    room = PROMPT + 2 * ACTION + INFORMATION
    small = replace(settings, num_slots=NUM_TRAJECTORIES, max_context_tokens=room, compile=settings.compile and "")
    kind = settings.kind == "transformers"
    return TransformersEngine(policy, small) if kind else local_engine(policy, small)


def _play_turn(engine: Engine, played: list[Trajectory], turn: int, reply: list[int]) -> None:
    for session, trajectory in enumerate(played):
        context = context_ids(trajectory.prompt_ids, trajectory.turns, "mem1")
        engine.submit(GenerationRequest(session, context, ACTION, seed=TURNS * session + turn))
    with torch.no_grad():
        while engine.pending:
            for done in engine.step():
                information = [] if turn == TURNS - 1 else reply
                played[done.session].turns.append(Turn(done.ids, done.logprobs, information, experts=done.experts))


def _plain(policy: Policy, trajectory: Trajectory) -> Tensor:
    """Log-probabilities of all action tokens by plain transformers."""
    contexts = [context_ids(trajectory.prompt_ids, trajectory.turns[:turn], "mem1") for turn in range(TURNS)]
    pairs = zip(contexts, trajectory.turns, strict=True)
    return torch.cat([plain_logprobs(policy, context, turn.action_ids) for context, turn in pairs])
