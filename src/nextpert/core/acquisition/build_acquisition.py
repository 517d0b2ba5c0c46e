"""Acquisitions by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core.acquisition.causal_variance import CausalVariance
from nextpert.core.acquisition.civ import Civ
from nextpert.core.acquisition.civ_ow import CivOw
from nextpert.core.acquisition.expected_improvement import ExpectedImprovementInt
from nextpert.core.acquisition.greedy import Greedy
from nextpert.core.acquisition.max_variance import MaxVariance
from nextpert.core.acquisition.mutual_information import MutualInformationInt
from nextpert.core.acquisition.random import Random
from nextpert.core.acquisition.target_mean_variance import TargetMeanVariance
from nextpert.core.acquisition.upper_confidence import UpperConfidenceInt

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from nextpert.core.acquisition.base import Acquisition
    from nextpert.core.acquisition.domain.base import Domain
    from nextpert.core.posterior.dag_blr import DagBlr

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
