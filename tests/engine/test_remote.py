"""Turns from servers: a real one over the local engine, and loopback ones that are slow, dead, wrong or nonsense."""

import json
import math
import random
import re
import threading
import time
from dataclasses import replace

import pytest

from faulty import dead, faulty, slow, whole
from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.protocol.client import LOAD, PATH, UNLOAD
from lightning_mem1.engine.remote.engine import RemoteEngine
from lightning_mem1.engine.serving.endpoint import EndpointHandler, endpoint
from lightning_mem1.engine.serving.loop import EngineLoop
from lightning_mem1.engine.serving.text import TextCodec
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.io.json_server import Refused
from lightning_mem1.io.json_server import server as server_of
from lightning_mem1.policy.policy import LoraSettings
from lightning_mem1.rollout.collect import Episode, collect
from lightning_mem1.rollout.settings import RolloutSettings
from lightning_mem1.types import GenerationRequest, StopReason
from tiny import WordEnv, random_ids, task, tiny_policy, tiny_tokenizer, turns

BASE = tiny_policy()
PATIENT = ServerSettings(timeout_s=60.0, num_retries=1, pause_s=0.01)  # a busy machine may need a while
LOCAL = EngineSettings(num_slots=4, max_context_tokens=160)
OFFERED = whole({"data": [{"id": "adapter", "parent": "tiny"}, {"id": "tiny", "max_model_len": 160}]})


@pytest.fixture(scope="module")
def served():
    """The tiny policy, served by a thread over a real socket."""
    serving = endpoint(tiny_policy(), LOCAL, "tiny", allow_adapters=True)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def engine_of(*urls, policy=BASE, training=False, told=None, version=lambda: 0, **changes):
    server = replace(PATIENT, urls=list(urls), **changes)
    settings = replace(LOCAL, kind="server", server=server)
    return RemoteEngine(policy, settings, version, training, tell=(told if told is not None else []).append)


def requests(count=6, seed=3, **changes):
    rng = random.Random(seed)
    settings = {"max_new_tokens": 12, "stop": ("</answer>", "e"), "temperature": 0.0, **changes}
    return [GenerationRequest(k, random_ids(rng, rng.randint(3, 40)), seed=k, **settings) for k in range(count)]


def choice(ids=(5, 6), logprobs=(-0.5, -0.25), text="ab", **more):
    body = {"text": text, "finish_reason": "length", "token_ids": list(ids), **more}
    return whole({"choices": [{**body, "logprobs": {"token_logprobs": list(logprobs)}}]})


def offering(*replies):
    """Tells which models there are, and answers turns by these replies, the last one again and again."""
    left = list(replies)

    def send(handler, question):
        if isinstance(question, str):
            return OFFERED(handler, question)
        return (left.pop(0) if len(left) > 1 else left[0])(handler, question)

    return send


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_server_gives_the_same_ids_and_log_probs_as_the_engine_in_this_process(served, temperature):
    asked = requests(temperature=temperature)
    there, here = turns(engine_of(served), asked), turns(LocalEngine(BASE, LOCAL), asked)
    assert [each.ids for each in there] == [each.ids for each in here]
    assert len({len(each.ids) for each in here}) > 1  # some were stopped, others were cut off
    for a, b in zip(there, here, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_an_adapter_is_handed_over_and_acts_and_the_old_one_goes(served):
    policy, version = tiny_policy(LoraSettings(r=4, alpha=8)), [1]
    engine, asked = engine_of(served, policy=policy, version=lambda: version[0]), requests()
    first = turns(engine, asked)
    assert [each.ids for each in first] == [each.ids for each in turns(LocalEngine(policy, LOCAL), asked)]
    assert [each.ids for each in first] != [each.ids for each in turns(LocalEngine(BASE, LOCAL), asked)]
    name = engine.fleet.servers[0].adapter
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data.mul_(-1.5)
    version[0] = 2
    second = turns(engine, asked)
    assert [each.ids for each in second] == [each.ids for each in turns(LocalEngine(policy, LOCAL), asked)]
    assert [each.ids for each in second] != [each.ids for each in first]
    models = {each["id"] for each in engine.fleet.call(engine.fleet.servers[0], "/v1/models")["data"]}
    assert models == {"tiny", engine.fleet.servers[0].adapter} and name not in models


def test_weights_may_lag_behind_as_far_as_the_bound_and_no_further(served):
    policy, version = tiny_policy(LoraSettings(r=4, alpha=8), seed=1), [1]
    engine = engine_of(served, policy=policy, version=lambda: version[0], max_staleness=2)
    seen = []
    for version[0] in (1, 2, 3, 4, 5):
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.data.add_(0.01)
        engine.reset()
        seen.append((engine.fleet.servers[0].version, engine.numbers()["staleness"]))
    assert seen == [(1, 0), (1, 1), (1, 2), (4, 0), (4, 1)]


def test_an_untrained_adapter_is_the_base(served, tmp_path):
    policy = tiny_policy(LoraSettings(r=4, alpha=8))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.zero_()
    engine = engine_of(served, policy=policy, adapter_folder=str(tmp_path))
    assert [e.ids for e in turns(engine, requests(2))] == [e.ids for e in turns(LocalEngine(BASE, LOCAL), requests(2))]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_was_started_anew_gets_its_adapter_again(served):
    policy = tiny_policy(LoraSettings(r=4, alpha=8), seed=2)
    engine, asked = engine_of(served, policy=policy, version=lambda: 1), requests(2)
    first, (server,) = turns(engine, asked), engine.fleet.servers
    engine.fleet.call(server, "/v1/unload_lora_adapter", {"lora_name": server.adapter})
    assert [each.ids for each in turns(engine, asked)] == [each.ids for each in first]
    assert engine.counts["retries"] >= 1


class Pretends(EndpointHandler):
    """Takes every adapter, and goes on with the base."""

    def posts(self):
        def complete(body):
            return self._complete({**body, "model": "tiny"})

        return {PATH: complete, LOAD: lambda body: {"status": "loaded"}, UNLOAD: lambda body: {"status": "unloaded"}}


def test_a_server_that_takes_an_adapter_and_still_serves_the_base_is_named():
    shared = {"loop": EngineLoop(tiny_policy(), LOCAL), "text": TextCodec(tiny_tokenizer(), 160), "name": "tiny"}
    serving = server_of(Pretends, **shared, key="", allow_adapters=True)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    origin, policy = f"http://127.0.0.1:{serving.server_port}", tiny_policy(LoraSettings(r=4, alpha=8))
    engine = engine_of(origin, policy=policy, version=lambda: 1, num_retries=0)
    said = f"{origin} took the adapter 'mem1-[0-9a-f]+' and still serves the base: expected log-probabilities like -"
    with pytest.raises(ConnectionError, match=said):
        engine.reset()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.mul_(1e-3)  # moves no number by more than rounding would: nobody can tell
    engine_of(origin, policy=policy, version=lambda: 1, num_retries=0).reset()
    serving.shutdown()
    serving.server_close()


class Stuck(EndpointHandler):
    """Takes every adapter, and goes on with the first one."""

    first: str

    def posts(self):
        def load(body):
            if not type(self).first:
                type(self).first = body["lora_name"]
                return self._load(body)
            return {"status": "loaded"}

        def complete(body):
            return self._complete({**body, "model": type(self).first or "tiny"})

        return {PATH: complete, LOAD: load, UNLOAD: lambda body: {"status": "unloaded"}}


def test_a_server_that_goes_on_with_an_earlier_adapter_is_named():
    shared = {"loop": EngineLoop(tiny_policy(), LOCAL), "text": TextCodec(tiny_tokenizer(), 160), "name": "tiny"}
    serving = server_of(Stuck, **shared, key="", allow_adapters=True, first="")
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    origin, policy = f"http://127.0.0.1:{serving.server_port}", tiny_policy(LoraSettings(r=4, alpha=8))
    version = [1]
    engine = engine_of(origin, policy=policy, version=lambda: version[0], num_retries=0)
    engine.reset()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.mul_(-1.5)
    version[0] = 2
    said = f"{origin} took the adapter 'mem1-[0-9a-f]+' and still serves an earlier adapter: expected log-probabilities"
    with pytest.raises(ConnectionError, match=said):
        engine.reset()
    serving.shutdown()
    serving.server_close()


class Narrow(EndpointHandler):
    """Has room for a few adapters."""

    room: int

    def _load(self, body):
        if len(self.loop.adapters.names) >= self.room:
            raise Refused(400, f"no room: expected at most {self.room} adapters")
        return super()._load(body)

    def _upload(self, body):
        if len(self.loop.adapters.names) >= self.room:
            raise Refused(400, f"no room: expected at most {self.room} adapters")
        return super()._upload(body)


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_a_server_needs_room_for_one_adapter_more_than_weights_may_lag_behind(staleness):
    shared = {"loop": EngineLoop(tiny_policy(), LOCAL), "text": TextCodec(tiny_tokenizer(), 160), "name": "tiny"}
    serving = server_of(Narrow, **shared, key="", allow_adapters=True, room=staleness + 1)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    policy, version = tiny_policy(LoraSettings(r=4, alpha=8)), [0]
    settings = {"version": lambda: version[0], "num_retries": 0, "max_staleness": staleness}
    engine, named = engine_of(f"http://127.0.0.1:{serving.server_port}", policy=policy, **settings), []
    for version[0] in range(1, 3 * (staleness + 1) + 1):
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.data.mul_(-1.1)
        engine.reset()
        (server,) = engine.fleet.servers
        turn = engine.adapters.naming(server)
        named.append((turn, turn.__enter__()))
        while len(named) > staleness:  # as many turns are under way as weights may lag behind
            named.pop(0)[0].__exit__(None, None, None)
        assert {name for _, name in named} <= set(shared["loop"].adapters.names)
    assert server.version > version[0] - staleness - 1 and engine.counts["retries"] == 0
    serving.shutdown()
    serving.server_close()


def test_an_adapter_is_dropped_when_no_turn_names_it_any_more(served):
    policy, version = tiny_policy(LoraSettings(r=4, alpha=8), seed=3), [1]
    engine = engine_of(served, policy=policy, version=lambda: version[0])
    engine.reset()
    (server,) = engine.fleet.servers

    def loaded():
        return {each["id"] for each in engine.fleet.call(server, "/v1/models")["data"]} - {"tiny"}

    first = server.adapter
    with engine.adapters.naming(server) as name:
        assert name == first
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.data.mul_(-1.5)
        version[0] = 2
        engine.reset()
        second = server.adapter
        assert second != first and loaded() >= {first, second}
    assert first not in loaded() and second in loaded()


def test_whole_models_cannot_be_handed_over(served):
    with pytest.raises(ValueError, match="servers cannot be given whole models: .* set model.lora"):
        engine_of(served, version=lambda: 1).reset()


def test_a_server_without_runtime_adapters_says_how_to_start_it():
    serving = endpoint(tiny_policy(), LOCAL, "tiny")
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    policy = tiny_policy(LoraSettings(r=4, alpha=8))
    engine = engine_of(f"http://127.0.0.1:{serving.server_port}", policy=policy, version=lambda: 1, num_retries=0)
    with pytest.raises(ConnectionError, match="status 404 .* for the adapter; vLLM takes adapters with --enable-lora"):
        engine.reset()
    serving.shutdown()
    serving.server_close()


FAULTS = [
    (dead, "RemoteDisconnected|BadStatusLine"),
    (slow, "timed out"),
    (whole("no json"), "nonsense .* expected 'choices' with one choice, got 'no json'"),
    (whole({"error": {"message": "out of memory"}}, status=500), "status 500 .*'out of memory'"),
    (choice(ids=(5, 999)), "nonsense .* got 999: is it the same model"),
    (choice(logprobs=(-0.5,)), "nonsense .* expected 'token_logprobs' with 2 numbers, got 1"),
    (choice(logprobs=(0.0, -0.0)), "nonsense .* expected log-probabilities of 2 sampled ids, got exactly 0 for every"),
]


def waits(fault):
    return 1.0 if fault is slow else PATIENT.timeout_s


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_a_fault_is_tried_again_and_the_second_reply_counts(server, fault, reason):
    server.replies, told = [offering(fault, choice())], []
    engine = engine_of(server.origin, told=told, timeout_s=waits(fault))
    (turn,) = turns(engine, requests(1))
    assert (turn.ids, turn.logprobs, turn.error) == ([5, 6], [-0.5, -0.25], "")
    assert engine.counts == {"retries": 1, "nonsense": int("nonsense" in reason), "failed_turns": 0}
    assert len(told) == 1 and re.search(reason, told[0])


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_a_server_that_never_gave_a_turn_ends_the_run_with_one_line(server, fault, reason):
    server.replies = [offering(fault)]
    with pytest.raises(ConnectionError, match=f"no server left: expected turns from {server.origin}, got .*{reason}"):
        turns(engine_of(server.origin, timeout_s=waits(fault)), requests(1))


def test_nobody_there_is_one_line_before_any_episode_begins():
    with faulty() as gone:
        origin = gone.origin
    with pytest.raises(ConnectionError, match=f"no server left: .*{origin}.*Connection refused.*start a server"):
        engine_of(origin).reset()


def test_a_turn_that_no_try_gives_ends_its_episode_and_the_others_go_on(server):
    bad = whole({"error": "too hot"}, status=500)

    def send(handler, question):
        poisoned = not isinstance(question, str) and question["prompt"][-1] == 66
        return (bad if poisoned else offering(choice()))(handler, question)

    server.replies = [send]
    engine, (good, poison) = engine_of(server.origin), requests(2)
    poison = replace(poison, context_ids=[*poison.context_ids, 66])
    turns(engine, [good])
    found = turns(engine, [good, poison])
    assert (found[0].ids, found[0].error) == ([5, 6], "")
    assert found[1].ids == [] and "no turn after 2 tries: status 500" in found[1].error and "too hot" in found[1].error
    assert engine.counts["failed_turns"] == 1


def test_a_trajectory_whose_turn_failed_is_kept_with_the_reason(server):
    server.replies = [offering(choice(), whole({"error": "gone"}, status=400))]
    episode = Episode(task(1), WordEnv(["shoes", "shoes"]))
    settings, ended = RolloutSettings(max_new_tokens=6, prompt="brief"), []
    (played,) = collect(
        [episode], engine_of(server.origin), tiny_tokenizer(), settings, on_end=lambda place, each: ended.append(place)
    )
    assert played.stop_reason == StopReason.ERROR and len(played.turns) == 1
    assert played.error.startswith("engine: no turn after 1 tries: status 400") and "gone" in played.error
    assert ended == [0]


def test_turns_are_spread_over_servers_and_others_take_over_from_one_that_died(server):
    with faulty() as second:
        late = threading.Event()

        def waiting(handler, question):
            late.wait(5)  # until both have some
            choice()(handler, question)

        def send(handler, question):
            if not isinstance(question, str) and len(counted(server)) and len(counted(second)):
                late.set()
            offering(waiting)(handler, question)

        server.replies, second.replies = [send], [send]
        engine = engine_of(server.origin, second.origin)
        assert all(turn.ids == [5, 6] for turn in turns(engine, requests(8)))
        assert len(counted(server)) >= 2 and len(counted(second)) >= 2

        second.replies = [dead]
        before = len(counted(server))
        found = turns(engine, requests(8, seed=4))
        assert all(turn.ids == [5, 6] for turn in found)
        assert len(counted(server)) == before + 8
        assert engine.counts["failed_turns"] == 0

        second.replies = [offering(choice())]  # it is back
        before = len(counted(second))
        turns(engine, requests(8, seed=5))
        assert len(counted(second)) > before


def counted(state):
    return [each for each in state.questions if not isinstance(each, str)]


def test_the_last_server_dies_in_the_middle(server):
    server.replies = [offering(choice())]
    engine = engine_of(server.origin)
    turns(engine, requests(1))
    engine.submit(requests(1)[0])
    server.replies = [dead]
    with pytest.raises(ConnectionError, match="no server left"):
        engine.step()


def test_text_alone_is_tokenised_again_and_said_so_but_never_trained_on(server):
    text = {"choices": [{"text": "red shoes<answer>x", "finish_reason": "stop"}]}
    server.replies, told = [offering(whole(text))], []
    (turn,) = turns(engine_of(server.origin, told=told, text=True), requests(1, stop=("</answer>",), max_new_tokens=20))
    tokenizer = tiny_tokenizer()
    assert turn.ids == tokenizer.encode("red shoes<answer>x</answer>", add_special_tokens=False)
    assert len(turn.logprobs) == len(turn.ids) and all(map(math.isnan, turn.logprobs))
    assert told == ["server gives no ids: its text is tokenised again, which may differ from what it sampled"]
    assert isinstance(counted(server)[0]["prompt"], str) and "return_token_ids" not in counted(server)[0]
    with pytest.raises(ValueError, match="server gives no ids: expected 'token_ids' .* training needs the ids that"):
        turns(engine_of(server.origin, training=True), requests(1))
    with pytest.raises(ValueError, match="expected model.engine.server.text false, got true"):
        engine_of(server.origin, training=True, text=True)


def test_what_a_server_wrote_beyond_the_stop_is_dropped(server):
    over = tiny_tokenizer().encode("red</answer>shoes", add_special_tokens=False)
    server.replies = [offering(choice(over, [-0.1 * k for k in range(len(over))]))]
    (turn,) = turns(engine_of(server.origin), requests(1, stop=("</answer>",)))
    assert turn.ids == tiny_tokenizer().encode("red</answer>", add_special_tokens=False)
    assert len(turn.logprobs) == len(turn.ids) < len(over)


def test_the_key_travels_in_a_header_and_is_in_no_message(server, monkeypatch):
    monkeypatch.setenv("LIGHTNING_MEM1_API_KEY", "s3cret")
    echo = whole({"error": {"message": "Bearer s3cret is wrong"}}, status=500)
    server.replies, told = [offering(echo)], []
    with pytest.raises(ConnectionError) as failed:
        turns(engine_of(server.origin, told=told), requests(1))
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert "Bearer *** is wrong" in str(failed.value) and "s3cret" not in str(failed.value) + "".join(told)
    server.replies = [whole({"error": "no"}, status=401)]
    with pytest.raises(ValueError, match="another key: expected one in environment variable LIGHTNING_MEM1_API_KEY"):
        turns(engine_of(server.origin), requests(1))


def test_a_model_that_is_not_served_and_contexts_that_are_too_short_are_told(server):
    server.replies = [OFFERED]
    with pytest.raises(ValueError, match="expected 'other' at .*, got adapter, tiny; set model.engine.server.model"):
        engine_of(server.origin, model="other").reset()
    server.replies, told = [whole({"data": [{"id": "tiny", "max_model_len": 30}]})], []
    engine = engine_of(server.origin, told=told)
    engine.reset()
    assert engine.max_context_tokens == 30 and "contexts end at 30 tokens on the servers: expected 160" in told[0]
    with pytest.raises(ValueError, match=r"expected 1..30 tokens, context and new, got 25 \+ 12"):
        engine.submit(GenerationRequest(0, list(range(25)), 12))


def test_no_more_turns_are_under_way_than_there_are_slots(server):
    now, most, lock = [0], [0], threading.Lock()

    def send(handler, question):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        choice()(handler, question)

    server.replies = [offering(send)]
    turns(engine_of(server.origin), requests(10))
    assert most[0] <= 4


def test_a_reset_forgets_what_is_under_way(server):
    server.replies = [offering(choice())]
    engine = engine_of(server.origin)
    engine.reset()
    for request in requests(3):
        engine.submit(request)
    engine.step()
    engine.reset()
    assert engine.pending == 0 and engine.step() == []


def test_the_endpoint_refuses_what_it_cannot_do(served):
    engine = engine_of(served, num_retries=0)
    (server,) = engine.fleet.servers

    def refused(path, body):
        with pytest.raises(Exception) as told:
            engine.fleet.call(server, path, body)
        return str(told.value)

    assert "status 404" in refused("/v1/completions", {"model": "x", "prompt": [3]})
    assert "context and new, got 150 + 100" in refused("/v1/completions", {"prompt": [3] * 150, "max_tokens": 100})
    assert "expected text of whole characters" in refused("/v1/completions", {"prompt": "a \ud83d b"})
    assert "expected POST /v1/completions" in refused("/v1/chat/completions", {})
    assert "expected 'lora_name'" in refused("/v1/load_lora_adapter", {"lora_name": "tiny", "lora_path": "/"})
    assert "expected adapter_config.json in '/nowhere'" in refused(
        "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "/nowhere"}
    )
    assert "no such adapter" in refused("/v1/unload_lora_adapter", {"lora_name": "x"})
    assert engine.fleet.call(server, "/health") == {"status": "up"}


def test_an_adapter_that_does_not_fit_is_refused_and_the_base_stays_as_it_was(served, tmp_path):
    tiny_policy(LoraSettings(r=4, alpha=8)).save_adapter(tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "r": 8}))
    engine = engine_of(served, num_retries=0)
    body = {"lora_name": "misfit", "lora_path": str(tmp_path)}
    with pytest.raises(Exception, match="status 400 .*does not fit what is served"):
        engine.fleet.call(engine.fleet.servers[0], "/v1/load_lora_adapter", body)
    assert [e.ids for e in turns(engine, requests(3))] == [e.ids for e in turns(LocalEngine(BASE, LOCAL), requests(3))]


def test_an_endpoint_with_a_key_wants_it(monkeypatch):
    serving = endpoint(tiny_policy(), LOCAL, "tiny", key="s3cret")
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    origin = f"http://127.0.0.1:{serving.server_port}"
    with pytest.raises(ValueError, match="server wants another key"):
        engine_of(origin).reset()
    monkeypatch.setenv("OTHER_KEY", "s3cret")
    assert turns(engine_of(origin, key_variable="OTHER_KEY"), requests(1))[0].ids
    serving.shutdown()
    serving.server_close()


def test_servers_come_and_go_by_a_file_that_is_read_before_each_rollout(served, tmp_path):
    told, listed, gone = [], tmp_path / "servers.txt", "http://127.0.0.1:9"
    listed.write_text(f"# replicas\n{gone}\n\n{served}/v1  # the second\n")
    engine = engine_of(told=told, urls_file=str(listed), num_retries=3)
    assert [server.url for server in engine.fleet.servers] == [gone, served]
    asked = requests()
    assert all(not each.error for each in turns(engine, asked))
    (known,) = [server for server in engine.fleet.servers if server.url == served]
    serving = endpoint(tiny_policy(), LOCAL, "tiny", allow_adapters=True)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    another = f"http://127.0.0.1:{serving.server_port}"
    listed.write_text(f"{served}\n{another}\n")
    engine.reset()
    assert [server.url for server in engine.fleet.servers] == [served, another]
    assert engine.fleet.servers[0] is known, "what is known of a server stays known"
    assert all(not each.error for each in turns(engine, asked))
    listed.write_text(f"{another}\n")
    engine.reset()
    serving_alone = turns(engine, asked)
    assert [server.url for server in engine.fleet.servers] == [another]
    assert [each.ids for each in serving_alone] == [each.ids for each in turns(LocalEngine(BASE, LOCAL), asked)]
    serving.shutdown()
    serving.server_close()


def test_a_list_of_servers_that_cannot_be_read_changes_nothing_and_is_named_once(served, tmp_path):
    told, listed = [], tmp_path / "servers.txt"
    with pytest.raises(ValueError, match=r"^no list of servers: expected a text file .*servers.txt"):
        engine_of(urls_file=str(listed))
    listed.write_text("# nobody yet\n")
    with pytest.raises(ValueError, match=r"^no server: expected at least one address, got none in '.*servers.txt'"):
        engine_of(urls_file=str(listed))
    listed.write_text(served)
    engine = engine_of(told=told, urls_file=str(listed))
    for content in ("ftp://nowhere\n", "", None):
        listed.unlink() if content is None else listed.write_text(content)
        engine.reset()
        assert [server.url for server in engine.fleet.servers] == [served]
    assert len(told) == 1 and told[0].startswith("the servers stay as they are: not a server: ")
