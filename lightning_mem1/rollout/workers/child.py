"""The process of a worker: ``python -m lightning_mem1.rollout.workers.child SOCKET NUMBER``, started by `processes`."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import cloudpickle

if TYPE_CHECKING:
    from lightning_mem1.rollout.workers.job import Job, SentWeights


def main() -> None:
    """Serve until the socket closes.

    Ctrl-C and a scheduler's SIGTERM reach every process of a job: the one that trains decides what they mean.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    end, number = Connection(int(sys.argv[1])), int(sys.argv[2])
    try:
        _serve(end, number)
    except (EOFError, ConnectionError):
        os._exit(0)  # the process that trains is gone, or has no more use for this one


def _serve(end: Connection, number: int) -> None:
    from transformers.utils import logging

    from lightning_mem1.rollout.workers.worker import Worker

    warnings.simplefilter("ignore", FutureWarning)  # of libraries; the process that trains shows its own
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    pickled = end.recv_bytes()
    try:
        worker = Worker(cloudpickle.loads(pickled), number)
        while True:
            weights, job = _received(end)
            if job is not None:  # else newer weights that came after the last job: the next one brings its own
                worker.take(weights)
                end.send_bytes(cloudpickle.dumps(worker.play(job, partial(_newest, end))))
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        end.send_bytes(
            cloudpickle.dumps(f"worker {number} failed: {type(error).__name__}: {' '.join(str(error).split())}")
        )


def _received(end: Connection) -> tuple[SentWeights, Job | None]:
    """The next message: weights, with or without a job."""
    import torch

    from lightning_mem1.rollout.workers.job import SentWeights

    path, key, version, job = cloudpickle.loads(end.recv_bytes())
    return SentWeights(version, key, partial(torch.load, path, weights_only=True)), job


def _newest(end: Connection) -> SentWeights | None:
    """The newest of the weights that came while a job is played; None for none."""
    newest = None
    while end.poll():
        newest, _ = _received(end)
    return newest


if __name__ == "__main__":
    main()
