"""Entries given twice, masks and complex numbers: summed first, or refused."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.core import Moments
from tests._screens import screen_of

GENES = ["A", "B", "C"]
N = 90


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(3, (N, 3)).astype(np.float32)


def make(x):
    return screen_of(x, np.repeat(["control", "A"], [60, 30]), GENES)


def parts(x, form=sp.csr_matrix, small=0.0):
    """Every entry given twice, ``x - small`` and ``small``, or as halves."""
    one = form(x)
    first = one.data - small if small else one.data / 2
    return form(
        (
            np.column_stack([first, one.data - first]).ravel(),
            np.repeat(one.indices, 2),
            2 * one.indptr,
        ),
        one.shape,
    )


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("small", [0.0, 1.0])
@pytest.mark.parametrize("panel", [None, GENES])
def test_the_logarithm_is_that_of_the_sum(form, small, panel, counts):
    twice = parts(counts, form, small)
    before = twice.data.copy()
    adata = make(twice)
    options = {"panel": panel, "copy": True}
    found = npt.pp.perturbation_screen(adata, **options)
    wanted = npt.pp.perturbation_screen(make(form(counts)), **options)
    np.testing.assert_array_equal(found.X.toarray(), wanted.X.toarray())
    np.testing.assert_array_equal(found.layers["counts"].toarray(), counts)
    pd.testing.assert_frame_equal(found.var, wanted.var)
    assert adata.X.data.tobytes() == before.tobytes()


def test_guides_are_called_by_their_sum():
    umi = np.array([[6.0, 0], [0, 4], [2, 5]], dtype=np.float32)
    cells = pd.DataFrame(index=["a", "b", "c"])
    guides = ad.AnnData(parts(umi), cells, pd.DataFrame(index=["MYC_1", "JUN_1"]))
    found = npt.pp.assign_guides(ad.AnnData(obs=cells), guides=guides, copy=True)
    assert found.obs["perturbation"].tolist() == ["MYC", "unassigned", "JUN"]


def test_edges_that_cancel_are_none(counts):
    graph = sp.csr_array(([1.0, 1.0, 1.0, -1.0], [1, 1, 2, 2], [0, 2, 4, 4]), (3, 3))
    adata = make(counts)
    npt.tl.learn_dag(adata, method="given", dag=graph)
    assert adata.varp["dag"].toarray().tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


CALLS = {
    "learn": lambda a: npt.tl.learn_dag(a, method="boss"),
    "distances": lambda a: npt.tl.target_distances(a, "A"),
    "cpca": lambda a: npt.tl.cpca(a, alpha=1.0),
    "screen": npt.pp.perturbation_screen,
    "panel": lambda a: npt.pp.perturbation_screen(a, panel=GENES),
    "depth": lambda a: npt.pp.perturbation_screen(a, panel=GENES, depth_key="depth"),
    "shift": lambda a: npt.pl.expression_shift(a, show=False),
    "guides": lambda a: npt.pp.assign_guides(
        a, guides=a, targets=dict.fromkeys(a.var_names, "A"), copy=True
    ),
    "moments": lambda a: Moments.from_array(a.X),
}
BAD = {
    "masked": (lambda x: np.ma.masked_greater(x, 5), "masked array"),
    "complex": (lambda x: x + 1j, "complex numbers"),
    "sparse complex": (lambda x: sp.csr_matrix(x + 1j), "complex numbers"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bad", BAD)
def test_masks_and_complex_numbers_are_refused(bad, call, counts):
    change, message = BAD[bad]
    adata = make(change(counts))
    adata.obs["depth"] = 100.0
    with pytest.raises(ValueError, match=message):
        CALLS[call](adata)
