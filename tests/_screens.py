"""Screens for tests: from values and labels, simulated, and fitted on a graph that is given."""

from __future__ import annotations

import warnings
from functools import cache

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.core import LinearScm
from nextpert.core.model.sampler import Chain

GENES = ("MYC", "STK3", "GATA1", "HLA-A", "OXR1", "RIPK2", "UBR5", "CPQ")
EDGES = ((0, 1), (0, 2), (1, 3), (2, 3), (3, 5), (4, 5), (4, 6))


def screen_of(x, perturbation, genes=None, *, layers=None, **columns) -> ad.AnnData:
    """Return cells of these values and perturbations; genes are g0, g1, ... unless named.

    Further columns of ``obs`` are given by keyword.
    """
    obs = pd.DataFrame({"perturbation": perturbation, **columns})
    obs.index = obs.index.astype(str)
    names = [f"g{i}" for i in range(x.shape[1])] if genes is None else list(genes)
    return ad.AnnData(x, obs, pd.DataFrame(index=names), layers=layers)


def with_graph(adata, dag=(), genes="all") -> ad.AnnData:
    """Write a graph into a screen, and return it: on all genes, those named, or (None) of edges."""
    if isinstance(genes, str):  # the panel of edges would be the genes that they join
        genes = list(adata.var_names) if isinstance(dag, list) and dag else None
    npt.tl.learn_dag(adata, method="given", dag=dag, genes=genes)
    return adata


def with_fit(adata, dag=(), genes="all", **options) -> ad.AnnData:
    """Write a graph and a fit with these options into a screen, and return it."""
    npt.tl.fit_dag_blr(with_graph(adata, dag, genes), **options)
    return adata


def diagnosis_of(adata, **roles) -> dict:
    """Declare roles of columns, fit and diagnose without a warning, and return the diagnosis."""
    if roles:
        npt.pp.setup_screen(adata, **roles)
    with warnings.catch_warnings(action="ignore"):
        npt.tl.fit_dag_blr(adata)
        npt.tl.diagnose(adata)
    return adata.uns["diagnosis"]


def edges_of(adata, key="dag") -> set[tuple[str, str]]:
    """Return the edges of the graph that is stored under ``key``, by name."""
    matrix = sp.coo_array(adata.varp[key])
    names = np.asarray(adata.var_names)
    assert (matrix.data == 1).all()
    return {(names[k], names[i]) for k, i in zip(*matrix.coords, strict=True)}


def new_copies(make):
    """Make a fixture of new copies of what is made once for the length of chain of a test."""
    made = cache(lambda chain: make())

    @pytest.fixture(name=make.__name__)
    def copied():
        return made(Chain.of_size(1)).copy()

    return copied


def true_graph(adata):
    """Return the graph from which a screen was simulated, rows = parents."""
    return adata.uns["truth"]["weights"].T


@cache
def truth() -> LinearScm:
    """Eight genes, seven edges; control means of 1 to 3 as in log-normalised expression."""
    rng = np.random.default_rng(11)
    weights = np.zeros((len(GENES), len(GENES)))
    for parent, child in EDGES:
        weights[child, parent] = rng.choice([-1, 1]) * rng.uniform(0.4, 0.8)
    mean = np.linspace(1, 3, len(GENES))
    return LinearScm(weights, np.linspace(0.1, 0.3, len(GENES)), mean - weights @ mean)


@cache
def _small_cells() -> ad.AnnData:
    rng = np.random.default_rng(5)
    mean = truth().mean()
    targets = {"control": [], "MYC": [0], "STK3": [1], "OXR1": [4], "MYC+OXR1": [0, 4]}
    cells, labels = [], []
    for label, nodes in targets.items():
        shift = np.zeros(len(GENES))
        shift[nodes] = -mean[nodes]
        n = 400 if label == "control" else 60
        cells.append(truth().sample(n, shift, rng=rng))
        labels += [label] * n
    # An enhancer that is no gene, and cells without a label.
    cells += [truth().sample(30, rng=rng), truth().sample(10, rng=rng)]
    labels += ["HS2"] * 30 + [np.nan] * 10
    batch = pd.Categorical(np.where(np.arange(len(labels)) % 2, "b", "a"))
    adata = screen_of(np.concatenate(cells), pd.Categorical(labels), GENES, batch=batch)
    adata = adata[rng.permutation(len(labels))].copy()
    adata.layers["lognorm"] = adata.X.copy()
    return adata


def small_cells() -> ad.AnnData:
    """Return a new screen of 400 controls and four knockouts of 60 cells."""
    return _small_cells().copy()


def small_edges() -> list[tuple[str, str]]:
    """Return the edges behind ``small_screen`` by name."""
    return [(GENES[k], GENES[i]) for k, i in EDGES]


@cache
def _small_fit(chain, genes, options) -> ad.AnnData:
    return with_fit(small_cells(), small_edges(), genes, **dict(options))


def small_fit(genes="all", **options) -> ad.AnnData:
    """Return ``small_screen`` fitted on its graph, a new copy of a fit that is made once."""
    return _small_fit(Chain.of_size(1), genes, tuple(options.items())).copy()


@cache
def _simulated_fit(chain, dag, simulation) -> ad.AnnData:
    adata = npt.datasets.simulated_screen(**dict(simulation))
    return with_fit(adata, true_graph(adata) if dag is None else dag)


def simulated_fit(dag=None, *, perturbed=None, **simulation) -> ad.AnnData:
    """Return a simulated screen fitted on its graph, or on the edges ``dag``.

    It is a new copy of a fit that is made once for the arguments and the length of the chain,
    which is the part of a fit that the marks of a test choose.
    """
    names = tuple(perturbed) if isinstance(perturbed, list) else perturbed
    given = {"perturbed": names, **simulation}
    key = None if dag is None else tuple(dag)
    return _simulated_fit(Chain.of_size(1), key, tuple(given.items())).copy()
