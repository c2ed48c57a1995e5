"""Threads of passes on a CPU, and how idle ones wait."""

import os
import subprocess
import sys

import pytest
import torch

from lightning_mem1.cli import commands
from lightning_mem1.cli.startup import WAITING
from lightning_mem1.engine.local import threads
from lightning_mem1.engine.local.engine import EngineSettings, LocalEngine
from lightning_mem1.types import GenerationRequest
from tiny import tiny_policy


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("device, tokens, expected", [("cpu", 3, 1), ("cpu", 10**7, 2), ("cuda", 3, 2)])
def test_a_small_pass_on_a_cpu_has_one_thread(two_threads, device, tokens, expected):
    with threads.threads_for(tokens, 100, torch.device(device)):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 2


def test_the_engine_takes_one_thread_for_decode_steps_and_all_for_a_long_context(two_threads, monkeypatch):
    engine, seen = LocalEngine(tiny_policy(), EngineSettings(num_slots=1, max_context_tokens=64)), []
    monkeypatch.setattr(threads, "SMALL", 20 * engine._largest)
    run = engine._packed
    monkeypatch.setattr(engine, "_packed", lambda *args: seen.append(torch.get_num_threads()) or run(*args))
    engine.submit(GenerationRequest(0, [5] * 30, 4, temperature=0.0))
    while engine.pending:
        engine.step()
    assert seen == [2, 1, 1, 1] and torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "given, expected", [({}, "PASSIVE"), ({"GOMP_SPINCOUNT": "5"}, None), ({WAITING[0]: "A"}, "A")]
)
def test_a_command_lets_idle_threads_sleep_unless_told_how_they_wait(given, expected, monkeypatch, capsys):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        commands.run("experiments", ["--help"])
    assert os.environ.get("OMP_WAIT_POLICY") == expected
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is undone


def test_how_threads_wait_is_said_before_torch_reads_it():
    code = "import sys; from lightning_mem1.cli import commands; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
