"""What an ordinary `lightning.Trainer` needs in order to train by rl_steps."""

from __future__ import annotations

from typing import Any

from lightning_mem1.checks import Range, Ranges

TRAINER_DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "max_epochs": -1,  # data.num_rl_steps ends the run
    "check_val_every_n_epoch": None,  # count batches over epochs, however long one is
    "val_check_interval": 10,  # batches, and a batch is an rl_step
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_progress_bar": True,  # ours, see `callbacks.ProgressCallback`
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # tasks are shared out by the datamodule
}

TRAINER_RANGES: Ranges = {  # -1 is every one, or no limit
    **dict.fromkeys(("devices", "max_epochs", "max_steps", "num_sanity_val_steps"), Range(-1)),
    **dict.fromkeys(("num_nodes", "accumulate_grad_batches"), Range(1, 10**6)),
    "val_check_interval": Range(0, above=True),
}


def trainer_defaults(**overrides: Any) -> dict[str, Any]:
    """Arguments of `lightning.Trainer` that suit training by rl_steps; what is given wins.

    >>> trainer_defaults(devices=2)["devices"], trainer_defaults()["max_epochs"]
    (2, -1)
    """
    return {**TRAINER_DEFAULTS, **overrides}
