"""Cells that copy a screen: its graph, noise, shifts, and number of cells a perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core import DagBlr, LinearScm, ScreenMoments, fit_random_shifts, pool_guides

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from nextpert.core import Dag

    Array = NDArray[np.float64]


def simulate_like(
    cells: Mapping[str, Array], dag: Dag, shifts: Array, rng: np.random.Generator
) -> dict[str, Array]:
    """Return cells drawn from a fit to those of a screen, as many as it has.

    Parameters
    ----------
    cells
        Cells of the controls (first) and of perturbations, each ``(n_cells, n_genes)``.
    dag
        The graph, to which weights, noise and shifts are fitted.
    shifts
        Expected shift of every perturbation, shape ``(n_perturbations, n_genes)``.
    rng
        Source of the draws: of shifts as far as their cells leave them open, and of cells.
    """
    scm, drawn = model_like(cells, dag, shifts, rng)
    every = np.vstack([np.zeros(dag.n_nodes), drawn])
    return {
        name: scm.sample(len(x), shift, rng=rng)
        for (name, x), shift in zip(cells.items(), every, strict=True)
    }


def model_like(
    cells: Mapping[str, Array], dag: Dag, shifts: Array, rng: np.random.Generator
) -> tuple[LinearScm, Array]:
    """Return the model of :func:`simulate_like` and its shifts, ``(n_perturbations, n_genes)``."""
    codes = np.repeat(np.arange(len(cells)), [len(x) for x in cells.values()])
    screen = ScreenMoments.from_array(np.concatenate(list(cells.values())), codes, len(cells))
    found = fit_random_shifts(
        DagBlr(dag), pool_guides(screen, np.arange(len(cells)), len(cells)), shifts
    )
    blr, known = found.posterior, found.prior.given(found.posterior)
    noise = np.sqrt(known.spare * blr.noise_var)
    drawn = known.expected(blr) + noise * rng.standard_normal(noise.shape)
    return LinearScm(blr.mean().toarray(), blr.noise_var, blr.intercept_mean), drawn
