"""Adapters that are added to a policy's base and removed while it is being served; none of them trains.

Only safetensors are read. The policy itself, as it was loaded, is what there is without an adapter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_mem1.policy.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, fill_adapter, without_warnings
from lightning_mem1.policy.policy import Policy


class AdapterPool:
    """Adapters by name on one policy.

    Args:
        policy: Without an adapter of its own.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._peft: Any = None  # the model with layers around its linear ones, once there was an adapter
        self.names: dict[str, str] = {}  # and where they came from

    def load(self, name: str, folder: str) -> None:
        """Add an adapter to those that are there, without switching to it.

        Raises:
            ValueError: the name is taken, or the folder holds no LoRA adapter that fits.
        """
        if name in self.names:
            raise ValueError(f"adapter '{name}' has already been loaded: expected a new name; unload it first")
        missing = [file for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (Path(folder) / file).is_file()]
        if missing:
            raise ValueError(f"no adapter: expected {missing[0]} in '{folder}', got none; set lora_path")
        try:
            self._add(name, folder)
        except Exception as error:  # peft, safetensors and torch each raise their own kinds
            self._remove(name)
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"adapter '{folder}' does not fit what is served: {reason}") from error
        finally:
            self.switch(None)
        self.names[name] = folder

    def _add(self, name: str, folder: str) -> None:
        from peft import PeftConfig, PeftModel

        if self._peft is None:
            config = PeftConfig.from_pretrained(folder)
            config.inference_mode = True
            self._peft = PeftModel(self.policy.causal_lm, config, adapter_name=name)
        with without_warnings():
            self._peft.load_adapter(folder, adapter_name=name)
        fill_adapter(self._peft, name, folder)
        self._peft.eval()

    def _remove(self, name: str) -> None:
        if self._peft is None or name not in self._peft.peft_config:
            return
        if others := [each for each in self._peft.peft_config if each != name]:
            self._peft.set_adapter(others[0])  # peft would warn that it has to choose one itself
        self._peft.delete_adapter(name)
        self.switch(None)

    def unload(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.names:
            raise ValueError(f"no adapter '{name}': expected one of {', '.join(self.names) or 'none'}")
        del self.names[name]
        self._remove(name)

    def switch(self, name: str | None) -> None:
        """Let one adapter act, or none."""
        if self._peft is None:
            return
        if name is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(name)
