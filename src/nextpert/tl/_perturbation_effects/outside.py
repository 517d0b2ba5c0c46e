"""Effects on genes outside the panel: the same shrinkage, without a graph."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert import _adata
from nextpert._adata.shifts import own_shift
from nextpert.core.cells.pool_guides import PooledGuides
from nextpert.core.effects.effects import Effects, fit_without_graph, perturbation_effects
from nextpert.core.effects.shift_prior import ShiftPrior
from nextpert.tl._fit_dag_blr.cells import fit_environments, read_cells
from nextpert.tl._perturbation_effects.candidates import Wanted, as_uncertain

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior

    Array = NDArray[np.float64]

# Below this share of its standard deviation a control mean says nothing of a knockout's size.
_ABOUT_NOTHING = 0.1
_AT_ONCE = 500  # genes; their scatter, of which the diagonal alone is used, is quadratic in them


def outside_tables(
    adata: ad.AnnData,
    genes: Sequence[str],
    columns: NDArray[np.int64],
    fit: FittedPosterior,
    wanted: Wanted,
    *,
    level: float,
) -> dict[str, Array]:
    """Return the tables of genes that the panel does not hold, (n_perturbations, n_genes).

    A perturbation of one of them is expected to change it by the efficacy of the screen. What of
    an effect is direct cannot be told without a graph: nan.
    """
    names = [str(name) for name in fit.environments["perturbation"]]
    pooled = _read(adata, columns, fit, names, fit.guide_variance or 0.0)
    shape = (len(wanted.names), len(genes))
    tables = {name: np.zeros(shape) for name in (*Effects.__dataclass_fields__, "cells_mean")}
    tables["lfsr"][:], tables["direct"][:] = 1.0, np.nan
    varies = np.flatnonzero(pooled.scatter[0] > 0)
    if len(varies):
        some = _some_genes(pooled, varies)
        found = fit_without_graph(
            some, *_own_genes([genes[int(i)] for i in varies], names, fit, some)
        )
        nothing = ShiftPrior.exact(np.zeros((wanted.without.n_perturbations, len(varies))))
        prior = wanted.rows_of(found.prior, as_uncertain(nothing, found.prior))
        effects = perturbation_effects([found.posterior], prior, level=level)
        for name, table in vars(effects).items():
            if name != "direct":
                tables[name][:, varies] = table
    plain = pooled.mean[1:] - pooled.mean[0]
    seen = wanted.n_cells > 0
    tables["cells_mean"][:] = np.nan
    tables["cells_mean"][seen] = plain[wanted.place[seen]]
    return tables


def _read(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    fit: FittedPosterior,
    names: Sequence[str],
    spread: float,
) -> PooledGuides:
    """Read cells of the controls and perturbations, some genes at a time."""
    roles = _adata.fitted_roles(adata, fit.params)
    environments = fit_environments(adata, roles, names)
    parts = [
        read_cells(adata, columns[first : first + _AT_ONCE], environments, names)
        .fit_cells(names, guided=roles.guide_key is not None, spread=spread)
        .pooled
        for first in range(0, len(columns), _AT_ONCE)
    ]
    squares = np.concatenate([part.scatter.diagonal() for part in parts])
    return PooledGuides(
        parts[0].n_cells, parts[0].n, np.hstack([part.mean for part in parts]),
        np.broadcast_to(squares, (len(squares), len(squares))),
        np.hstack([part.variance_ratio for part in parts]), parts[0].log_grown, parts[0].fixed,
        _joined([part.fixed_scatter for part in parts]), parts[0].fixed_sd,
    )  # fmt: skip


def _joined(scatters: Sequence[Array]) -> Array:
    """Return the scatter of fixed columns with the genes of all parts, then with one another."""
    n = len(scatters[0])
    genes = [each[:, : each.shape[1] - n] for each in scatters]
    return np.hstack([*genes, scatters[0][:, scatters[0].shape[1] - n :]])


def _some_genes(pooled: PooledGuides, index: NDArray[np.int64]) -> PooledGuides:
    squares = pooled.scatter[0, index]
    own = pooled.scatter.shape[0] + np.arange(len(pooled.fixed_sd))
    return replace(
        pooled, mean=pooled.mean[:, index], variance_ratio=pooled.variance_ratio[:, index],
        scatter=np.broadcast_to(squares, (len(index), len(index))),
        fixed_scatter=pooled.fixed_scatter[:, np.append(index, own)],
    )  # fmt: skip


def _own_genes(
    genes: Sequence[str],
    names: Sequence[str],
    fit: FittedPosterior,
    pooled: PooledGuides,
) -> tuple[Array, Array]:
    """Return expected shifts of own genes and their variances, nan elsewhere."""
    shift = np.zeros((len(names), len(genes)))
    own = np.full(shift.shape, np.nan)
    if fit.efficacy is None:
        return shift, own
    mean, sd = fit.efficacy.mean, fit.efficacy.sd
    full = own_shift(str(fit.params["shift"]), pooled.mean[0])
    noise = np.sqrt(pooled.scatter[0] / pooled.n_cells.sum())
    place = {gene: i for i, gene in enumerate(genes) if abs(full[i]) > _ABOUT_NOTHING * noise[i]}
    for j, name in enumerate(names):
        inside, _ = _adata.parse_label(
            name, place, separator=str(fit.params["separator"]), control=str(fit.params["control"])
        )
        index = [place[gene] for gene in inside]
        shift[j, index] = mean * full[index]
        own[j, index] = (sd * full[index]) ** 2
    return shift, own
