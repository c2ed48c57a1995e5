"""Lightning hooks that join the packages above: rollouts, metrics, transcripts, traces, progress, checkpoints."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback

from lightning_mem1.callbacks.checkpoint import RLCheckpoint
from lightning_mem1.callbacks.failures import FailuresCallback
from lightning_mem1.callbacks.health import HealthCallback
from lightning_mem1.callbacks.metrics import MetricsCallback
from lightning_mem1.callbacks.model import ModelCallback
from lightning_mem1.callbacks.pictures import PicturesCallback
from lightning_mem1.callbacks.progress import ProgressCallback
from lightning_mem1.callbacks.provenance import ProvenanceCallback
from lightning_mem1.callbacks.rollout import RolloutCallback
from lightning_mem1.callbacks.traces import TraceCallback
from lightning_mem1.callbacks.transcripts import TranscriptCallback

__all__ = [
    "FailuresCallback",
    "HealthCallback",
    "MetricsCallback",
    "ModelCallback",
    "PicturesCallback",
    "ProgressCallback",
    "ProvenanceCallback",
    "RLCheckpoint",
    "RolloutCallback",
    "TraceCallback",
    "TranscriptCallback",
    "default_callbacks",
]

# names of earlier versions, in configs and imports
MERGED = ("AnswerCallback", "MemoryUsageCallback", "RewardCallback", "answers", "memory_usage", "reward")

DEFAULTS: tuple[type[Callback], ...] = (  # the first one plays; the others read what it played
    RolloutCallback,
    MetricsCallback,
    FailuresCallback,
    TranscriptCallback,
    TraceCallback,
    PicturesCallback,
    ProgressCallback,
    HealthCallback,
    RLCheckpoint,
    ProvenanceCallback,
    ModelCallback,
)


def default_callbacks(*own: Callback) -> list[Callback]:
    """The callbacks of an ordinary training, in the order they need, for a `lightning.Trainer`.

    Those that write to MLflow do nothing when the trainer has no MLflow logger. Files go to the trainer's
    `default_root_dir`.

    ```
    trainer = lightning.Trainer(callbacks=default_callbacks(ProgressCallback(show_loss=True), Mine()), ...)
    ```

    Args:
        *own: Each takes the place of the default one of its kind; those of no such kind come last.
    """
    chosen = [next((each for each in own if isinstance(each, kind)), None) or kind() for kind in DEFAULTS]
    return [*chosen, *(each for each in own if each not in chosen)]


def __getattr__(name: str) -> Any:
    if name in MERGED:
        raise ImportError(
            f"lightning_mem1.callbacks.{name} is now part of lightning_mem1.callbacks.MetricsCallback, which is a "
            "default callback; leave it out of trainer.callbacks, or name that one"
        )
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
