"""``tl.learn_dag(n_bootstraps=...)``: frequencies of arcs in resampled control cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.core import Moments, bootstrap_dag, boss


def control_cells(adata):
    return adata.X[(adata.obs["perturbation"] == "control").to_numpy()]


def test_frequencies_are_those_of_the_control_cells(small_screen):
    cells, panel = control_cells(small_screen), ["RIPK2", "MYC", "HLA-A", "STK3"]
    columns = [list(small_screen.var_names).index(gene) for gene in panel]
    generator = np.random.default_rng(3)
    boss(Moments.from_array(cells[:, columns]), n_starts=2, rng=generator)  # the graph itself
    wanted = bootstrap_dag(
        cells[:, columns],
        lambda moments, rng: boss(moments, n_starts=2, rng=rng).dag,
        n_bootstraps=25,
        rng=generator,
    ).toarray()
    small_screen.X[(small_screen.obs["perturbation"] != "control").to_numpy()] = np.nan
    options = {"genes": panel, "method": "boss", "n_runs": 2, "rng": 3}
    npt.tl.learn_dag(small_screen, **options, key_added="alone")
    npt.tl.learn_dag(small_screen, **options, n_bootstraps=25)
    assert (small_screen.varp["dag"] != small_screen.varp["alone"]).nnz == 0
    found = small_screen.varp["dag_frequency"].toarray()
    assert np.array_equal(found[np.ix_(columns, columns)], wanted)
    assert found.sum() == wanted.sum()  # nothing outside the panel
    assert ((wanted > 0) & (wanted < 1)).any()
    assert small_screen.uns["dag"]["frequency_key"] == "dag_frequency"
    assert small_screen.uns["dag"]["params"]["n_bootstraps"] == 25
    assert "alone_frequency" not in small_screen.varp


@pytest.mark.parametrize("kind", ["csr", "csc", "view", "backed", "zarr"])
def test_frequencies_are_the_same_however_cells_are_stored(kind, small_screen, tmp_path):
    options = {"method": "boss", "n_runs": 1, "n_bootstraps": 15, "key_added": "g"}
    npt.tl.learn_dag(small_screen, **options)
    other = small_screen.copy()
    if kind == "view":  # the same cells in the same order, out of a matrix in another order
        mixed = np.random.default_rng(0).permutation(other.n_obs)
        other = other[mixed].copy()[np.argsort(mixed)]
    elif kind in ("backed", "zarr"):
        other.X = sp.csr_matrix(other.X)
        getattr(other, "write_h5ad" if kind == "backed" else "write_zarr")(tmp_path / "cells")
        read = {"backed": lambda path: ad.read_h5ad(path, backed="r"), "zarr": ad.read_zarr}[kind]
        other = read(tmp_path / "cells")
        assert np.array_equal(  # what was written survives
            other.varp["g_frequency"].toarray(), small_screen.varp["g_frequency"].toarray()
        )
        assert other.varp["g_frequency"].format == "csr"
        assert other.uns["g"]["frequency_key"] == "g_frequency"
    else:
        other.X = getattr(sp, f"{kind}_matrix")(other.X)
    npt.tl.learn_dag(other, **options)
    first, again = (a.varp["g_frequency"].toarray() for a in (small_screen, other))
    assert ((first > 0) & (first < 1)).any()
    assert np.array_equal(first, again)


def test_strong_arcs_are_frequent_and_absent_ones_rare(truth, small_screen, graph):
    obs = pd.DataFrame({"perturbation": ["control"] * 5000}, index=np.arange(5000).astype(str))
    many_controls = ad.AnnData(truth.sample(5000, rng=3), obs, small_screen.var)
    npt.tl.learn_dag(many_controls, n_runs=10, n_bootstraps=40)
    found = many_controls.varp["dag_frequency"].toarray()
    names = list(many_controls.var_names)
    joined = graph.to_matrix().toarray() + graph.to_matrix().toarray().T > 0
    assert (found + found.T)[joined].min() >= 0.95
    assert (found + found.T)[~joined].max() <= 0.4
    assert (found + found.T)[~joined].mean() <= 0.1
    for parent in ("STK3", "GATA1"):  # the collider
        assert found[names.index(parent), names.index("HLA-A")] >= 0.9


def test_frequencies_go_with_the_graph_they_are_of(small_screen, assert_same_adata):
    options = {"method": "boss", "n_runs": 1}
    npt.tl.learn_dag(small_screen, **options, n_bootstraps=2)
    before = small_screen.copy()
    written = npt.tl.learn_dag(small_screen, **options, copy=True)
    assert_same_adata(small_screen, before)
    assert set(written.varp) == {"dag"}
    assert "frequency_key" not in written.uns["dag"]
    small_screen.varp["other_frequency"] = np.ones((8, 8))  # not ours
    npt.tl.learn_dag(small_screen, method="given", dag=[("MYC", "STK3")])
    npt.tl.learn_dag(small_screen, **options, key_added="other")
    assert set(small_screen.varp) == {"dag", "other", "other_frequency"}


def test_same_for_any_number_of_workers(small_screen):
    for method in ("boss", "gsp"):
        found = []
        for n_jobs in (1, 2):
            npt.tl.learn_dag(small_screen, method=method, n_runs=4, n_jobs=n_jobs, n_bootstraps=6)
            found.append([small_screen.varp[key].toarray() for key in ("dag", "dag_frequency")])
        assert np.array_equal(found[0], found[1])


def test_genes_lost_in_a_resample_are_named(small_screen, assert_same_adata):
    controls = np.flatnonzero(small_screen.obs["perturbation"] == "control")
    small_screen.X[controls, 6] = 0
    small_screen.X[controls[9], 6] = 1
    before = small_screen.copy()
    with pytest.raises(ValueError, match=r"in a resample.*: UBR5\. .* n_bootstraps=0"):
        npt.tl.learn_dag(small_screen, n_runs=2, n_bootstraps=20)
    assert_same_adata(small_screen, before)
    few = small_screen[controls[:11], :6].copy()
    with pytest.raises(ValueError, match=r"resample of the control cells|too few"):
        npt.tl.learn_dag(few, n_runs=2, n_bootstraps=200)
    assert not few.uns
    assert not few.varp
