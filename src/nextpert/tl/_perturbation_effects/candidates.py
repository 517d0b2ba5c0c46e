"""The perturbations whose effects are asked for, and effects on genes outside the panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.effects import own_shift
from nextpert.core._codec import table_type
from nextpert.core.model.chain import threads
from nextpert.core.model.effects import (
    Effects,
    estimate_effects,
    fit_without_graph,
    speaks_of_knockouts,
)
from nextpert.core.model.perturbations import in_blocks
from nextpert.core.model.shift_prior import ShiftPrior, as_effects
from nextpert.core.screen.guides import UNKNOWN, PooledGuides, join_nodes
from nextpert.tl._design_interventions.candidates import read_candidates
from nextpert.tl._fit_dag_blr.cells import fit_environments, read_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert._adata.effects import Interventions

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Wanted:
    """Perturbations of which effects are wanted: rows of the fit, and others without cells.

    Parameters
    ----------
    names
        Labels.
    n_cells
        Cells of each, 0 for those that are not of the fit.
    place
        Row of each in the fit, -1 of those without cells.
    prior
        What is expected of their shifts on the graph.
    expected
        Returns the effects on the panel that are expected of some of them, by their numbers.
    chosen
        Targets and expected shifts of candidates; ``None`` for the perturbations of the fit.
    """

    names: list[str]
    n_cells: NDArray[np.int64]
    place: NDArray[np.int64]
    prior: ShiftPrior
    expected: Callable[[NDArray[np.int64]], ShiftPrior | None]
    chosen: Interventions | None = None

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Which have no cells, in any condition, ``(n_perturbations,)``."""
        return (self.n_cells == 0) & (self.prior.n == 0)

    def raw_mean(self, fit: FittedPosterior) -> NDArray[np.float64]:
        """Return plain differences of means, NaN without cells, ``(n_perturbations, n_genes)``."""
        seen = ((self.prior.n > 0) & (self.n_cells > 0))[:, None]
        seen = seen & (self.prior.ratio < UNKNOWN)
        table = np.empty(seen.shape, table_type(seen.size))
        for rows in in_blocks(*table.shape):
            away = self.prior.mean[rows] - fit.control_mean
            table[rows] = np.where(seen[rows], away, np.nan)
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
        names = fit.names
        return Wanted(
            names, fit.n_cells, np.arange(len(names)), fit.prior,
            lambda some: as_effects(fit.prior.rows(some), fit.posteriors),
        )  # fmt: skip
    chosen = read_candidates(candidates, None, fit)
    prior, names = chosen.prior, chosen.interventions.names
    told = isinstance(candidates, (pd.DataFrame, Mapping))
    place = np.full(len(names), -1) if told else fit.rows_of(names)
    if told and not fit.prior.is_exact:
        prior = as_uncertain(prior, fit.prior)

    def expected(some: NDArray[np.int64]) -> ShiftPrior:
        known = chosen.rows(some).effects
        return as_effects(prior.rows(some), fit.posteriors) if known is None else known

    n_cells = np.append(fit.n_cells, 0)[place]
    return Wanted(names, n_cells, place, prior, expected, chosen.interventions)


def panel_effects(fit: FittedPosterior, wanted: Wanted, level: float = 0.9) -> Effects:
    """Return the effects on the genes of the panel, ``(n_perturbations, n_genes)`` each.

    All effects that a user gets are computed here, and a diagnosis scores the same. Without cells
    there is no local false sign rate: where predictors are trusted as the screen's perturbations
    on average deserve, the direction of a single gene is wrong more often than draws say.
    """
    if fit.hierarchical is None:
        found = estimate_effects(fit.posteriors, wanted.prior, level=level, main=fit.posterior)
        found.lfsr[wanted.unseen] = np.nan
        return found
    draws = fit.effects(wanted.expected, wanted.place)
    mean, sd, lower, upper, lfsr = draws.summary(level, n_jobs=threads(draws.expected.size))
    lfsr[wanted.unseen] = np.nan
    direct = mean.copy()
    if fit.posterior.dag.n_edges:
        direct -= (fit.posterior.mean() @ mean.T).T
    weight = fit.data_weight()
    if not np.array_equal(wanted.place, np.arange(len(weight))):
        weight = np.vstack([weight, np.zeros_like(weight[:1])])[wanted.place]
    return Effects(mean, sd, lower, upper, lfsr, direct, weight)


def as_uncertain(prior: ShiftPrior, like: ShiftPrior) -> ShiftPrior:
    """Return shifts as uncertain as those of the average perturbation of another prior."""
    average = like.weights.mean(axis=0)
    return replace(prior, weights=np.tile(average, (prior.n_perturbations, 1)))


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
    names = fit.names
    pooled = _read(adata, columns, fit, names, fit.guide_variance or 0.0)
    shape = (len(wanted.names), len(genes))
    tables = {name: np.zeros(shape) for name in (*Effects.__dataclass_fields__, "raw_mean")}
    tables["lfsr"][:], tables["direct"][:] = 1.0, np.nan
    varies = np.flatnonzero(pooled.scatter[0] > 0)
    if len(varies):
        some = pooled.subset(varies)
        found = fit_without_graph(
            some, *_own_genes([genes[int(i)] for i in varies], names, fit, some)
        )
        unseen = wanted.place < 0
        nothing = ShiftPrior.exact(np.zeros((int(unseen.sum()), len(varies))))
        row = np.where(unseen, len(names) + np.cumsum(unseen) - 1, wanted.place)
        prior = found.prior.joined(as_uncertain(nothing, found.prior)).rows(row)
        effects = estimate_effects([found.posterior], prior, level=level)
        for name, table in vars(effects).items():
            if name != "direct":
                tables[name][:, varies] = table
    tables["lfsr"][wanted.unseen] = np.nan
    plain = pooled.mean[1:] - pooled.mean[0]
    seen = wanted.n_cells > 0
    tables["raw_mean"][:] = np.nan
    tables["raw_mean"][seen] = plain[wanted.place[seen]]
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
    return join_nodes(parts)


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
    speaks = speaks_of_knockouts(np.abs(full), noise)
    place = {gene: i for i, gene in enumerate(genes) if speaks[i]}
    naming = replace(fit.naming, genes=place)
    for j, name in enumerate(names):
        index = [place[gene] for gene in naming.targets(name)[0]]
        shift[j, index] = mean * full[index]
        own[j, index] = (sd * full[index]) ** 2
    return shift, own
