"""The shifts that perturbations are expected to have: what a fit starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import environments
from nextpert._adata.shifts import Interventions, own_shift
from nextpert.core.effects.efficacy import Efficacy, screen_efficacy, speaks_of_knockouts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.tl._fit_dag_blr.cells import FitCells

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Expected:
    """Expected shifts of perturbations, and how far their own genes may be off.

    Parameters
    ----------
    used
        Perturbations, targets and expected shifts.
    own
        Variance of the shift of own genes, squared units of the data; nan where the mixture
        speaks; shape ``(n_perturbations, n_genes)``.
    change
        Change of own genes as far as the cells say, 0 elsewhere, same shape.
    efficacy
        What part of a full knockout or activation the perturbations achieve; ``None`` for a table.
    """

    used: Interventions
    own: Array
    change: Array
    efficacy: Efficacy | None


def exact_shifts(
    plan: environments.Plan, shift: Any, genes: Sequence[str], cells: FitCells
) -> Expected:
    """Return full knockouts, activations of one unit, or a table: shifts taken as they are."""
    used = environments.shift_environments(plan, shift, genes, cells.control)
    return Expected(used, np.full(used.shifts.shape, np.nan), used.shifts, None)


def expected_shifts(
    plan: environments.Plan, shift: Any, genes: Sequence[str], cells: FitCells
) -> Expected:
    """Return shifts by the efficacy that the screen's own genes show, or those of a table."""
    exact = exact_shifts(plan, shift, genes, cells)
    if not isinstance(shift, str):
        return exact
    place = {gene: i for i, gene in enumerate(genes)}
    pairs = [(j, place[gene]) for j, names in enumerate(plan.targets) for gene in names]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    full, speaks = own_shift(shift, cells.control.mean), np.ones(len(genes), bool)
    if shift == "knockout":
        speaks = speaks_of_knockouts(cells.control.mean, np.sqrt(cells.control.variance))
    direction = 1 if shift == "activation" else -1
    size, known = np.abs(full)[columns], speaks[columns]
    efficacy = screen_efficacy(cells.pooled, rows, columns, size, known, direction=direction)
    mean, sd = efficacy.expected_change(size)
    shifts, own, change = np.zeros((3, *exact.own.shape))
    own[:] = np.nan
    shifts[rows, columns] = mean
    change[rows, columns] = direction * efficacy.posterior_mean * size
    own[rows[known], columns[known]] = sd[known] ** 2
    return Expected(
        Interventions(plan.names, plan.targets, shifts, exact.used.sources), own, change, efficacy
    )


def efficacy_in_words(efficacy: Efficacy) -> str:
    """Return the efficacy for the log line."""
    known = f"from {efficacy.n_measured} own genes" if efficacy.n_measured else "a guess: none seen"
    return f" Efficacy {efficacy.mean:.2f} +- {efficacy.sd:.2f} ({known})."
