"""Criteria of a design by name: those on uncertain shifts, and those on the weights alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import core
from nextpert.core.acquisition.uncertain_civ import UncertainCiv
from nextpert.core.acquisition.uncertain_values import UNCERTAIN_CRITERIA, uncertain_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.tl._design_interventions.target import Wanted

    Vector = NDArray[np.float64]

ACQUISITIONS = (
    "civ", "civ_ow", "ei", "probability", "thompson", "greedy", "cv", "maxv",
    "target_mean_variance", "random",
)  # fmt: skip


def criterion_values(
    acquisition: str,
    fit: FittedPosterior,
    known: Sequence[ShiftPosterior],
    target: Wanted,
    *,
    n_cells: int,
    noise_aware: bool,
    n_samples: int,
    rng: np.random.Generator,
) -> tuple[Vector, Vector]:
    """Return the criterion of every candidate, and the share of uncertainty cells would remove.

    The share is NaN for criteria that do not look ahead.
    """
    n = known[0].n_perturbations
    nothing = np.full(n, np.nan)
    if acquisition in ("civ", "civ_ow"):
        seed = int(rng.integers(2**63))  # one choice of the average for both
        civ, counted = (
            UncertainCiv(
                fit.posteriors, known, target.goal, n_cells=n_cells, noise_aware=scatter,
                output_weighted=acquisition == "civ_ow", rng=seed,
            )
            for scatter in (noise_aware, True)
        )  # fmt: skip
        return civ.values(), counted.removed()
    if acquisition in UNCERTAIN_CRITERIA:
        values = uncertain_values(
            acquisition, fit.posteriors, known, target.goal, n_cells=n_cells,
            noise_aware=noise_aware, n_samples=n_samples, rng=rng,
        )  # fmt: skip
        return values, nothing
    shifts = np.average(
        [each.expected(blr) for blr, each in zip(fit.posteriors, known, strict=True)], axis=0,
        weights=[each.weight for each in known],
    )  # fmt: skip
    options: dict[str, Any] = {"n_cells": n_cells, "domain": core.Pool(shifts)}

    def build(scatter: bool) -> core.Acquisition:
        if fit.ensemble and acquisition in core.ManyGraphs.criteria:
            return core.ManyGraphs(
                acquisition, fit.ensemble, target.mean, noise_aware=scatter, **options
            )
        return core.build_acquisition(
            acquisition, fit.blr, target.mean, rng=rng, noise_aware=scatter, **options
        )

    aware = build(True)
    if isinstance(aware, (core.LookaheadAcquisition, core.ManyGraphs)):
        nothing = aware.removed(shifts)
    return build(noise_aware).values(shifts), nothing
