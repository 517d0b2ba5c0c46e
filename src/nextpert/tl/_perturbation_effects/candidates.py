"""The perturbations whose effects are wanted: those of the fit, and others without cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert.core.effects.effects import perturbation_effects
from nextpert.core.effects.shift_prior import ShiftPrior
from nextpert.tl._design_interventions.candidates import read_candidates

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert._adata.shifts import Interventions
    from nextpert.core.effects.effects import Effects


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
        Row of each: of the fit, or from its number of rows on one of those without cells.
    without
        What is expected of the shifts of those without cells, on the panel.
    chosen
        Targets and expected shifts of candidates; ``None`` for the perturbations of the fit.
    """

    names: list[str]
    n_cells: NDArray[np.int64]
    place: NDArray[np.int64]
    without: ShiftPrior
    chosen: Interventions | None = None

    def rows_of(self, prior: ShiftPrior, without: ShiftPrior | None = None) -> ShiftPrior:
        """Return the rows wanted of the perturbations of a fit and of those without cells."""
        return prior.joined(without or self.without).rows(self.place)

    def cells_mean(self, fit: FittedPosterior) -> NDArray[np.float64]:
        """Return plain differences of means, NaN without cells, ``(n_perturbations, n_genes)``."""
        prior = self.rows_of(fit.averaged.main)
        return np.where((prior.n > 0)[:, None], prior.mean - fit.control_mean, np.nan)


def read_wanted(candidates: Any, fit: FittedPosterior) -> Wanted:
    """Return the perturbations of which effects are wanted.

    Those of a table are without cells, whatever their names.

    Raises
    ------
    ValueError
        If a candidate names a gene outside the panel.
    """
    row = {str(name): j for j, name in enumerate(fit.environments["perturbation"])}
    cells = fit.environments["n_cells"].to_numpy(np.int64)
    if candidates is None:
        nothing = ShiftPrior.exact(np.zeros((0, len(fit.genes))))
        return Wanted(list(row), cells, np.arange(len(row)), nothing)
    chosen = read_candidates(candidates, None, fit)
    names = chosen.interventions.names
    told = isinstance(candidates, (pd.DataFrame, Mapping))
    place = np.array([-1 if told else row.get(name, -1) for name in names])
    unseen = np.flatnonzero(place < 0)
    place[unseen] = len(row) + np.arange(len(unseen))
    prior = chosen.on_graph.rows(unseen)
    if told and not fit.prior.is_exact:
        prior = as_uncertain(prior, fit.prior)
    n_cells = np.append(cells, np.zeros(len(unseen), np.int64))[place]
    return Wanted(names, n_cells, place, prior, chosen.interventions)


def panel_effects(fit: FittedPosterior, wanted: Wanted, level: float = 0.9) -> Effects:
    """Return the effects on the genes of the panel, ``(n_perturbations, n_genes)`` each.

    All that a user is told of perturbations is made here, and a diagnosis scores the same.
    """
    every = fit.averaged.joined(wanted.without).rows(wanted.place)
    return perturbation_effects(
        every.posteriors, every.priors, weights=every.weights, level=level, main=fit.posterior
    )


def as_uncertain(prior: ShiftPrior, like: ShiftPrior) -> ShiftPrior:
    """Return shifts as uncertain as those of the average perturbation of another prior."""
    average = like.weights.mean(axis=0)
    return replace(prior, weights=np.tile(average, (prior.n_perturbations, 1)))
