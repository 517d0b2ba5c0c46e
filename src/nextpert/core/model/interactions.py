"""Combinations of perturbations: how far effects add up, learned from combinations measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from nextpert.core._codec import array

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

# Weak priors. Strength: effects add up, give or take 0.3. Standard deviations of v and rest, in
# units of the scale: log-normal about 0.3, by a factor of 2. They speak where little is measured.
_STRENGTH = (1.0, 0.3)
_SD = (float(np.log(0.3)), float(np.log(2.0)))
_BOUNDS = ((-0.5, 2.5), (-6.0, 3.0), (-6.0, 3.0))  # of the strength and the logarithms
_NODES = 5  # of the quadrature over the strength
# Standard deviations from 0 of what members clearly do. Their effects are taken to be normal, but
# many are 0: of those between 2 and 2.5, 19% were (15 cells of each member), and twice as many
# effects of pairs false as is stated. With 3 the error is 10% higher still than with 2.5.
_CLEAR = 2.5
_MOST_DIMS = 128  # dimensions that are learned from


@dataclass(frozen=True)
class Measured:
    """Measured combinations.

    Parameters
    ----------
    used
        Members that some combination holds.
    design
        Whether one of these is in a combination, 0 or 1, shape ``(n_combinations, n_used)``.
    alone, variance
        What is known of all members alone: mean and variance, shape ``(n_dims, n_members)``.
    effects, noise
        Effects of the combinations and their sampling variance, ``(n_dims, n_combinations)``;
        infinite where nothing is known.
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
        # Members that no combination holds are known by themselves alone.
        used = np.array(sorted({g for some in members for g in some}), np.int64)
        design = np.zeros((len(members), len(used)))
        for row, some in zip(design, members, strict=True):
            row[np.searchsorted(used, some)] = 1.0
        by = scale[:, None]
        return cls(used, design, alone.T / by, variance.T / by**2, effects.T / by, noise.T / by**2)

    def solved(self, strength: float, member_sd: float, rest_sd: float) -> Solved:
        """Return the posterior of the members' ``w``."""
        # w = lambda s + v: mean lambda s, variance lambda^2 Var s + sd_v^2.
        start, spread = strength * self.alone, np.sqrt(strength**2 * self.variance + member_sd**2)
        # What a measured combination adds to the sum of its w: the rest and its noise.
        total = rest_sd**2 + self.noise
        return Solved(
            self, start, spread, total, self.effects - start[:, self.used] @ self.design.T
        )

    @cached_property
    def together(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Entries of a matrix of used members, flat, that each pair in a combination falls on.

        And the combination; a member with itself is a pair, too.
        """
        owner, member = np.nonzero(self.design)
        rows = [member[owner == k] for k in range(len(self.design))]
        flat = [np.add.outer(some * len(self.used), some).ravel() for some in rows]
        return np.concatenate([np.zeros(0, np.int64), *flat]), np.repeat(
            np.arange(len(rows)), [len(some) for some in flat]
        )


@dataclass(frozen=True)
class Solved:
    """Posterior of ``w``, given strength and standard deviations.

    Of used members it is ``start + spread * A^-1 right``, ``A = I + spread Z'R^-1 Z spread = LL'``
    and ``right = spread Z'R^-1 left``, with the covariance ``spread A^-1 spread``; of the others
    what they start from. ``A`` is well conditioned where members vary little. It is made one
    dimension at a time, for memory.
    """

    data: Measured
    start: Array
    spread: Array
    total: Array
    left: Array

    def _dims(self) -> Iterator[tuple[Array, Array]]:
        """Yield ``L`` and ``L^-1 right`` of each dimension."""
        used, (flat, owner) = self.data.used, self.data.together
        n = len(used)
        right = ((self.left / self.total) @ self.data.design) * self.spread[:, used]
        for root, total, side in zip(self.spread[:, used], self.total, right, strict=True):
            # Combinations hold few members each: pairs are counted, zeros not multiplied.
            counted = np.bincount(flat, (1.0 / total)[owner], n * n)
            matrix = counted.reshape(n, n) * (root[:, None] * root)
            matrix[np.arange(n), np.arange(n)] += 1.0
            factor = np.linalg.cholesky(matrix)
            yield factor, solve_triangular(factor, side, lower=True, check_finite=False)

    def log_evidence(self) -> float:
        """Return the log density of the measured effects."""
        known = self.total[np.isfinite(self.total)]
        log = -0.5 * (np.log(2 * np.pi * known).sum() + (self.left**2 / self.total).sum())
        for factor, half in self._dims():
            log += 0.5 * (half @ half) - np.log(factor.diagonal()).sum()
        return float(log)

    def sums(self, table: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return mean and variance of sums of ``w``, ``(n_dims, n_sums)``.

        ``table`` holds the members of each sum, filled up by ``n_members``.
        """
        used = self.data.used
        n_dims, n = self.start.shape
        place = np.full(n + 1, len(used))
        place[used] = np.arange(len(used))
        loose = np.pad(self.spread**2, ((0, 0), (0, 1)))
        loose[:, used] = 0.0
        start = np.pad(self.start, ((0, 0), (0, 1)))
        total, variance = np.zeros((2, n_dims, len(table)))
        for column in table.T:
            total += start[:, column]
            variance += loose[:, column]
        # Used members are correlated: mean and covariance by L^-1 spread.
        for d, (factor, half) in enumerate(self._dims()):
            root = solve_triangular(
                factor, np.diag(self.spread[d, used]), lower=True, check_finite=False
            )
            mean, covariance = np.append(half @ root, 0.0), np.pad(root.T @ root, (0, 1))
            for column in place[table.T]:
                total[d] += mean[column]
                for other in place[table.T]:
                    variance[d] += covariance[column, other]
        return total, variance


def canonical(combinations: Iterable[Iterable[int]]) -> list[tuple[int, ...]]:
    """Return sorted members without repeats: A+B is B+A."""
    return [tuple(sorted(set(some))) for some in combinations]


def padded(asked: Sequence[tuple[int, ...]], n: int) -> NDArray[np.int64]:
    """Return members side by side, the number ``n`` where there are fewer."""
    table = np.full((len(asked), max(map(len, asked), default=0)), n, np.int64)
    for row, some in zip(table, asked, strict=True):
        row[: len(some)] = some
    return table


@dataclass(frozen=True)
class Additivity:
    """How far effects add up in combinations (equation 12): all that is stored of interactions.

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
        Standard deviation of what is specific to a combination, in units of ``scale``.
    n_combinations
        Number of combinations that these were learned from.
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
    """Return the standard deviations of largest posterior density, and a quadrature of strengths.

    Of more than 128 dimensions that many are learned from, evenly apart.
    """
    # Strength and standard deviations are common to all dimensions.
    step = -(-len(data.alone) // _MOST_DIMS)
    parts = ("alone", "variance", "effects", "noise")
    some = replace(data, **{part: getattr(data, part)[::step] for part in parts})

    def density(strength: float, member: float, rest: float) -> float:
        prior = ((strength - _STRENGTH[0]) / _STRENGTH[1]) ** 2
        prior += ((member - _SD[0]) / _SD[1]) ** 2 + ((rest - _SD[0]) / _SD[1]) ** 2
        evidence = some.solved(strength, float(np.exp(member)), float(np.exp(rest))).log_evidence()
        return evidence - 0.5 * prior

    start = np.array([_STRENGTH[0], _SD[0], _SD[0]])
    best = minimize(lambda at: -density(*at), start, method="L-BFGS-B", bounds=_BOUNDS)
    mode, member, rest = (float(x) for x in best.x)
    # Gauss-Hermite nodes about the mode, as far apart as the curvature there says (Laplace).
    near = 1e-3
    sides = density(mode + near, member, rest) + density(mode - near, member, rest)
    curvature = max((2 * density(mode, member, rest) - sides) / near**2, _STRENGTH[1] ** -2)
    nodes, weights = hermegauss(_NODES)
    strengths = mode + nodes / np.sqrt(curvature)
    # The rule divides by the density of the nodes, exp(-nodes^2 / 2).
    log = np.array([density(s, member, rest) for s in strengths.tolist()])
    log += np.log(weights) + nodes**2 / 2
    chances = np.exp(log - log.max())
    chances /= chances.sum()
    strength = float(chances @ strengths)
    return Additivity(
        strength, float(np.sqrt(chances @ (strengths - strength) ** 2)), strengths, chances, scale,
        float(np.exp(member)), float(np.exp(rest)), len(data.design),
    )  # fmt: skip


@dataclass(frozen=True)
class Interactions:
    r"""What combinations do (equation 12), given members and the combinations measured.

    A perturbation alone does ``s_g``, a combination ``c`` of two or more

    .. math:: \theta_c = \lambda \sum_{g \in c} s_g + \sum_{g \in c} v_g + r_c,

    the strength ``lambda`` common to all (below 1 where effects saturate), ``v_g`` what a member
    does otherwise in company, whatever the company, and ``r_c`` the combination's own. Given the
    strength everything is normal; over the strength there is a quadrature.

    Parameters
    ----------
    learned
        Strength, and standard deviations of ``v`` and ``r``.
    alone, variance
        Mean and variance of what is known of members alone, shape ``(n_members, n_dims)``, units
        of the data; those never measured alone have the spread of the others.
    measured
        The members of each measured combination, in order.
    effects, noise
        Effects of these and their sampling variances, shape ``(n_combinations, n_dims)``.
    """

    learned: Additivity
    alone: Array
    variance: Array
    measured: tuple[tuple[int, ...], ...]
    effects: Array
    noise: Array

    def predict(self, combinations: Sequence[Iterable[int]]) -> tuple[Array, Array]:
        """Return mean and variance of the effects of any combinations, single members included.

        Both of shape ``(len(combinations), n_dims)``, units of the data and their square. Those
        measured are given their own measurement, too.
        """
        asked, scale = canonical(combinations), self.learned.scale
        table = padded(asked, len(self.alone))
        kept, own, rest_variance = self._rests(asked)
        single = np.array([len(some) == 1 for some in asked], bool)
        one = table[single, 0] if single.any() else np.zeros(0, np.int64)
        first, second = np.zeros((2, *kept.shape))
        for chance, strength, solved in self._solved():
            # theta = kept * sum of w + own + rest; a single perturbation is s regressed on its w.
            mean, variance = (part.T for part in solved.sums(table))
            total, spread = kept * mean + own, kept**2 * variance + rest_variance
            slope, start, alone, left = (part.T[one] for part in self._back(strength))
            total[single] = alone + slope * (mean[single] - start)
            spread[single] = left + slope**2 * variance[single]
            first += chance * total
            second += chance * (spread + total**2)
        return first * scale, np.maximum(second - first**2, 0.0) * scale**2

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and variance of each measured combination, its own measurement left out.

        Shape ``(n_combinations, n_dims)``. The two standard deviations stay those of all.
        """
        table, scale = padded(self.measured, len(self.alone)), self.learned.scale
        rest = self.learned.rest_sd**2
        total = rest + self.noise / scale**2
        logs, moments = [], []
        for _, _, solved in self._solved():
            mean, variance = (part.T for part in solved.sums(table))
            # As in any regression: residuals and variances grow by one less the leverage.
            kept = 1.0 - variance / total
            mean = self.effects / scale - (self.effects / scale - mean) / kept
            variance = variance / kept
            spread = variance + total
            off = (self.effects / scale - mean) ** 2 / spread
            logs.append(
                -0.5 * (np.log(np.where(np.isfinite(spread), spread, 1.0)) + off).sum(axis=1)
            )
            moments.append((mean, variance + rest))
        # Without its own density the strengths have other chances.
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
        """Return slope, mean of w, mean of s, and variance left, of ``s`` regressed on ``w``."""
        scale, member = self.learned.scale[:, None], self.learned.member_sd**2
        alone, variance = self.alone.T / scale, self.variance.T / scale**2
        total = strength**2 * variance + member
        return strength * variance / total, strength * alone, alone, variance * member / total

    def _rests(self, asked: Sequence[tuple[int, ...]]) -> tuple[Array, Array, Array]:
        """Return what is kept of the sum, what the own measurement adds, and the variance left."""
        place = {some: k for k, some in enumerate(self.measured)}
        scale, rest = self.learned.scale, self.learned.rest_sd**2
        # theta = w: all of the sum is kept, nothing known of r_c but its variance.
        kept, own, rest_variance = np.zeros((3, len(asked), len(scale)))
        kept += 1.0
        rest_variance += rest
        for k, some in enumerate(asked):
            if some in place:
                noise = self.noise[place[some]] / scale**2
                # Given its own measurement, r_c is this share of what is left.
                share = rest / (rest + noise)
                kept[k] = 1.0 - share
                own[k] = share * self.effects[place[some]] / scale
                rest_variance[k] = (1.0 - share) * rest
        return kept, own, rest_variance


@dataclass(frozen=True)
class Together:
    """What members do together, for some of the perturbations: mean and variance of the effect.

    Parameters
    ----------
    rows
        Numbers of the combinations among the perturbations.
    mean, variance
        Effects expected of them and their variances, shape ``(len(rows), n_nodes)``, units of
        the data and their square.
    shared
        Share of the control mean's sampling error in ``mean``, shape ``(len(rows), n_nodes)``.
    rest
        What of the variance is that of the rest, which a combination does by itself, same shape as
        ``variance`` or one number per node.
    """

    rows: NDArray[np.int64]
    mean: Array
    variance: Array
    shared: Array
    rest: Array | float = 0.0

    def clear(self) -> Array:
        """Return the mean where it is 2.5 standard deviations or more from 0, and 0 elsewhere.

        Where members show nothing, their sum is noise, and effects about it would be called (on
        Norman with shuffled labels 7 to 25 of 1,155 at a local false sign rate of 0.05, none to 2
        by the clear ones, where what is expected was taken as known).
        """
        return np.where(self.mean**2 >= _CLEAR**2 * self.variance, self.mean, 0.0)

    def doubt(self) -> Array:
        """Return the variance of what :meth:`clear` returns: what is not known of the members.

        It is 0 where nothing is expected: there a combination is as any perturbation.
        """
        return np.where(self.clear() != 0.0, np.maximum(self.variance - self.rest, 0.0), 0.0)


def learn_interactions(
    alone: ArrayLike,
    variance: ArrayLike,
    combinations: Sequence[Iterable[int]],
    effects: ArrayLike,
    noise: ArrayLike,
    *,
    scale: ArrayLike | None = None,
    learned: Additivity | None = None,
) -> Interactions:
    """Learn from measured combinations what any combination of these members will do.

    Strength and the standard deviations of ``v`` and ``r`` (see :class:`Interactions`) have the
    largest evidence under weak priors: effects add up, give or take 0.3, and departures have 0.3 of
    the size of single effects, within a factor of 2. Without combinations the priors remain.

    ``alone`` and ``variance`` are the posterior of every member's effect alone (rows of NaN for
    members never measured alone), ``effects`` and ``noise`` those of the combinations and their
    sampling variances (infinite where nothing is known). ``scale`` is the size of effects of single
    perturbations, by default the root mean square of those measured, drawn to that of all
    dimensions by the worth of one; ``learned`` is taken as it is.
    """
    members = tuple(canonical(combinations))
    effects, noise = np.asarray(effects, np.float64), np.asarray(noise, np.float64)
    means, spread = (np.array(a, np.float64, ndmin=2) for a in (alone, variance))
    seen = ~np.isnan(means).any(axis=1)
    if learned is not None:
        scale = learned.scale
    if scale is None:  # from combinations, where no member is known alone
        # E s^2 of each member.
        squares = means[seen] ** 2 + spread[seen]
        if not seen.any():
            squares = effects**2 / np.array([[len(some)] for some in members], np.float64)
        scale = np.sqrt((squares.sum(axis=0) + squares.mean()) / (len(squares) + 1))
    size = np.asarray(scale, np.float64)
    # A member never seen alone has the mean of the others (and of one effect of 0), their spread.
    centre = means[seen].sum(axis=0) / (seen.sum() + 1)
    means[~seen] = centre
    spread[~seen] = np.maximum(size**2 - centre**2, 0.1 * size**2)
    data = means, spread, members, effects, noise
    if learned is None:
        learned = by_evidence(Measured.in_units(size, *data), size)
    return Interactions(learned, *data)
