"""Writes a few episodes turn by turn: what the policy saw, kept, did and got back, and what was dropped.

Everything a policy or an environment wrote is data: control characters are escaped, and files are plain text or JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_mem1.callbacks.artifacts import log_artifact
from lightning_mem1.datamodule import TaskBatch
from lightning_mem1.memory import contexts
from lightning_mem1.module import Mem1Module
from lightning_mem1.text import parse_turn, printable
from lightning_mem1.types import Trajectory


class TranscriptCallback(Callback):
    """Writes ``transcripts/<train|val>_<rl_step>.jsonl`` (one trajectory a line) and the same as readable ``.txt``.

    Args:
        num_trajectories: Trajectories per rl_step or validation.
        every_n_rl_steps: How often training episodes are written; validation is always.
        folder: Where to write; null for the trainer's default_root_dir.
        log_artifacts: Put the readable validation transcripts into MLflow as well.
    """

    def __init__(
        self,
        num_trajectories: int = 2,
        every_n_rl_steps: int = 5,
        folder: str | None = None,
        log_artifacts: bool = True,
    ) -> None:
        self.num_trajectories, self.every_n_rl_steps = num_trajectories, every_n_rl_steps
        self.folder, self.log_artifacts = folder, log_artifacts

    def on_train_batch_start(self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int) -> None:  # type: ignore[override]
        """Write training episodes."""
        if batch.rl_step == 1 or batch.rl_step % self.every_n_rl_steps == 0:
            self._write(trainer, pl_module, batch, "train")

    def on_validation_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, batch: TaskBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write validation episodes, those of the first batch."""
        if batch_idx == 0:
            path = self._write(trainer, pl_module, batch, "val")
            if path and self.log_artifacts:
                log_artifact(trainer, path, "transcripts")

    def _write(self, trainer: Trainer, module: Mem1Module, batch: TaskBatch, split: str) -> Path | None:
        if not trainer.is_global_zero or self.num_trajectories < 1:
            return None
        records = [transcript(t, module) for t in batch.trajectories[: self.num_trajectories]]
        folder = Path(self.folder or trainer.default_root_dir) / "transcripts"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{split}_{batch.rl_step:05d}"
        lines = (json.dumps(record, ensure_ascii=True) for record in records)
        path.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.with_suffix(".txt").write_text("\n\n".join(map(readable, records)) + "\n", encoding="utf-8")
        return path.with_suffix(".txt")


def transcript(trajectory: Trajectory, module: Mem1Module) -> dict[str, Any]:
    """A trajectory as plain values; token counts say how much history each turn saw and how much was dropped."""
    seen = contexts(trajectory, module.memory, module.window)
    everything = contexts(trajectory, "full")
    tags, tokenizer = module.rollout_settings.tags, module.policy.tokenizer
    turns = []
    for number, turn in enumerate(trajectory.turns):
        text = str(tokenizer.decode(turn.action_ids))
        turns.append(
            {
                "turn": number,
                "context_tokens": len(seen[number]),
                "dropped_tokens": len(everything[number]) - len(seen[number]),
                "action_tokens": len(turn.action_ids),
                "internal_state": parse_turn(text, tags).internal_state,
                "action": turn.action,
                "text": text,
                "valid": turn.valid,
                "reward": turn.reward,
                "information": turn.information,
                "info": {key: _plain(value) for key, value in turn.info.items()},
            }
        )
    return {
        "task": trajectory.task.id,
        "prompt": str(tokenizer.decode(trajectory.prompt_ids)),
        "memory": module.memory,
        "reward": trajectory.reward,
        "success": trajectory.success,
        "stop_reason": str(trajectory.stop_reason),
        "error": trajectory.error,
        "seed": trajectory.seed,
        "turns": turns,
    }


def readable(record: dict[str, Any]) -> str:
    """A transcript as text for a human."""
    title = f"{record['task']}  reward {record['reward']:.2f}  {record['stop_reason']}  memory {record['memory']}"
    lines = [title, "=" * len(title), printable(record["prompt"])]
    for turn in record["turns"]:
        valid = "" if turn["valid"] else "  (invalid)"
        lines += [
            "",
            f"--- turn {turn['turn']}: saw {turn['context_tokens']} tokens, {turn['dropped_tokens']} dropped, "
            f"wrote {turn['action_tokens']}",
            f"internal state: {printable(turn['internal_state'])}",
            f"action: {printable(turn['action'] or turn['text'])}{valid}",
        ]
        if turn["information"]:
            lines += ["information:", *(f"    {line}" for line in printable(turn["information"]).splitlines())]
    if record["error"]:
        lines += ["", f"error: {printable(record['error'])}"]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
