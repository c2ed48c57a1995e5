"""Two machines, as far as one machine can tell: two torchrun agents at two loopback addresses."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def test_two_nodes_train_one_run(config, tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "GLOO_SOCKET_IFNAME": "lo"}
    options = ["--data.num_rl_steps=1", "--data.num_val_tasks=2", "--trainer.logger=false", "--trainer.strategy=ddp"]
    agents = []
    for rank in (0, 1):
        place = [f"--node-rank={rank}", f"--local-addr=127.0.0.{rank + 1}"]
        launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        launcher += ["--master-addr=127.0.0.1", f"--master-port={port}", *place]
        command = [*launcher, "-m", "lightning_mem1.fit", config, "--trainer.num_nodes=2", *options]
        agents.append(
            subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    told = [agent.communicate() for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], told
    out = "".join(lines for lines, _ in told)
    assert out.count("step    1/1") == out.count(f"loading {config} ...") == 1  # the first rank speaks for all
    assert sorted(path.name for path in (tmp_path / "runs/tiny").iterdir()) == ["0"]
    last = torch.load(tmp_path / "runs/tiny/0/checkpoints/last.ckpt", weights_only=True)
    assert last["lightning_mem1"]["rl_step"] == 1 and len(last["lightning_mem1"]["rng"]) == 2
