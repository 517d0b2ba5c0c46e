"""Effects of perturbations with and without cells, and the programs that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert.core._blas import in_blocks
from nextpert.core._codec import table_type
from nextpert.core.fit.candidates import fitted_candidates
from nextpert.core.fit.interventions import Interventions, own_shift
from nextpert.core.fit.naming import places
from nextpert.core.model.effects import Effects, exact_effects, speaks_of_knockouts
from nextpert.core.model.programs import find_programs
from nextpert.core.model.sampler import threads
from nextpert.core.screen.guides import UNKNOWN
from nextpert.study.pool import read_candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Requested:
    """Perturbations whose effects are wanted, and their numbers of cells (0 outside the fit)."""

    pool: CandidateSet
    n_cells: NDArray[np.int64]

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Whether a perturbation has no cells in any condition, ``(n_perturbations,)``."""
        return (self.n_cells == 0) & ~self.pool.measured

    def raw_mean(self, fit: FittedPosterior) -> NDArray[np.float64]:
        """Return plain differences of means, NaN without cells, ``(n_perturbations, n_genes)``."""
        shape = len(self.pool.names), len(fit.genes)
        table = np.full(shape, np.nan, table_type(shape[0] * shape[1]))
        means, fit_rows = fit.means, self.pool.fit_rows
        if means is None or not self.pool.measured.any():
            return table
        for rows in in_blocks(*shape):
            is_measured = self.pool.measured[rows] & (self.n_cells[rows] > 0)
            difference = means.mean[fit_rows[rows]] - fit.control_mean
            has_value = is_measured[:, None] & (means.ratio[fit_rows[rows]] < UNKNOWN)
            table[rows] = np.where(has_value, difference, np.nan)
        return table


def read_requested(candidates: Any, fit: FittedPosterior) -> Requested:
    """Return the perturbations whose effects are wanted.

    Perturbations of a table are taken as having no cells, whatever their names.

    Raises
    ------
    ValueError
        If a candidate names a gene outside the panel.
    """
    if candidates is None:
        sources = fit.environments["shift_source"].astype(str).tolist()
        interventions = Interventions(fit.names, fit.targets, fit.shifts, sources)
        return Requested(fitted_candidates(interventions, fit), fit.n_cells)
    pool = read_candidates(candidates, fit)
    is_table = isinstance(candidates, (pd.DataFrame, Mapping))
    fit_rows = np.full(len(pool.fit_rows), -1) if is_table else fit.rows_of(pool.names)
    return Requested(pool, np.append(fit.n_cells, 0)[fit_rows])


def panel_effects(fit: FittedPosterior, candidates: Requested, level: float = 0.9) -> Effects:
    """Return the effects on the genes of the panel, ``(n_perturbations, n_genes)`` each.

    All effects that a user gets are computed here, and a diagnosis scores the same effects. The
    local false sign rate is NaN without cells: predictors are weighted by their accuracy averaged
    over the screen, so the direction of a single gene is wrong more often than the draws suggest.
    """
    pool = candidates.pool
    if pool.is_exact:
        effects = exact_effects(fit.posteriors, pool.interventions.shifts, level=level)
        effects.lfsr[candidates.unseen] = np.nan
        return effects
    draws = fit.effects(pool.fit_rows, pool.without_cells)
    mean, sd, lower, upper, lfsr = draws.summary(level, n_jobs=threads(draws.expected.size))
    lfsr[candidates.unseen] = np.nan
    direct = mean.copy()
    if fit.posterior.dag.n_edges:  # (I - B) times the effect
        direct -= (fit.posterior.mean() @ mean.T).T
    weight = fit.data_weight()
    # -1, without cells, is last.
    if not np.array_equal(pool.fit_rows, np.arange(len(weight))):
        weight = np.vstack([weight, np.zeros((1, mean.shape[1]), weight.dtype)])[pool.fit_rows]
    return Effects(mean, sd, lower, upper, lfsr, direct, weight)


def _own_genes(
    genes: Sequence[str],
    names: Sequence[str],
    fit: FittedPosterior,
    pooled: PooledGuides,
) -> tuple[Array, Array]:
    """Return the expected shifts of target genes (0 elsewhere) and their variances (NaN there)."""
    shift = np.zeros((len(names), len(genes)))
    variance = np.full(shift.shape, np.nan)
    if fit.efficacy is None:
        return shift, variance
    mean, sd = fit.efficacy.mean, fit.efficacy.sd
    full = own_shift(str(fit.params["shift"]), pooled.mean[0])
    noise = np.sqrt(pooled.scatter.diagonal() / pooled.n_cells.sum())
    speaks = speaks_of_knockouts(np.abs(full), noise)
    column_of = {gene: i for i, gene in enumerate(genes) if speaks[i]}
    naming = replace(fit.naming, genes=column_of)
    for j, name in enumerate(names):
        index = [column_of[gene] for gene in naming.targets(name)[0]]
        shift[j, index] = mean * full[index]
        variance[j, index] = (sd * full[index]) ** 2
    return shift, variance


def program_tables(fit: FittedPosterior) -> dict[str, Any]:
    """Return ``programs``, the tables ``shares``, ``genes`` and ``scores``.

    The hierarchical model gives them for the perturbations with cells; empty without that model.
    """
    model = fit.hierarchical
    if model is None or not fit.is_measured.any():
        return {}
    measured = np.flatnonzero(fit.is_measured)
    names = np.array(fit.names, object)[measured]
    targets = np.zeros((len(measured), len(fit.genes)), bool)
    for row, target_columns in zip(
        targets, places([fit.targets[j] for j in measured], fit.genes), strict=True
    ):
        row[target_columns] = True
    shared = find_programs(model, targets)
    number, on = np.arange(1, 1 + len(shared.share)), shared.takes_part
    genes = _long(number, "gene", fit.genes, {"effect": shared.genes, "sd": shared.genes_sd})
    columns = {"score": shared.scores.T, "sd": shared.scores_sd.T, "takes_part": on.T}
    scores = _long(number, "perturbation", names, columns)
    shares = pd.DataFrame(
        {"program": number, "share": shared.share, "n_perturbations": on.sum(axis=0)}
    )
    return {"programs": {"shares": shares, "genes": genes, "scores": scores}}


def _long(number: Any, label: str, names: Any, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return tables (programs x names) in long form, the largest values of each program first."""
    k, n = len(number), len(names)
    table = pd.DataFrame(
        {
            "program": np.repeat(number, n),
            label: np.tile(np.array(names, object), k),
            **{name: values.ravel() for name, values in columns.items()},
        }
    )
    size = np.abs(next(iter(columns.values()))).ravel()
    return table.iloc[np.lexsort((-size, table["program"]))].reset_index(drop=True)
