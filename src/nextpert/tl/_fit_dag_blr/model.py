"""The model of a screen: everything that a fit learns from cells on graphs, assembled once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert import _adata
from nextpert._adata import environments
from nextpert._adata.posterior import EffectsRecord, FittedPosterior
from nextpert.core.effects.random_shifts import fit_random_shifts, refit
from nextpert.tl._fit_dag_blr.averaging import averaged, averaging_record
from nextpert.tl._fit_dag_blr.expected import exact_shifts, expected_shifts
from nextpert.tl._fit_dag_blr.stack import stack_record, stacked

if TYPE_CHECKING:
    import pandas as pd

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
        Weights of the predictors; ``None`` where the spec has none or perturbations are too few.
    average
        Names of the models that measured effects are averaged over, and these; ``None`` where
        the spec has no average.
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
        exact, alone = spec.exact, not spec.plan.names  # alone: the controls, without any shift
        shifts = exact_shifts if exact else expected_shifts
        expected = shifts(spec.plan, spec.shift, spec.genes, cells)
        try:
            found = fit_random_shifts(
                spec.posterior(graphs.dag), cells.pooled, expected.used.shifts,
                own=expected.own, fixed=exact or alone,
            )  # fmt: skip
            prior, stack, average = found.prior, None, None
            resampled = [refit(spec.posterior(g), cells.pooled, found) for g in graphs.resampled]
            if exact:  # nothing is asked of the cells of a perturbation any more, so of no batch
                found = replace(found, posterior=found.posterior.without_fixed())
                resampled = [each.without_fixed() for each in resampled]
            elif spec.full and not alone:
                prior, stack = stacked(spec, cells, expected, found, graphs)
                posteriors = resampled or [found.posterior]
                average = averaged(spec, cells, expected, found, prior, posteriors)
        except ValueError as error:
            raise _adata.named(error, np.array(spec.genes), np.arange(len(spec.genes))) from error
        return cls(spec, cells, expected, found, prior, resampled, stack, average)

    def record(
        self, params: dict[str, Any], *, left_out: pd.DataFrame, cells: dict[str, str] | None = None
    ) -> FittedPosterior:
        """Return what is stored of it, and read by :func:`nextpert._adata.posterior_from`.

        ``params``, labels ``left_out`` and the fingerprint of the ``cells`` are stored with it.
        """
        used, learned = self.expected.used, not self.spec.exact
        other = self.spec.other if self.stack is not None else {}
        known = EffectsRecord(list(other), np.array(list(other.values())))
        n_cells = self.cells.n_cells.tolist()
        return FittedPosterior(
            genes=self.spec.genes,
            posterior=self.found.posterior,
            control_mean=self.cells.control.mean,
            n_control_cells=self.cells.control.n,
            environments=environments.environment_table(used, self.spec.genes, n_cells),
            targets=used.targets,
            shifts=used.shifts,
            left_out=left_out,
            log_evidence=self.found.log_evidence,
            params=params,
            cells=cells,
            shift_prior=self.prior if learned else None,
            guide_variance=self.cells.guide_variance if learned else None,
            averaging=None if self.average is None else averaging_record(*self.average),
            efficacy=self.expected.efficacy,
            stack=None if self.stack is None else stack_record(self.stack),
            screen=None if self.stack is None else self.cells.screen,
            prior_effects=known if other else None,
            ensemble=self.resampled or None,
        )
