"""One line when something is off after the first rl_step, or when the policy breaks later: what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.text import Text

from lightning_mem1.callbacks.rollout import MAX_SERVER_GAP
from lightning_mem1.context.modes.recorded import Recorded
from lightning_mem1.context.tags import printable
from lightning_mem1.data.task_data import TaskBatch
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Trajectory

MAX_INVALID, MAX_CUT_OFF, MAX_SILENT = 0.25, 0.25, 0.5  # shares of turns, of turns and of groups that pass
DILUTES = "; model.loss.drop_silent true keeps them from diluting the loss of the others"
BROKEN = 0.5  # rise of the share of invalid turns over the best so far: an update broke the policy
MAX_GAP = 1e-4  # nats a token, mean: an exact layout in float32 is near 1e-7
MAX_GAP_16_BITS = MAX_SERVER_GAP  # of kernels in 16 bits, too


class HealthCallback(Callback):
    """After the first rl_step of a process prints one line when something is off, and nothing otherwise.

    Off are: more than a quarter of the turns invalid; as many cut off at `model.rollout.max_new_tokens`; more than half
    of the groups without a signal; a mean rollout gap beyond `MAX_GAP` (`MAX_GAP_16_BITS` in 16 bits and with servers);
    drift above 0. Each is said with the key to change. Turns are those of the first rank.

    After that it watches one thing, and says it once: the share of invalid turns rises by more than `BROKEN` over the
    lowest so far. A learning rate that is far too high does that, with weights that are still finite.
    """

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._looked = self._broken = False
        self._least_invalid = (1.0, 0)  # share, rl_step

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: Mem1Module, outputs: Any, batch: TaskBatch, batch_idx: int
    ) -> None:
        """Look at the first rl_step, then for a policy that broke."""
        if not trainer.is_global_zero:
            return
        self._watch(batch, pl_module)
        if self._looked:
            return
        self._looked = True
        num_groups = int(getattr(trainer.datamodule, "tasks_per_step", 0))  # type: ignore[attr-defined]
        found = remarks(batch.trajectories, trainer.callback_metrics, pl_module, num_groups)
        if found:
            self._say(batch.rl_step, "; ".join(found))

    def _watch(self, batch: TaskBatch, module: Mem1Module) -> None:
        """Say once that most turns became invalid."""
        if self._broken or not any(trajectory.acts for trajectory in batch.trajectories):
            return
        invalid, (least, when) = _invalid(batch.trajectories), self._least_invalid
        self._least_invalid = min(self._least_invalid, (invalid, batch.rl_step))
        if invalid - least > BROKEN:
            self._broken = True
            self._say(
                batch.rl_step,
                f"{invalid:.0%} of turns are invalid, {least:.0%} at rl_step {when}: updates broke the policy (lower "
                f"model.lr, now {module.hparams['lr']:g}, and begin again; best.ckpt has the best weights so far)",
            )

    def _say(self, rl_step: int, remark: str) -> None:
        self.console.print(Text(f"health after rl_step {rl_step}: {remark}", style="yellow"))


def remarks(
    trajectories: Sequence[Trajectory], metrics: Mapping[str, Any], module: Mem1Module, num_groups: int
) -> list[str]:
    """What is off in an rl_step, and what to change.

    Args:
        trajectories: Those of this rank.
        metrics: What was logged: ``train/zero_signal_groups``, ``train/rollout_gap_mean``, ``train/drift``,
            ``rollout/staleness``; what is missing counts as 0.
        module: Its settings say what is expected.
        num_groups: Groups of the rl_step, over all ranks.
    """

    def logged(key: str) -> float:
        return float(metrics.get(key, 0.0))

    found = _turns(trajectories, module)
    silent = int(logged("train/zero_signal_groups"))
    if module.credit_assigner.algorithm.relative and silent > MAX_SILENT * num_groups:
        found.append(
            f"{silent} of {num_groups} groups have no signal (raise data.group_size or model.rollout.temperature, or "
            f"take easier tasks{'' if module.policy_loss.drop_silent else DILUTES})"
        )
    gap, limit = logged("train/rollout_gap_mean"), gap_limit(module)
    if gap > limit and not logged("rollout/staleness"):
        found.append(f"rollout gap {gap:.1e} nats, expected at most {limit:g} ({_gap_advice(module)})")
    drift = int(logged("train/drift"))
    if drift and isinstance(module.memory, Recorded):
        found.append(
            f"{drift} turns drift: their contexts hold messages of the policy that it did not write so (have the agent "
            "send back what it was given, unchanged; they are scored as they were played)"
        )
    elif drift:
        found.append(
            f"{drift} turns drift: training scores other contexts than were played (memory mode "
            f"{printable(str(module.memory))}: check it with lightning_mem1.testing.check_memory, or set model.memory)"
        )
    return found


def _turns(trajectories: Sequence[Trajectory], module: Mem1Module) -> list[str]:
    """Remarks on how turns were written."""
    settings, found = module.rollout_settings, []
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    invalid = _invalid(trajectories)
    if invalid > MAX_INVALID:
        explained = settings.prompt == "full"
        change = "take another model.policy" if explained else "set model.rollout.prompt full to explain the format"
        found.append(f"{invalid:.0%} of turns are invalid ({change}, or begin with mem1 warmstart)")
    cut_off = _share([len(turn.action_ids) >= settings.max_new_tokens for turn in turns])
    if cut_off > MAX_CUT_OFF:
        found.append(
            f"{cut_off:.0%} of turns are cut off at {settings.max_new_tokens} tokens (raise "
            "model.rollout.max_new_tokens)"
        )
    return found


def gap_limit(module: Mem1Module) -> float:
    """The largest mean gap between training and rollout that rounding explains, in nats a token."""
    compute = module.hparams["compute"]
    exact = compute["dtype"] == "float32" and compute["quantization"] == "none"
    return MAX_GAP if exact and module.engine_settings.kind == "local" else MAX_GAP_16_BITS


def _gap_advice(module: Mem1Module) -> str:
    if (layout := module.microbatches.layout) not in ("tree", "rows"):
        return f"layout {layout} does not score what was played: set model.layout tree"
    if module.engine_settings.kind != "local":
        return "serve the base and dtype of model.policy, or set model.mismatch.correction tis"
    return "set model.compute.dtype float32 or model.mismatch.correction tis"


def _invalid(trajectories: Sequence[Trajectory]) -> float:
    """Share of the turns that act which are invalid."""
    return _share([not turn.valid for trajectory in trajectories for turn in trajectory.acts])


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0
