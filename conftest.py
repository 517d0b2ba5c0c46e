"""What holds for all tests, those in the docstrings of `src` too."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import pytest
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

matplotlib.use("agg")
REAL = ">>> adata = npt.datasets.schraivogel_2020()"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile before the workers of a parallel run start: two would compile the same kernels.

    All processes of the tests, also those that tests start, find the compiled code on disk, beside
    the sources or in ``NUMBA_CACHE_DIR``.
    """
    if not getattr(session.config.option, "numprocesses", None):
        return
    import nextpert as npt
    from nextpert.core.model.sampler import Chain

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(Chain, "of_size", lambda size: Chain(5, 5, 1))
        adata = npt.datasets.simulated_screen(
            n_genes=8, n_control=100, n_perturbed=20, perturbed=4, rng=0
        )
        target = str(adata.obs["perturbation"].unique()[1])
        few = {"n_runs": 2}
        npt.tl.learn_dag(adata, search_options=few)
        npt.tl.learn_dag(adata, method="boss", environments="all", search_options=few, n_graphs=2)
        for shift_sd, name in ((0, "civ"), ("learned", "remaining_variance")):
            npt.tl.fit_dag_blr(adata, shift_sd=shift_sd)
            npt.tl.design_interventions(adata, target, acquisition=name, n_samples=20)
        npt.tl.plan_screen(adata, target, strategy="both")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the examples in docstrings that read the real screen: no part of the core set."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and REAL in item.dtest.docstring:
            item.add_marker("docs")
            item.add_marker("screen")


@pytest.fixture(scope="session")
def screen_path() -> Path:
    """Return the folder of the real screens: NEXTPERT_DATA, or ../shared/data by the repository."""
    beside = Path(__file__).parents[1] / "shared" / "data"
    folder = Path(os.environ.get("NEXTPERT_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the real screens are not here: set NEXTPERT_DATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def _real_screen(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let examples in docstrings read the real screen from its folder, without a download."""
    with pytest.MonkeyPatch.context() as patch:
        item = request.node
        if isinstance(item, pytest.DoctestItem) and item.get_closest_marker("screen"):
            from nextpert import datasets

            folder = request.getfixturevalue("screen_path") / "schraivogel_tapseq"
            if not folder.is_dir():
                pytest.skip("the TAP-seq screen is not in the folder of the real screens")
            load = partial(datasets.schraivogel_2020, folder)
            patch.setattr(datasets, "schraivogel_2020", load)
        yield


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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the numbers of tests/test_stored_numbers.py anew."""
    parser.addoption("--write-numbers", action="store_true", help="store the numbers of pipelines")
