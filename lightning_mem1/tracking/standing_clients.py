"""What takes the place of MLflow's client while a store is being made, or cannot be used."""

from __future__ import annotations

from typing import Any

from lightning_mem1.io.redaction import reason
from lightning_mem1.tracking.store import StoreUnavailable


class LaterClient:
    """Stands for the client while the store is being made: what is called first waits for it."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._logger.is_open()
        return getattr(self._logger.experiment, name)


class ClosedClient:
    """Stands for the client of a store that cannot be used."""

    def __init__(self, problem: Exception | None) -> None:
        self._problem = problem

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise StoreUnavailable(reason(self._problem or StoreUnavailable("the store cannot be used")))
