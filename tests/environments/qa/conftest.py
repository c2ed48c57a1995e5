"""A small world, shared by the tests of questions."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def world() -> Any:
    from lightning_mem1.environments.qa.encyclopedia.world import Encyclopedia

    return Encyclopedia(seed=3, num_passages=600)


@pytest.fixture(scope="session")
def library(world: Any) -> Any:
    from lightning_mem1.environments.qa.retrieval.bm25 import BM25

    return BM25(world.passages)
