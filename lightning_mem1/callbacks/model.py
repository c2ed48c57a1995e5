"""The trained policy as a model of MLflow; what is logged: `tracking.models`."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer

from lightning_mem1.policy.sharding import trains_parts, whole_weights
from lightning_mem1.tracking.artifacts import hand_over, mlflow_runs
from lightning_mem1.tracking.models import log_policy
from lightning_mem1.training.module import Mem1Module


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
        if not self.log_model or not mlflow_runs(trainer):
            return
        policy = pl_module.policy
        weights = whole_weights(policy) if trains_parts(policy) else None  # every rank has a part of them
        if trainer.is_global_zero:
            hand_over(trainer, "the policy as a model", lambda logger: log_policy(logger, pl_module, weights))
