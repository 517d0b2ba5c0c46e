"""Predictors from side information: effects in another screen, and similar features."""

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
_MIN_PERTURBATIONS = 5  # minimum perturbations: fewer have less than 99 different permutations
_COMPONENTS = 50  # components of effects used to choose rho; further ones are mostly noise
# Number of tables with permuted rows, and the rank of the permuted gain that a table must exceed;
# an uninformative table does with probability 0.03. The third largest of 99 gains varies less than
# the largest of 20. With the latter, one in 16 permuted tables increased the error on Papalexi by
# more than 1%, and the worst of 280 by 17%; with the former, one in 35, and the worst by 11%.
_PERMUTATIONS = 99
_RANK_TO_EXCEED = 3


class Solved(NamedTuple):
    """Products with ``A = K^-1`` for held-out residuals and predictions, gene by gene.

    ``K`` is the covariance of the effects of ``n`` perturbations up to a factor. For each gene,
    perturbations without a value are removed from ``K``.

    Parameters
    ----------
    values
        ``A y``, shape ``(n, n_genes)``; 0 for missing values.
    ones
        ``A 1``, same shape; 0 for missing values, or one column if none is missing.
    diagonal
        Diagonal of ``A``, same shape as ``ones``; 1 for missing values.
    mean
        Generalised least squares mean of every gene, shape ``(n_genes,)``.
    """

    values: Array
    ones: Array
    diagonal: Array
    mean: Array

    @classmethod
    def of(cls, rows: Array, noise: Array, effects: Array, missing: Mask) -> Solved:
        """Return the products for ``K = Z Z' + D`` (equation 26), with ``r x r`` matrices.

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
        # Any Z with the same Z Z' gives the same result.
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
            ones, diagonal = (np.tile(table, values.shape[1]) for table in (ones, diagonal))
        for g in lacking:
            # The inverse of K without some rows, from columns of A (a Schur complement).
            out = np.flatnonzero(missing[:, g])
            columns = -(inner.T @ (inner[:, out] / root[out])) / root[:, None]
            columns[out, np.arange(len(out))] += 1.0 / noise[out]
            # A minus columns times projection is the inverse without `out`.
            projection = np.linalg.solve(columns[out], columns.T)
            values[:, g] -= projection.T @ values[out, g]
            ones[:, g] -= projection.T @ ones[out, g]
            diagonal[:, g] -= np.einsum("nk,kn->n", columns, projection)
            values[out, g] = ones[out, g] = 0.0
            diagonal[out, g] = 1.0
        total = np.maximum(ones.sum(axis=0), np.finfo(np.float64).tiny)
        return cls(values, ones, diagonal, values.sum(axis=0) / total)

    def residuals(self) -> Array:
        """Return effects minus predictions from the other perturbations, which include the mean.

        With ``P = A - A 1 1'A / (1'A 1)``, residuals are ``(P y)_j / P_jj`` (equation 27).
        """
        total = self.ones.sum(axis=0)
        # P_jj, and (P y)_j = (A y)_j - (A 1)_j mean.
        inverse_diagonal = self.diagonal - self.ones**2 / np.where(total > 0, total, 1.0)
        departures = self.values - self.ones * self.mean
        return departures / np.where(
            inverse_diagonal > 1e-12 * self.diagonal, inverse_diagonal, np.inf
        )

    def means(self) -> Array:
        """Return the mean of every gene estimated without each perturbation, ``(n, n_genes)``."""
        total = self.ones.sum(axis=0) - self.ones**2 / self.diagonal
        value = self.values.sum(axis=0) - self.ones * self.values / self.diagonal
        return np.where(total > 0, value / np.where(total > 0, total, 1.0), 0.0)


class _Screen(NamedTuple):
    """Measured perturbations with side information; effects in units of each gene's SD.

    Parameters
    ----------
    rows
        Positions among the perturbations of the screen, shape ``(n,)``.
    effects
        Effects, shape ``(n, n_genes)``.
    missing
        Whether a gene is a target, or does not vary, same shape.
    noise
        Mean sampling variance of the effects of each perturbation, shape ``(n,)``.
    size
        Variance of effects about their mean beyond sampling.
    components
        Principal components of the effects about their mean, shape ``(n, n_components)``.
    """

    rows: NDArray[np.int64]
    effects: Array
    missing: Mask
    noise: Array
    size: float
    components: Array

    @classmethod
    def of(cls, screen: Perturbations, described: Mask) -> _Screen | None:
        """Return the ``described`` perturbations; ``None`` if these are few or of equal effects."""
        scored = screen.scored()
        measured = np.flatnonzero(described & scored.any(axis=1))
        if len(measured) < _MIN_PERTURBATIONS:
            return None
        # Effects and noise in units of each gene.
        used, sd = scored[measured], np.where(screen.sd > 0, screen.sd, 1.0)
        effects = np.where(used, screen.observed[measured] / sd, 0.0)
        noise = np.where(used, screen.own_variance()[measured] / sd**2, 0.0)
        centred, count = _centred(effects, used), used.sum(axis=0)
        freedom = np.maximum(count - 1, 0)
        noise_variance = (noise * freedom / np.maximum(count, 1)).sum()
        # Variance of effects about the mean of their gene, minus sampling variance.
        size = ((centred**2).sum() - noise_variance) / max(freedom.sum(), 1)
        if size <= 0:
            return None
        if len(measured) < centred.shape[1]:
            # Components of the effects, from the smaller of the two Gram matrices.
            square, basis = np.linalg.eigh(centred @ centred.T)
            components = basis * np.sqrt(np.maximum(square, 0.0))
        else:
            components = centred @ np.linalg.eigh(centred.T @ centred)[1]
        per = noise.sum(axis=1) / used.sum(axis=1)
        return cls(measured, effects, ~used, per, float(size), components[:, -_COMPONENTS:])

    def covariance(self, rho: float, rows: Array) -> tuple[Array, Array]:
        """Return ``Z`` and the diagonal of ``D`` if features explain a share of the variance."""
        z = np.sqrt(rho) * rows
        # Every effect has the same variance.
        unexplained = np.maximum(1.0 - (z**2).sum(axis=1), 1e-6)
        return z, unexplained + self.noise / self.size

    def solved(self, rho: float, rows: Array) -> Solved:
        """Return the model of all genes; ``rows`` are the features, shape ``(n, rank)``."""
        return Solved.of(*self.covariance(rho, rows), self.effects, self.missing)

    def best_rho(self, rows: Array) -> tuple[float, float]:
        """Return the rho with the smallest error of left-out perturbations, and its gain over 0.

        Values are tried in ascending order as long as the error decreases. The error is that of the
        components, which are fewer than genes, and has lower weight for perturbations with few
        cells. ``rows`` are the features, or permuted features.
        """
        none = np.zeros(self.components.shape, bool)

        def loss(rho: float) -> float:
            # Without features K is diagonal.
            z = rows if rho > 0 else rows[:, :0]
            solved = Solved.of(*self.covariance(rho, z), self.components, none)
            return float((solved.residuals() ** 2 / (self.size + self.noise)[:, None]).sum())

        best, smallest = _RHO[0], loss(_RHO[0])
        for rho in _RHO[1:]:
            if (next_one := loss(rho)) >= smallest:
                break
            best, smallest = rho, next_one
        return best, loss(0.0) - smallest


def _centred(effects: Array, used: Mask) -> Array:
    """Return effects minus the mean of their gene, 0 if not used, ``(n, n_genes)``."""
    mean = np.where(used, effects, 0.0).sum(axis=0) / np.maximum(used.sum(axis=0), 1)
    return np.where(used, effects - mean, 0.0)


def _beyond_chance(gain: Callable[[NDArray[np.int64]], float], n: int) -> float:
    """Return the excess of a gain ``g`` over those of 99 tables with permuted rows, 0 to 1.

    ``gain`` takes the order of the ``n`` rows of a table. With the third largest permuted gain
    ``g0``, the excess is ``(g - g0) / g0``, at most 1. It is the maximum weight of the table: 0 if
    the order of rows does not matter, small if the table is only slightly better than permuted
    ones, and 1 if it gains at least twice as much. Once three permuted tables gain as much as the
    table, no more are drawn.
    """
    observed_gain = gain(np.arange(n))
    rng = np.random.default_rng(0)
    highest = [0.0] * _RANK_TO_EXCEED
    for _ in range(_PERMUTATIONS):
        highest = sorted([*highest, gain(rng.permutation(n))])[1:]
        if observed_gain <= highest[0]:
            return 0.0
    return float(min(observed_gain / highest[0] - 1.0, 1.0)) if highest[0] > 0 else 1.0


@predictor("other screen")
class OtherScreen(Predictor):
    """Effects in another screen, by label; for all other labels, the mean effect there.

    If it predicted 0 for labels that are not in the other screen, no single weight of the mean
    perturbation would suit both kinds of labels.
    """

    order: ClassVar[int] = 4
    by_change: ClassVar[bool] = False
    draws_on: ClassVar[tuple[str, ...]] = ("other_screen",)

    def __init__(self, information: SideInformation) -> None:
        self.known = information

    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return the effects of the candidates' labels in the other screen, or the mean effect."""
        del screen
        known_effects = np.zeros((1, 0)) if self.known.effects is None else self.known.effects
        padded = np.vstack([known_effects, known_effects.mean(axis=0)])
        effects = padded[[self.known.place.get(name, -1) for name in candidates.names]]
        return Prediction(self.name, np.where(candidates.own(), 0.0, effects))

    def held_out(self, screen: Perturbations) -> Prediction:
        """Return the predictions, which use no cells of this screen, with their maximum weight.

        The maximum weight depends on the gain from adding departures from the mean there to the
        mean here, times the best factor from 0 to 1.
        """
        prediction = self.predict(screen, screen)
        measured = _Screen.of(screen, np.array([name in self.known.place for name in screen.names]))
        if measured is None:
            return replace(prediction, most=0.0)
        there = prediction.effects[measured.rows] / np.where(screen.sd > 0, screen.sd, 1.0)
        counts = 1.0 / (measured.size + measured.noise)[:, None]

        def gain(order: NDArray[np.int64]) -> float:
            # Target genes of either row are not compared.
            used = ~(measured.missing | measured.missing[order])
            y, x = _centred(measured.effects, used), _centred(there[order], used)
            # The error decreases by 2 w x'y - w^2 x'x, with the best w from 0 to 1.
            along, square = (counts * x * y).sum(), (counts * x**2).sum()
            weight = np.clip(along / square, 0.0, 1.0) if square > 0 else 0.0
            return float(2 * weight * along - weight**2 * square)

        return replace(prediction, most=_beyond_chance(gain, len(measured.rows)))


@predictor("features")
class Features(Predictor):
    """Departures from the mean perturbation, predicted from similar features (equations 26, 27).

    The effects on a gene, in units of its standard deviation, are a mean plus normal departures,
    whose correlation between two perturbations is the share ``rho`` times the similarity of their
    features. ``rho`` minimises the error of left-out perturbations. Only the expected
    departure is returned, because the mean is a separate predictor.
    """

    order: ClassVar[int] = 5
    by_change: ClassVar[bool] = False
    draws_on: ClassVar[tuple[str, ...]] = ("features",)

    def __init__(self, information: SideInformation) -> None:
        self.known = information

    @one_thread()
    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return the departures predicted from similar features; 0 without features."""
        is_target, rows = candidates.own(), self.known.of(screen.names)
        measured, effects = (
            _Screen.of(screen, np.asarray(rows.any(axis=1))),
            np.zeros(is_target.shape),
        )
        if measured is not None:
            rows = rows[measured.rows]
            rho = measured.best_rho(rows)[0]
            solved = measured.solved(rho, rows)
            # Kriging: rho Z* Z' K^-1 (y - mean), in units of genes.
            similar = rho * self.known.of(candidates.names) @ rows.T
            effects = similar @ (solved.values - solved.ones * solved.mean) * screen.sd
        return Prediction(self.name, np.where(is_target, 0.0, effects))

    @one_thread()
    def held_out(self, screen: Perturbations) -> Prediction:
        """Return predictions for the screen's perturbations, each left out, in closed form (27).

        The weights of the effects of others sum to 0, so that predictions do not share the error of
        the controls.
        """
        rows, effects, max_weight = (
            self.known.of(screen.names),
            np.zeros(screen.observed.shape),
            0.0,
        )
        measured = _Screen.of(screen, np.asarray(rows.any(axis=1)))
        if measured is not None:
            rows = rows[measured.rows]
            max_weight = _beyond_chance(lambda order: measured.best_rho(rows[order])[1], len(rows))
            solved = measured.solved(measured.best_rho(rows)[0], rows)
            expected = measured.effects - solved.residuals() - solved.means()
            effects[measured.rows] = np.where(measured.missing, 0.0, expected * screen.sd)
        return Prediction(self.name, effects, most=max_weight)
