"""EI-Int: expected improvement on the best state so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core.causal.base import DrawnAcquisition, Ranked
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.base import CandidateStates
    from nextpert.core.causal.dag_blr import DagBlr

    Array = NDArray[np.float64]


@acquisition("ei")
class ExpectedImprovementInt(DrawnAcquisition):
    """EI-Int: ``best`` minus the expected improvement of the squared distance to the target.

    This is ``E min(|(I - B)^-1 (c + a) - mu*|^2, best)`` over the posterior of the weights (Zhang
    et al. 2023, Extended Data Fig. 5), computed as a mean over ``n_samples`` draws, which are the
    same for every shift.

    Parameters
    ----------
    posterior
        The posterior over the weights.
    target_mean
        The target mean, shape ``(n_nodes,)``, units of the data.
    best
        Smallest squared distance so far between the target and the mean of the cells of a round, in
        squared units of the data; infinite (default) before the first round.
    n_samples
        Number of posterior draws.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If the target has the wrong length, ``best`` is negative or NaN, or ``n_samples`` is below
        1.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, ExpectedImprovementInt, Sphere
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> acquisition = ExpectedImprovementInt(blr, [1.0, 0.0], best=0.5, rng=0)
    >>> bool(acquisition.value([1.0, 0.0]) < acquisition.value([-1.0, 0.0]) == 0.5)
    True
    """

    exact_only = False
    in_words = "expected improvement"

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        best: float = np.inf,
        n_samples: int = 64,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        if not best >= 0:
            message = f"best must be a squared distance, 0 or above, but is {best!r}."
            raise ValueError(message)
        super().__init__(posterior, target_mean, n_samples=n_samples, rng=rng)
        self.best = float(best)

    def at_means(self, x: Array) -> tuple[float, Array]:
        """Return the mean of ``min(|x - mu*|^2, best)`` over draws, and its gradient in ``x``."""
        # Draws that do not improve on the best have a gradient of 0.
        gap = x - self.target_mean[:, None]
        loss = (gap**2).sum(axis=0)
        slopes = gap * (2.0 / len(loss) * (loss < self.best))
        return float(np.minimum(loss, self.best).mean()), slopes

    @classmethod
    def of_candidates(cls, candidates: CandidateStates) -> Ranked:
        """Return the expected squared distance of the better of a candidate and the incumbent."""
        return Ranked(kept_distance(candidates.distances, candidates.measured))


def kept_distance(distances: Any, measured: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the expected squared distance of the better of each candidate and the incumbent.

    The incumbent has the smallest mean distance among the control and the candidates with cells
    (``measured``). The value is its distance minus the expected improvement. The distances come
    from the same draws, so that shared uncertainty does not count as a chance of improvement.
    """
    # The control, which comes last, has cells.
    usable = np.append(measured, True)
    incumbent = int(np.where(usable, distances.mean, np.inf).argmin())
    best = distances.draws[:, incumbent, None]
    return np.minimum(distances.draws[:, :-1], best).mean(axis=0)
