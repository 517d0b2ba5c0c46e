"""What a plan of cells uses of a screen: its noise, and distances of its perturbations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm

from nextpert import _adata
from nextpert.core.design.cell_numbers import Layout, ScreenNoise, screen_noise
from nextpert.core.design.power import (
    DistancePrecision,
    EffectPrecision,
    NearerChance,
    draw_noise,
    quadratic_form,
)
from nextpert.core.screen.guides import distinct
from nextpert.tl._cells import fit_environments, read_cells
from nextpert.tl._design_interventions.own_genes import LEAST_LEFT, bind

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._design_interventions.target import Wanted

    Array = NDArray[np.float64]

INTERVAL = 0.9  # coverage of intervals, one level in the whole package


@dataclass(frozen=True)
class Measured:
    """The noise of a screen and the perturbations of its fit.

    Parameters
    ----------
    names
        Perturbations; row ``j`` is group ``j + 1`` of ``noise``.
    noise
        Of controls (group 0) and perturbations.
    layout
        Guides and replicates planned for.
    """

    names: list[str]
    noise: ScreenNoise
    layout: Layout

    @property
    def n_cells(self) -> NDArray[np.int64]:
        """Cells of every perturbation."""
        return self.noise.pooled.n_cells[1:]

    def effects(self, layout: Layout | None = None) -> EffectPrecision:
        """Return the precision of effects on every gene, with the controls there are."""
        noise = self.noise
        n_control = float(noise.pooled.n_cells[0])
        return EffectPrecision(
            noise.perturbed_variance,
            noise.variance(0),
            n_control,
            layout or self.layout,
            noise.layout(0),
            noise.batch_error,
        )


def read_measured(
    adata: ad.AnnData,
    fit: FittedPosterior,
    n_guides: int | None,
    n_replicates: int | None,
) -> Measured:
    """Read the noise of the cells of a fit: one pass over them.

    Raises
    ------
    ValueError
        If the fit has no perturbation, or one of its columns is gone.
    """
    names = fit.names
    if not names:
        message = (
            "The fit has no perturbed cells, so their variance cannot be estimated: fit a screen "
            "with perturbed cells."
        )
        raise ValueError(message)
    roles = _adata.fitted_roles(adata, fit.params)
    cells = read_cells(
        adata, fit.columns, fit_environments(adata, roles, names), names,
    )  # fmt: skip
    known, sums = cells.fits[0]
    screen, keys, sd = known.without_batches(sums, names)
    rows, place = distinct(*keys.T)  # conditions would split guides into more than there are
    group, guide, batch, _ = rows.T
    screen = screen.pool(place, len(rows))
    noise = screen_noise(screen, group, guide, batch, 1 + len(names), fixed_sd=sd)
    planned = Layout(
        _usual(noise.n_guides[1:]) if n_guides is None else n_guides,
        _usual(noise.n_replicates[1:]) if n_replicates is None else n_replicates,
        noise.guide_variance,
        noise.replicate_variance,
    )
    return Measured(names, noise, planned)


def guides_of(adata: ad.AnnData, fit: FittedPosterior) -> tuple[dict[str, list[str]] | None, int]:
    """Return the guides of every perturbation of a fit, those of most cells first, and how many.

    That is the median over perturbations. ``None`` and 1 where no column has them.
    """
    roles = _adata.fitted_roles(adata, fit.params)
    names = fit.names
    if roles.guide_key is None:
        return None, 1
    group = _adata.read_every_label(adata, roles).groups(names)
    read = _adata.read_labels(adata, roles.guide_key, argument="guide_key")
    labelled = (group >= 0) & (read.codes >= 0)
    pairs, n_cells = np.unique(
        np.column_stack([group[labelled], read.codes[labelled]]), axis=0, return_counts=True
    )
    guides: dict[str, list[str]] = {name: [] for name in names}
    for place, guide in pairs[np.argsort(-n_cells, kind="stable")]:
        guides[names[place]].append(read.names[guide])
    return guides, _usual(np.array([*map(len, guides.values())], np.int64))


def _usual(counts: NDArray[np.int64]) -> int:
    """Return the median over perturbations, 1 if there are none."""
    return max(round(float(np.median(counts))), 1) if len(counts) else 1


@dataclass(frozen=True)
class Distances:
    """Perturbations by their squared distance to a target, nearest first.

    Parameters
    ----------
    names
        Perturbations, that of the target not among them.
    n_cells
        Cells of each.
    distance
        Unbiased squared distances, shape ``(n_perturbations,)``.
    sd
        Their standard deviations with the cells there are.
    of_control
        That of the control cells.
    own
        Precision of each distance, with guides and replicates as planned.
    apart
        Of a row: the chance that it is measured farther than the nearest; of the nearest itself,
        that it is measured nearer than the second.
    """

    names: list[str]
    n_cells: NDArray[np.int64]
    distance: Array
    sd: Array
    of_control: float
    own: list[DistancePrecision]
    apart: Callable[[int], NearerChance]


def read_distances(
    measured: Measured,
    target: Wanted,
    fit: FittedPosterior,
    rng: int | np.random.Generator | None,
) -> Distances | None:
    """Return distances and their precision; ``None`` where no perturbation is left to measure.

    Weights of genes scale the units in which they are measured.
    """
    noise, left = measured.noise, np.ones(len(measured.names))
    n_cells, ratio = noise.pooled.n_cells, np.sqrt(noise.pooled.variance_ratio)
    if target.target_genes is not None:
        target, left = bind(target, fit, fit.targets)
    own = [
        j for j, name in enumerate(measured.names, start=1)
        if name != target.label and n_cells[j] > 1 and left[j - 1] >= LEAST_LEFT
    ]  # fmt: skip
    if not own:
        return None
    # The sd of the target's mean over that of a cell; its correlations are the cells'.
    least = np.maximum(noise.covariance.diagonal(), np.finfo(float).tiny)
    of_goal = np.sqrt(target.cells.variances[0] / least)
    goal = noise.covariance * np.outer(of_goal, of_goal)
    weights = np.atleast_2d(target.cells.weigh(np.ones(len(goal))))  # the controls are last
    root = np.broadcast_to(np.sqrt(np.roll(weights, 1, axis=0)), noise.pooled.mean.shape)
    gap = root * (noise.pooled.mean - target.cells.states[0])
    # |difference|^2 less the variances of both means, in units of the weights.
    every = np.array([
        gap[j] @ gap[j] - root[j] ** 2 @ (noise.spread(j) * noise.variance(j) + goal.diagonal())
        for j in range(len(gap))
    ])  # fmt: skip
    rows = np.array(own)[np.argsort(every[own], kind="stable")]

    # Covariances of one cell of a perturbation, and of the difference of means to the target's.
    def cell(j: int) -> Array:
        return np.outer(root[j], root[j]) * noise.cell_covariance(j)

    def error(j: int) -> Array:
        return cell(j) * noise.spread(j) + np.outer(root[j], root[j]) * goal

    plans = [
        DistancePrecision.of_distance(
            gap[j], cell(j), target_covariance=np.outer(root[j], root[j]) * goal,
            error=error(j), layout=measured.layout,
        )
        for j in rows
    ]  # fmt: skip
    sd = [float(plan.sd_at(noise.spread(j))) for plan, j in zip(plans, rows, strict=True)]
    draws = draw_noise(noise.covariance, rng)

    def apart(row: int) -> NearerChance:
        i, j = rows[row], rows[0] if row else rows[min(1, len(rows) - 1)]
        a, b, r, s = gap[i], gap[j], root[i], root[j]
        between = r**2 - s**2  # the target's error counts in both distances, as each weighs it
        wrong = np.outer(r, r) * cell(i) * noise.spread(i) + np.outer(between, between) * goal
        wrong += np.outer(s, s) * cell(j) * noise.spread(j)
        return NearerChance.of_draws(
            (a, b), draws,
            scales=(r * ratio[i], s * ratio[j], r * of_goal, s * of_goal),
            difference=every[i] - every[j],
            variances=(
                quadratic_form(a, cell(i), error(i)), quadratic_form(b, cell(j), error(j)),
                quadratic_form(r * a - s * b, goal, wrong),
            ),
            layout=measured.layout,
        )  # fmt: skip

    names = [measured.names[j - 1] for j in rows]
    return Distances(names, n_cells[rows], every[rows], np.array(sd), float(every[0]), plans, apart)


def distances_table(distances: Distances, *, tolerance: float, power: float) -> pd.DataFrame:
    """Return one row per perturbation: its distance, and the cells and guides that are needed."""
    of_control = distances.of_control if distances.of_control > 0 else np.nan
    sd = tolerance * of_control / norm.ppf((1 + INTERVAL) / 2)
    difference = distances.distance - distances.distance[0]
    # Of the nearest itself, that of the second beyond it.
    difference[0] = difference[1] if len(difference) > 1 else np.nan
    layout = distances.own[0].layout
    precise = [plan.spread_for(sd) for plan in distances.own]
    apart = [distances.apart(row).spread_for(power) for row in range(len(distances.names))]
    known = np.where(np.isfinite(sd), 1.0, np.nan)  # NaN if the control's distance is 0
    return pd.DataFrame(
        {
            "perturbation": _adata.strings(distances.names),
            "n_cells": distances.n_cells.astype(np.int64),
            "distance": distances.distance,
            "sd": distances.sd,
            "relative_distance": distances.distance / of_control,
            "cells_needed": layout.cells_for(precise) * known,
            "guides_needed": layout.guides_for(precise) * known,
            "difference": difference,
            "cells_to_distinguish": layout.cells_for(apart),
            "guides_to_distinguish": layout.guides_for(apart),
        }
    )
