"""Combinations of perturbations: additivity of effects, learned from measured combinations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.linalg import lapack
from scipy.optimize import minimize

from nextpert.core._codec import array
from nextpert.core.model.hierarchical import UNSEEN_VARIANCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

# Weak priors. The strength is 1 with SD 0.3 (1: effects are additive). The standard deviations of v
# and of the rest, in units of the scale, are log-normal about 0.3, with a factor of 2. These priors
# matter if few combinations are measured.
_STRENGTH = (1.0, 0.3)
_SD = (float(np.log(0.3)), float(np.log(2.0)))
_BOUNDS = ((-0.5, 2.5), (-6.0, 3.0), (-6.0, 3.0))  # bounds of the strength and the logarithms
_NODES = 5  # nodes of the quadrature over the strength
# Minimum standard deviations from 0 of predictions from members that are used. Effects of members
# are modelled as normal, but many are 0: 19% of those between 2 and 2.5 (15 cells per member), and
# twice as many effects of pairs were false as stated. With 3, the error is 10% higher.
_CLEAR = 2.5
# Minimum standard deviations from 0 of predictions that are in doubt. If an effect is either 0 or
# of one size, it is then as probably not 0. Without this doubt, a combination whose clear effects
# are as predicted is expected to have no others: the error of effects is 5 to 15% higher. With the
# square of the prediction as further variance, 5 times as many effects of pairs are false as stated
# (15 cells per member).
_POSSIBLE = 1.0
_MAX_DIMS = 128  # maximum number of dimensions used for learning
_MAX_COVARIANCE_ENTRIES = 2**21  # numbers in the covariances that are formed at once: 16 MB


@dataclass(frozen=True)
class Measured:
    """Measured combinations.

    Parameters
    ----------
    used
        Members that occur in a combination.
    design
        1 if a used member is in a combination, else 0, shape ``(n_combinations, n_used)``.
    alone, variance
        Mean and variance of the effects of members alone, shape ``(n_dims, n_members)``.
    effects, noise
        Effects of the combinations and their sampling variance (infinite if nothing is known),
        shape ``(n_dims, n_combinations)``.
    """

    used: NDArray[np.int64]
    design: Array
    alone: Array
    variance: Array
    effects: Array
    noise: Array

    @classmethod
    def in_units(
        cls,
        scale: Array,
        alone: Array,
        variance: Array,
        members: Sequence[tuple[int, ...]],
        effects: Array,
        noise: Array,
    ) -> Measured:
        """Return tables of :class:`Interactions` with dimensions first, in units of the scale."""
        # Members without a combination are known only from their effects alone.
        used = np.array(sorted({g for combination in members for g in combination}), np.int64)
        design = np.zeros((len(members), len(used)))
        for row, combination in zip(design, members, strict=True):
            row[np.searchsorted(used, combination)] = 1.0
        by = scale[:, None]
        return cls(used, design, alone.T / by, variance.T / by**2, effects.T / by, noise.T / by**2)

    def solved(self, strength: float, member_sd: float, rest_sd: float) -> Solved:
        """Return the posterior of the members' ``w``."""
        # w = lambda s + v: mean lambda s, variance lambda^2 Var s + sd_v^2.
        start, spread = strength * self.alone, np.sqrt(strength**2 * self.variance + member_sd**2)
        # Variance that a measured combination adds to the sum of its w: the rest, and its noise.
        total = rest_sd**2 + self.noise
        return Solved(
            self, start, spread, total, self.effects - start[:, self.used] @ self.design.T
        )

    def evidence(self, strength: float, member_sd: float, rest_sd: float) -> tuple[float, Array]:
        """Return the log density of the measured effects, and its gradient.

        The derivatives are by the strength and by the logarithms of the standard deviations.
        """
        solved = self.solved(strength, member_sd, rest_sd)
        finite_totals = solved.total[np.isfinite(solved.total)]
        log = -0.5 * (
            np.log(2 * np.pi * finite_totals).sum() + (solved.residual**2 / solved.total).sum()
        )
        by_strength = by_member = by_rest = 0.0
        flat, owner = self.together
        first = np.searchsorted(owner, np.arange(len(self.design)))
        for dims, w, covariance, gain in solved.blocks():
            # The effects y have covariance K = Z spread^2 Z' + R. With a = K^-1 residual, Z'a is
            # spread^-2 w, and Z'K^-1 Z is spread^-2 (spread^2 - covariance) spread^-2.
            square = solved.spread[dims, self.used] ** 2
            pull, share = w / square, covariance.diagonal(axis1=1, axis2=2) / square
            by_square = 0.5 * (pull**2 - (1.0 - share) / square)
            by_strength += (pull * self.alone[dims, self.used]).sum()
            by_strength += 2.0 * strength * (by_square * self.variance[dims, self.used]).sum()
            by_member += 2.0 * member_sd**2 * by_square.sum()
            # a = R^-1 (residual - Z w), and K^-1 = R^-1 - R^-1 Z covariance Z'R^-1.
            total = solved.total[dims]
            residual = (solved.residual[dims] - w @ self.design.T) / total
            leverage = np.add.reduceat(covariance.reshape(len(w), -1)[:, flat], first, axis=1)
            by_rest += rest_sd**2 * (residual**2 - (1.0 - leverage / total) / total).sum()
            log += gain
        return float(log), np.array([by_strength, by_member, by_rest])

    @cached_property
    def together(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Flat matrix index of each pair of used members in a combination, and the combination.

        A member forms a pair also with itself.
        """
        owner, member = np.nonzero(self.design)
        rows = [member[owner == k] for k in range(len(self.design))]
        flat = [np.add.outer(members * len(self.used), members).ravel() for members in rows]
        return np.concatenate([np.zeros(0, np.int64), *flat]), np.repeat(
            np.arange(len(rows)), [len(members) for members in flat]
        )


@dataclass(frozen=True)
class Solved:
    """Posterior of ``w``, given strength and standard deviations.

    For used members the mean is ``start + spread * A^-1 right``, with ``A = I + spread Z'R^-1 Z
    spread`` and ``right = spread Z'R^-1 residual``, and the covariance is ``spread A^-1 spread``;
    all other members keep their prior. ``A`` is well conditioned even if members vary little. It is
    formed for some dimensions at a time, to save memory.
    """

    data: Measured
    start: Array
    spread: Array
    total: Array
    residual: Array

    def blocks(self) -> Iterator[tuple[slice, Array, Array, float]]:
        """Yield some dimensions, what combinations add to the mean of ``w``, and its covariance.

        These have the shapes ``(n_some, n_used)`` and ``(n_some, n_used, n_used)``. The last is
        what they add to the log density, ``right'A^-1 right / 2 - log |A| / 2``.
        """
        used, (flat, owner) = self.data.used, self.data.together
        n = len(used)
        right = ((self.residual / self.total) @ self.data.design) * self.spread[:, used]
        size = max(1, _MAX_COVARIANCE_ENTRIES // max(n * n, 1))
        for first in range(0, len(right) if n else 0, size):
            dims = slice(first, first + size)
            root, side = self.spread[dims, used], right[dims]
            w, covariance = np.empty((len(root), n)), np.empty((len(root), n, n))
            gain = 0.0
            for k, precisions in enumerate(1.0 / self.total[dims]):
                # Combinations have few members: summing over pairs avoids products with zeros.
                counted = np.bincount(flat, precisions[owner], n * n).reshape(n, n)
                matrix = counted * (root[k, :, None] * root[k])
                matrix[np.arange(n), np.arange(n)] += 1.0
                factor = lapack.dpotrf(matrix.T, lower=1)[0]
                back = lapack.dtrtri(factor, lower=1)[0]
                half = back @ side[k]
                gain += 0.5 * (half @ half) - np.log(factor.diagonal()).sum()
                back *= root[k]
                w[k], covariance[k] = half @ back, back.T @ back
            yield dims, w, covariance, float(gain)

    def sums(self, table: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return mean and variance of sums of ``w``, ``(n_dims, n_sums)``.

        ``table`` holds the members of each sum, padded with ``n_members``.
        """
        used = self.data.used
        n_dims, n = self.start.shape
        position = np.full(n + 1, len(used))
        position[used] = np.arange(len(used))
        loose = np.pad(self.spread**2, ((0, 0), (0, 1)))
        loose[:, used] = 0.0
        start = np.pad(self.start, ((0, 0), (0, 1)))
        total, variance = np.zeros((2, n_dims, len(table)))
        for column in table.T:
            total += start[:, column]
            variance += loose[:, column]
        # Used members are correlated.
        for dims, w, covariance, _ in self.blocks():
            mean = np.pad(w, ((0, 0), (0, 1)))
            covariance = np.pad(covariance, ((0, 0), (0, 1), (0, 1)))
            for column in position[table.T]:
                total[dims] += mean[:, column]
                for other in position[table.T]:
                    variance[dims] += covariance[:, column, other]
        return total, variance


def canonical(combinations: Iterable[Iterable[int]]) -> list[tuple[int, ...]]:
    """Return sorted members without repeats: A+B is B+A."""
    return [tuple(sorted(set(members))) for members in combinations]


def padded(combinations: Sequence[tuple[int, ...]], n: int) -> NDArray[np.int64]:
    """Return members as the rows of a table, padded with ``n``."""
    table = np.full((len(combinations), max(map(len, combinations), default=0)), n, np.int64)
    for row, members in zip(table, combinations, strict=True):
        row[: len(members)] = members
    return table


@dataclass(frozen=True)
class Additivity:
    """Additivity of effects in combinations (equation 12): the stored part of interactions.

    Parameters
    ----------
    strength
        Mean factor of the sum of the members' effects; 1 if effects are additive.
    strength_sd
        Its standard deviation.
    strengths
        Grid of this factor.
    chances
        Posterior probability of each value of the grid.
    scale
        Size of the effects of single perturbations, in units of the data.
    member_sd
        Standard deviation of a member's departure in combinations, in units of ``scale``.
    rest_sd
        Standard deviation of effects specific to a combination, in units of ``scale``.
    n_combinations
        Number of combinations from which these values were learned.
    """

    strength: float = array()
    strength_sd: float = array()
    strengths: Array = array("n_strengths")
    chances: Array = array("n_strengths")
    scale: Array = array("n_nodes")
    member_sd: float = array()
    rest_sd: float = array()
    n_combinations: int = array(dtype=np.int64)


def by_evidence(data: Measured, scale: Array) -> Additivity:
    """Return the most probable standard deviations, and a quadrature over strengths.

    At most 128 dimensions, evenly spaced, are used.
    """
    # Strength and standard deviations are common to all dimensions.
    step = -(-len(data.alone) // _MAX_DIMS)
    parts = ("alone", "variance", "effects", "noise")
    subset = replace(data, **{part: getattr(data, part)[::step] for part in parts})
    centre, spread = np.array([_STRENGTH, _SD, _SD]).T

    def loss(at: Array) -> tuple[float, Array]:
        """Return minus the log posterior density, and its gradient."""
        strength, member, log_rest = at.tolist()
        evidence, slope = subset.evidence(strength, float(np.exp(member)), float(np.exp(log_rest)))
        off = (at - centre) / spread
        return 0.5 * float(off @ off) - evidence, off / spread - slope

    best = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=_BOUNDS).x
    # Gauss-Hermite nodes about the mode, scaled by the curvature at the mode (Laplace).
    near = np.array([1e-3, 0.0, 0.0])
    curvature = (loss(best + near)[1] - loss(best - near)[1])[0] / (2 * near[0])
    nodes, weights = hermegauss(_NODES)
    strengths = best[0] + nodes / np.sqrt(max(curvature, _STRENGTH[1] ** -2))
    # The rule divides by the density of the nodes, exp(-nodes^2 / 2).
    log = -np.array([loss(np.array([s, *best[1:]]))[0] for s in strengths])
    log += np.log(weights) + nodes**2 / 2
    chances = np.exp(log - log.max())
    chances /= chances.sum()
    strength = float(chances @ strengths)
    return Additivity(
        strength,
        float(np.sqrt(chances @ (strengths - strength) ** 2)),
        strengths,
        chances,
        scale,
        float(np.exp(best[1])),
        float(np.exp(best[2])),
        len(data.design),
    )


@dataclass(frozen=True)
class Interactions:
    r"""Effects of combinations (equation 12), given their members and measured combinations.

    A perturbation alone has the effect ``s_g``, and a combination ``c`` of two or more members

    .. math:: \theta_c = \lambda \sum_{g \in c} s_g + \sum_{g \in c} v_g + r_c,

    where the strength ``lambda`` is common to all combinations (below 1 if effects saturate),
    ``v_g`` is the departure of a member in every combination, and ``r_c`` the part specific to one
    combination. Given the strength, all variables are normal; the strength is integrated out by
    quadrature.

    Parameters
    ----------
    learned
        Strength, and standard deviations of ``v`` and ``r``.
    alone, variance
        Mean and variance of the effects of members alone, shape ``(n_members, n_dims)``, units of
        the data; members never measured alone have the variance of the others.
    measured
        The members of each measured combination, sorted.
    effects, noise
        Effects of these combinations and their sampling variances, ``(n_combinations, n_dims)``.
    """

    learned: Additivity
    alone: Array
    variance: Array
    measured: tuple[tuple[int, ...], ...]
    effects: Array
    noise: Array

    def predict(self, combinations: Sequence[Iterable[int]]) -> tuple[Array, Array]:
        """Return mean and variance of the effects of any combinations or single members.

        Both have the shape ``(len(combinations), n_dims)``, in units of the data and their square.
        For a measured combination, its own measurement is used too.
        """
        members, scale = canonical(combinations), self.learned.scale
        table = padded(members, len(self.alone))
        sum_factor, measured_term, rest_variance = self._rests(members)
        single = np.array([len(combination) == 1 for combination in members], bool)
        one = table[single, 0] if single.any() else np.zeros(0, np.int64)
        first, second = np.zeros((2, *sum_factor.shape))
        for chance, strength, solved in self._solved():
            # theta = sum_factor * sum of w + measured_term + rest; a single perturbation is s
            # regressed on its w.
            mean, variance = (part.T for part in solved.sums(table))
            total, spread = (
                sum_factor * mean + measured_term,
                sum_factor**2 * variance + rest_variance,
            )
            slope, start, alone, remaining_variance = (part.T[one] for part in self._back(strength))
            total[single] = alone + slope * (mean[single] - start)
            spread[single] = remaining_variance + slope**2 * variance[single]
            first += chance * total
            second += chance * (spread + total**2)
        return first * scale, np.maximum(second - first**2, 0.0) * scale**2

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and variance of each measured combination, without its own measurement.

        Shape ``(n_combinations, n_dims)``. The standard deviations are those from all combinations.
        """
        table, scale = padded(self.measured, len(self.alone)), self.learned.scale
        rest_variance = self.learned.rest_sd**2
        total = rest_variance + self.noise / scale**2
        logs, moments = [], []
        for _, _, solved in self._solved():
            mean, variance = (part.T for part in solved.sums(table))
            # As in any regression, residuals and variances are divided by one minus the leverage.
            one_minus_leverage = 1.0 - variance / total
            mean = self.effects / scale - (self.effects / scale - mean) / one_minus_leverage
            variance = variance / one_minus_leverage
            spread = variance + total
            off = (self.effects / scale - mean) ** 2 / spread
            logs.append(
                -0.5 * (np.log(np.where(np.isfinite(spread), spread, 1.0)) + off).sum(axis=1)
            )
            moments.append((mean, variance + rest_variance))
        # Without the measurement's density, the probabilities of the strengths change.
        log = np.log(self.learned.chances)[:, None] - np.array(logs)
        chance = np.exp(log - log.max(axis=0))
        chance = (chance / chance.sum(axis=0))[..., None]
        means, variances = (np.array(part) for part in zip(*moments, strict=True))
        # Law of total variance over strengths.
        first = (chance * means).sum(axis=0)
        second = (chance * (variances + (means - first) ** 2)).sum(axis=0)
        return first * scale, second * scale**2

    def _solved(self) -> Iterator[tuple[float, float, Solved]]:
        """Yield the probability and the value of each strength, and the members' ``w`` given it."""
        learned = self.learned
        data = Measured.in_units(
            learned.scale, self.alone, self.variance, self.measured, self.effects, self.noise
        )
        for chance, strength in zip(learned.chances, learned.strengths.tolist(), strict=True):
            yield chance, strength, data.solved(strength, learned.member_sd, learned.rest_sd)

    def _back(self, strength: float) -> tuple[Array, Array, Array, Array]:
        """Regress ``s`` on ``w``: return slope, mean of w, mean of s, and residual variance."""
        scale, member = self.learned.scale[:, None], self.learned.member_sd**2
        alone, variance = self.alone.T / scale, self.variance.T / scale**2
        total = strength**2 * variance + member
        return strength * variance / total, strength * alone, alone, variance * member / total

    def _rests(self, combinations: Sequence[tuple[int, ...]]) -> tuple[Array, Array, Array]:
        """Return the factor on the sum, the term of the own measurement, and the variance left."""
        row_of = {combination: k for k, combination in enumerate(self.measured)}
        scale, rest_variance_prior = self.learned.scale, self.learned.rest_sd**2
        # Without a measurement: the sum has factor 1, and only the variance of r_c is known.
        sum_factor, measured_term, rest_variance = np.zeros((3, len(combinations), len(scale)))
        sum_factor += 1.0
        rest_variance += rest_variance_prior
        for k, combination in enumerate(combinations):
            if combination in row_of:
                noise = self.noise[row_of[combination]] / scale**2
                # Given its own measurement, r_c is expected to be this share of the residual.
                share = rest_variance_prior / (rest_variance_prior + noise)
                sum_factor[k] = 1.0 - share
                measured_term[k] = share * self.effects[row_of[combination]] / scale
                rest_variance[k] = (1.0 - share) * rest_variance_prior
        return sum_factor, measured_term, rest_variance


@dataclass(frozen=True)
class CombinationPrediction:
    """Effects of combinations predicted from their members: mean and variance.

    Parameters
    ----------
    rows
        Indices of the combinations among the perturbations.
    mean, variance
        Expected effects and their variances, shape ``(len(rows), n_nodes)``, in units of the data
        and their square.
    shared
        Share of the control mean's sampling error in ``mean``, shape ``(len(rows), n_nodes)``.
    residual_variance
        The part of the variance due to effects specific to a combination, same shape as
        ``variance`` or one number per node.
    """

    rows: NDArray[np.int64]
    mean: Array
    variance: Array
    shared: Array
    residual_variance: Array | float = 0.0

    def clear(self) -> Array:
        """Return the mean if it is at least 2.5 standard deviations from 0, and otherwise 0.

        If members have no effect, their sum is noise, and would lead to false effects: on Norman
        with shuffled labels, 7 to 25 of 1,155 at a local false sign rate of 0.05, and 0 to 2 with
        this threshold (with prior means assumed to be exact).
        """
        return np.where(self.mean**2 >= _CLEAR**2 * self.variance, self.mean, 0.0)

    def clear_variance(self) -> Array:
        """Return the variance of the result of :meth:`clear`, due to uncertainty of the members.

        If a mean is less than one standard deviation from 0, this is 0, because the combination is
        then treated as any perturbation.
        """
        possible = self.mean**2 >= _POSSIBLE**2 * self.variance
        return np.where(possible, np.maximum(self.variance - self.residual_variance, 0.0), 0.0)


def size_of_effects(squares: Array, unit: ArrayLike) -> Array:
    """Return the size of effects of each gene (12): the root of their mean square, shrunk.

    ``squares`` are expected squares, shape ``(n_effects, n_genes)``. In squares of ``unit``, the
    mean of a gene is shrunk towards that of all genes by as much as it varies by chance: in units
    of the data, genes that vary little between cells would be expected to change by many standard
    deviations. Without effects, it is the size that is expected before any cells.
    """
    by, n = np.asarray(unit, np.float64), len(squares)
    if not n:
        return by * np.full(squares.shape[1], np.sqrt(UNSEEN_VARIANCE))
    relative = squares / by**2
    mean, weight = relative.mean(axis=0), 0.0
    if n > 1 and mean.var() > 0:
        # Variance of a mean by chance, over that of all; all genes count as one effect at least.
        weight = 1.0 - relative.var(axis=0, ddof=1).mean() / n / mean.var()
        weight = min(max(weight, 0.0), n / (n + 1))
    return by * np.sqrt(weight * mean + (1.0 - weight) * mean.mean())


def learn_interactions(
    alone: ArrayLike,
    variance: ArrayLike,
    combinations: Sequence[Iterable[int]],
    effects: ArrayLike,
    noise: ArrayLike,
    *,
    unit: ArrayLike = 1.0,
    scale: ArrayLike | None = None,
    learned: Additivity | None = None,
) -> Interactions:
    """Learn the effects of any combination of members from measured combinations.

    The strength and the standard deviations of ``v`` and ``r`` (see :class:`Interactions`) maximise
    the posterior density under weak priors: the strength is 1 with SD 0.3, and departures have 0.3
    times the size of single effects, within a factor of 2. Without combinations, they are those of
    the priors.

    ``alone`` and ``variance`` are the posterior mean and variance of every member's effect alone
    (rows of NaN for members never measured alone), ``effects`` and ``noise`` the effects of the
    combinations and their sampling variances (infinite if nothing is known). ``scale`` is the size
    of effects of single perturbations, by default :func:`size_of_effects`, for which ``unit`` is
    the standard deviation of each dimension between cells. A given ``learned`` is not changed.
    """
    members = tuple(canonical(combinations))
    effects, noise = np.asarray(effects, np.float64), np.asarray(noise, np.float64)
    means, spread = (np.array(a, np.float64, ndmin=2) for a in (alone, variance))
    is_measured = ~np.isnan(means).any(axis=1)
    if learned is not None:
        scale = learned.scale
    if scale is None:  # from combinations if no member is known alone
        # E s^2 of each member.
        squares = means[is_measured] ** 2 + spread[is_measured]
        if not is_measured.any():
            squares = effects**2 / np.reshape(
                [len(combination) for combination in members], (-1, 1)
            )
        scale = size_of_effects(squares, unit)
    size = np.asarray(scale, np.float64)
    # A member never measured alone has the mean of the others (and one effect of 0), and their
    # variance.
    centre = means[is_measured].sum(axis=0) / (is_measured.sum() + 1)
    means[~is_measured] = centre
    spread[~is_measured] = np.maximum(size**2 - centre**2, 0.1 * size**2)
    data = means, spread, members, effects, noise
    if learned is None:
        learned = by_evidence(Measured.in_units(size, *data), size)
    return Interactions(learned, *data)
