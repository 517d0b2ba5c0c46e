"""A screen in a file, as the command reads it, and the same after the first steps."""

from __future__ import annotations

import shutil

import pytest

import nextpert as npt
from tests._screens import small_cells


@pytest.fixture
def screen(small_screen, tmp_path):
    """The small screen in a file, labels as in an h5ad from elsewhere."""
    path = tmp_path / "screen.h5ad"
    small_screen.write_h5ad(path)
    return path


@pytest.fixture(scope="session")
def _fitted(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "screen.fit.h5ad"
    adata = small_cells()
    options = {
        "method": "boss",
        "environments": "all",
        "search_options": {"n_runs": 2},
        "n_graphs": 2,
    }
    npt.tl.learn_dag(adata, **options)
    npt.tl.fit_dag_blr(adata)
    adata.strings_to_categoricals()
    adata.write_h5ad(path)
    return path


@pytest.fixture
def fitted(_fitted, tmp_path):
    """The small screen with a graph and a posterior, in a file."""
    return shutil.copy(_fitted, tmp_path / "screen.fit.h5ad")
