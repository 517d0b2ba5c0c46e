"""Side information: effects in another screen, and of perturbations with similar features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from nextpert.core._blas import one_thread
from nextpert.core.model.predictors.base import Prediction, Predictor, predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nextpert.core.model.perturbations import Perturbations
    from nextpert.core.model.predictors.base import SideInformation

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

# Shares of the variance of effects that features may explain.
_RHO = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
_FEWEST = 5  # perturbations, to learn from: fewer have less than 99 different permutations
_COMPONENTS = 50  # of effects, by which rho is chosen: what follows is mostly noise
# Tables with rows permuted, and which of their gains, by size, a table has to exceed: one that says
# nothing does with a probability of 0.03. The third largest of 99 scatters less than the largest of
# 20. By that, one in 16 permuted tables raised the error on Papalexi by more than 1%, the worst of
# 280 by 17%; by this one in 35, and the worst by 11%.
_PERMUTATIONS, _HIGHEST = 99, 3


class Solved(NamedTuple):
    """What held-out residuals and predictions need of ``A = K^-1``, gene by gene.

    ``K`` is the covariance of the effects of ``n`` perturbations up to a factor. Those of which a
    gene is missing are taken out of ``K`` for that gene.

    Parameters
    ----------
    values
        ``A y``, shape ``(n, n_genes)``; 0 where missing, as the next two.
    ones
        ``A 1``, same shape.
    diagonal
        Diagonal of ``A``, same shape, or as ``ones`` with one column where no gene is missing.
    mean
        Generalised least squares mean of every gene, shape ``(n_genes,)``.
    """

    values: Array
    ones: Array
    diagonal: Array
    mean: Array

    @classmethod
    def of(cls, rows: Array, noise: Array, effects: Array, missing: Mask) -> Solved:
        """Return these of ``K = Z Z' + D`` (equation 26), by ``r x r`` algebra.

        Parameters
        ----------
        rows
            ``Z``, shape ``(n, r)``.
        noise
            Diagonal of ``D``, above 0, shape ``(n,)``.
        effects
            ``y``, shape ``(n, n_genes)``.
        missing
            Whether an effect is unknown, same shape.
        """
        n, root = len(rows), np.sqrt(noise)
        # Any Z of the same Z Z' will do.
        if rows.shape[1] > n:
            size, basis = np.linalg.eigh(rows @ rows.T)
            rows = basis * np.sqrt(np.maximum(size, 0.0))
        scaled = rows / root[:, None]
        # Woodbury: (Z Z' + D)^-1 by the r x r matrix I + Z' D^-1 Z = L L'.
        factor = np.linalg.cholesky(np.eye(rows.shape[1]) + scaled.T @ scaled)
        # A = D^-1/2 (1 - inner' inner) D^-1/2
        inner = solve_triangular(factor, scaled.T, lower=True, check_finite=False)

        def solve(right: Array) -> Array:
            right = right / root[:, None]
            return (right - inner.T @ (inner @ right)) / root[:, None]

        values, ones = solve(np.where(missing, 0.0, effects)), solve(np.ones((n, 1)))
        diagonal = (1.0 - (inner**2).sum(axis=0))[:, None] / noise[:, None]
        lacking = np.flatnonzero(missing.any(axis=0))
        if len(lacking):
            ones, diagonal = (np.tile(each, values.shape[1]) for each in (ones, diagonal))
        for g in lacking:
            # The inverse of K without some rows, from columns of A: a Schur complement.
            out = np.flatnonzero(missing[:, g])
            columns = -(inner.T @ (inner[:, out] / root[out])) / root[:, None]
            columns[out, np.arange(len(out))] += 1.0 / noise[out]
            # A less columns gone: K without `out`.
            gone = np.linalg.solve(columns[out], columns.T)
            values[:, g] -= gone.T @ values[out, g]
            ones[:, g] -= gone.T @ ones[out, g]
            diagonal[:, g] -= np.einsum("nk,kn->n", columns, gone)
            values[out, g] = ones[out, g] = 0.0
            diagonal[out, g] = 1.0
        total = np.maximum(ones.sum(axis=0), np.finfo(np.float64).tiny)
        return cls(values, ones, diagonal, values.sum(axis=0) / total)

    def residuals(self) -> Array:
        """Return effects less what the other perturbations expect, the mean estimated along.

        With ``P = A - A 1 1'A / (1'A 1)`` they are ``(P y)_j / P_jj`` (equation 27).
        """
        total = self.ones.sum(axis=0)
        # P_jj, and (P y)_j = (A y)_j - (A 1)_j mean.
        left = self.diagonal - self.ones**2 / np.where(total > 0, total, 1.0)
        apart = self.values - self.ones * self.mean
        return apart / np.where(left > 1e-12 * self.diagonal, left, np.inf)

    def means(self) -> Array:
        """Return the mean of every gene estimated without each perturbation, ``(n, n_genes)``."""
        total = self.ones.sum(axis=0) - self.ones**2 / self.diagonal
        value = self.values.sum(axis=0) - self.ones * self.values / self.diagonal
        return np.where(total > 0, value / np.where(total > 0, total, 1.0), 0.0)


class _Screen(NamedTuple):
    """Measured perturbations of which something is known, genes in units of their sd.

    Parameters
    ----------
    place
        Their places among the perturbations of the screen, shape ``(n,)``.
    effects
        Their effects, shape ``(n, n_genes)``.
    missing
        Whether a gene is a target, or does not vary, same shape.
    noise
        Mean sampling variance of their effects, shape ``(n,)``.
    size
        Variance of effects about their mean beyond sampling.
    components
        Principal components of the effects about their mean, shape ``(n, n_components)``.
    """

    place: NDArray[np.int64]
    effects: Array
    missing: Mask
    noise: Array
    size: float
    components: Array

    @classmethod
    def of(cls, screen: Perturbations, known: Mask) -> _Screen | None:
        """Return those that are ``known``; ``None`` if they are few or do the same."""
        scored = screen.scored()
        place = np.flatnonzero(known & scored.any(axis=1))
        if len(place) < _FEWEST:
            return None
        # Effects and noise in units of each gene.
        used, sd = scored[place], np.where(screen.sd > 0, screen.sd, 1.0)
        effects = np.where(used, screen.observed[place] / sd, 0.0)
        noise = np.where(used, screen.own_variance()[place] / sd**2, 0.0)
        apart, count = _centred(effects, used), used.sum(axis=0)
        many = np.maximum(count - 1, 0)
        own = (noise * many / np.maximum(count, 1)).sum()
        # Variance of effects about the mean of their gene, less that of sampling.
        size = ((apart**2).sum() - own) / max(many.sum(), 1)
        if size <= 0:
            return None
        if len(place) < apart.shape[1]:
            # Components of the effects, by the smaller of the two Gram matrices.
            square, basis = np.linalg.eigh(apart @ apart.T)
            components = basis * np.sqrt(np.maximum(square, 0.0))
        else:
            components = apart @ np.linalg.eigh(apart.T @ apart)[1]
        per = noise.sum(axis=1) / used.sum(axis=1)
        return cls(place, effects, ~used, per, float(size), components[:, -_COMPONENTS:])

    def covariance(self, rho: float, rows: Array) -> tuple[Array, Array]:
        """Return ``Z`` and the diagonal of ``D`` if features explain a part of the variance."""
        z = np.sqrt(rho) * rows
        # Every effect has the same variance.
        rest = np.maximum(1.0 - (z**2).sum(axis=1), 1e-6)
        return z, rest + self.noise / self.size

    def solved(self, rho: float, rows: Array) -> Solved:
        """Return the model of all genes; ``rows`` are the features, shape ``(n, rank)``."""
        return Solved.of(*self.covariance(rho, rows), self.effects, self.missing)

    def best_rho(self, rows: Array) -> tuple[float, float]:
        """Return rho of least error of left-out perturbations, and its gain over 0.

        Shares are tried from the smallest as long as the error falls. It is that of the components,
        of which there are fewer than genes, and counts less where cells are few. ``rows`` are the
        features, or permuted ones.
        """
        none = np.zeros(self.components.shape, bool)

        def loss(rho: float) -> float:
            # Without features K is diagonal.
            z = rows if rho > 0 else rows[:, :0]
            solved = Solved.of(*self.covariance(rho, z), self.components, none)
            return float((solved.residuals() ** 2 / (self.size + self.noise)[:, None]).sum())

        best, least = _RHO[0], loss(_RHO[0])
        for rho in _RHO[1:]:
            if (next_one := loss(rho)) >= least:
                break
            best, least = rho, next_one
        return best, loss(0.0) - least


def _centred(effects: Array, used: Mask) -> Array:
    """Return effects less the mean of their gene, 0 where not used, ``(n, n_genes)``."""
    mean = np.where(used, effects, 0.0).sum(axis=0) / np.maximum(used.sum(axis=0), 1)
    return np.where(used, effects - mean, 0.0)


def _beyond_chance(gain: Callable[[NDArray[np.int64]], float], n: int) -> float:
    """Return how far a gain ``g`` is beyond those of 99 tables of permuted rows, 0 to 1.

    ``gain`` takes the order of the ``n`` rows of a table. With the third largest gain ``g0`` of the
    permuted ones it is ``(g - g0) / g0``, at most 1. It bounds the weight of what the table says,
    so that a table of which the order of rows does not matter counts for nothing, one that is only
    just better than these for little, and one that gains twice as much in full. When three permuted
    tables gain as much as it, no more are drawn.
    """
    own, rng, highest = gain(np.arange(n)), np.random.default_rng(0), [0.0] * _HIGHEST
    for _ in range(_PERMUTATIONS):
        highest = sorted([*highest, gain(rng.permutation(n))])[1:]
        if own <= highest[0]:
            return 0.0
    return float(min(own / highest[0] - 1.0, 1.0)) if highest[0] > 0 else 1.0


@predictor("other screen")
class OtherScreen(Predictor):
    """Effects in another screen (``known``), found by label; of other perturbations their mean.

    If it said nothing of others, the mean perturbation here would get a weight that is right for
    these, or one that is right for those that it tells of, but not both.
    """

    order: ClassVar[int] = 4
    by_change: ClassVar[bool] = False
    draws_on: ClassVar[tuple[str, ...]] = ("other_screen",)

    def __init__(self, known: SideInformation) -> None:
        self.known = known

    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return what is known of the candidates' labels, and of others the mean."""
        del screen
        known = np.zeros((1, 0)) if self.known.effects is None else self.known.effects
        padded = np.vstack([known, known.mean(axis=0)])
        effects = padded[[self.known.place.get(name, -1) for name in candidates.names]]
        return Prediction(self.name, np.where(candidates.own(), 0.0, effects))

    def held_out(self, screen: Perturbations) -> Prediction:
        """Return the same, as it has seen no cell of this screen, with its largest weight.

        The gain is that of the best multiple, 0 to 1, of departures from the mean there, which are
        added to the mean here.
        """
        prediction = self.predict(screen, screen)
        measured = _Screen.of(screen, np.array([name in self.known.place for name in screen.names]))
        if measured is None:
            return replace(prediction, most=0.0)
        there = prediction.effects[measured.place] / np.where(screen.sd > 0, screen.sd, 1.0)
        counts = 1.0 / (measured.size + measured.noise)[:, None]

        def gain(order: NDArray[np.int64]) -> float:
            # No row's own targets are compared.
            used = ~(measured.missing | measured.missing[order])
            y, x = _centred(measured.effects, used), _centred(there[order], used)
            # Error falls by 2 w x'y - w^2 x'x at the best w of 0 to 1.
            along, square = (counts * x * y).sum(), (counts * x**2).sum()
            weight = np.clip(along / square, 0.0, 1.0) if square > 0 else 0.0
            return float(2 * weight * along - weight**2 * square)

        return replace(prediction, most=_beyond_chance(gain, len(measured.place)))


@predictor("features")
class Features(Predictor):
    """Departures from the mean perturbation that similar features predict (equations 26, 27).

    The effects on a gene, in units of its standard deviation, are a mean and normal departures,
    whose correlation between two perturbations is the share ``rho`` times the similarity of their
    features (``known``). ``rho`` has the smallest error of left-out perturbations. Only the
    expected departure is returned, because the mean is another predictor.
    """

    order: ClassVar[int] = 5
    by_change: ClassVar[bool] = False
    draws_on: ClassVar[tuple[str, ...]] = ("features",)

    def __init__(self, known: SideInformation) -> None:
        self.known = known

    @one_thread()
    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return what perturbations of similar features do beyond the mean; 0 without features."""
        own, rows = candidates.own(), self.known.of(screen.names)
        measured, effects = _Screen.of(screen, np.asarray(rows.any(axis=1))), np.zeros(own.shape)
        if measured is not None:
            rows = rows[measured.place]
            rho = measured.best_rho(rows)[0]
            solved = measured.solved(rho, rows)
            # Kriging: rho Z* Z' K^-1 (y - mean), in units of genes.
            similar = rho * self.known.of(candidates.names) @ rows.T
            effects = similar @ (solved.values - solved.ones * solved.mean) * screen.sd
        return Prediction(self.name, np.where(own, 0.0, effects))

    @one_thread()
    def held_out(self, screen: Perturbations) -> Prediction:
        """Return the same of the screen's perturbations, each left out, in closed form.

        Weights of the effects of others sum to 0, so that none is shared with the controls.
        """
        # Closed form (27): no refit for each perturbation left out.
        rows, effects, most = self.known.of(screen.names), np.zeros(screen.observed.shape), 0.0
        measured = _Screen.of(screen, np.asarray(rows.any(axis=1)))
        if measured is not None:
            rows = rows[measured.place]
            most = _beyond_chance(lambda order: measured.best_rho(rows[order])[1], len(rows))
            solved = measured.solved(measured.best_rho(rows)[0], rows)
            expected = measured.effects - solved.residuals() - solved.means()
            effects[measured.place] = np.where(measured.missing, 0.0, expected * screen.sd)
        return Prediction(self.name, effects, most=most)
