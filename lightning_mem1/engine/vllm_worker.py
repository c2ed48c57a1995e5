"""What vLLM's workers lack on a CPU; vLLM itself imports it (``--worker-extension-cls``), so it imports nothing.

vLLM's CPU kernels keep a packed copy of each weight. A reload replaces those of what it loads. A head that shares its
weights with the embedding is not loaded, so its copy stays that of the start (vLLM 0.32.0,
``model_executor/model_loader/reload/layerwise.py`` and ``model_executor/layers/utils.py``). On a GPU there is no copy.
"""

from __future__ import annotations

from typing import Any

EXTENSION = "lightning_mem1.engine.vllm_worker.TiedHead"
RENEW = "renew_tied_head"


class TiedHead:
    """A method that every worker gets."""

    model_runner: Any  # of the worker that this is mixed into

    def renew_tied_head(self) -> None:
        """Have heads act with the weights that they hold; after a reload."""
        for module in self.model_runner.get_model().modules():
            if type(module).__name__ == "ParallelLMHead":
                module.quant_method.process_weights_after_loading(module)
