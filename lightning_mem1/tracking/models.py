"""The trained policy as a model of MLflow: one that loads back and acts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from lightning_mem1.tracking import pyfunc_agent
from lightning_mem1.tracking.model_package import EXAMPLE, copy_code, requirements, signature
from lightning_mem1.training.module import Mem1Module

NAME = "policy"
SHOWN = ("policy", "algorithm", "layout")  # settings that the list of models shows, next to the memory mode


def log_policy(logger: Any, module: Mem1Module, weights: Mapping[str, Tensor] | None = None) -> None:
    """Log the policy as it is now as a model of a logger's run (see `pyfunc_agent.save`).

    Args:
        logger: Lightning's logger for MLflow.
        module: Holds the policy and its settings.
        weights: As in `Policy.save`.
    """
    from mlflow import pyfunc
    from mlflow.entities import LoggedModelOutput

    client = logger.experiment
    shown = {key: str(module.hparams[key]) for key in SHOWN}
    shown |= {"memory": module.memory.name, "rl_step": str(module.rl_step)}
    with TemporaryDirectory() as given:
        folder = Path(given)
        pyfunc_agent.save(module.policy, module.hparams, folder / "data", weights)
        pyfunc.save_model(
            folder / "model",
            loader_module="lightning_mem1.tracking.pyfunc_agent",
            data_path=folder / "data",
            code_paths=[str(copy_code(folder / "code", module.policy.source))],
            pip_requirements=requirements(),  # given, or MLflow would go looking
            signature=signature(),
            input_example=EXAMPLE,
        )
        model = client.create_logged_model(logger.experiment_id, NAME, logger.run_id, params=shown, model_type="agent")
        client.log_model_artifacts(model.model_id, str(folder / "model"))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(logger.run_id, [LoggedModelOutput(model.model_id, module.rl_step)])
