"""CIV: the causal integrated variance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core.acquisition.base import LookaheadAcquisition
from nextpert.core.acquisition.candidates import Ranked
from nextpert.core.acquisition.domain.sphere import Sphere
from nextpert.core.acquisition.registry import acquisition
from nextpert.core.acquisition.uncertain_civ import UncertainCiv

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.acquisition.candidates import Candidates
    from nextpert.core.acquisition.domain.base import Domain
    from nextpert.core.posterior.dag_blr import DagBlr


@acquisition("civ")
class Civ(LookaheadAcquisition):
    """Causal integrated variance: how uncertain the optimality gap stays, averaged over shifts.

    The variance of ``g(a) = |a + mean noise - (I - B) mu*|^2`` under the posterior after
    ``n_cells`` hypothetical cells, averaged over ``domain``:
    ``sum_i kappa_i s_i^2 + 4 s_i e_i E(a_i - b_i)^2`` with ``s_i = 1/n + w_i``
    (Zhang et al. 2023, eqs. 12 and 13, there for known noise variances and the unit sphere).

    Parameters
    ----------
    posterior
        The posterior over the weights.
    target_mean
        The wanted mean, shape ``(n_nodes,)``, units of the data.
    domain
        Where interventions may lie; its mean and variance define the average. The unit sphere by
        default, as in the paper.
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        Whether the hypothetical cells' scatter teaches too (see :class:`LookaheadAcquisition`).

    Raises
    ------
    ValueError
        For a target of the wrong length, or while the noise variances' shape is not above 2.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Civ, Dag, DagBlr, Sphere
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> civ = Civ(blr, np.array([1.0, 0.0]))
    >>> Sphere(1.0).minimise(civ, rng=0).shift.round(3).tolist()
    [1.0, 0.0]
    """

    in_words = "what their cells would teach (causal integrated variance)"
    output_weighted = False

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        domain: Domain | None = None,
        n_cells: float = 1,
        noise_aware: bool = False,
    ) -> None:
        self.domain = Sphere(1.0) if domain is None else domain
        super().__init__(posterior, target_mean, n_cells=n_cells, noise_aware=noise_aware)

    @classmethod
    def of_candidates(cls, asked: Candidates) -> Ranked:
        """Return it after cells of every candidate, shifts and graph uncertain."""
        seed = int(asked.rng.integers(2**63))  # one choice of the average for both
        found = cls._over(asked, noise_aware=asked.noise_aware, rng=seed)
        # What is reported as removed is what is expected, by the cells' scatter too.
        aware = found if asked.noise_aware else cls._over(asked, noise_aware=True, rng=seed)
        return Ranked(found.values(), aware.removed())

    @classmethod
    def plate(cls, asked: Candidates, ready: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Return the best of the candidates ``ready``, each given the cells of those before."""
        civ = cls._over(asked, noise_aware=asked.noise_aware, rng=asked.rng)
        chosen, _ = civ.plate(size + asked.size - len(ready))
        return chosen[np.isin(chosen, ready)][:size]

    @classmethod
    def _over(cls, asked: Candidates, **options: Any) -> UncertainCiv:
        return UncertainCiv(
            asked.posteriors, asked.shifts, asked.goal, n_cells=asked.n_cells,
            output_weighted=cls.output_weighted, **options,
        )  # fmt: skip

    def mean_square(self) -> NDArray[np.float64]:
        """Return ``E(a_i - b_i)^2`` over the domain, shape ``(n_nodes,)``."""
        mean, variance = self.domain.moments(self.n_nodes)
        return variance + (mean - self.ideal_shift) ** 2

    def coefficients(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ``kappa`` and ``4 e E(a - b)^2``."""
        e, kappa = self.spread_ahead()
        return kappa, 4 * e * self.mean_square()
