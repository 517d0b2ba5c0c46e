"""Criteria of a design by name: those on uncertain shifts, and those on the weights alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import core
from nextpert.core.acquisition.uncertain_civ import UncertainCiv
from nextpert.core.acquisition.uncertain_values import (
    UNCERTAIN_CRITERIA,
    kept_distance,
    uncertain_values,
)
from nextpert.core.predict.ranked_distance import ranked_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.ranked_distance import RankedDistance
    from nextpert.tl._design_interventions.target import Wanted

    Vector = NDArray[np.float64]

ACQUISITIONS = (
    "probability", "ei", "thompson", "civ", "civ_ow", "greedy", "cv", "maxv",
    "target_mean_variance", "random",
)  # fmt: skip


def ranked_by(
    acquisition: str,
    fit: FittedPosterior,
    known: Sequence[ShiftPosterior],
    target: Wanted,
    *,
    n_cells: int,
    noise_aware: bool,
    n_samples: int,
    rng: np.random.Generator,
) -> tuple[Vector, Vector, RankedDistance]:
    """Return the criterion of every candidate, the uncertainty cells would remove, and distances.

    The share of uncertainty is NaN for criteria that do not look ahead.
    """

    def draw() -> RankedDistance:
        return ranked_distance(fit.posteriors, known, target.goal, n_samples=n_samples, rng=rng)

    if acquisition in ("ei", "probability"):  # by the very draws that are reported
        found = draw()
        measured = np.asarray(known[0].n) > 0
        best = acquisition == "probability"
        values = 0.0 - found.nearest[:-1] if best else kept_distance(found, measured)
        return values, np.full(len(values), np.nan), found
    values, removed = _criterion_values(
        acquisition, fit, known, target, n_cells=n_cells, noise_aware=noise_aware, rng=rng
    )
    return values, removed, draw()


def _criterion_values(
    acquisition: str,
    fit: FittedPosterior,
    known: Sequence[ShiftPosterior],
    target: Wanted,
    *,
    n_cells: int,
    noise_aware: bool,
    rng: np.random.Generator,
) -> tuple[Vector, Vector]:
    nothing = np.full(known[0].n_perturbations, np.nan)
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
            noise_aware=noise_aware, rng=rng,
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
