"""Trajectories as traces of MLflow, a span for each turn.

Written through clients bound to the store of the logger's own run: MLflow's fluent tracing writes to whatever store the
process was last pointed at, and sends every span on its own.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_mem1.evaluation.report.episode import finite, shortened
from lightning_mem1.evaluation.transcript import transcript
from lightning_mem1.training.module import Mem1Module
from lightning_mem1.types import Trajectory

COUNTS = ("context_tokens", "dropped_tokens", "action_tokens", "valid")  # attributes of a turn's span
MAX_TAG_CHARS = 250


def trace_record(trajectory: Trajectory, module: Mem1Module) -> dict[str, Any]:
    """A trajectory as plain values, see `transcript`; each turn with the text of its context and its share of seconds.

    Turns have no clock of their own: the episode's seconds are dealt out by the tokens that each turn wrote.
    """
    record = transcript(trajectory, module)
    written = sum(turn["action_tokens"] for turn in record["turns"]) or 1
    for turn, context in zip(record["turns"], module.contexts.of(trajectory), strict=True):
        turn["context"] = shortened(module.encoder.decode(context.ids))
        turn["seconds"] = trajectory.seconds * turn["action_tokens"] / written
    return {**record, "seconds": trajectory.seconds}


def send(
    records: Sequence[Mapping[str, Any]], tags: Mapping[str, str], tracking_uri: str, experiment_id: str, run_id: str
) -> None:
    """Write records (see `trace_record`) as finished traces of a run; their spans in one go.

    Rewritten, by a run that was killed and resumes, they take the place of the first ones.

    Args:
        records: One for each trace.
        tags: Of all of them; with the run and a record's place they name its trace.
        tracking_uri: The store.
        experiment_id: The run's experiment.
        run_id: The run that they belong to.
    """
    from mlflow.tracing.client import TracingClient

    client, spans, now_ns = TracingClient(tracking_uri), [], time.time_ns()
    for number, record in enumerate(records):
        trace_id = f"tr-{_name(run_id, *tags.values(), number)[:32]}"
        client.start_trace(_info(record, trace_id, tags, experiment_id, run_id, now_ns))
        spans += _spans(record, trace_id, now_ns)
    if spans:
        client.log_spans(experiment_id, spans)


def _name(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def _info(
    record: Mapping[str, Any], trace_id: str, tags: Mapping[str, str], experiment_id: str, run_id: str, now_ns: int
) -> Any:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    reported = {key: str(record[key]) for key in ("reward", "success", "stop_reason", "memory")}
    return TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=now_ns // 1_000_000 - round(record["seconds"] * 1000),
        execution_duration=round(record["seconds"] * 1000),
        state=TraceState.ERROR if record["error"] else TraceState.OK,
        request_preview=shortened(record["prompt"], 500),
        response_preview=f"reward {record['reward']:.3g}, {record['stop_reason']}",
        trace_metadata={"mlflow.sourceRun": run_id, "mlflow.trace_schema.version": "3"},
        tags={"mlflow.traceName": shortened(record["task"], MAX_TAG_CHARS // 2), **reported, **tags},
    )


def _spans(record: Mapping[str, Any], trace_id: str, now_ns: int) -> list[Any]:
    """The root span of a trace, which ends now, and one for each turn."""
    start = now_ns - int(record["seconds"] * 1e9)
    ended = {
        "success": finite(record["success"]),
        "stop_reason": record["stop_reason"],
        "error": shortened(record["error"]),
        "reward": finite(record["reward"]),
    }
    asked = {"prompt": shortened(record["prompt"])}
    root = _span(trace_id, None, 0, shortened(record["task"]), (start, now_ns), asked, ended, {"seed": record["seed"]})
    spans = [root]
    for place, turn in enumerate(record["turns"], 1):
        end = start + int(turn["seconds"] * 1e9)
        reported: dict[str, Any] = {"reward": finite(turn["reward"])}
        reported |= {key: shortened(turn[key] or "") for key in ("internal_state", "action", "information")}
        counts = {key: turn[key] for key in COUNTS}
        name, seen = f"turn {turn['turn']}", {"context": turn["context"]}
        spans.append(_span(trace_id, root.span_id, place, name, (start, end), seen, reported, counts))
        start = end
    return spans


def _span(
    trace_id: str,
    parent_id: str | None,
    place: int,
    name: str,
    times_ns: tuple[int, int],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    attributes: Mapping[str, Any],
) -> Any:
    """A finished span."""
    from mlflow.entities import Span

    reserved = {
        "mlflow.traceRequestId": trace_id,
        "mlflow.spanType": "LLM" if parent_id else "AGENT",
        "mlflow.spanInputs": inputs,
        "mlflow.spanOutputs": outputs,
    }
    return Span.from_dict(
        {
            "trace_id": trace_id,
            "span_id": _name(trace_id, place)[:16],
            "parent_span_id": parent_id or "",
            "name": name,
            "start_time_unix_nano": times_ns[0],
            "end_time_unix_nano": times_ns[1],
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {key: json.dumps(value) for key, value in {**reserved, **attributes}.items()},
        }
    )
