"""Lightning hooks that join the rooms above: rollouts, metrics, transcripts, traces, progress, checkpoints."""

from lightning_mem1.callbacks.answers import AnswerCallback
from lightning_mem1.callbacks.checkpoint import RLCheckpoint
from lightning_mem1.callbacks.failures import FailuresCallback
from lightning_mem1.callbacks.memory_usage import MemoryUsageCallback
from lightning_mem1.callbacks.model import ModelCallback
from lightning_mem1.callbacks.pictures import PicturesCallback
from lightning_mem1.callbacks.progress import ProgressCallback
from lightning_mem1.callbacks.provenance import ProvenanceCallback
from lightning_mem1.callbacks.reward import RewardCallback
from lightning_mem1.callbacks.rollout import RolloutCallback
from lightning_mem1.callbacks.traces import TraceCallback
from lightning_mem1.callbacks.transcripts import TranscriptCallback

__all__ = [
    "AnswerCallback",
    "FailuresCallback",
    "MemoryUsageCallback",
    "ModelCallback",
    "PicturesCallback",
    "ProgressCallback",
    "ProvenanceCallback",
    "RLCheckpoint",
    "RewardCallback",
    "RolloutCallback",
    "TraceCallback",
    "TranscriptCallback",
]
