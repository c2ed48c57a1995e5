"""A store that is not there yet is made in a thread: what can be sent later does, and nothing is lost."""

from mlflow.tracking import MlflowClient

from lightning_mem1.tracking.mlflow_logger import ResumableMLflowLogger


def opened(uri):
    logger = ResumableMLflowLogger("first", "first/0", uri)
    logger.make_store_beside()
    return logger


def test_what_was_logged_meanwhile_is_in_the_store_in_its_order(tmp_path):
    uri, sent = f"sqlite:///{tmp_path}/mlflow.db", []
    logger = opened(uri)
    logger.log_hyperparams({"model.lr": 0.1})
    assert logger.experiment is not None and not logger.has_begun  # as Lightning asks for it at the start
    assert logger.put_off("tags", lambda run: sent.append(run.experiment.get_run(run.run_id).data.params))
    logger.log_metrics({"val/reward": 0.5}, 0)
    assert sent == [{"model.lr": "0.1"}]  # after the settings, before the numbers
    assert not logger.put_off("tags", sent.append)
    logger.finalize("success")
    run = MlflowClient(uri).get_run(logger.run_id)
    assert run.data.params == {"model.lr": "0.1"} and run.data.metrics == {"val/reward": 0.5}
    assert run.info.status == "FINISHED"


def test_the_clients_calls_wait_for_the_store(tmp_path):
    logger = opened(f"sqlite:///{tmp_path}/mlflow.db")
    logger.experiment.set_tag(logger.run_id, "a", "b")
    assert logger.experiment.get_run(logger.run_id).data.tags["a"] == "b"


def test_a_run_that_fails_before_it_logs_anything_is_in_the_store_as_failed(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    logger = opened(uri)
    logger.finalize("failed")
    assert MlflowClient(uri).get_run(logger.run_id).info.status == "FAILED"


def test_a_store_that_cannot_be_made_is_said_once_in_a_line(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    logger = opened(f"sqlite:///{tmp_path}/file/mlflow.db")
    logger.log_hyperparams({"model.lr": 0.1})
    assert not logger.is_open()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("MLflow did not take the run (") and line.endswith(logger.goes_on)


def test_a_store_that_is_there_is_opened_at_once(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    opened(uri).finalize("success")
    opened(uri).log_metrics({"a": 1.0}, 1)
    logger = opened(uri)
    assert not logger.put_off("tags", print)
    logger.log_hyperparams({"model.lr": 0.1})
    assert logger.has_begun
