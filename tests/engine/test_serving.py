"""Commands over a server in another process: fit hands over its adapter, evaluate and play see the same policy."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from lightning.pytorch import Callback

from faulty import dead, faulty, whole
from lightning_mem1.cli import evaluate, fit, play
from lightning_mem1.engine.protocol.client import PATH
from lightning_mem1.engine.serving.endpoint import EndpointHandler
from lightning_mem1.engine.serving.loop import EngineLoop
from lightning_mem1.engine.serving.text import TextCodec
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.io.http_client import StatusError, fetch
from lightning_mem1.io.json_server import server
from lightning_mem1.training.credit.importance import MismatchSettings
from tiny import tiny_policy, tiny_tokenizer

ROOT = Path(__file__).parents[2]
QUIET = "--trainer.logger=false"


def started(*arguments, cwd=None):
    """A process of the command and the address that it tells."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "lightning_mem1", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = ""
    while found := process.stdout.readline():
        said += found
        if address := re.search(r"serving \S+ at (http://\S+)", found):
            return process, address[1]
    pytest.fail(f"the server did not start: {said}")


@pytest.fixture(scope="module")
def url(tiny_folder):
    """The tiny policy, served by another process."""
    process, address = started(tiny_folder, "--name", "tiny", "--max_context_tokens", 256, "--allow_adapters")
    yield address
    process.terminate()
    process.wait()


def over(url, **changes):
    server = ServerSettings([url], timeout_s=60.0, num_retries=1, pause_s=0.1, **changes)
    return EngineSettings(num_slots=8, max_context_tokens=160, kind="server", server=server)


class Numbers(Callback):
    """Writes down what was logged in every rl_step."""

    def __init__(self):
        super().__init__()
        self.logged = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_training_over_a_server_scores_exactly_what_was_sampled_because_it_hands_over_every_step(
    url, make_module, make_data, fit
):
    numbers = Numbers()
    fit(make_module(engine=over(url)), make_data(num_rl_steps=4), numbers)
    for logged in numbers.logged:
        assert logged["train/rollout_gap_max"] <= 1e-4 and logged["train/drift"] == 0
        assert logged["rollout/server_staleness"] == 0 and logged["rollout/server_failed_turns"] == 0
    assert all(logged["train/grad_norm"] > 0 for logged in numbers.logged)


def test_stale_weights_show_in_the_gap_and_are_corrected_for(url, make_module, make_data, fit):
    numbers = Numbers()
    module = make_module(engine=over(url, max_staleness=2), mismatch=MismatchSettings("tis"))
    fit(module, make_data(num_rl_steps=4), numbers)
    assert [logged["rollout/server_staleness"] for logged in numbers.logged] == [0, 1, 2, 0]
    gaps = [logged["train/rollout_gap_max"] for logged in numbers.logged]
    assert gaps[0] <= 1e-4 < 1e-3 < min(gaps[1:3]) and gaps[3] <= 1e-4
    ratios = [logged["train/is_ratio_mean"] for logged in numbers.logged]
    assert ratios[0] == pytest.approx(1, abs=1e-4) != pytest.approx(ratios[2], abs=1e-4)


def test_a_run_whose_server_is_gone_ends_with_one_line(config, capsys):
    gone = ["--model.engine.kind=server", "--model.engine.server.urls=[http://127.0.0.1:9]"]
    assert fit.main([config, *gone, "--model.engine.server.num_retries=0", QUIET]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: no server left: expected turns from http://127.0.0.1:9, got ")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (
            "--model.engine.kind=server",
            "no server: expected at least one address, got none and no model.engine.server.urls_file; set "
            "model.engine.server.urls",
        ),
        ("--model.engine.server.timeout_s=0", "model.engine.server.timeout_s too small: expected more than 0, got 0"),
        ("--model.engine.server.max_staleness=-1", "model.engine.server.max_staleness too small: expected at least 0"),
        ("--model.engine.vllm.gpu_memory_utilization=0", "too small: expected more than 0, got 0.0; set"),
        pytest.param(
            "--model.engine.kind=vllm",
            "model.engine.kind vllm needs vLLM: expected the package vllm in this environment, got none; pip install",
            marks=pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed"),
        ),
    ],
)
def test_settings_that_cannot_be_are_one_line(config, option, reason, capsys):
    assert fit.main([config, option, QUIET]) == 1
    assert reason in capsys.readouterr().err


def test_stale_weights_without_a_correction_are_refused(make_module):
    with pytest.raises(ValueError, match="stale weights need a correction: expected model.mismatch.correction tis or"):
        make_module(engine=over("http://127.0.0.1:9", max_staleness=1))


def written(folder):
    """What the policy wrote in every turn of every trajectory, token by token, and what it thought of each."""
    data = re.search(r'id="data">(.*?)</script>', Path(folder, "page.html").read_text())[1]
    turns = [turn for episode in json.loads(data)["episodes"] for turn in episode["turns"]]
    assert turns
    return [turn["pieces"] for turn in turns], [number for turn in turns for number in turn["logprobs"]]


def test_evaluation_over_a_server_finds_what_the_engine_in_this_process_finds(url, config, capsys):
    common = [config, "--tasks=2", "--split=val", "--memory=mem1,full", QUIET]
    assert evaluate.main([*common, "--output=here"]) == 0
    there = ["--model.engine.kind=server", f"--model.engine.server.urls=[{url}]"]
    assert evaluate.main([*common, *there, "--output=there"]) == 0
    assert written("there")[0] == written("here")[0]
    assert written("there")[1] == pytest.approx(written("here")[1], abs=1e-4)
    settings = [json.loads(Path(folder, "results.json").read_text())["settings"] for folder in ("here", "there")]
    assert ["model.engine.kind" in each for each in settings] == [False, True]
    assert play.main([config, *there, "--index=1"]) == 0
    assert capsys.readouterr().err == ""


def test_an_evaluation_whose_server_dies_keeps_what_is_finished_and_goes_on_with_another(url, config, capsys):
    good = {"text": "a", "token_ids": [5, 6], "logprobs": {"token_logprobs": [-0.5, -0.5]}, "finish_reason": "length"}
    replies = [{"data": [{"id": "tiny"}]}, {"choices": [good]}, {"choices": [good]}]
    common = [config, "--tasks=2", "--split=val", "--output=out", "--model.engine.num_slots=1", QUIET]
    common += ["--model.engine.kind=server", "--model.engine.server.num_retries=0"]
    with faulty() as dying:
        dying.replies = [*map(whole, replies), dead]  # a task takes two turns
        assert evaluate.main([*common, f"--model.engine.server.urls=[{dying.origin}]"]) == 1
    assert "error: no server left: expected turns from http://127.0.0.1:" in capsys.readouterr().err
    kept = Path("out/trajectories.jsonl").read_text()
    assert kept.count("\n") == 1
    assert evaluate.main([*common, f"--model.engine.server.urls=[{url}]"]) == 0
    found = Path("out/trajectories.jsonl").read_text()
    assert found.startswith(kept) and found.count("\n") == 2


def test_a_config_is_served_with_the_weights_of_its_checkpoint(config, tmp_path, capsys):
    assert fit.main([config, "--model.lr=0.05", QUIET]) == 0
    process, address = started(config, "--ckpt_path", "last", cwd=tmp_path)
    try:
        common = [config, "--tasks=2", "--split=val", QUIET]
        assert evaluate.main([*common, "--ckpt_path=last", "--output=here"]) == 0
        # the server has the trained weights in its base: no adapter is handed over
        common.append("--ckpt_path=none")
        there = ["--model.engine.kind=server", f"--model.engine.server.urls=[{address}]"]
        assert evaluate.main([*common, *there, "--output=there"]) == 0
        assert evaluate.main([*common, "--output=untrained"]) == 0
    finally:
        process.terminate()
        process.wait()
    assert written("there")[0] == written("here")[0] != written("untrained")[0]


def test_a_folder_that_is_none_is_one_line():
    command = [sys.executable, "-m", "lightning_mem1", "serve", "/nowhere", "--port", "0"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: no such policy: expected 'bundled', a folder or a hub id")


def asking(url, **body):
    return json.loads(fetch(f"{url}{PATH}", {"max_tokens": 4, **body}, timeout_s=120.0, max_bytes=1 << 20))


def test_prompts_of_megabytes_are_refused_and_64_clients_at_once_are_served_meanwhile(url):
    """Read as a whole, such a prompt would keep every other client waiting for ten seconds."""

    def refused(kind):
        prompt = {"text": "a" * 4_000_000, "ids": [5] * 2_000_000, "fits the body": "a" * 900_000}[kind]
        with pytest.raises(StatusError, match="status 400") as told:
            asking(url, prompt=prompt)
        return told.value.said.decode()

    with ThreadPoolExecutor(70) as pool:
        long = [pool.submit(refused, kind) for kind in ("text", "ids", "fits the body") * 2]
        answers = list(pool.map(lambda number: asking(url, prompt="red shoes", seed=number), range(64)))
        said = [each.result() for each in long]
    assert all(len(answer["choices"]) == 1 for answer in answers)
    assert all("expected a body of at most" in each for each in said[0:2] + said[3:5])
    assert "prompt is too long: expected at most 256 tokens, got more in 900000 characters" in said[2]


def test_a_client_that_drips_keeps_nobody_waiting_and_one_that_left_costs_no_word(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as dripping:
        dripping.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 500\r\n\r\n{")
        assert asking(url, prompt="red")["choices"]
        dripping.sendall(b" ")
        assert asking(url, prompt="red")["choices"]


def test_a_temperature_next_to_nothing_is_that_of_its_own_turn_alone(url):
    with ThreadPoolExecutor(8) as pool:
        temperatures = [1e-40, 5e-324, 1e-7, *[1.0] * 5]
        asked = [{"prompt": "red shoes", "temperature": each, "seed": 3, "max_tokens": 8} for each in temperatures]
        texts = [answer["choices"][0]["text"] for answer in pool.map(lambda body: asking(url, **body), asked)]
    greedy = asking(url, prompt="red shoes", temperature=0.0, max_tokens=8)["choices"][0]["text"]
    assert texts[:3] == [greedy] * 3 and len(set(texts[3:])) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("top_k", 5), ("min_p", 0.1), ("repetition_penalty", 1.1), ("logit_bias", {"5": 1}), ("frequency_penalty", 0.5),
     ("presence_penalty", -1), ("min_tokens", 3), ("ignore_eos", True), ("allowed_token_ids", [5]), ("logprobs", 5),
     ("tfs", 0.5), ("guided_json", {}), ("n", True)],
)  # fmt: skip
def test_a_parameter_that_would_be_ignored_is_refused_by_name(url, key, value):
    with pytest.raises(StatusError, match="status 400") as told:
        asking(url, prompt="red", **{key: value})
    assert f"'{key}' is not supported: expected " in told.value.said.decode()


def test_parameters_that_change_nothing_are_taken(url):
    neutral = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "logit_bias": {}, "n": 1, "user": "me"}
    assert asking(url, prompt="red", seed=1, **neutral)["choices"] == asking(url, prompt="red", seed=1)["choices"]


class Untempered(EndpointHandler):
    """Reports log-probabilities as servers do that leave the temperature out."""

    def posts(self):
        def spoiled(body):
            reply = self._complete(body)
            numbers = reply["choices"][0]["logprobs"]
            numbers["token_logprobs"] = [2 * number for number in numbers["token_logprobs"]]
            return reply

        return {**super().posts(), PATH: spoiled}


def test_servers_that_report_another_policys_log_probs_are_told_of_once(make_module, make_data, fit, capsys):
    loop = EngineLoop(tiny_policy(), EngineSettings(8, 160))
    shared = {"loop": loop, "text": TextCodec(tiny_tokenizer(), 160), "name": "tiny", "key": ""}
    serving = server(Untempered, **shared, allow_adapters=True)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    module = make_module(engine=over(f"http://127.0.0.1:{serving.server_port}"))
    fit(module, make_data(num_rl_steps=2, num_val_tasks=0))
    serving.shutdown()
    serving.server_close()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("servers report")]
    assert "servers report other log-probabilities than training computes: expected a mean gap of at most 0.05" in line
    assert "vLLM: --logprobs-mode processed_logprobs" in line
