"""A Lightning module whose checkpoints hold what trains, and which is made again from them alone."""

from __future__ import annotations

import difflib
import inspect
import io
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_mem1.checks import MOVED
from lightning_mem1.policy.policy import Policy, copies, put_back
from lightning_mem1.training import checkpoint_state
from lightning_mem1.training.checkpoint_shape import check_memory, check_resumable, check_shape
from lightning_mem1.training.checkpoint_shards import SHARDS
from lightning_mem1.training.lightning_internals import resumes

NAMES_OF_CODE = ("algorithm", "memory")  # settings that a dotted name in them makes code of


class CheckpointedModule(LightningModule):
    """Stores and restores a policy and what else trains; wrong arguments are answered in one line.

    Attributes:
        policy: Its frozen base is named in checkpoints, not stored.
        rl_step: The clock.
    """

    policy: Policy
    rl_step: int

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse an argument that there is not, with its present name where it has moved."""
        check_arguments(cls, kwargs)
        return super().__new__(cls)

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints lack the base; `on_load_checkpoint` checks the names of what trains

    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that train, by their names here and in checkpoints."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what trains, the clock and the random state; the frozen base is named, not stored."""
        checkpoint["state_dict"] = copies(self.trained())
        checkpoint[checkpoint_state.ENTRY] = checkpoint_state.snapshot(self.policy, self.rl_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint belongs to this base and adapter, then take its weights, clock and random state.

        Raises:
            ValueError: it does not.
        """
        check_shape(checkpoint)
        if resumes(self):
            check_resumable(checkpoint)
            check_memory(checkpoint_state.settings_of(checkpoint)["memory"], self.hparams["memory"])
        checkpoint_state.migrate(checkpoint)
        entry = checkpoint_state.entry_of(checkpoint)
        checkpoint_state.check_base(entry, self.policy)
        checkpoint_state.check_scale(checkpoint_state.settings_of(checkpoint), self.hparams)
        put_back(self.trained(), checkpoint["state_dict"])
        self.rl_step = int(entry["rl_step"])
        checkpoint_state.set_rng_state(entry["rng"], self.global_rank)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **kwargs: Any,
    ) -> Self:
        """The module of a checkpoint, with its trained weights; the process's random state stays as it is.

        Args:
            checkpoint_path: The file, of this version or of an earlier one.
            map_location: Device of the weights; None for where the base is loaded.
            hparams_file: Settings in place of the checkpoint's.
            strict: As Lightning has it.
            weights_only: Run nothing that is in the file.
            kwargs: Arguments in place of the checkpoint's. A group replaces the whole group.

        Raises:
            ValueError: not a checkpoint of this package, or of another base; or it names a file of code that is not
                imported, see `check_code`.
            TypeError: an argument that there is not.
        """
        check_arguments(cls, kwargs)
        checkpoint = checkpoint_state.read(checkpoint_path)
        check_shape(checkpoint)
        trained_with = checkpoint_state.settings_of(checkpoint)
        if hparams_file is None:
            check_code({name: value for name, value in trained_with.items() if name not in kwargs})
        settings = {} if "hyper_parameters" in checkpoint else trained_with
        before = checkpoint_state.rng_state()
        if SHARDS in checkpoint:  # Lightning reads the file itself, which lacks them
            checkpoint_path = _in_memory(checkpoint)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found keys that are in the model state dict but not")  # the frozen base
            module = super().load_from_checkpoint(
                checkpoint_path, map_location, hparams_file, strict, weights_only, **{**settings, **kwargs}
            )
        checkpoint_state.set_rng_state([before], 0)
        checkpoint_state.check_scale(trained_with, module.hparams)  # Lightning's copy has the new arguments already
        return module


def _in_memory(checkpoint: Mapping[str, Any]) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(dict(checkpoint), buffer)
    buffer.seek(0)
    return buffer


def check_code(settings: Mapping[str, Any]) -> None:
    """Raise ValueError when settings out of a checkpoint name code that nobody has imported: it is not run unasked."""
    for key in NAMES_OF_CODE:
        given = settings.get(key, "")
        name = str(given.get("mode", "") if isinstance(given, Mapping) else given)
        module = name.rpartition(".")[0]
        if module and module not in sys.modules:
            raise ValueError(
                f"the checkpoint names code: expected {key} '{name}' to be imported already, got no module '{module}'; "
                f"if you trust it, import {module} first, or pass {key}='{name}'"
            )


def check_arguments(kind: type[Any], given: Iterable[str]) -> None:
    """Raise TypeError when a class does not take an argument, with the present name of one that has moved."""
    known = inspect.signature(kind.__init__).parameters
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values())
    for name in given:
        if name in known:
            continue
        if moved := MOVED.get(f"model.{name}"):
            _, group, key = moved.split(".")
            raise TypeError(f"model.{name} is now {moved}: call {kind.__name__} with {group}={{'{key}': ...}}")
        if not takes_any:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"expected some of {', '.join(list(known)[1:])}"
            raise TypeError(f"{kind.__name__} has no argument '{name}': {hint}")
