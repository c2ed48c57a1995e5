"""Trajectories as traces of MLflow, written to a real store and read back."""

from collections import Counter

import pytest
from lightning.pytorch.loggers import MLFlowLogger
from mlflow.tracking import MlflowClient

from lightning_mem1.callbacks import TraceCallback
from lightning_mem1.tracking.traces import send, trace_record
from lightning_mem1.types import StopReason, Trajectory, Turn
from tiny import task


@pytest.fixture
def run(mlflow_uri):
    """A store's client and a run in it: (client, experiment id, run id)."""
    client = MlflowClient(mlflow_uri)
    found = client.get_experiment_by_name("traces")
    experiment_id = found.experiment_id if found else client.create_experiment("traces")
    return client, experiment_id, client.create_run(experiment_id).info.run_id


def traces(run, **more):
    client, experiment_id, run_id = run
    return list(client.search_traces(locations=[experiment_id], run_id=run_id, **more))


def played(module, text="<summary>red</summary><answer>click[red]</answer>", error="") -> Trajectory:
    encode = module.policy.tokenizer.encode
    ids, prompt = encode(text), encode("count to 0")
    first = Turn(ids, [0.0] * len(ids), encode("page 2"), action="click[red]", information="page 2")
    last = Turn(ids[:2], [0.0] * 2, reward=0.5, valid=False, info={"success": 1.0})
    return Trajectory(task(0), prompt, [first, last], StopReason.DONE, seed=7, error=error, seconds=3.0)


def test_a_trajectory_is_read_back_turn_by_turn(run, mlflow_uri, make_module):
    module = make_module()
    trajectory = played(module)
    prompt, (first, last) = trajectory.prompt_ids, trajectory.turns
    send([trace_record(trajectory, module)], {"split": "train", "rl_step": "4"}, mlflow_uri, *run[1:])
    (trace,) = traces(run)
    assert trace.info.tags.items() >= {"split": "train", "rl_step": "4", "reward": "0.5", "memory": "mem1"}.items()
    assert trace.info.tags["stop_reason"] == "done" and trace.info.state == "OK"
    assert trace.info.execution_duration == 3000
    root, one, two = sorted(trace.data.spans, key=lambda span: (span.parent_id is not None, span.name))
    assert (root.name, one.name, two.name) == ("tiny/0", "turn 0", "turn 1")
    assert root.inputs == {"prompt": "count to 0"}
    assert root.outputs == {"success": 1.0, "stop_reason": "done", "error": "", "reward": 0.5}
    assert {one.parent_id, two.parent_id} == {root.span_id}
    assert one.inputs == {"context": "count to 0"}
    assert one.outputs == {"internal_state": "red", "action": "click[red]", "information": "page 2", "reward": 0.0}
    assert one.get_attribute("context_tokens") == len(prompt) and one.get_attribute("valid") is True
    assert two.inputs["context"].startswith("count to 0<summary>red</summary>")
    assert two.get_attribute("context_tokens") == len(prompt) + len(first.action_ids) + len(first.information_ids)
    assert two.outputs["reward"] == 0.5 and two.get_attribute("valid") is False
    total = len(first.action_ids) + len(last.action_ids)
    assert one.end_time_ns - one.start_time_ns == int(3e9 * len(first.action_ids) / total)


def test_what_a_resumed_run_writes_again_stands_there_once(run, mlflow_uri, make_module):
    module = make_module()
    told = [trace_record(played(module), module) for _ in range(2)]
    for _ in range(2):
        send(told, {"split": "train", "rl_step": "4"}, mlflow_uri, *run[1:])
    send(told[:1], {"split": "train", "rl_step": "5"}, mlflow_uri, *run[1:])
    assert sorted(len(trace.data.spans) for trace in traces(run)) == [3, 3, 3]


def test_hostile_texts_are_data_and_a_broken_episode_is_an_error(run, mlflow_uri, make_module):
    module = make_module()
    broken = played(module, text="\x1b[2J<summary>" + "red " * 3000, error="RuntimeError: \x1b[31mfire")
    send([trace_record(broken, module)], {}, mlflow_uri, *run[1:])
    (trace,) = traces(run)
    assert trace.info.state == "ERROR"
    texts = [str(text) for span in trace.data.spans for text in (*span.inputs.values(), *span.outputs.values())]
    assert any(text.startswith("count to 0 \\x1b[2j<summary>red") for text in texts)
    assert not [text for text in texts if "\x1b" in text] and any("characters left out" in text for text in texts)
    assert max(map(len, texts)) < 4100


@pytest.mark.parametrize(
    ("asked", "train", "val"), [({"traces_per_step": 2}, 2, 2), ({}, 8, 6), ({"traces_per_step": None}, 10, 6)]
)
def test_a_run_keeps_as_many_trajectories_as_asked_for_by_default_eight(
    mlflow_uri, make_module, make_data, fit, asked, train, val
):
    import mlflow

    logger = MLFlowLogger("traced", tracking_uri=mlflow_uri)
    _ = logger.experiment  # it points the whole process at its store
    mlflow.set_tracking_uri("sqlite:///elsewhere-and-never-made.db")
    data = make_data(num_rl_steps=2, tasks_per_step=2, group_size=5, num_val_tasks=6)
    fit(make_module(), data, TraceCallback(**asked), logger=logger)
    found = traces((MlflowClient(mlflow_uri), logger.experiment_id, logger.run_id))
    counts = Counter((t.info.tags["split"], t.info.tags["rl_step"]) for t in found)
    assert counts == {("train", "1"): train, ("train", "2"): train, ("val", "0"): val, ("val", "2"): val}
    tasks = {t.info.tags["mlflow.traceName"] for t in found if t.info.tags["rl_step"] == "1"}
    assert len(tasks) == 2  # of each group


def test_a_store_that_takes_no_trace_costs_a_warning_and_not_the_run(tmp_path, make_module, make_data, fit, capsys):
    class Locked(MLFlowLogger):
        @property
        def experiment_id(self):
            return "999"  # an experiment that the store does not have

    logger = Locked("locked", tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    module = make_module()
    fit(module, make_data(num_rl_steps=2, num_val_tasks=0), TraceCallback(), logger=logger)
    assert capsys.readouterr().err.count("MLflow did not take a trace, and is given no more of them (") == 1
    assert module.rl_step == 2


def test_no_traces_are_asked_for_by_0_and_fewer_are_refused(mlflow_uri, make_module, make_data, fit):
    logger = MLFlowLogger("untraced", tracking_uri=mlflow_uri)
    fit(make_module(), make_data(num_rl_steps=1), TraceCallback(traces_per_step=0), logger=logger)
    assert traces((MlflowClient(mlflow_uri), logger.experiment_id, logger.run_id)) == []
    with pytest.raises(ValueError, match="traces_per_step too small: expected at least 0, got -1"):
        TraceCallback(traces_per_step=-1)
