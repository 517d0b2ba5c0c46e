"""Screens given as tables: effects with standard errors in place of cells (equation 25)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert.core import ScreenMoments
from nextpert.core._blas import in_blocks
from nextpert.core.screen.moments import covary
from nextpert.core.screen.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

KEY = "effect_table"  # in .uns; its presence marks a table
SAMPLES = "samples"  # source of a table computed from samples
SE = "se"  # layer of standard errors; infinite if nothing is known
CORRELATION = "correlation"  # in .varp: over cells or samples of the controls, if known
# If the error of the controls is not given, it is assumed to be this share of the smallest squared
# standard error of an effect. To be conservative, it is not subtracted from the effects' errors.
SHARED = 0.9
# The error of the controls is only part of a standard error. After its subtraction at least this
# share of the square remains, in case the two come from different estimates of the variance.
_LEAST_OWN = 0.05
# A variance counts for the scale of its gene up to this multiple of the gene's median: for genes
# that are hardly detected, count models give standard errors of any size.
_MAX_RELATIVE_VARIANCE = 4.0
# Of bulk RNA-seq with one clone of each knockout (MorPhiC), 90% intervals of distances covered 33%
# of those between other clones, and "none closer" was stated with 0.97 and held for 15% of targets.
_WITHOUT_REPLICATES = (
    "No perturbation has rows in two batches, so that variation between clones or replicates "
    "beyond the standard errors cannot be estimated and counts as 0: intervals and advice may be "
    "far too confident. Pass a row for each batch, or confirm what is advised in other clones."
)


class Rows(NamedTuple):
    """Rows of a table, including those of the controls (one per batch); arrays are ``(n_rows,)``.

    ``n`` is the number of cells, ``block`` the batch, and ``cells_known`` whether ``n`` was given.
    ``removed`` is the share of the squared standard error of the controls' mean that is subtracted
    from those of effects: 0 if this error is not given, but assumed to be large.
    """

    n: Index
    block: Index
    is_control: NDArray[np.bool_]
    cells_known: bool
    removed: float = 1.0


def is_table(adata: ad.AnnData) -> bool:
    """Whether an AnnData holds effects with standard errors, from ``pp.effect_table``."""
    return KEY in adata.uns


def of_samples(adata: ad.AnnData) -> bool:
    """Whether a table is computed from samples, so that its standard errors are over replicates."""
    return str(adata.uns[KEY].get("source", "")) == SAMPLES


def lacks_replicates(adata: ad.AnnData) -> bool:
    """Whether a table has one row per perturbation, and is not computed from samples or cells."""
    if str(adata.uns[KEY]["source"]) != "table":
        return False
    labels = adata.obs["perturbation"].astype(str)
    control = str(dict(adata.uns.get("screen", {})).get("control", "control"))
    return bool(labels[labels != control].is_unique)


def require_cells(adata: ad.AnnData, what: str) -> None:
    """Raise if an AnnData is a table: ``what`` needs cells."""
    if is_table(adata):
        message = f"{what} needs the cells of a screen, but this AnnData is a table of effects: "
        message += "pass an AnnData of cells."
        raise ValueError(message)


def not_told(adata: ad.AnnData) -> str:
    """Return a sentence on the information that a table lacks; empty if it lacks none."""
    words = {
        "cells_given": "numbers of cells (n_cells), so that those of plans are relative",
        "controls_given": "the standard error of the controls (n_controls, or control_se), which "
        "is therefore assumed to be large",
        "means_given": "the means of the controls (control_mean), so that all means are relative "
        "to them",
    }
    absent = [each for name, each in words.items() if not int(adata.uns[KEY][name])]
    sentences = [f"The table does not state {'; '.join(absent)}."] if absent else []
    if lacks_replicates(adata):
        sentences.append(_WITHOUT_REPLICATES)
    return " ".join(sentences)


def cells_of(adata: ad.AnnData) -> Index:
    """Return the number of cells that each row of a table represents."""
    if "n_cells" not in adata.obs or SE not in adata.layers:
        message = (
            "A table of effects needs obs['n_cells'] and layers['se'], but this AnnData lacks one "
            "of these: restore it, or create the table again with pp.effect_table."
        )
        raise ValueError(message)
    return adata.obs["n_cells"].to_numpy(np.int64)


def joined_records(one: ad.AnnData, other: ad.AnnData) -> dict[str, Any]:
    """Return the record of two joined tables; a property is known only if both tables state it."""
    records = dict(one.uns[KEY]), dict(other.uns[KEY])
    out = {"source": records[0]["source"]}
    out["n_missing"] = sum(int(record["n_missing"]) for record in records)
    names = ("cells_given", "controls_given", "means_given")
    return out | {name: min(int(record[name]) for record in records) for name in names}


def rows_of(adata: ad.AnnData) -> Rows:
    """Return the rows of a table, with its declared batches."""
    roles = adata.uns["screen"]
    labels = adata.obs[str(roles["perturbation_key"])].astype(str).to_numpy()
    block = np.zeros(adata.n_obs, np.int64)
    if len(keys := [str(key) for key in roles.get("batch_key", [])]):
        block = adata.obs.groupby(keys, observed=True).ngroup().to_numpy(np.int64)
    record = adata.uns[KEY]
    removed = 1.0 if int(record["controls_given"]) else 0.0
    cells_known = bool(record["cells_given"])
    is_control = labels == str(roles["control"])
    return Rows(cells_of(adata), block, is_control, cells_known, removed)


def own_variances(rows: Rows, variance: Array) -> Array:
    """Return squared standard errors of means without the controls' part, infinite if unknown.

    ``variance`` are the squared standard errors of effects, and in rows of controls those of the
    controls' mean; shape ``(n_rows, n_genes)``.
    """
    shared = np.zeros_like(variance)
    for row in np.flatnonzero(rows.is_control):
        perturbed_rows = (rows.block == rows.block[row]) & ~rows.is_control
        shared[perturbed_rows] = variance[row]
    shared *= rows.removed
    return np.maximum(variance - shared, _LEAST_OWN * variance)


def scales(rows: Rows, within: Array) -> Array:
    """Return the variance of every gene between cells, ``(n_genes,)``.

    ``within`` holds ``n s^2`` of every row, infinite if unknown. Rows are averaged with their
    degrees of freedom as weights, as if cells were pooled; outliers are limited to four times the
    median.
    """
    is_known = np.isfinite(within)
    middle = np.nanmedian(np.where(is_known, within, np.nan), axis=0)
    weight = np.where(is_known, (rows.n - 1.0)[:, None], 0.0)
    limited = np.minimum(np.where(is_known, within, 0.0), _MAX_RELATIVE_VARIANCE * middle)
    return np.asarray((weight * limited).sum(axis=0) / weight.sum(axis=0))


def table_moments(
    rows: Rows, mean: Array, se: Array, used: NDArray[np.bool_]
) -> tuple[ScreenMoments, Array]:
    r"""Return the moments of a table, one environment per row, and the variance of every gene.

    A mean counts as :math:`n_{jg} = \sigma_g^2 / s_{jg}^2` cells (equation 25). The scatter is 0;
    the caller provides it. Variances are learned from the rows that are ``used``, or from all rows
    if these have no value for a gene.
    """
    n, p = mean.shape
    sigma2 = np.zeros(p)
    counted = np.empty_like(mean)
    squares = np.empty_like(mean)
    freedom = (rows.n - 1.0)[:, None]
    for genes in in_blocks(p, n):  # each by itself
        variance = own_variances(rows, se[:, genes].astype(np.float64) ** 2)
        within = rows.n[:, None] * variance
        is_known = np.isfinite(within)
        counting = used[:, None] | ~(is_known & used[:, None]).any(axis=0)
        scale = sigma2[genes] = scales(rows, np.where(counting, within, np.inf))
        counted[:, genes] = scale / variance  # 0 where nothing is known
        squares[:, genes] = freedom * np.where(
            is_known, np.minimum(within, _MAX_RELATIVE_VARIANCE * scale), scale
        )
    # The variance between cells of a perturbation is unknown.
    if not rows.cells_known:
        squares[~rows.is_control] = 0.0
    return ScreenMoments(rows.n, mean, squares, np.broadcast_to(0.0, (p, p)), counted), sigma2


def correlation_of(adata: ad.AnnData, columns: Index) -> Array | None:
    """Return the correlation of some genes in a table, ``None`` if the table has none."""
    if CORRELATION not in adata.varp:
        return None
    correlation = adata.varp[CORRELATION]
    return np.asarray(np.asarray(correlation)[np.ix_(columns, columns)], np.float64)


def shrunk_correlation(covariance: Array, freedom: float) -> Array:
    r"""Return correlations, ``(n_genes, n_genes)``, shrunk more towards 0 for fewer samples.

    They are reduced by the fraction :math:`\sum (1 - r^2)^2 / (f \sum r^2)`, with ``f`` degrees of
    freedom, which approximately minimises the mean squared error (Schäfer and Strimmer 2005,
    doi:10.2202/1544-6115.1175).

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert._adata.table import shrunk_correlation
    >>> shrunk_correlation(np.array([[4.0, 1.0], [1.0, 1.0]]), 30.0).round(2).tolist()
    [[1.0, 0.46], [0.46, 1.0]]
    """
    variance = covariance.diagonal()
    sd = np.sqrt(np.where(variance > 0, variance, 1.0))
    r = np.clip(covariance / np.outer(sd, sd), -1.0, 1.0)
    np.fill_diagonal(r, 0.0)
    error = ((1.0 - r**2) ** 2).sum() - len(r)
    r *= 1.0 - min(error / max(freedom, 1.0) / max(float((r**2).sum()), 1e-300), 1.0)
    np.fill_diagonal(r, 1.0)
    return r


def in_halves(moments: ScreenMoments, rng: np.random.Generator) -> list[ScreenMoments]:
    r"""Split a table into two, which are independent if its standard errors are right.

    A mean :math:`m`, normal with variance :math:`v`, becomes :math:`m \pm \sqrt v\,z` with
    :math:`z` standard normal: both have the expectation of :math:`m`, variance :math:`2v`, and no
    covariance (Leiner et al. 2023, doi:10.1080/01621459.2023.2270748). The mean of the controls is
    split in the same way, so that the effects of a half share its error, as in the table. If the
    correlation between genes is known, ``z`` has the same correlation, so that the halves are
    independent for all genes jointly. ``rng`` draws ``z``.
    """
    counted = np.asarray(moments.counted)
    j = moments.n_environments
    freedom = max(int(moments.n.sum()) - j, 1)
    variance = np.where(counted > 0, moments.scatter.diagonal() / freedom, 0.0)
    chance = rng.normal(size=counted.shape)
    scatter = moments.scatter
    if covary(scatter):
        root = np.linalg.cholesky(shrunk_correlation(scatter, np.inf) + 1e-9 * np.eye(len(scatter)))
        chance = chance @ root.T
    noise = np.sqrt(variance / np.where(counted > 0, counted, 1.0)) * chance
    parts = []
    for part, n in ((noise, moments.n - moments.n // 2), (-noise, moments.n // 2)):
        cells = np.maximum(n, 2)  # with fewer, the variances would count as unknown
        fraction = (cells - 1) / np.maximum(moments.n - 1, 1)
        squares = moments.squares * fraction[:, None]
        within = scatter * ((int(cells.sum()) - j) / freedom)
        parts.append(ScreenMoments(cells, moments.mean + part, squares, within, counted / 2.0))
    return parts


def as_screen(
    moments: ScreenMoments,
    sigma2: Array,
    codes: Index,
    fold: Index,
    columns: Mapping[str, Index],
    correlation: Array | None = None,
) -> Screen:
    """Return the environments of a coding, in the form in which they are read from cells.

    ``moments`` and ``sigma2`` come from :func:`table_moments`; ``codes`` is the environment of
    every row, -1 for none, and ``correlation`` the correlation between genes, if known.
    """
    covariance = np.diag(sigma2)
    if correlation is not None:
        covariance = correlation * np.sqrt(np.outer(sigma2, sigma2))
    in_use = np.flatnonzero(codes >= 0)
    one = moments.some(in_use).pool(codes[in_use], len(fold))
    scatter = {}
    for k in np.unique(fold).tolist():
        n = one.n[fold == k]
        scatter[k] = covariance * max(int(n.sum()) - len(n), 0)
    return Screen(columns, fold, one.n, one.mean, one.squares, scatter, one.counted)
