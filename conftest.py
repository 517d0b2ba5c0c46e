"""What holds for all tests, those in the docstrings of `src` too."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import matplotlib
import pytest
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

matplotlib.use("agg")


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread() -> Iterator[None]:
    """Small matrices on many threads only wait for each other."""
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def _no_open_figures() -> Iterator[None]:
    """Figures stay open until they are closed, and matplotlib complains of twenty."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def _same_notes() -> Iterator[None]:
    """Refuse a level left behind: it would take the notes that another test reads."""
    logger = logging.getLogger("nextpert")
    before = logger.level, logger.propagate, logger.disabled, list(logger.handlers)
    yield
    after = logger.level, logger.propagate, logger.disabled, list(logger.handlers)
    assert after == before, "the test left nextpert's logger changed"
