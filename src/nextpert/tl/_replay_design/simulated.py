"""Cells that copy a screen: its graph, noise, shifts, and number of cells a perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core import LinearScm, ScreenMoments
from nextpert.tl._fit_dag_blr.cells import pool_cells
from nextpert.tl._fit_dag_blr.model import Model
from nextpert.tl._fit_dag_blr.spec import SHIFTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from nextpert.tl._fit_dag_blr.spec import Graphs, Spec

    Array = NDArray[np.float64]


def simulate_like(
    cells: Mapping[str, Array], spec: Spec, graphs: Graphs, rng: np.random.Generator
) -> dict[str, Array]:
    """Return cells drawn from a fit to those of a screen, as many as it has.

    Parameters
    ----------
    cells
        Cells of the controls (first) and of the perturbations of ``spec.plan``, each
        ``(n_cells, n_genes)``.
    spec, graphs
        What the fit is told; shifts are random, without predictors, whatever the spec says.
    rng
        Source of the draws: of shifts as far as their cells leave them open, and of cells.
    """
    scm, drawn = model_like(cells, spec, graphs, rng)
    every = np.vstack([np.zeros(scm.n_nodes), drawn])
    return {
        name: scm.sample(len(x), shift, rng=rng)
        for (name, x), shift in zip(cells.items(), every, strict=True)
    }


def model_like(
    cells: Mapping[str, Array], spec: Spec, graphs: Graphs, rng: np.random.Generator
) -> tuple[LinearScm, Array]:
    """Return the model of :func:`simulate_like` and its shifts, ``(n_perturbations, n_genes)``."""
    every = np.arange(len(cells))
    codes = np.repeat(every, [len(x) for x in cells.values()])
    screen = ScreenMoments.from_array(np.concatenate(list(cells.values())), codes, len(cells))
    pooled = pool_cells(screen, every, len(cells), guided=False)
    model = Model.fit(spec.named(SHIFTS), pooled, graphs)
    blr = model.found.posterior
    known = model.prior.given(blr)
    noise = np.sqrt(known.spare * blr.noise_var)
    drawn = known.expected(blr) + noise * rng.standard_normal(noise.shape)
    return LinearScm(blr.mean().toarray(), blr.noise_var, blr.intercept_mean), drawn
