"""Acquisitions by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core.acquisition import (
    CausalVariance,
    Civ,
    CivOw,
    ExpectedImprovementInt,
    Greedy,
    MaxVariance,
    MutualInformationInt,
    Random,
    TargetMeanVariance,
    UpperConfidenceInt,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from nextpert.core.acquisition import Acquisition
    from nextpert.core.dag_blr import DagBlr
    from nextpert.core.domain import Domain

CRITERIA = (
    "random", "greedy", "maxv", "cv", "civ", "civ_ow", "target_mean_variance", "ei", "mi", "ucb",
)  # fmt: skip


def build_acquisition(
    criterion: str,
    posterior: DagBlr,
    target_mean: ArrayLike,
    *,
    domain: Domain,
    n_cells: float,
    noise_aware: bool = False,
    best: float = np.inf,
    rng: int | np.random.Generator | None = None,
) -> Acquisition:
    """Return the acquisition of a given name.

    Parameters
    ----------
    criterion
        ``"civ"``, ``"civ_ow"``, ``"cv"``, ``"maxv"``, ``"target_mean_variance"``, ``"greedy"``,
        ``"random"``, ``"ei"``, ``"mi"`` or ``"ucb"``.
    posterior
        The posterior over the weights.
    target_mean
        The wanted mean, shape ``(n_nodes,)``, units of the data.
    domain
        Where shifts may lie; CIV and CIV-OW average over it.
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        Whether the hypothetical cells' scatter teaches too (see :class:`LookaheadAcquisition`).
    best
        Squared distance that expected improvement (``"ei"``) has to beat.
    rng
        Seed or generator of the random criterion and of those that draw from the posterior.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, Sphere, build_acquisition
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False)
    >>> options = dict(domain=Sphere(1.0), n_cells=1, rng=np.random.default_rng(0))
    >>> build_acquisition("cv", blr, np.ones(2), **options).name
    'cv'
    """
    ahead: dict[str, Any] = {"n_cells": n_cells, "noise_aware": noise_aware}
    makers: dict[str, Callable[[], Acquisition]] = {
        "random": lambda: Random(posterior.n_nodes, rng=rng),
        "greedy": lambda: Greedy(posterior, target_mean),
        "maxv": lambda: MaxVariance(posterior, target_mean, **ahead),
        "cv": lambda: CausalVariance(posterior, target_mean, **ahead),
        "civ": lambda: Civ(posterior, target_mean, domain=domain, **ahead),
        "civ_ow": lambda: CivOw(posterior, target_mean, domain=domain, **ahead),
        "target_mean_variance": lambda: TargetMeanVariance(posterior, target_mean, **ahead),
        "ei": lambda: ExpectedImprovementInt(posterior, target_mean, best=best, rng=rng),
        "mi": lambda: MutualInformationInt(posterior, target_mean, n_cells=n_cells, rng=rng),
        "ucb": lambda: UpperConfidenceInt(posterior, target_mean),
    }
    if criterion not in makers:
        message = f"Unknown acquisition {criterion!r}: choose one of {', '.join(CRITERIA)}."
        raise ValueError(message)
    return makers[criterion]()
