"""Trainings on one and on two ranks, in real processes that talk through gloo on the CPU.

    python tests/ranks.py POLICY FOLDER [full]

One process imports everything and each rank is a fork of it, so that a training takes a second and not twenty. Each
rank of training NAME leaves ``FOLDER/NAME/<rank>.pt``: what it played, logged and had as gradients.
"""

from __future__ import annotations

import atexit
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import peft  # noqa: F401  (here and not in every fork)
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer, Qwen2ForCausalLM  # noqa: F401

from lightning_mem1 import callbacks
from lightning_mem1.cli.startup import quiet
from lightning_mem1.data.task_data import TaskDataModule
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.policy.parts import here, whole
from lightning_mem1.policy.policy import LoraSettings, Policy, copies
from lightning_mem1.policy.sharding import gather, release, shard
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.rollout.workers.settings import WorkerSettings
from lightning_mem1.training.layouts.collate import collate
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.training.settings import ComputeSettings, LossSettings, OptimSettings
from lightning_mem1.training.strategy import ShardedBase
from lightning_mem1.training.trainer import TRAINER_DEFAULTS
from tiny import random_trajectory, tiny_policy
from tiny_recurrent import recurrent_policy
from tiny_tasks import RankedTasks

KINDS = ("tied", "untied", "qwen3_5", "jamba", "lfm2")  # of layers: attention, gated deltas, mamba, convolutions
TIME_LIMIT_S = 300  # nobody waits for ever: a rank that hangs dies by SIGALRM, and its training counts as failed


class Recorder(Callback):
    """Keeps tasks, metrics and gradients by rl_step; can spoil what a rank has played."""

    def __init__(self, spoil: Any = None) -> None:
        self.spoil = spoil
        self.tasks: list[list[str]] = []
        self.metrics: list[dict[str, float]] = []
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.tasks.append([task.id for task in batch.tasks])
        if self.spoil:
            self.spoil(trainer.global_rank, batch)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.named_parameters()
        self.gradients.append({name: whole(p.grad.clone()) for name, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.metrics.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def fail_on_the_second_rank(rank: int, batch: Any) -> None:
    if rank == 1 and batch.rl_step == 2:
        raise RuntimeError("the second rank is on fire")


def terminate_both_ranks(rank: int, batch: Any) -> None:
    """The signal finds the ranks at different places: the first one has played already, the second one has not."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2 * rank)


def silence_the_second_rank(rank: int, batch: Any) -> None:
    """What it played earns the same, or was cut off before the first token."""
    for number, trajectory in enumerate(batch.trajectories if rank == 1 else []):
        for turn in trajectory.turns:
            turn.reward = 0.0
            if number == 0:
                turn.action_ids, turn.action_logprobs, turn.context_hash = [], [], None


def train(policy: str, folder: Path, ranks: int, spoil: Any = None, resume: str | None = None, **settings: Any) -> None:
    """One rank's part of a training; `settings` are the module's and, with ``data_``, the datamodule's."""
    data = {"tasks_per_step": 3, "group_size": 3, "num_rl_steps": 2, "num_val_tasks": 3, "seed": 0}
    data |= {key.removeprefix("data_"): settings.pop(key) for key in list(settings) if key.startswith("data_")}
    sharded, save = settings.pop("sharded", False), settings.pop("save", False)
    strategy = ShardedBase() if sharded else "ddp" if ranks > 1 else "auto"
    model = {
        "policy": policy,
        "lr": 1e-2,
        "lora": LoraSettings(r=4, alpha=8),
        "engine": EngineSettings(num_slots=8, max_context_tokens=160),
        "rollout": RolloutSettings(max_new_tokens=6, max_information_tokens=40, prompt="brief"),
        "seed": 0,
    }
    module = Mem1Module(**{**model, **settings})
    record, checkpoint = Recorder(spoil), callbacks.RLCheckpoint(str(folder), save_adapter=save)
    trainer = Trainer(
        **{
            **TRAINER_DEFAULTS,
            "accelerator": "cpu",
            "devices": ranks,
            "strategy": strategy,
            "logger": False,
            "enable_progress_bar": False,
            "deterministic": True,
            "default_root_dir": str(folder),
        },
        callbacks=[
            callbacks.RolloutCallback(),
            callbacks.MetricsCallback(),
            record,
            checkpoint,
        ],
    )
    trainer.fit(module, datamodule=TaskDataModule(RankedTasks(), **data), ckpt_path=resume, weights_only=True)
    found = {"tasks": record.tasks, "metrics": record.metrics, "gradients": record.gradients}
    found["adapter"] = {name: whole(weight) for name, weight in copies(module.trained()).items()}
    found["moments_here"] = sum(here(v).numel() for s in trainer.optimizers[0].state.values() for v in s.values())
    frozen = [p for p in module.policy.causal_lm.model.layers[0].parameters() if not p.requires_grad]
    found["frozen_weights_here"] = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in frozen)
    torch.save(found, folder / f"{trainer.global_rank}.pt")


def score(policy: str, folder: Path, ranks: int) -> None:
    """One rank's part of scoring its own trajectory with layers of several kinds, whole and shared out.

    Leaves the largest differences of log-probs and of gradients, which are added up over ranks.
    """
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("data_parallel",))["data_parallel"]
    found = {}
    for kind in KINDS:
        shapes, prompt = [(5, 4), (3, 6), (4, 0)], list(range(5, 17))
        played = [random_trajectory(random.Random(each), shapes, prompt) for each in range(ranks)]
        batches = [collate([each], "tree", "mem1") for each in played]
        whole_one, part = policy_of(kind), policy_of(kind)
        exact = [whole_one.logprobs(batch)[0] for batch in batches]
        sum(each.sum() for each in exact).backward()
        part.architecture  # noqa: B018  (found out while the weights are whole)
        shard(part, mesh)
        gather(part)
        with torch.no_grad():
            gathered = part.logprobs(batches[rank])[0]
        release(part)
        scored = part.logprobs(batches[rank])[0]
        scored.sum().backward()
        expected = {name: p.grad for name, p in whole_one.named_parameters() if p.grad is not None}
        gradients = {name: whole(p.grad) for name, p in part.named_parameters() if p.grad is not None}
        assert expected.keys() == gradients.keys()
        gaps = [(gradients[name] - g).abs().max() / g.abs().max() for name, g in expected.items() if g.any()]
        logprobs = max(float((each - exact[rank]).abs().max()) for each in (gathered, scored))
        found[kind] = {"logprobs": logprobs, "gradients": float(max(gaps))}
    torch.save(found, folder / f"{rank}.pt")


def policy_of(kind: str) -> Policy:
    """A tiny policy that trains every weight."""
    if kind in ("tied", "untied"):
        return tiny_policy(tied=kind == "tied")
    torch.manual_seed(0)
    return recurrent_policy(kind)[0]


def on_ranks(folder: Path, ranks: int, *arguments: Any, work: Any = None, **settings: Any) -> list[int]:
    """Run a training, or other work; returns the exit code of each rank."""
    folder.mkdir(parents=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                signal.alarm(TIME_LIMIT_S)
                if ranks > 1:
                    place = {"LOCAL_RANK": rank, "RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": ranks, "MASTER_PORT": port}
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{key: str(value) for key, value in place.items()}}
                with quiet(), open(folder / f"{rank}.err", "w") as sys.stderr:
                    try:
                        (work or train)(sys.argv[1], folder, ranks, *arguments, **settings)
                        status = 0
                    except SIGTERMException:
                        status = 0
                    except BaseException:
                        traceback.print_exc()
            finally:
                os._exit(status)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def main(folder: Path) -> None:
    """Every training of the tests."""
    dropout = {"lora": LoraSettings(r=4, alpha=8, dropout=0.1), "data_num_val_tasks": 0}
    codes = {
        "grpo1": on_ranks(folder / "grpo1", 1),
        "grpo2": on_ranks(folder / "grpo2", 2),
        "ppo1": on_ranks(folder / "ppo1", 1, algorithm="ppo", loss=LossSettings(kl_coef=0.01), data_num_val_tasks=0),
        "ppo2": on_ranks(folder / "ppo2", 2, algorithm="ppo", loss=LossSettings(kl_coef=0.01), data_num_val_tasks=0),
        "uneven": on_ranks(folder / "uneven", 2, silence_the_second_rank, optim=OptimSettings(num_minibatches=2)),
        "failing": on_ranks(folder / "failing", 2, fail_on_the_second_rank),
        "whole": on_ranks(folder / "whole", 2, **dropout),
        "part": on_ranks(folder / "part", 2, **dropout, data_num_rl_steps=1),
    }
    played = {"max_new_tokens": 6, "max_information_tokens": 40, "prompt": "brief"}
    elsewhere = RolloutSettings(**played, workers=WorkerSettings("processes", 1))
    codes["workers"] = on_ranks(folder / "workers", 2, rollout=elsewhere)
    codes["sharded"] = on_ranks(folder / "sharded", 2, sharded=True)
    ppo = {"algorithm": "ppo", "loss": LossSettings(kl_coef=0.01), "data_num_val_tasks": 0}
    codes["sharded_ppo"] = on_ranks(folder / "sharded_ppo", 2, silence_the_second_rank, sharded=True, **ppo)
    last = str(folder / "part/checkpoints/last.ckpt")
    codes["rest"] = on_ranks(folder / "rest", 2, resume=last, **dropout)
    codes["terminated"] = on_ranks(folder / "terminated", 2, terminate_both_ranks, **dropout)
    last = str(folder / "terminated/checkpoints/last.ckpt")
    codes["after_terminated"] = on_ranks(folder / "after_terminated", 2, resume=last, **dropout)
    torch.save(codes, folder / "codes.pt")


def urls_of_server(policy: str) -> str:
    """The address of `mem1 serve`, which ends with this process."""
    options = ["--port", "0", "--name", "tiny", "--max_context_tokens", "256", "--allow_weights"]
    command = [sys.executable, "-m", "lightning_mem1", "serve", policy, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    atexit.register(process.kill)
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"serving tiny at (http://\S+)", line):
            return found[1]
    raise RuntimeError("the server did not start")


def full(folder: Path) -> None:
    """Every training of the tests of full training."""
    every = {"lora": None, "lr": 1e-3, "data_num_val_tasks": 0}
    shared = {**every, "sharded": True}
    address = urls_of_server(sys.argv[1])
    server = ServerSettings([address], timeout_s=60.0, num_retries=1, pause_s=0.1, transfer="folder")
    served = EngineSettings(num_slots=8, max_context_tokens=160, kind="server", server=server, self_check=False)
    codes = {
        "layers": on_ranks(folder / "layers", 2, work=score),
        "served": on_ranks(folder / "served", 2, **shared, engine=served),
        "served_alone": on_ranks(folder / "served_alone", 1, **every, engine=served),
        "one": on_ranks(folder / "one", 1, **every),
        "two": on_ranks(folder / "two", 2, **shared, save=True),
        "uneven": on_ranks(folder / "uneven", 2, silence_the_second_rank, **shared),
        "recomputed": on_ranks(
            folder / "recomputed", 2, **shared, compute=ComputeSettings(gradient_checkpointing=True)
        ),
        "part": on_ranks(folder / "part", 2, **shared, data_num_rl_steps=1),
    }
    last = str(folder / "part/checkpoints/last.ckpt")
    codes["rest"] = on_ranks(folder / "rest", 2, resume=last, **shared)
    codes["rest_on_three"] = on_ranks(folder / "rest_on_three", 3, resume=last, **shared)
    codes["rest_alone"] = on_ranks(folder / "rest_alone", 1, resume=last, **every)
    last = str(folder / "one/checkpoints/rl_step_000001.ckpt")
    codes["spread_out"] = on_ranks(folder / "spread_out", 2, resume=last, **shared)
    torch.save(codes, folder / "codes.pt")


if __name__ == "__main__":
    (full if sys.argv[3:] == ["full"] else main)(Path(sys.argv[2]))
