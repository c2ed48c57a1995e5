"""MLflow's store at a run's start: made once and as a whole, waited for, done without, named when it was deleted."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from lightning_mem1.cli import fit as command
from lightning_mem1.tracking import store
from lightning_mem1.tracking.mlflow_logger import ResumableMLflowLogger
from lightning_mem1.tracking.store import StoreUnavailable, prepare, sqlite_path, tracking_uri

ROOT = Path(__file__).parents[2]
MAKER = """
import sys, mlflow
from lightning_mem1.tracking.mlflow_logger import ResumableMLflowLogger
from lightning_mem1.tracking import store
print("ready", flush=True)
sys.stdin.readline()
logger = ResumableMLflowLogger("first", "first/0", "sqlite:///mlflow.db")
logger.log_metrics({"a": 1.0}, 1)
logger.finalize("success")
print(logger.run_id, flush=True)
"""
HOLDER = """
import sqlite3, sys
store = sqlite3.connect("mlflow.db", isolation_level=None)
store.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
"""


def started(script, folder):
    """A process of a script that has said its first word."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script], cwd=folder, env=env, **pipes)
    assert process.stdout.readline() in ("ready\n", "held\n")
    return process


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def runs(path):
    with closing(sqlite3.connect(path)) as content:
        return content.execute("SELECT name, status FROM runs").fetchall()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The bytes of a fresh store."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    prepare(f"sqlite:///{path}", print)
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def uri(folder):
    """With its whole path: MLflow keeps stores by their names, whatever the working folder is by then."""
    return f"sqlite:///{folder}/mlflow.db"


def test_first_runs_at_the_same_time_and_one_that_is_killed_make_one_whole_store(folder):
    first, second, killed = (started(MAKER, folder) for _ in range(3))
    for process in (killed, first, second):
        go(process)
    while not list(folder.glob(".mlflow.db.lock")):
        time.sleep(0.01)
    time.sleep(1.0)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    said = [process.communicate() for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], said
    assert len({out for out, _ in said}) == 2 and all(len(out) == 33 for out, _ in said)
    assert runs("mlflow.db")[-2:] == [("first/0", "FINISHED")] * 2
    assert [path.name for path in folder.iterdir() if path.name.startswith((".", "mlflow"))] == ["mlflow.db"]


def test_what_another_program_left_unfinished_is_put_aside(uri, monkeypatch):
    monkeypatch.setattr(store, "WAIT_S", 1.0)
    Path("mlflow.db").write_bytes(b"")
    prepare("sqlite:///mlflow.db", pytest.fail)
    Path("mlflow.db").unlink()
    with closing(sqlite3.connect("mlflow.db")) as content:
        content.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    told = []
    prepare("sqlite:///mlflow.db", told.append)
    assert told[-1].startswith("MLflow's store 'mlflow.db' was never finished and holds no run: it is made again")
    assert Path("mlflow.db.incomplete").is_file()
    ResumableMLflowLogger("again", "again/0", uri).log_metrics({"a": 1.0})
    assert runs("mlflow.db") == [("again/0", "RUNNING")]


def test_a_store_that_is_locked_at_the_start_is_waited_for(folder, made, capsys):
    Path("mlflow.db").write_bytes(made)
    with started(HOLDER, folder) as holder:
        told = []

        def tell(line):
            told.append(line)
            go(holder)

        prepare("sqlite:///mlflow.db", tell)
    assert told == ["MLflow's store 'mlflow.db' is locked by another process: waiting up to 60 s"]


def test_a_run_goes_on_without_a_store_that_stays_locked_and_hands_everything_in_later(
    config, folder, uri, made, capfd, monkeypatch
):
    monkeypatch.setattr(store, "WAIT_S", 0.5)
    Path("mlflow.db").write_bytes(made)
    with started(HOLDER, folder) as holder:
        assert command.main([config, f"--tracking_uri={uri}"]) == 0
        out, err = capfd.readouterr()
        holder.kill()
    assert "step    2/2" in out and "mlflow ui" not in out
    locked, gone = err.splitlines()
    assert locked == f"MLflow's store '{folder}/mlflow.db' is locked by another process: waiting up to 0 s"
    assert gone.startswith("MLflow did not take the run (database is locked): the training continues, numbers wait in")
    assert command.main([config, f"--tracking_uri={uri}", "--ckpt_path=last", "--data.num_rl_steps=3"]) == 0
    assert capfd.readouterr().err == ""
    assert runs("mlflow.db") == [("tiny/0", "FINISHED")]
    with closing(sqlite3.connect("mlflow.db")) as content:
        steps = content.execute("SELECT step FROM metrics WHERE key = 'train/loss' ORDER BY step").fetchall()
        params = dict(content.execute("SELECT key, value FROM params").fetchall())
    assert steps == [(1,), (2,), (3,)] and params["model.memory"] == "mem1"


def test_a_store_that_is_no_store_or_full_costs_a_line_and_no_traceback(config, folder, uri, made, capfd):
    Path("mlflow.db").write_bytes(b"no database" * 1000)
    assert command.main([config, "--data.num_rl_steps=1", f"--tracking_uri={uri}"]) == 0
    assert capfd.readouterr().err.startswith("MLflow did not take the run (file is not a database): the training cont")
    Path("full.db").write_bytes(made)
    with closing(sqlite3.connect("full.db")) as content:
        content.execute(
            "CREATE TRIGGER full BEFORE INSERT ON runs BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )
    assert command.main([config, "--data.num_rl_steps=1", f"--tracking_uri=sqlite:///{folder}/full.db"]) == 0
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1 and "MLflow did not take the run (database or disk is full)" in err


def test_a_deleted_experiment_is_named_with_what_to_do(config, folder, uri, made, capfd):
    from mlflow.tracking import MlflowClient

    Path("mlflow.db").write_bytes(made)
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("tiny"))
    assert command.main([config, f"--tracking_uri={uri}"]) == 1
    assert capfd.readouterr().err == (
        "error: experiment was deleted in MLflow's store: expected an active one, got 'tiny' (id 1) deleted at "
        f"{uri}; bring it back with MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id 1, or set "
        "--experiment to another name\n"
    )
    assert not list(Path("runs").glob("*/*"))  # a run that never began leaves no folder
    client.restore_experiment("1")
    assert command.main([config, f"--tracking_uri={uri}", "--data.num_rl_steps=1"]) == 0


def test_a_server_that_is_not_there_is_said_and_the_run_goes_on(config, folder, server, capfd, monkeypatch):
    address = f"http://me:pa55@{server.origin.removeprefix('http://')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setattr(store, "LOOK_S", 0.3)
    server.replies = [lambda handler, question: time.sleep(1)]  # says nothing for longer than anybody waits here
    assert command.main([config, "--data.num_rl_steps=1"]) == 0
    out, err = capfd.readouterr()
    assert err.startswith(f"MLflow did not take the run (no answer from {server.origin} within 0 s: TimeoutError")
    assert "pa55" not in out + err and server.questions[0] == "/health"
    kept = torch.load("runs/tiny/0/checkpoints/last.ckpt", weights_only=True)["mlflow"]
    assert kept["run_id"] is None and {"train/loss", "val/reward"} <= {key for key, *_ in kept["outbox"]}
    assert not Path("mlflow.db").exists()


def test_the_store_is_the_one_given_else_the_environments_else_a_file_here(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None) == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    assert tracking_uri(None) == "http://host" and tracking_uri("sqlite:///a.db") == "sqlite:///a.db"
    assert sqlite_path("sqlite:////tmp/a.db?timeout=3") == Path("/tmp/a.db")
    assert sqlite_path("sqlite://") is None and sqlite_path("sqlite:///:memory:") is None
    assert sqlite_path("postgresql://host/db") is None


def test_a_database_server_that_is_not_there_is_not_waited_for():
    with pytest.raises(StoreUnavailable, match="no connection to 127.0.0.1:9: ConnectionRefusedError"):
        prepare("postgresql://me:pa55@127.0.0.1:9/db", pytest.fail)


SIGNALLED = """
import os, signal, sys
from lightning_mem1.cli import fit
from lightning_mem1.tracking import mlflow_logger
from mlflow.tracking import MlflowClient
made = MlflowClient.create_run

def create_run(*args, **kwargs):
    run = made(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGTERM)  # the run is there, and nobody knows its id yet
    return run

MlflowClient.create_run = create_run
sys.exit(fit.main(sys.argv[1:]))
"""


def test_a_sigterm_right_when_the_run_is_made_leaves_no_run_that_runs_for_good(config, folder, made):
    Path("mlflow.db").write_bytes(made)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    words = [sys.executable, "-W", "ignore", "-c", SIGNALLED, config]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert runs("mlflow.db") == [("tiny/0", "FAILED")]
    assert "interrupted after 0 rl_steps; nothing was trained yet" in done.stderr
