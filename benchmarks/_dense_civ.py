"""The causal integrated variance as a plain dense program: the baseline of the design steps.

Known noise variances, no intercept, prior ``B_P ~ N(0, sigma^2 I)``. The posterior covariances of
all nodes lie in one tensor ``(p, p, p)``, padded with zeros where a gene is no parent; the formulas
of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0) are written out as they stand, matrices are
inverted, and SciPy's SLSQP with numeric gradients searches the ball ``|a| <= 1`` within
``[-1, 1]^p``, from two starts, at its default tolerances.

As in the authors' published code (github.com/uhlerlab/actlearn_optint; nothing is copied), ``A'MA``
and ``q'MA`` of every gene, ``A = (I - B)^-1``, are formed once a step; each evaluation takes
``q'M'q = q'Mq - (q'MAa)^2 / (1/n + a'A'MAa)``, with ``q'Mq`` anew. ``lean=True`` keeps that too.
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
    """Means ``(p, p)``, row = child, and covariances over the noise variance ``(p, p, p)``.

    ``precision`` holds the inverse covariance of every gene's own weights, which cells add to.
    """

    parents: list[Array]
    noise_var: Array
    mean: Array
    cov: Array
    precision: list[Array]

    @classmethod
    def prior(cls, parents: Sequence[Array], noise_var: Array) -> DensePosterior:
        """Return the prior ``N(0, sigma^2 I)``; ``parents`` holds the parents of every node."""
        p = len(parents)
        cov = np.zeros((p, p, p))
        for i, own in enumerate(parents):
            cov[i, own, own] = 1.0
        precision = [np.eye(len(own)) for own in parents]
        return cls(list(parents), noise_var, np.zeros((p, p)), cov, precision)

    def update(self, cells: Array, shift: Array) -> DensePosterior:
        """Return the posterior after ``cells`` (n, p) under a shift: ``(M^-1 + X'X)^-1``."""
        mean, cov, precision = np.zeros_like(self.mean), np.zeros_like(self.cov), []
        for i, own in enumerate(self.parents):
            x, y = cells[:, own], cells[:, i] - shift[i]
            precision.append(self.precision[i] + x.T @ x)
            after = np.linalg.inv(precision[i])
            cov[i][np.ix_(own, own)] = after
            mean[i, own] = after @ (self.precision[i] @ self.mean[i, own] + x.T @ y)
        return DensePosterior(self.parents, self.noise_var, mean, cov, precision)


class DenseCiv:
    """CIV after ``n_cells`` hypothetical cells; ``area``: mean and variance of the shifts."""

    def __init__(
        self,
        posterior: DensePosterior,
        target: Array,
        n_cells: float = 1,
        *,
        area: tuple[Array, Array] | None = None,
        lean: bool = False,
    ) -> None:
        p = len(target)
        self.posterior, self.target, self.n_cells = posterior, target, n_cells
        effects = np.linalg.inv(np.eye(p) - posterior.mean)
        half = posterior.cov @ effects
        self.reach = effects.T @ half  # (p, p, p), A'MA of every gene
        self.strategy = target @ half  # (p, p), q'MA
        self.ideal_shift = target - posterior.mean @ target
        centre, variance = (np.zeros(p), np.full(p, 1 / p)) if area is None else area
        self.mean_square = variance + (centre - self.ideal_shift) ** 2
        self.spread = self._spread() if lean else None
        self.evaluations = 0

    def value(self, shift: Array) -> float:
        """Return the acquisition at one shift, shape ``(p,)``."""
        self.evaluations += 1
        var = self.posterior.noise_var
        step = 1 / self.n_cells + (self.reach @ shift) @ shift
        before = self._spread() if self.spread is None else self.spread
        spread = before - (self.strategy @ shift) ** 2 / step
        total = 1 / self.n_cells + spread
        return float((2 * var**2 * total**2 + 4 * var * total * self.mean_square).sum())

    def _spread(self) -> Array:
        return (self.posterior.cov @ self.target) @ self.target

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
