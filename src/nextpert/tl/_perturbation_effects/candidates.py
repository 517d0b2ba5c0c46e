"""The perturbations whose effects are wanted: those of the fit, and others without cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.shifts import own_shift
from nextpert.core.effects.shift_prior import ShiftPrior
from nextpert.tl._design_interventions.candidates import read_candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior


def wanted_shifts(
    candidates: Any, fit: FittedPosterior, efficacy: Mapping[str, Any] | None
) -> tuple[list[str], NDArray[np.int64], ShiftPrior]:
    """Return names and cells of the perturbations, and what is known of their shifts.

    Those without cells have the shift that the screen's ``efficacy`` (mean and sd of the part of a
    full knockout or activation) leads to expect, and the mixture of the average perturbation; with
    exact shifts the full one, exactly. Those of a table are without cells, whatever their names.

    Raises
    ------
    ValueError
        If a candidate names a gene outside the panel.
    """
    row = {str(name): j for j, name in enumerate(fit.environments["perturbation"])}
    cells = fit.environments["n_cells"].to_numpy(np.int64)
    if candidates is None:
        return list(row), cells, fit.shift_prior
    chosen = read_candidates(candidates, None, fit)
    told = isinstance(candidates, (pd.DataFrame, Mapping))
    place = np.array([-1 if told else row.get(name, -1) for name in chosen.names])
    unseen = np.flatnonzero(place < 0)
    place[unseen] = len(row) + np.arange(len(unseen))
    prior = ShiftPrior.exact(chosen.shifts[unseen])
    if not fit.shift_prior.is_exact:
        prior = _uncertain(prior, fit)
        if efficacy is not None and not told:
            prior = _by_efficacy(prior, [chosen.targets[k] for k in unseen], fit, efficacy)
    every = zip(vars(fit.shift_prior).values(), vars(prior).values(), strict=True)
    joined = ShiftPrior(*(np.concatenate(pair) for pair in every))
    return (
        chosen.names,
        np.append(cells, np.zeros(len(unseen), np.int64))[place],
        joined.rows(place),
    )


def _uncertain(prior: ShiftPrior, fit: FittedPosterior) -> ShiftPrior:
    """Return shifts as uncertain as those of the average perturbation of the fit."""
    average = fit.shift_prior.weights.mean(axis=0)
    return replace(prior, weights=np.tile(average, (prior.n_perturbations, 1)))


def _by_efficacy(
    prior: ShiftPrior,
    targets: Sequence[Sequence[str]],
    fit: FittedPosterior,
    efficacy: Mapping[str, Any],
) -> ShiftPrior:
    """Return shifts of own genes by the efficacy of the screen's perturbations."""
    full = own_shift(str(fit.params["shift"]), fit.control_mean)
    place = {gene: i for i, gene in enumerate(fit.genes)}
    shift, own = np.zeros_like(prior.shift), np.full(prior.own.shape, np.nan)
    for j, genes in enumerate(targets):
        index = [place[gene] for gene in genes]
        shift[j, index] = float(efficacy["mean"]) * full[index]
        own[j, index] = (float(efficacy["sd"]) * full[index]) ** 2
    return replace(prior, shift=shift, own=own)
