"""Combinations of perturbations: how far effects add up, learned from combinations measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.optimize import minimize

from nextpert.core.model._member_algebra import Measured, canonical, padded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model._member_algebra import Solved

    Array = NDArray[np.float64]

# Weak priors. Strength: effects add up, give or take .3. Standard deviations of v and rest, in
# units of the scale: log-normal about .3, by a factor of 2. They speak where little is measured.
_STRENGTH = (1.0, 0.3)
_SD = (float(np.log(0.3)), float(np.log(2.0)))
_BOUNDS = ((-0.5, 2.5), (-6.0, 3.0), (-6.0, 3.0))  # of the strength and the logarithms
_NODES = 5  # of the quadrature over the strength
# Standard deviations from 0 of what members clearly do. Their effects are taken to be normal, but
# many are 0: of those between 2 and 2.5, 19% were (15 cells of each member), and twice as many
# effects of pairs false as is stated. With 3 the error is 10% higher still than with 2.5.
_CLEAR = 2.5
_MOST_DIMS = 128  # dimensions that are learned from


def by_evidence(data: Measured) -> tuple[float, float, Array, Array]:
    """Return the two standard deviations, and nodes and weights of the strength."""
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
    near = 1e-3
    sides = density(mode + near, member, rest) + density(mode - near, member, rest)
    curvature = max((2 * density(mode, member, rest) - sides) / near**2, _STRENGTH[1] ** -2)
    nodes, weights = hermegauss(_NODES)
    strengths = mode + nodes / np.sqrt(curvature)
    log = np.array([density(s, member, rest) for s in strengths.tolist()])
    log += np.log(weights) + nodes**2 / 2
    chances = np.exp(log - log.max())
    return float(np.exp(member)), float(np.exp(rest)), strengths, chances / chances.sum()


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
    alone, variance
        Mean and variance of what is known of members alone, shape ``(n_members, n_dims)``, units
        of the data; those never measured alone have the spread of the others.
    scale
        Size of effects of single perturbations, ``(n_dims,)``, units of the data.
    member_sd, rest_sd
        Standard deviations of ``v`` and ``r``, in units of the scale.
    strengths, chances
        Nodes of the quadrature over the strength, and their weights, shape ``(n_nodes,)``.
    measured
        The members of each measured combination, in order.
    effects, noise
        Effects of these and their sampling variances, shape ``(n_combinations, n_dims)``.
    """

    alone: Array
    variance: Array
    scale: Array
    member_sd: float
    rest_sd: float
    strengths: Array
    chances: Array
    measured: tuple[tuple[int, ...], ...]
    effects: Array
    noise: Array

    @property
    def strength(self) -> float:
        """Mean of how far effects add up: 1 for sums."""
        return float(self.chances @ self.strengths)

    @property
    def n_combinations(self) -> int:
        """Number of combinations measured."""
        return len(self.measured)

    @property
    def strength_sd(self) -> float:
        """Standard deviation of the strength."""
        return float(np.sqrt(self.chances @ (self.strengths - self.strength) ** 2))

    def predict(self, combinations: Sequence[Iterable[int]]) -> tuple[Array, Array]:
        """Return mean and variance of the effects of any combinations, single members included.

        Both of shape ``(len(combinations), n_dims)``, units of the data and their square. Those
        measured are given their own measurement, too.
        """
        asked = canonical(combinations)
        table = padded(asked, len(self.alone))
        kept, own, residual_variance = self._rests(asked)
        single = np.array([len(some) == 1 for some in asked], bool)
        one = table[single, 0] if single.any() else np.zeros(0, np.int64)
        first, second = np.zeros((2, *kept.shape))
        for chance, strength, solved in zip(
            self.chances, self.strengths.tolist(), self._solved(), strict=True
        ):
            mean, variance = (part.T for part in solved.sums(table))
            total, spread = kept * mean + own, kept**2 * variance + residual_variance
            slope, start, alone, left = (part.T[one] for part in self._back(strength))
            total[single] = alone + slope * (mean[single] - start)
            spread[single] = left + slope**2 * variance[single]
            first += chance * total
            second += chance * (spread + total**2)
        return first * self.scale, np.maximum(second - first**2, 0.0) * self.scale**2

    def left_out(self) -> tuple[Array, Array]:
        """Return mean and variance of each measured combination, its own measurement left out.

        Shape ``(n_combinations, n_dims)``. The two standard deviations stay those of all.
        """
        table = padded(self.measured, len(self.alone))
        total = self.rest_sd**2 + self.noise / self.scale**2
        logs, moments = [], []
        for solved in self._solved():
            mean, variance = (part.T for part in solved.sums(table))
            # As in any regression: residuals and variances grow by one less the leverage.
            kept = 1.0 - variance / total
            mean = self.effects / self.scale - (self.effects / self.scale - mean) / kept
            variance = variance / kept
            spread = variance + total
            off = (self.effects / self.scale - mean) ** 2 / spread
            logs.append(
                -0.5 * (np.log(np.where(np.isfinite(spread), spread, 1.0)) + off).sum(axis=1)
            )
            moments.append((mean, variance + self.rest_sd**2))
        log = np.log(self.chances)[:, None] - np.array(logs)
        chance = np.exp(log - log.max(axis=0))
        chance = (chance / chance.sum(axis=0))[..., None]
        means, variances = (np.array(part) for part in zip(*moments, strict=True))
        first = (chance * means).sum(axis=0)
        second = (chance * (variances + (means - first) ** 2)).sum(axis=0)
        return first * self.scale, second * self.scale**2

    def draw(
        self,
        combinations: Sequence[Iterable[int]],
        n_draws: int,
        rng: int | np.random.Generator | None = None,
    ) -> Array:
        """Return joint draws of effects, ``(n_draws, len(combinations), n_dims)``.

        Combinations with members in common go together, by what is not known of these, and all by
        the strength: for Thompson sampling and the probability of being the best.
        """
        asked = canonical(combinations)
        generator = np.random.default_rng(rng)
        alone, together = self.draw_members(n_draws, generator)
        unique = sorted(set(asked))
        place = np.array([unique.index(some) for some in asked], np.int64)
        kept, own, residual_variance = self._rests(unique)
        out = np.zeros((n_draws, len(unique), len(self.scale)))
        filled = np.pad(together / self.scale, ((0, 0), (0, 1), (0, 0)))
        for column in padded(unique, len(self.alone)).T:
            out += filled[:, column]
        out = kept * out + own + np.sqrt(residual_variance) * generator.normal(size=out.shape)
        out *= self.scale
        for k, some in enumerate(unique):
            if len(some) == 1:
                out[:, k] = alone[:, some[0]]
        return out[:, place]

    def draw_members(
        self, n_draws: int, rng: int | np.random.Generator | None = None
    ) -> tuple[Array, Array]:
        """Return joint draws of what each member does alone, and of what it adds to combinations.

        Both of shape ``(n_draws, n_members, n_dims)``, units of the data. A combination that was
        not measured does the sum of the second, and a rest of ``rest_sd * scale``: so the best of
        millions can be built member by member.
        """
        generator = np.random.default_rng(rng)
        node = generator.choice(len(self.strengths), size=n_draws, p=self.chances)
        together = np.empty((n_draws, *self.alone.shape))
        alone = np.empty_like(together)
        for k, solved in enumerate(self._solved()):
            which = np.flatnonzero(node == k)
            drawn = solved.draw(len(which), generator)
            factor, start, mean, left = self._back(self.strengths[k])
            single = mean + factor * (drawn - start)
            single += np.sqrt(left) * generator.normal(size=drawn.shape)
            together[which] = np.swapaxes(drawn, 1, 2) * self.scale
            alone[which] = np.swapaxes(single, 1, 2) * self.scale
        return alone, together

    def _solved(self) -> Iterator[Solved]:
        data = Measured.in_units(
            self.scale, self.alone, self.variance, self.measured, self.effects, self.noise
        )
        return (data.solved(s, self.member_sd, self.rest_sd) for s in self.strengths.tolist())

    def _back(self, strength: float) -> tuple[Array, Array, Array, Array]:
        """Return slope, mean of w, mean of s, and variance left, of ``s`` regressed on ``w``."""
        alone, variance = self.alone.T / self.scale[:, None], self.variance.T
        variance = variance / self.scale[:, None] ** 2
        total = strength**2 * variance + self.member_sd**2
        return (
            strength * variance / total, strength * alone, alone,
            variance * self.member_sd**2 / total,
        )  # fmt: skip

    def _rests(self, asked: Sequence[tuple[int, ...]]) -> tuple[Array, Array, Array]:
        """Return what is kept of the sum, what the own measurement adds, and the variance left."""
        place = {some: k for k, some in enumerate(self.measured)}
        kept, own, residual_variance = np.zeros((3, len(asked), len(self.scale)))
        kept += 1.0
        residual_variance += self.rest_sd**2
        for k, some in enumerate(asked):
            if some in place:
                noise = self.noise[place[some]] / self.scale**2
                share = self.rest_sd**2 / (self.rest_sd**2 + noise)
                kept[k] = 1.0 - share
                own[k] = share * self.effects[place[some]] / self.scale
                residual_variance[k] = (1.0 - share) * self.rest_sd**2
        return kept, own, residual_variance


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
    learned: tuple[float, float, Array, Array] | None = None,
) -> Interactions:
    """Learn from measured combinations what any combination of these members will do.

    Strength and the standard deviations of ``v`` and ``r`` (see :class:`Interactions`) have the
    largest evidence under weak priors: effects add up, give or take .3, and what departs from
    that has .3 of the size of single effects, by a factor of 2. So the first combination already
    speaks, and without any the priors do. Of more than 128 dimensions that many are learned from,
    evenly apart.

    Parameters
    ----------
    alone, variance
        Posterior mean and variance of every member's effect alone, shape ``(n_members, n_dims)``,
        units of the data; rows of NaN for members that were never measured alone, of which the
        combinations they are in tell.
    combinations
        Members of every measured combination, two or more; their order is of no matter.
    effects, noise
        Effects of the combinations and their sampling variances, shape ``(n_combinations,
        n_dims)``; an infinite one says nothing.
    scale
        Size of effects of single perturbations, shape ``(n_dims,)``, units of the data; by default
        the root mean square of those measured, drawn to that of all dimensions by the worth of
        one perturbation.
    learned
        ``member_sd``, ``rest_sd``, ``strengths`` and ``chances`` as learned before, to be taken as
        they are; by default they are learned.
    """
    members = tuple(canonical(combinations))
    effects, noise = np.asarray(effects, np.float64), np.asarray(noise, np.float64)
    means, spread = (np.array(a, np.float64, ndmin=2) for a in (alone, variance))
    seen = ~np.isnan(means).any(axis=1)
    if scale is None:  # combinations tell of it where no member is known alone
        squares = means[seen] ** 2 + spread[seen]
        if not seen.any():
            squares = effects**2 / np.array([[len(some)] for some in members], np.float64)
        scale = np.sqrt((squares.sum(axis=0) + squares.mean()) / (len(squares) + 1))
    size = np.asarray(scale, np.float64)
    centre = means[seen].sum(axis=0) / (seen.sum() + 1)
    means[~seen] = centre
    spread[~seen] = np.maximum(size**2 - centre**2, 0.1 * size**2)
    if learned is None:
        learned = by_evidence(Measured.in_units(size, means, spread, members, effects, noise))
    return Interactions(means, spread, size, *learned, members, effects, noise)
