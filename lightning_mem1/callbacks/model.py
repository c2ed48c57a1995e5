"""The trained policy as a model of MLflow: one that loads back and acts."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_mem1 import __version__
from lightning_mem1.tracking import pyfunc_agent
from lightning_mem1.tracking.artifacts import hand_over
from lightning_mem1.training.module import Mem1Module

NAME = "policy"
SHOWN = ("policy", "algorithm", "memory", "layout")  # settings that the list of models shows


class ModelCallback(Callback):
    """At the end of a run logs the policy (its adapter, or all weights where there is none) as a model of MLflow.

    It loads back as an `Agent`, from safetensors and JSON, without a pickle::

        agent = mlflow.pyfunc.load_model("models:/<model id>")     # the run's page shows the id
        pyfunc_agent.predict([{"prompt": "Find red shoes.", "observation": "..."}])

    Args:
        log_model: Whether to.
    """

    def __init__(self, log_model: bool = True) -> None:
        self.log_model = log_model

    def on_train_end(self, trainer: Trainer, pl_module: Mem1Module) -> None:  # type: ignore[override]
        """Log the policy as it is now."""
        if not self.log_model or not trainer.is_global_zero:
            return

        def write(logger: Any) -> None:
            with TemporaryDirectory() as folder:
                pyfunc_agent.save(pl_module.policy, pl_module.hparams, Path(folder) / "data")
                log(logger, Path(folder), pl_module)

        hand_over(trainer, "the policy as a model", write)


def log(logger: Any, folder: Path, module: Mem1Module) -> None:
    """Make a model of ``folder/data`` (see `pyfunc_agent.save`) and log it with the logger's run."""
    from mlflow import pyfunc
    from mlflow.entities import LoggedModelOutput

    pyfunc.save_model(
        folder / "model",
        loader_module="lightning_mem1.tracking.pyfunc_agent",
        data_path=folder / "data",
        pip_requirements=[f"lightning-mem1=={__version__}"],  # given, or MLflow would go looking
    )
    client = logger.experiment
    shown = {key: str(module.hparams[key]) for key in SHOWN} | {"rl_step": str(module.rl_step)}
    model = client.create_logged_model(logger.experiment_id, NAME, logger.run_id, params=shown, model_type="agent")
    client.log_model_artifacts(model.model_id, str(folder / "model"))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(logger.run_id, [LoggedModelOutput(model.model_id, module.rl_step)])
