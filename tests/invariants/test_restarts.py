"""Ranks under torchrun: one dies by kill -9, all are started again and end as if nothing had happened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[2]


def train(config, folder, **environment):
    folder.mkdir()
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "GLOO_SOCKET_IFNAME": "lo", **environment}
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = ["--trainer.logger=false", "--trainer.strategy=ddp", "--trainer.devices=2", "--data.num_val_tasks=0"]
    command = [*launcher, "--max-restarts=1", "-m", "lightning_mem1.fit", config, *options]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_a_rank_that_is_killed_costs_no_more_than_the_rl_step_under_way(config, tmp_path):
    content = yaml.safe_load(Path(config).read_text())
    content["model"]["lora"]["dropout"] = 0.1  # draws from each rank's random numbers
    content["data"]["init_args"] |= {"source": {"class_path": "tiny_tasks.KilledRank"}, "num_rl_steps": 4}
    Path(config).write_text(yaml.safe_dump(content))
    whole, killed = train(config, tmp_path / "whole"), train(config, tmp_path / "killed", KILL_RANK="1")
    assert (whole.returncode, killed.returncode) == (0, 0), whole.stderr[-3000:] + killed.stderr[-3000:]
    assert "(exitcode: -9) local_rank: 1" in killed.stderr
    steps = [line.split()[1] for line in killed.stdout.splitlines() if line.startswith("step ")]
    assert steps == ["1/4", "2/4", "3/4", "4/4"], "the rl_steps that were done are not done again"
    assert "with the weights of runs/tiny/0/checkpoints/last.ckpt" in killed.stdout
    assert [path.name for path in (tmp_path / "killed/runs/tiny").iterdir()] == ["0"], "it is one run"
    ends = [
        torch.load(tmp_path / name / "runs/tiny/0/checkpoints/last.ckpt", weights_only=True)
        for name in ("whole", "killed")
    ]
    for key in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(ends[1][key], ends[0][key], rtol=0, atol=0)
    assert ends[0]["lightning_mem1"]["rl_step"] == 4
