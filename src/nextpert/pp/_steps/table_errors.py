"""What a table of effects tells of errors: of the controls, and how those of genes go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

from nextpert._adata.sources import real_values
from nextpert._adata.table import (
    SHARED,
    Rows,
    own_variances,
    scales,
    shrunk_correlation,
)
from nextpert.core._checks import list_names, require_small

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Where numbers of cells are not given they are no more than a scale: an effect of 10 standard
# errors is one standard deviation of a gene, about as in screens of 100 cells per perturbation.
_CELLS = 100
# Control cells or samples that tell a correlation. Of effects called on 100 correlated genes, 15 of
# 918 were false with 20 (1.8 stated, 8 allowed), and 1 of 939 with 50 (1.6 stated, 7 allowed).
FEWEST = 50
_LEAST_ERROR = 1e-9  # of the table's median standard error: beside it, matrices are singular


def known_entries(
    effects: Array, errors: Array, labels: Sequence[str], genes: Sequence[str]
) -> NDArray[np.bool_]:
    """Return which entries say something, ``(n_perturbations, n_genes)``, or raise."""
    known = ~np.isnan(effects) & ~np.isnan(errors) & (errors < np.inf)
    with np.errstate(invalid="ignore"):
        wrong = known & ~(errors > 0)
        least = _LEAST_ERROR * np.median(errors[known]) if known.any() else 0.0
    for bad, what in (
        (wrong, "Standard errors must be above 0, but are not for"),
        (known & (errors < least), "Standard errors are below a billionth of their median for"),
        (np.isinf(effects), "Effects are infinite for"),
    ):
        if bad.any():
            pairs = zip(*np.nonzero(bad), strict=True)
            shown = list_names(f"{labels[j]} on {genes[i]}" for j, i in pairs)
            message = f"{what} {shown}: make them NaN if nothing is known."
            raise ValueError(message)
    for names, axis, what in ((genes, 0, "genes"), (labels, 1, "perturbations")):
        empty = [names[int(k)] for k in np.flatnonzero(~known.any(axis=axis))]
        if empty:
            message = (
                f"No effect with a standard error is known of the {what} {list_names(empty)}: "
                f"leave them out."
            )
            raise ValueError(message)
    require_small(effects[known], "Effects")
    require_small(errors[known], "Standard errors")
    return known


def read_correlation(given: ad.AnnData | pd.DataFrame | None, genes: Sequence[str]) -> Array | None:
    """Return the correlation of genes, shape ``(n_genes, n_genes)``, ``None`` if none is given.

    Parameters
    ----------
    given
        A table of genes x genes; or cells or samples of the controls x genes, whose correlations
        are shrunk as their number calls for.
    genes
        The genes, in their order.

    Raises
    ------
    ValueError
        If a gene is absent, correlations are none, or samples are too few.
    """
    if given is None:
        return None
    table = given.to_df() if isinstance(given, ad.AnnData) else given
    table = table.set_axis(table.columns.astype(str), axis=1)
    absent = sorted(set(genes) - set(table.columns))
    if absent or table.columns.has_duplicates:
        message = (
            f"correlation has no column, or several, for {list_names(absent or table.columns)}: "
            f"give every gene of the table once."
        )
        raise ValueError(message)
    table = table[list(genes)]
    labels = table.index.astype(str)
    if set(genes) <= set(labels):
        rows = labels.get_indexer_for(pd.Index(genes))
        matrix = real_values(table.iloc[rows], "correlation")
        if (
            matrix.shape != (len(genes), len(genes))
            or not np.allclose(matrix, matrix.T, atol=1e-6)  # nor NaN
            or not np.allclose(matrix.diagonal(), 1.0)
            or np.linalg.eigvalsh(matrix)[0] < -1e-6
        ):
            message = (
                "correlation must have each gene once, be symmetric, with a diagonal of 1 and no "
                "negative eigenvalue: give that of samples without missing values, or these "
                "samples."
            )
            raise ValueError(message)
        return matrix
    values = real_values(table, "correlation")
    if len(values) < FEWEST or not np.isfinite(values).all():
        message = (
            f"correlation must have {FEWEST} rows of finite values or more, of control cells or "
            f"samples, but has {len(values)}: leave it out, or give more."
        )
        raise ValueError(message)
    centred = values - values.mean(axis=0)
    return shrunk_correlation(centred.T @ centred, len(values) - 1.0)


def batch_factor(effects: Array, errors: Array, labels: Sequence[str]) -> float:
    """Return by how much the rows of a perturbation in several batches exceed their errors.

    With weights of one over the squared standard errors, the root of the mean squared deviation of
    rows from their perturbation's mean, over its expectation; 1 if that is less, or without such
    rows. Standard errors within a batch do not include differences between clones and batches.

    Parameters
    ----------
    effects, errors
        Effects and their standard errors, NaN if unknown, ``(n_rows, n_genes)``.
    labels
        Perturbation of every row.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.pp._steps.table_errors import batch_factor
    >>> round(batch_factor(np.array([[0.0], [4.0], [9.0]]), np.ones((3, 1)), ["A", "A", "B"]), 2)
    2.83
    """
    names, code, count = np.unique(labels, return_inverse=True, return_counts=True)
    total = freedom = 0.0
    for k in range(len(names)):
        if count[k] > 1:
            y, weight = effects[code == k], 1.0 / errors[code == k] ** 2
            known = np.isfinite(y) & np.isfinite(weight)
            y, weight = np.where(known, y, 0.0), np.where(known, weight, 0.0)
            middle = (weight * y).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
            total += float((weight * (y - middle) ** 2).sum())
            freedom += float(np.maximum(known.sum(axis=0) - 1, 0).sum())
    return max(float(np.sqrt(total / freedom)), 1.0) if freedom else 1.0


def controls_of(
    variance: Array,
    block: NDArray[np.int64],
    cells: NDArray[np.int64] | None,
    controls: NDArray[np.int64] | None,
    error: Array | None,
) -> tuple[Rows, Array]:
    """Return the rows of a table, controls first, and the variance of the controls' means.

    Parameters
    ----------
    variance
        Squared standard errors of effects, infinite if unknown, ``(n_perturbations, n_genes)``.
    block
        Batch of every perturbation.
    cells, controls
        Cells of perturbations, and controls of batches, if told.
    error
        Standard errors of the controls' means, ``(n_genes,)``, if told. Without either they are
        assumed to be large.
    """
    n = np.full(len(variance), _CELLS) if cells is None else cells
    n_batches, removed = int(block.max()) + 1, 1.0
    of_perturbations = Rows(n, block, np.zeros(len(n), bool), cells is not None)
    if error is not None:
        of_controls = np.tile(error**2, (n_batches, 1))
    elif controls is not None:
        both = 1.0 / n + 1.0 / controls[block]
        of_controls = scales(of_perturbations, variance / both[:, None]) / controls[:, None]
    else:
        least = np.full((n_batches, variance.shape[1]), np.inf)
        np.minimum.at(least, block, variance)
        of_controls = SHARED * np.where(np.isfinite(least), least, least.min(axis=0))
        removed = 0.0
    of_all = np.append(np.arange(n_batches), block)
    is_control = np.arange(len(of_all)) < n_batches
    first = np.ones(n_batches, np.int64) if controls is None else controls
    rows = Rows(np.append(first, n), of_all, is_control, cells is not None, removed)
    if controls is None:  # as many as have that error
        own = own_variances(rows, np.vstack([of_controls, variance]))[n_batches:]
        few = scales(of_perturbations, n[:, None] * own) / of_controls
        rows.n[:n_batches] = np.maximum(np.round(np.median(few, axis=1)), 2)
    return rows, of_controls
