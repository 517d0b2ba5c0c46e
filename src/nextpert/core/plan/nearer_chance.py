"""How many cells tell which of two perturbations is nearer to a target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._checks import as_rng
from nextpert.core.plan.layout import Layout

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

_DRAWS, _VALUES = 5000, 5_000_000  # draws, and numbers at most in those of one mean
_LEAST, _MOST = 2.0**-50, 2.0**20  # spreads of a mean that are looked at
_STEPS = 50  # of halving the exponent's range of 70: to a relative 1e-13
_SIGNS = ((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0))


class NoiseDraws(NamedTuple):
    """Errors of two means ``x`` and ``y`` and of a target's mean ``w``, and their products.

    Each is of shape ``(n_draws, n_nodes)``, normal, with the covariance of one cell.
    """

    x: Array
    y: Array
    w: Array
    xx: Array
    yy: Array
    xw: Array
    yw: Array


def draw_noise(covariance: ArrayLike, rng: int | np.random.Generator | None = None) -> NoiseDraws:
    """Return errors of means, for any number of pairs of perturbations.

    Parameters
    ----------
    covariance
        Covariance of a cell, shape ``(n_nodes, n_nodes)``.
    rng
        Seed or generator.
    """
    cell, generator = np.asarray(covariance, np.float64), as_rng(rng)
    values, vectors = np.linalg.eigh(cell)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    n = max(min(_DRAWS, _VALUES // max(len(cell), 1)), 2)
    x, y, w = (generator.standard_normal((n, len(cell))) @ root for _ in range(3))
    return NoiseDraws(x, y, w, x * x, y * y, x * w, y * w)


@dataclass(frozen=True)
class NearerChance:
    r"""The chance that the nearer of two perturbations comes out nearer.

    Where means of cells scatter by :math:`\sqrt{k} x` (``k`` the spread of a
    :class:`~nextpert.core.plan.layout.Layout`, ``x`` normal with the covariance of a cell), the
    error of the estimated difference of both squared distances
    (:func:`~nextpert.core.cells.distance_difference.distance_difference`) is a quadratic in
    :math:`\sqrt{k}`: one set of draws serves every number of cells. The difference is not normal
    where cells are few and a few programs of genes carry most of the noise: it has long tails, and
    normal quantiles would make the chance up to 4 points too low.

    Parameters
    ----------
    difference
        Of the true squared distances, the one first named less the other; squared units.
    constant, linear, square
        Coefficients of the error of that difference, each ``(n_draws,)``.
    layout
        Guides and replicates of each of the two.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.plan.nearer_chance import NearerChance, draw_noise
    >>> noise = draw_noise(np.eye(2), rng=0)
    >>> pair = NearerChance.of_draws(([1.0, 0.0], [1.0, 1.0]), noise)
    >>> bool(pair.chance(5) < 0.9 < pair.chance(50))
    True
    """

    difference: float
    constant: Array
    linear: Array
    square: Array
    layout: Layout = field(default_factory=Layout)

    @classmethod
    def of_draws(
        cls,
        departures: tuple[ArrayLike, ArrayLike],
        noise: NoiseDraws,
        *,
        scales: tuple[ArrayLike, ArrayLike, ArrayLike] = (1.0, 1.0, 0.0),
        difference: float | None = None,
        variances: tuple[float, float, float] | None = None,
        layout: Layout | None = None,
    ) -> NearerChance:
        """Return the chance, by draws of the errors.

        Parameters
        ----------
        departures
            Of both means from the target's, each of shape ``(n_nodes,)``.
        noise
            Draws of errors.
        scales
            What multiplies them: for a cell of the one, for a cell of the other, and for the
            target's mean; numbers, or of every node. By default the target is known without error.
        difference
            Of the true squared distances; ``None`` (default): that of the departures.
        variances
            Variances of ``a'x``, ``b'y`` and ``(a - b)'w``, where the departures ``a`` and ``b``
            were measured and what their own error adds was taken off. ``None`` (default): those
            of the draws.
        layout
            Guides and replicates.
        """
        a, b = (np.asarray(d, np.float64) for d in departures)
        r, s, t = (np.broadcast_to(np.asarray(scale, np.float64), a.shape) for scale in scales)
        along = [noise.x @ (r * a), noise.y @ (s * b), noise.w @ (t * (a - b))]
        if variances is not None:
            for line, variance in zip(along, variances, strict=True):
                line *= np.sqrt(variance / max(float((line**2).mean()), np.finfo(float).tiny))
        square = noise.xx @ (r * r) - noise.yy @ (s * s)
        ours = 2 * (along[0] - noise.xw @ (r * t))
        theirs = 2 * (along[1] - noise.yw @ (s * t))
        return cls(
            float(a @ a - b @ b) if difference is None else float(difference),
            # Errors of either mean are as likely with the other sign: four draws from one.
            np.tile(-2 * along[2], len(_SIGNS)),
            np.concatenate([one * ours - other * theirs for one, other in _SIGNS]),
            np.tile(square - square.mean(), len(_SIGNS)),
            layout or Layout(),
        )

    def errors(self, spread: float) -> Array:
        """Return draws of the error where means scatter so far, over the variance of a cell."""
        return self.constant + np.sqrt(spread) * self.linear + spread * self.square

    def chance(self, n_cells: ArrayLike) -> Array:
        """Return the chance with so many cells of each."""
        spread = self.layout.spread(n_cells)
        return np.array([self._chance(k) for k in spread.ravel()]).reshape(spread.shape)

    def cells_for(self, chance: float) -> float:
        """Return the least cells of each that give this chance, above .5.

        Infinite where guides, replicates or the target's own error do not allow it.
        """
        return float(self.layout.cells_for(self.spread_for(chance)))

    def guides_for(self, chance: float) -> float:
        """Return the least guides of each with which some number of cells does that."""
        return float(self.layout.guides_for(self.spread_for(chance)))

    def spread_for(self, chance: float) -> float:
        """Return the largest spread of a mean, over the variance of a cell, that gives the chance.

        Below 0 where the target's error alone does not allow it.
        """
        low, high = np.log(_LEAST), np.log(_MOST)
        if self._chance(_LEAST) < chance:
            return -np.inf
        for _ in range(_STEPS):
            middle = (low + high) / 2
            enough = self._chance(np.exp(middle)) >= chance
            low, high = (middle, high) if enough else (low, middle)
        return float(np.exp(low))

    def _chance(self, spread: float) -> float:
        if not self.difference:
            return 0.5
        found = np.sign(self.difference) * (self.difference + self.errors(spread))
        return float((found > 0).mean())
