"""The causal integrated variance as a plain dense program: the baseline of the design steps.

Known noise variances, no intercept, prior ``B_P ~ N(0, sigma^2 I)``. The posterior covariances of
all nodes lie in one tensor ``(p, p, p)``, padded with zeros where a gene is no parent; the formulas
of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0) are written out as they stand, matrices are
inverted, and SciPy's SLSQP with numeric gradients searches the ball ``|a| <= 1`` within
``[-1, 1]^p``, from two starts, at its default tolerances.

``plain=True`` forms the covariance after the hypothetical cells,
``M' = M - M x x'M / (1/n + x'Mx)``, and then ``q'M'q``. ``plain=False`` is what a careful author
makes of it by hand, ``q'M'q = q'Mq - (q'Mx)^2 / (1/n + x'Mx)``, still dense; it is timed beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass
class DensePosterior:
    """Means ``(p, p)``, row = child, and covariances over the noise variance ``(p, p, p)``."""

    parents: list[Array]
    noise_var: Array
    mean: Array
    cov: Array

    @classmethod
    def prior(cls, parents: Sequence[Array], noise_var: Array) -> DensePosterior:
        """Return the prior ``N(0, sigma^2 I)``; ``parents`` holds the parents of every node."""
        p = len(parents)
        cov = np.zeros((p, p, p))
        for i, own in enumerate(parents):
            cov[i, own, own] = 1.0
        return cls(list(parents), noise_var, np.zeros((p, p)), cov)

    def update(self, cells: Array, shift: Array) -> DensePosterior:
        """Return the posterior after ``cells`` (n, p) under a shift: ``(M^-1 + X'X)^-1``."""
        mean, cov = np.zeros_like(self.mean), np.zeros_like(self.cov)
        for i, own in enumerate(self.parents):
            if len(own) == 0:
                continue
            block = np.ix_(own, own)
            x, y = cells[:, own], cells[:, i] - shift[i]
            precision = np.linalg.inv(self.cov[i][block])
            after = np.linalg.inv(precision + x.T @ x)
            cov[i][block] = after
            mean[i, own] = after @ (precision @ self.mean[i, own] + x.T @ y)
        return DensePosterior(self.parents, self.noise_var, mean, cov)


class DenseCiv:
    """CIV after ``n_cells`` hypothetical cells; ``area``: mean and variance of the shifts."""

    def __init__(
        self,
        posterior: DensePosterior,
        target: Array,
        n_cells: float = 1,
        *,
        area: tuple[Array, Array] | None = None,
        plain: bool = True,
    ) -> None:
        p = len(target)
        self.posterior, self.target, self.n_cells = posterior, target, n_cells
        self.effects = np.linalg.inv(np.eye(p) - posterior.mean)
        self.ideal_shift = target - posterior.mean @ target
        centre, variance = (np.zeros(p), np.full(p, 1 / p)) if area is None else area
        self.mean_square = variance + (centre - self.ideal_shift) ** 2
        self.plain = plain
        self.spread = (posterior.cov @ target) @ target
        self.evaluations = 0

    def value(self, shift: Array) -> float:
        """Return the criterion at one shift, shape ``(p,)``."""
        self.evaluations += 1
        cov, var = self.posterior.cov, self.posterior.noise_var
        reached = self.effects @ shift
        y = cov @ reached  # (p, p), row i is M_i x'
        step = 1 / self.n_cells + y @ reached
        if self.plain:
            after = cov - y[:, :, None] * y[:, None, :] / step[:, None, None]
            spread = (after @ self.target) @ self.target
        else:
            spread = self.spread - (y @ self.target) ** 2 / step
        total = 1 / self.n_cells + spread
        return float((2 * var**2 * total**2 + 4 * var * total * self.mean_square).sum())

    def minimise(self, last: Array) -> tuple[Array, float]:
        """Return the best shift of the ball and its value, from ``last`` and the estimate."""
        ball = {"type": "ineq", "fun": lambda a: 1 - a @ a}
        best, least = last, np.inf
        for start in (last, self.ideal_shift / np.linalg.norm(self.ideal_shift)):
            found = minimize(
                self.value, start, method="SLSQP", bounds=[(-1, 1)] * len(start), constraints=ball
            )
            norm = np.linalg.norm(found.x)
            if found.fun < least and norm <= 1 + 1e-6:
                best, least = found.x / max(norm, 1.0), float(found.fun)
        return best, least
