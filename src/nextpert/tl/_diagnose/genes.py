"""Gene by gene: how well its parents predict it, and what its residuals look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata
from nextpert.core.cells.moments import Moments
from nextpert.core.graph.matched_random_dag import matched_random_dag
from nextpert.core.predict.parent_fit import parent_fit

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert.core import Dag, DagBlr, ScreenMoments

    Array = NDArray[np.float64]


def parents_against_random(
    dag: Dag,
    control: Moments,
    perturbed: ScreenMoments,
    *,
    n_random: int,
    rng: np.random.Generator,
) -> Array:
    """Return r of every gene with its prediction from its parents, shape ``(1 + n_random, p)``.

    First row: the graph; the others: random graphs with the same numbers of parents. Regressed in
    control cells, correlated within the perturbed ones. NaN for genes without parents.
    """
    graphs = [dag, *(matched_random_dag(dag.in_degree, rng=rng) for _ in range(n_random))]
    # Only the scatter counts, so that cells of all perturbations are one fold about their means.
    within = Moments(int(perturbed.n.sum()), control.mean, perturbed.scatter)
    r = np.full((len(graphs), dag.n_nodes), np.nan)
    for i in np.flatnonzero(dag.in_degree).tolist():
        r[:, i] = parent_fit([control], [within], i, [graph.parents(i) for graph in graphs])
    return r


def residual_shape(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    cells: NDArray[np.int64],
    blr: DagBlr,
    layer: str | None,
    batches: _adata.Batches | None = None,
) -> tuple[Array, Array]:
    """Return the skewness of every gene's residuals and its share of zeros, in one pass."""
    sums = np.zeros((3, len(columns)))
    zeros = np.zeros(len(columns))
    weights, intercept = blr.mean().T, blr.intercept_mean
    for here, values in _adata.read_blocks(adata, columns, cells, layer=layer):
        fitted = values @ weights if sp.issparse(values) else (weights.T @ values.T).T
        x, predicted = _dense(values), _dense(fitted)
        residual = x - predicted - intercept
        if batches is not None:
            added = batches.of_cells(here)
            residual -= added - added @ weights
        zeros += (x == 0).sum(axis=0)
        for power in range(3):
            sums[power] += (residual ** (power + 1)).sum(axis=0)
    n = len(cells)
    mean, square, cube = sums / n
    # Residuals are centred up to rounding and the perturbed cells' pull: no digits are lost.
    variance = square - mean**2
    third = cube - 3 * mean * square + 2 * mean**3
    return third / np.maximum(variance, np.finfo(float).tiny) ** 1.5, zeros / n


def _dense(values: Any) -> Array:
    return values.toarray() if sp.issparse(values) else np.asarray(values)


def gene_table(
    genes: list[str], dag: Dag, r: Array, skewness: Array, zeros: Array, control_mean: Array
) -> pd.DataFrame:
    """Return one row a gene."""
    random = r[1:]
    return pd.DataFrame(
        {
            "gene": _adata.strings(genes),
            "control_mean": control_mean,
            "n_parents": dag.in_degree.astype(np.int64),
            "r_parents": r[0],
            "r_random_mean": random.mean(axis=0),
            "r_random_sd": random.std(axis=0, ddof=1),
            "residual_skewness": skewness,
            "share_of_zeros": zeros,
        },
        index=pd.Index(np.arange(len(genes))),
    )
