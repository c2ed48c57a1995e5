"""All weights handed to servers: reloaded from a folder, named, given again after a restart, checked that they act."""

import pytest
import torch

from lightning_mem1.engine.local.engine import LocalEngine
from lightning_mem1.engine.remote.servers import ServerPool
from lightning_mem1.engine.serving.endpoint import EndpointHandler
from lightning_mem1.engine.settings import EngineSettings, ServerSettings
from lightning_mem1.io.json_server import Refused
from lightning_mem1.policy.policy import LoraSettings, Policy
from lightning_mem1.policy.whole_weights import in_checkpoint_format
from tiny import tiny_policy, turns
from weight_servers import ASKED, LOCAL, engine_of, moved, serving, written


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
