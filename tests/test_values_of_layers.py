"""Counts where log-normalised expression belongs, and layers that differ, are told."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import nextpert as npt
from tests._screens import screen_of, with_fit

pytestmark = pytest.mark.formats

GENES = ["A", "B", "C"]


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    x = rng.poisson(4, (300, 3)).astype(np.float32)
    adata = screen_of(x, np.repeat(["control", "A", "B"], [200, 50, 50]), GENES)
    adata.layers["log"] = np.log1p(x)
    return adata


@pytest.mark.parametrize("learned", [None, "log"])
def test_another_layer_than_the_graphs(learned, counts):
    counts.X = np.log1p(counts.X) + 0.1
    npt.pp.setup_screen(counts, layer=learned)
    npt.tl.learn_dag(counts, method="boss")
    counts.varp["dag"] = sp.csr_matrix(np.eye(3, k=1))
    read = "log" if learned is None else None
    names = {None: r"adata\.X", "log": r"adata\.layers\['log'\]"}
    message = rf"learned on {names[learned]}, but this call reads {names[read]}"
    with warnings.catch_warnings(action="error", category=UserWarning):
        npt.tl.fit_dag_blr(counts)
    npt.pp.setup_screen(counts, layer=read)
    with pytest.warns(UserWarning, match=message):
        npt.tl.fit_dag_blr(counts)
    with warnings.catch_warnings(action="error", category=UserWarning):
        with_fit(counts, [("A", "B"), ("B", "C")], genes=None)
