"""A look at one's own demonstrations before they are cloned: what they say, what they earn, what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from lightning_mem1.context.tags import parse_turn
from lightning_mem1.types import StopReason, Trajectory
from lightning_mem1.warmstart.own.byte_tokenizer import byte_tokenizer
from lightning_mem1.warmstart.own.play import OwnPlay
from lightning_mem1.warmstart.settings import WarmStart

NUM_EPISODES = 256  # whose texts a tokenizer is trained on


def rehearsed(config: WarmStart) -> list[Trajectory]:
    """Play episodes as text, as many as a tokenizer is trained on, and print what they earn.

    Raises:
        ValueError: every one of them failed, or none has a valid turn.
    """
    play = OwnPlay.of(config)
    num_episodes = NUM_EPISODES if play.records is None else min(NUM_EPISODES, len(play.records))
    found = play.trajectories(0, num_episodes, byte_tokenizer())
    _check(found)
    least = config.data.min_reward
    kept = "" if least is None else f", {sum(t.reward >= least for t in found)} of them reach {least:g}"
    valid = fmean(turn.valid for t in found for turn in t.turns)
    print(
        f"demonstrations: {len(found)} episodes looked at, mean reward {fmean(t.reward for t in found):.3f}, "
        f"{valid:.1%} of the turns valid{kept}",
        flush=True,
    )
    return found


def _check(found: Sequence[Trajectory]) -> None:
    failed = [t for t in found if t.stop_reason == StopReason.ERROR]
    if len(failed) == len(found):
        at = f" ({failed[0].error_at})" if failed[0].error_at else ""
        raise ValueError(
            f"no demonstration can be played: expected episodes that end, got '{failed[0].error}'{at} in task "
            f"'{failed[0].task.id}'; fix the environment"
        )
    turns = [turn for t in found for turn in t.turns]
    if not any(turn.valid for turn in turns):
        decode = byte_tokenizer().decode
        first = turns[0]
        raise ValueError(
            f"no turn of the demonstrations is valid: expected ones that the environment carries out, got "
            f"{decode(first.ids)!r:.120} and the reply {first.information!r:.120}; correct them, or "
            "warmstart.rollout.tags and format"
        )


def texts_of(trajectories: Sequence[Trajectory]) -> list[str]:
    """What a policy reads and writes in rehearsed episodes: prompts, turns, replies."""
    decode = byte_tokenizer().decode
    ids = [ids for t in trajectories for ids in (t.prompt_ids, *_parts(t))]
    return [decode(each) for each in ids if each]


def _parts(trajectory: Trajectory) -> list[list[int]]:
    return [ids for turn in trajectory.turns for ids in (turn.ids, turn.information_ids)]


def changed_action(trajectories: Sequence[Trajectory], config: WarmStart, tokenizer: Any) -> tuple[str, str] | None:
    """An action that a tokenizer writes in another way, as it was and as it becomes; None when there is none."""
    encoder, decode = config.rollout.encoder(tokenizer), byte_tokenizer().decode
    for turn in [turn for t in trajectories for turn in t.acts if turn.valid]:
        written = parse_turn(encoder.decode(encoder.encode(decode(turn.ids))), config.rollout.tags).action
        if written != turn.action:
            return turn.action or "", written or ""
    return None


def too_long(trajectories: Sequence[Trajectory], config: WarmStart, tokenizer: Any) -> str:
    """One line about turns that the policy could never write to their ends; empty when there are none."""
    encoder, decode, limit = config.rollout.encoder(tokenizer), byte_tokenizer().decode, config.rollout.max_new_tokens
    lengths = [len(encoder.encode(decode(turn.action_ids))) for t in trajectories for turn in t.turns]
    over = [length for length in lengths if length > limit]
    if not over:
        return ""
    return (
        f"{len(over) / len(lengths):.0%} of the demonstrated turns are longer than the policy may write: expected at "
        f"most {limit} tokens, got up to {max(over):,}; raise warmstart.rollout.max_new_tokens, there and in training, "
        "or shorten the turns"
    )
