"""The model of a screen: everything that a fit learns from cells on graphs, assembled once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert import _adata
from nextpert._adata import environments
from nextpert.core.effects.random_shifts import fit_random_shifts, refit
from nextpert.tl._fit_dag_blr.averaging import averaged, averaging_record
from nextpert.tl._fit_dag_blr.expected import efficacy_record, exact_shifts, expected_shifts
from nextpert.tl._fit_dag_blr.stack import stack_record, stacked

if TYPE_CHECKING:
    from nextpert.core import DagBlr
    from nextpert.core.effects.averaged import Averaged
    from nextpert.core.effects.random_shifts import RandomShifts
    from nextpert.core.effects.shift_prior import ShiftPrior
    from nextpert.tl._fit_dag_blr.cells import FitCells
    from nextpert.tl._fit_dag_blr.expected import Expected
    from nextpert.tl._fit_dag_blr.spec import Graphs, Spec
    from nextpert.tl._fit_dag_blr.stack import Stacked


class Model(NamedTuple):
    """What a fit learned.

    Parameters
    ----------
    spec, cells
        What it was learned from.
    expected
        Expected shifts, and the efficacy behind them.
    found
        Weights of the graph of all cells, and shifts before predictors are asked.
    prior
        Prior of the shifts by all predictors.
    resampled
        Posteriors on the graphs of resamples.
    stack
        Weights of the predictors; ``None`` where shifts are exact or perturbations too few.
    average
        Names of the models that measured effects are averaged over, and these; ``None`` where
        shifts are exact.
    """

    spec: Spec
    cells: FitCells
    expected: Expected
    found: RandomShifts
    prior: ShiftPrior
    resampled: list[DagBlr]
    stack: Stacked | None
    average: tuple[list[str], Averaged] | None

    @classmethod
    def fit(cls, spec: Spec, cells: FitCells, graphs: Graphs) -> Model:
        """Fit the model to the cells of the controls and of ``spec.plan``, in that order.

        Raises
        ------
        ValueError
            If genes are linearly dependent; they are named.
        """
        exact = spec.exact or not spec.plan.names
        shifts = exact_shifts if exact else expected_shifts
        expected = shifts(spec.plan, spec.shift, spec.genes, cells)
        try:
            found = fit_random_shifts(
                spec.posterior(graphs.dag), cells.pooled, expected.used.shifts,
                own=expected.own, fixed=exact,
            )  # fmt: skip
            prior, stack, average = found.prior, None, None
            resampled = [refit(spec.posterior(g), cells.pooled, found) for g in graphs.resampled]
            if not exact:
                prior, stack = stacked(spec, cells, expected, found, graphs)
                posteriors = resampled or [found.posterior]
                average = averaged(spec, cells, expected, found, prior, posteriors)
        except ValueError as error:
            raise _adata.named(error, np.array(spec.genes), np.arange(len(spec.genes))) from error
        return cls(spec, cells, expected, found, prior, resampled, stack, average)

    def record(self) -> dict[str, Any]:
        """Return what is stored of it, which :func:`nextpert._adata.posterior_of` reads."""
        used, cells = self.expected.used, self.cells
        stored = {
            "posterior": self.found.posterior.to_dict(),
            "genes": _adata.strings(self.spec.genes),
            "control_mean": cells.control.mean,
            "n_control_cells": cells.control.n,
            "environments": environments.environment_table(
                used, self.spec.genes, cells.n_cells.tolist()
            ),
            "targets": _adata.stored_lists(used.targets),
            "shifts": _adata.as_stored_csr(used.shifts),
            "log_evidence": self.found.log_evidence,
        }
        if self.average is not None:  # shifts are learned
            stored["shift_prior"] = _adata.stored_shift_prior(self.prior)
            stored["guide_variance"] = cells.guide_variance
            stored["averaging"] = averaging_record(*self.average)
        if self.expected.efficacy is not None:
            stored["efficacy"] = efficacy_record(self.expected.efficacy)
        if self.stack is not None:
            stored["stack"] = stack_record(self.stack)
            stored["screen"] = _adata.stored_screen(cells.screen)
            if self.spec.other:
                stored["prior_effects"] = _adata.stored_effects(self.spec.other)
        if self.resampled:
            stored["ensemble"] = _adata.stored_ensemble(self.resampled)
        return stored
