"""``mem1 serve CONFIG --chat``: from the command line to an answer, and its mistakes in one line."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from lightning_mem1.cli import serve

ROOT = Path(__file__).parents[2]


def test_an_agent_of_a_config_is_served_in_its_memory_mode_until_it_is_interrupted(config):
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "lightning_mem1", "serve", config, "--chat", "--port", "0", "--max_turns", "3"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=env, **pipes) as process:
        said = ""
        while "/v1" not in said and (line := process.stdout.readline()):
            said += line
        found = re.search(r"serving tiny as chat completions at (http://127.0.0.1:\d+/v1), memory mode mem1", said)
        assert found, said
        body = json.dumps({"messages": [{"role": "user", "content": "red"}], "max_tokens": 4}).encode()
        with urllib.request.urlopen(f"{found[1]}/chat/completions", body, timeout=60) as answer:
            written = json.loads(answer.read())
        assert written["agent"]["turns_left"] == 2 and written["usage"]["completion_tokens"] <= 4
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--max_turns=0"], "--max_turns too small: expected at least 1, got 0"),
        (["--max_sessions=0"], "--max_sessions too small: expected at least 1, got 0"),
        (["--session_timeout_s=0"], "--session_timeout_s too small: expected more than 0, got 0"),
        (["--allow_adapters"], "--chat serves one agent: expected no --allow_adapters; leave it out, or leave --chat"),
    ],
)
def test_an_option_that_cannot_be_is_one_line_before_weights_are_loaded(config, options, reason, capsys):
    arguments = [config, "--chat", *options, "--model.policy=nowhere"]
    assert serve.main(arguments) == 1
    assert reason in capsys.readouterr().err.splitlines()[-1]


def test_a_policy_alone_does_not_say_how_its_agent_sees(tiny_folder, capsys):
    assert serve.main([str(tiny_folder), "--chat"]) == 1
    assert "--chat needs the settings that an agent was trained with: expected CONFIG" in capsys.readouterr().err
