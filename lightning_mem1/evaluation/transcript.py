"""A trajectory turn by turn as plain values, and as text for a human: what the policy saw, kept, did and got back."""

from __future__ import annotations

from typing import Any

from lightning_mem1.context.contexts import Contexts, act_number
from lightning_mem1.context.tags import parse_turn, printable
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Trajectory


def transcript(trajectory: Trajectory, module: Mem1Module) -> dict[str, Any]:
    """A trajectory as plain values; token counts say how much history each turn saw and how much was dropped."""
    seen, everything = module.contexts.lengths(trajectory), Contexts("full").lengths(trajectory)
    tags, decode = module.rollout_settings.tags, module.encoder.decode
    turns: list[dict[str, Any]] = []
    for number, turn in enumerate(trajectory.turns):
        text = decode(turn.ids)
        turns.append(
            {
                "turn": act_number(trajectory, number),
                "kind": turn.kind,
                "context_tokens": seen[number],
                "dropped_tokens": max(0, everything[number] - seen[number]),  # an agent may add text of its own
                "action_tokens": len(turn.action_ids),
                "internal_state": parse_turn(text, tags).internal_state,
                "action": turn.action,
                "text": text,
                "valid": turn.valid,
                "retried": turn.retried,
                "unmatched_messages": turn.num_unmatched,
                "reward": turn.reward,
                "information": turn.information,
                "info": {key: _plain(value) for key, value in turn.info.items()},
            }
        )
    return {
        "task": trajectory.task.id,
        "prompt": decode(trajectory.prompt_ids),
        "memory": module.memory.name,
        "reward": trajectory.reward,
        "success": trajectory.success,
        "stop_reason": str(trajectory.stop_reason),
        "error": trajectory.error,
        "seed": trajectory.seed,
        "turns": turns,
    }


def readable(record: dict[str, Any]) -> str:
    """A transcript as text for a human."""
    ended = f"reward {record['reward']:.2f}  {record['stop_reason']}  memory {record['memory']}"
    title = f"{printable(record['task'])}  {ended}"
    lines = [title, "=" * len(title), printable(record["prompt"])]
    for turn in record["turns"]:
        invalid = "" if turn["valid"] else "  (invalid, retried)" if turn["retried"] else "  (invalid)"
        act = turn["kind"] == "act"
        state = turn["internal_state"] if act else (turn["internal_state"] or turn["text"]) + invalid
        lines += [
            "",
            f"--- {'turn' if act else 'memory after turn'} {turn['turn']}: saw {turn['context_tokens']} tokens, "
            f"{turn['dropped_tokens']} dropped, wrote {turn['action_tokens']}",
            f"internal state: {printable(state)}",
            *([f"action: {printable(turn['action'] or turn['text'])}{invalid}"] if act else []),
        ]
        if turn["unmatched_messages"]:
            lines.append(f"messages of the policy that it did not write so: {turn['unmatched_messages']}")
        if turn["information"]:
            lines += ["information:", *(f"    {line}" for line in printable(turn["information"]).splitlines())]
    if record["error"]:
        lines += ["", f"error: {printable(record['error'])}"]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
