"""Functions read cells from the kinds of arrays that the documentation says, all to one result."""

from __future__ import annotations

from collections.abc import Mapping

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import array_types
import nextpert as npt

pytestmark = [pytest.mark.docs, pytest.mark.formats, pytest.mark.brief_chain]

KNOCKED_OUT = ["B2M", "CCR10", "CD58", "CD59"]
TARGET = "CCR10"
OPTIONS = {
    "pp.assign_guides": {"guides": "guides", "control_guides": ["ONE_NON-GENE_SITE_1"]},
    "pp.perturb_cite_seq": {"min_cells": 5, "max_guides": 1},
    "tl.dag_fit": {"n_random": 3},
    "tl.design_interventions": {"target": TARGET},
    "tl.plan_screen": {"target": TARGET, "n_perturbations": 2, "n_cells": 40},
    "tl.replay_design": {
        "targets": [TARGET], "strategies": ["random"], "n_rounds": 1,
        "n_perturbations": 1, "n_repeats": 2,
    },
    "tl.target_distances": {"target": TARGET},
}  # fmt: skip
ORDER = (
    "learn_dag", "fit_dag_blr", "perturbation_effects", "diagnose", "dag_fit", "cpca",
    "target_distances", "design_interventions", "plan_cells", "plan_screen", "replay_design",
)  # fmt: skip


def run(name, adata, **more):
    sub, function = name.split(".")
    plot = {"show": False} if sub == "pl" else {}
    result = getattr(getattr(npt, sub), function)(adata, **OPTIONS.get(name, {}), **plot, **more)
    plt.close("all")
    return result if isinstance(result, ad.AnnData) else adata


@pytest.fixture(scope="module")
def screen():
    """Five genes, with every result there is."""
    adata = npt.datasets.simulated_screen(
        n_genes=5, n_control=120, n_perturbed=25, perturbed=KNOCKED_OUT
    )
    adata.X = np.maximum(adata.X, 0)
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["guides"] = pd.Categorical(labels.replace("control", "ONE_NON-GENE_SITE") + "_1")
    adata.obs["condition"] = pd.Categorical(["Control"] * adata.n_obs)
    for name in ORDER:
        run(f"tl.{name}", adata)
    return adata


def dask(x):
    return pytest.importorskip("dask.array").from_array(x, chunks=(50, -1))


KINDS = {"CSR": sp.csr_matrix, "CSC": sp.csc_matrix, "Dask": dask}


@pytest.fixture(scope="module")
def of_kind(screen, tmp_path_factory):
    """Return the screen with its cells as a kind of array."""
    path = tmp_path_factory.mktemp("kinds") / "screen.h5ad"
    screen.write_h5ad(path)

    def make(kind):
        if kind == "backed":
            return ad.read_h5ad(path, backed="r")
        made = screen.copy()
        made.X = KINDS[kind](screen.X) if kind in KINDS else screen.X
        return made

    return make


def compare(one, two, where=""):
    """Numbers agree to rounding, all else exactly."""
    if isinstance(one, Mapping):
        assert sorted(one) == sorted(two), where
        for key in one:
            compare(one[key], two[key], f"{where}/{key}")
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, two, rtol=1e-5, atol=1e-9)
    elif (isinstance(one, np.ndarray) and one.dtype.kind == "f") or isinstance(one, float):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-9, equal_nan=True)
    elif isinstance(one, np.ndarray):
        assert one.tolist() == two.tolist(), where


def results(adata):
    """What functions wrote, but not the digest of the cells, which sees their kind."""
    kept = {key: dict(adata.uns[key]) for key in adata.uns if key != "truth"}
    for stored in kept.values():
        stored.pop("cells", None)
    return {**kept, "obs": adata.obs, "var": adata.var}


READING = [name for name in array_types.FUNCTIONS if name not in array_types.NO_CELLS]


@pytest.fixture(scope="module", params=READING)
def from_dense(request, of_kind):
    """A function, and what it makes of dense cells."""
    return request.param, results(run(request.param, of_kind("dense")))


@pytest.mark.parametrize("kind", [kind for kind in array_types.TYPES if kind != "dense"])
def test_the_table_holds(from_dense, kind, of_kind):
    name, wanted = from_dense
    cells = of_kind(kind)
    said = dict(zip(array_types.TYPES, array_types.row(name), strict=True))[kind]
    if said == "yes, copied":
        with pytest.raises(ValueError, match="copy=True"):
            run(name, cells)
    found = run(name, cells, **({"copy": True} if said == "yes, copied" else {}))
    compare(wanted, results(found))


@pytest.mark.parametrize("name", sorted(array_types.NO_CELLS))
def test_no_cells_are_read(name, screen):
    adata = screen.copy()
    adata.X = None
    run(name, adata)


@pytest.mark.parametrize("name", READING)
def test_cells_are_read(name, screen):
    adata = screen.copy()
    adata.X = None
    with pytest.raises(ValueError, match="X is empty"):
        run(name, adata)
