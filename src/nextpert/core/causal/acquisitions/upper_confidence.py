"""UCB-Int: an optimistic estimate of the optimality gap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_vector
from nextpert.core.causal.base import Acquisition, project
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.dag_blr import DagBlr

    Vector = NDArray[np.float64]


@acquisition("ucb")
class UpperConfidenceInt(Acquisition):
    """UCB-Int: the optimality gap of a shift minus ``beta`` times its standard deviation.

    The value is ``E g - beta sd(g)``, from the posterior mean and standard deviation of the gap
    ``g(a) = |a - (I - B) mu* + c|^2``. These follow from ``E g = |a - b|^2 + sum_i e_i w_i`` and
    ``Var g = sum_i (kappa_i w_i^2 + 4 w_i e_i (a_i - b_i)^2)``, with the symbols of :class:`Civ`
    and the intercepts ``c`` (Zhang et al. 2023, Extended Data Fig. 5).
    The authors' code uses ``sqrt(sum_i w_i e_i (a_i - b_i)^2)`` as the standard deviation, so that
    its ``beta = 1`` corresponds approximately to ``beta = 0.5`` here.

    Parameters
    ----------
    posterior
        The posterior over the weights.
    target_mean
        The target mean, shape ``(n_nodes,)``, units of the data.
    beta
        Weight of the standard deviation, 0 or above; 0 ranks as :class:`Greedy` does.

    Raises
    ------
    ValueError
        If the target has the wrong length, ``beta`` is negative, or the shape parameter of the
        noise variances is at most 2.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, UpperConfidenceInt
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> UpperConfidenceInt(blr, [1.0, 0.0], beta=0.5).value([1.0, 0.5])
    0.3839745962155614
    """

    def __init__(self, posterior: DagBlr, target_mean: ArrayLike, *, beta: float = 1.0) -> None:
        if not (np.isfinite(beta) and beta >= 0):
            message = f"beta must be a finite number, 0 or above, but is {beta!r}."
            raise ValueError(message)
        super().__init__(posterior, target_mean)
        self.beta = float(beta)
        # w = q' M q: the variance of (B mu*)_i over the noise variance.
        _, w = project(self.posterior, self.target_mean)
        e, kappa = self.posterior.spread()
        self._spread = e * w
        self._least = float(kappa @ w**2)

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return the acquisition and its gradient at one shift, shape ``(n_nodes,)``."""
        gap = as_vector(shift, self.n_nodes, "shift") - self.ideal_shift
        # Var g = sum kappa w^2 + 4 sum w e (a - b)^2, E g = |a - b|^2 + sum e w.
        sd = np.sqrt(self._least + 4 * self._spread @ gap**2)
        value = gap @ gap + self._spread.sum() - self.beta * sd
        bend = 4 * self.beta / sd if sd > 0 else 0.0
        return float(value), gap * (2 - bend * self._spread)

    def values(self, shifts: ArrayLike) -> Vector:
        """Return the acquisition at every shift of a pool, ``(n_shifts, n_nodes)``."""
        square = (self._pool(shifts) - self.ideal_shift) ** 2
        sd = np.sqrt(self._least + 4 * square @ self._spread)
        return square.sum(axis=1) + self._spread.sum() - self.beta * sd
