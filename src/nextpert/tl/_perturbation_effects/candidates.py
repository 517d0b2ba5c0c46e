"""The perturbations whose effects are asked for, and effects on genes outside the panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.progress import progress
from nextpert.core._blas import in_blocks
from nextpert.core._codec import table_type
from nextpert.core.fit.combinations import fitted_candidates
from nextpert.core.fit.interventions import Interventions, own_shift
from nextpert.core.model._sweep import Prior
from nextpert.core.model.chain import threads
from nextpert.core.model.effects import Effects, exact_effects, speaks_of_knockouts
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.screen.guides import UNKNOWN, PooledGuides
from nextpert.tl._cells import fit_environments, read_cells
from nextpert.tl._design_interventions.candidates import read_candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Wanted:
    """Perturbations of which effects are wanted: rows of the fit, and others without cells.

    Parameters
    ----------
    pool
        The perturbations, and what is expected of those without cells.
    n_cells
        Cells of each, 0 for those that are not of the fit.
    """

    pool: CandidateSet
    n_cells: NDArray[np.int64]

    @property
    def names(self) -> list[str]:
        """Labels."""
        return self.pool.interventions.names

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Which have no cells, in any condition, ``(n_perturbations,)``."""
        return (self.n_cells == 0) & ~self.pool.measured

    def raw_mean(self, fit: FittedPosterior) -> NDArray[np.float64]:
        """Return plain differences of means, NaN without cells, ``(n_perturbations, n_genes)``."""
        shape = len(self.names), len(fit.genes)
        table = np.full(shape, np.nan, table_type(shape[0] * shape[1]))
        means, place = fit.means, self.pool.place
        if means is None or not self.pool.measured.any():
            return table
        for rows in in_blocks(*shape):
            seen = self.pool.measured[rows] & (self.n_cells[rows] > 0)
            difference = means.mean[place[rows]] - fit.control_mean
            known = seen[:, None] & (means.ratio[place[rows]] < UNKNOWN)
            table[rows] = np.where(known, difference, np.nan)
        return table


def read_wanted(candidates: Any, fit: FittedPosterior) -> Wanted:
    """Return the perturbations of which effects are wanted.

    Those of a table are without cells, whatever their names.

    Raises
    ------
    ValueError
        If a candidate names a gene outside the panel.
    """
    if candidates is None:
        sources = fit.environments["shift_source"].astype(str).tolist()
        every = Interventions(fit.names, fit.targets, fit.shifts, sources)
        return Wanted(fitted_candidates(every, fit), fit.n_cells)
    pool = read_candidates(candidates, None, fit)
    is_table = isinstance(candidates, (pd.DataFrame, Mapping))
    place = np.full(len(pool.place), -1) if is_table else fit.rows_of(pool.interventions.names)
    return Wanted(pool, np.append(fit.n_cells, 0)[place])


def panel_effects(fit: FittedPosterior, wanted: Wanted, level: float = 0.9) -> Effects:
    """Return the effects on the genes of the panel, ``(n_perturbations, n_genes)`` each.

    All effects that a user gets are computed here, and a diagnosis scores the same. Without cells
    there is no local false sign rate: where predictors are trusted as the screen's perturbations
    on average deserve, the direction of a single gene is wrong more often than draws say.
    """
    pool = wanted.pool
    if pool.is_exact:
        effects = exact_effects(fit.posteriors, pool.interventions.shifts, level=level)
        effects.lfsr[wanted.unseen] = np.nan
        return effects
    draws = fit.effects(pool.place, pool.without_cells)
    mean, sd, lower, upper, lfsr = draws.summary(level, n_jobs=threads(draws.expected.size))
    lfsr[wanted.unseen] = np.nan
    direct = mean.copy()
    if fit.posterior.dag.n_edges:  # (I - B) times the effect
        direct -= (fit.posterior.mean() @ mean.T).T
    weight = fit.data_weight()
    if not np.array_equal(pool.place, np.arange(len(weight))):  # -1, without cells, is last
        weight = np.vstack([weight, np.zeros((1, mean.shape[1]), weight.dtype)])[pool.place]
    return Effects(mean, sd, lower, upper, lfsr, direct, weight)


_AT_ONCE = 500  # genes, of which the correlations within cells are read together


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

    They are fitted as the panel is, some hundreds of genes at a time. A perturbation of one of them
    is expected to change it by the efficacy of the screen. What of an effect is direct cannot be
    told without a graph: nan.
    """
    shape = (len(wanted.names), len(genes))
    tables = {name: np.zeros(shape) for name in (*Effects.__dataclass_fields__, "raw_mean")}
    tables["lfsr"][:] = 1.0
    tables["direct"][:] = tables["raw_mean"][:] = np.nan
    roles, names = _adata.fitted_roles(adata, fit.params), fit.names
    environments, guided = fit_environments(adata, roles, names), roles.guide_key is not None
    place = np.where(wanted.n_cells > 0, fit.rows_of(wanted.names), -1)
    raw = place >= 0
    blocks = range(0, len(columns), _AT_ONCE)
    for first in progress(len(blocks), "Genes outside the panel", iterable=blocks):
        here = np.arange(first, min(first + _AT_ONCE, len(columns)))
        cells = read_cells(adata, columns[here], environments, names)
        pooled = cells.fit_cells(names, guided=guided, spread=fit.guide_variance or 0.0).pooled
        tables["raw_mean"][np.ix_(raw, here)] = (pooled.mean[1:] - pooled.mean[0])[place[raw]]
        varies = np.flatnonzero(pooled.scatter.diagonal() > 0)
        has = pooled.n_cells[1:] > 0
        seen = np.flatnonzero(has)
        if not len(varies) or not len(seen):
            continue
        number = np.append(np.where(has, np.cumsum(has) - 1, -1), -1)[place]
        new = np.flatnonzero(number < 0)
        number[new] = len(seen) + np.arange(len(new))
        some = pooled.subset(varies).rows(np.append(0, 1 + seen))
        labels = [*(names[j] for j in seen), *(wanted.names[j] for j in new)]
        own = _own_genes([genes[int(i)] for i in here[varies]], labels, fit, some)
        (shift, expected), (variance, of_new) = (np.split(each, [len(seen)]) for each in own)
        model = fit_hierarchical(some, Prior(shift, own_variance=variance), rng=0)
        unseen = model.predict(expected, own_variance=of_new, rng=0)
        draws = model.effects.joined(unseen).rows(number)
        for name, table in draws.summary(level)._asdict().items():
            tables[name][:, here[varies]] = table
        counted = np.vstack([some.counted[1:], np.zeros((len(new), len(varies)))])[number]
        weight = np.minimum(counted * (draws.sd() / draws.unit) ** 2, 1.0)
        tables["data_weight"][:, here[varies]] = weight
    tables["lfsr"][wanted.unseen] = np.nan
    return tables


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
    noise = np.sqrt(pooled.scatter.diagonal() / pooled.n_cells.sum())
    speaks = speaks_of_knockouts(np.abs(full), noise)
    place = {gene: i for i, gene in enumerate(genes) if speaks[i]}
    naming = replace(fit.naming, genes=place)
    for j, name in enumerate(names):
        index = [place[gene] for gene in naming.targets(name)[0]]
        shift[j, index] = mean * full[index]
        own[j, index] = (sd * full[index]) ** 2
    return shift, own
