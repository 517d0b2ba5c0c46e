"""Departures of guides from their perturbation: along coexpression, and in single genes.

In units of the standard deviation of each gene between cells, with the covariance between cells
written as ``Psi + Gamma Gamma'``, the mean of guide e of perturbation j is (equation 7)

    x_e = mu_j + Gamma (h_e + g_e) + u_e + noise,  g_ek ~ N(0, t_k),  u_ei ~ sum_m pi_m N(0, T_m).

Departures along the factors change many genes together, as a guide of lower efficacy does. Own
departures are independent over genes and heavy-tailed: most are small, and a few are large, as
those of an off-target are. Both are learned from differences between guides of the same
perturbation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtr

from nextpert.core._blas import in_blocks
from nextpert.core._codec import array, table_type
from nextpert.core.screen._departures_kernel import N_POINTS, combine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.screen.screen import ScreenMoments

    Array = NDArray[np.float64]

# Variances of large own departures, in units of the variance of a gene between cells: up to an SD
# of four. Departures of less than four times the usual variance are not distinguished from usual
# ones.
LARGE_VARIANCES = 4.0 ** np.arange(-3.0, 3.0)
_MIN_VARIANCE_RATIO = 4.0
# Variances of effects, in the same units, among which those that guides share are counted.
_EFFECTS = 4.0 ** np.arange(-5.0, 3.0)
# Sizes of large departures, up to the same four, whose coincidence is considered; and the standard
# deviation of departures of one size, relative to it, which is half of the distance between sizes.
SIZES = 0.25 * 1.25 ** np.arange(14.0)
_OF_SIZE = 0.1
# Standard errors below which no effect is seen.
_SEEN = 1.5
# Standard errors of the part along the factors beyond which other genes confirm the sign.
_CONFIRMED = 2.0
# Variance of usual own departures, frequencies of large ones, and variance along factors: learned
# on TAP-seq (86 guides) and Papalexi (100 guides) and averaged. They are the prior, and the default
# if no guides can be compared.
USUAL_OWN, USUAL_ALONG = 0.0003, 0.008
USUAL_LARGE = np.array([0.0075, 0.0043, 0.0005, 0.0003, 0.0001, 0.0001])
# The same as one number, without large departures: a quarter of the variance of genes is along the
# factors.
USUAL_VARIANCE = USUAL_OWN + 0.25 * USUAL_ALONG
# Weight of this prior, in differences of two guides at a gene: for the usual variance, which may be
# a hundred times larger, and for the frequencies of large ones. In degrees of freedom of a factor.
_PRIOR_USUAL, _PRIOR_GENES, _PRIOR_FREEDOM = 2.0, 20.0, 4.0
# Weight, in degrees of freedom, of the mean over factors in the variance along one of them.
_OF_FACTORS = 10.0
_PAIRS = 10_000  # differences from which frequencies are learned; more change them little
_ROUNDS = 60  # iterations of EM
MIN_CELLS_OF_GUIDE = 5  # of a guide, from which its departure is learned
_MIN_FREQUENCY = 1e-4  # departures of lower frequency are left out


@dataclass(frozen=True)
class GuideSpread:
    """Variance between the guides of a perturbation (equation 7).

    Parameters
    ----------
    along
        Variance along every factor of coexpression, in units of the noise of a cell along it, shape
        ``(n_factors,)``.
    own
        Variance of usual own departures, in units of the variance of a gene between cells.
    large
        Frequencies of the variances :data:`LARGE_VARIANCES` of own departures, shape
        ``(n_large,)``.
    freedom
        Number of compared guides minus the number of their groups; 0 for the default.
    sizes
        Frequencies of the sizes :data:`SIZES` of large own departures, up or down, shape
        ``(n_sizes,)``; by default those of normal departures with the frequencies ``large``.
    """

    along: Array = array("n_along")
    own: float = array()
    large: Array = array("n_large")
    freedom: float = array()
    sizes: Array = array("n_sizes", optional=True)

    def __post_init__(self) -> None:
        if self.sizes is None:
            object.__setattr__(self, "sizes", _normal_sizes(self.large))

    @classmethod
    def usual(cls, n_factors: int) -> GuideSpread:
        """Return the spread of real screens, for guides that cannot be compared."""
        return cls(np.full(n_factors, USUAL_ALONG), USUAL_OWN, USUAL_LARGE, 0.0)

    @classmethod
    def of_variance(cls, variance: float) -> GuideSpread:
        """Return a spread with one variance along factors, in units of noise, and in genes."""
        return cls(np.array([variance]), variance, np.zeros(len(LARGE_VARIANCES)), 0.0)

    def on(self, n_factors: int) -> GuideSpread:
        """Return the spread for other genes, whose factors have the mean variance."""
        if n_factors == len(self.along):
            return self
        mean = float(self.along.mean()) if len(self.along) else USUAL_ALONG
        return replace(self, along=np.full(n_factors, mean))

    def mixture(self) -> tuple[Array, Array]:
        """Return variances of own departures and their frequencies, the usual variance first."""
        is_used = (self.large > _MIN_FREQUENCY) & (_MIN_VARIANCE_RATIO * self.own < LARGE_VARIANCES)
        usual = 1.0 - self.large[is_used].sum()
        return np.append(self.own, LARGE_VARIANCES[is_used]), np.append(usual, self.large[is_used])

    def own_variance(self) -> float:
        """Return the mean variance of own departures, in units of the variance of a gene."""
        sizes, weights = self.mixture()
        return float(weights @ sizes)

    def variance_on(self, cells: Coexpression) -> float:
        """Return the mean variance of genes without large departures, relative to that of cells."""
        return self.own + float((cells.factors**2 @ self.along).mean())


class Coexpression(NamedTuple):
    """Covariance of genes between cells, in units of their standard deviations.

    ``factors`` has the shape ``(n_genes, n_factors)``; ``psi``, the own variances, and ``unit``,
    the standard deviations, ``(n_genes,)``.
    """

    factors: Array
    psi: Array
    unit: Array

    def projection(self) -> Array:
        """Return the matrix that gives the scores of a mean, ``(n_factors, n_genes)``.

        The scores are those of generalised least squares.
        """
        weighted = self.factors / self.psi[:, None]
        gram = self.factors.T @ weighted
        try:
            return np.asarray(np.linalg.solve(gram, weighted.T))
        except np.linalg.LinAlgError:  # factors that coincide, as of guides of one cell each
            return np.asarray(np.linalg.pinv(gram) @ weighted.T)

    def leverage(self) -> Array:
        """Return the share of each gene's own value in its part along the factors."""
        return np.asarray((self.factors * self.projection().T).sum(axis=1))

    def scores_of(self, table: Array) -> Array:
        """Return the scores of rows along the factors."""
        return np.asarray(table @ self.projection().T)


class Guides(NamedTuple):
    """Means of the guides of a screen, as departures from the means of their groups.

    ``group`` is the group of every guide and ``n`` its cells, shape ``(n_guides,)``; ``mean`` are
    the means of guides, ``(n_guides, n_genes)``, units of the data; ``centre`` and ``ratio`` are
    the means and variance ratios of groups, ``(n_groups, n_genes)``; ``scores`` are departures
    along the factors of ``cells``, ``(n_guides, n_factors)``.
    """

    group: NDArray[np.int64]
    n: Array
    mean: Array
    centre: Array
    ratio: Array
    scores: Array
    cells: Coexpression

    @classmethod
    def of(
        cls,
        screen: ScreenMoments,
        group: NDArray[np.int64],
        centre: Array,
        ratio: Array,
        cells: Coexpression,
    ) -> Guides:
        """Return the departures of guides, one per environment of ``screen``, that have cells."""
        index = np.flatnonzero(screen.n > 0)
        # Without a copy, where all guides have cells.
        mean = screen.mean if len(index) == len(screen.n) else screen.mean[index]
        of = group[index]
        scores = np.empty((len(index), cells.factors.shape[1]))
        for rows in in_blocks(*mean.shape):
            scores[rows] = cells.scores_of((mean[rows] - centre[of[rows]]) / cells.unit)
        return cls(of, screen.n[index].astype(np.float64), mean, centre, ratio, scores, cells)

    def own(
        self, guides: NDArray[np.int64], genes: NDArray[np.int64] | slice = slice(None)
    ) -> tuple[Array, Array]:
        """Return departures of some guides off the factors, and their sampling variance.

        In units of genes. With as many ``genes`` as ``guides``, one number per pair; else all
        genes, shape ``(n_some, n_genes)``.
        """
        of, cells = self.group[guides], self.cells
        departures = (self.mean[guides, genes] - self.centre[of, genes]) / cells.unit[genes]
        scores = self.scores[guides]
        factors = cells.factors[genes]
        if isinstance(genes, slice):
            departures -= scores @ factors.T
            n = self.n[guides, None]
        else:
            departures -= np.einsum("ik,ik->i", scores, factors)
            n = self.n[guides]
        return departures, cells.psi[genes] * self.ratio[of, genes] / n


def learn_spread(
    guides: Guides, departs: NDArray[np.bool_], rng: int | np.random.Generator = 0
) -> GuideSpread:
    """Return the variance between guides of the same group (equation 7).

    Own departures: the frequencies of variances maximise the density of differences between pairs
    of guides of a group, with the prior of real screens. Along factors: the mean square of scores
    minus that of noise and own departures, shrunk towards the mean over factors and the prior.
    ``departs`` marks the groups whose guides are compared, shape ``(n_groups,)``.
    """
    cells = guides.cells
    order = np.argsort(guides.group, kind="stable")
    order = order[departs[guides.group[order]] & (guides.n[order] >= MIN_CELLS_OF_GUIDE)]
    group = guides.group[order]
    size = np.bincount(group)[group]
    n_factors = cells.factors.shape[1]
    grouped = order[size > 1]
    freedom = len(grouped) - len(np.unique(guides.group[grouped]))
    if not freedom:
        return GuideSpread.usual(n_factors)
    # Each guide and the next one of its group, the last and the first: one pair for two guides.
    first = np.searchsorted(group, group)
    following = np.arange(len(group)) + 1
    is_last = np.append(group[1:] != group[:-1], True)
    following[is_last] = first[is_last]
    paired = (size > 2) | ((size == 2) & ~is_last)
    one, two = order[paired], order[following[paired]]
    generator = np.random.default_rng(rng)
    n_genes = guides.mean.shape[1]
    chosen = np.arange(len(one) * n_genes)
    if len(chosen) > _PAIRS:
        chosen = np.sort(generator.choice(len(chosen), _PAIRS, replace=False))
    pair, gene = np.divmod(chosen, n_genes)
    (first_own, first_noise), (second_own, second_noise) = (
        guides.own(guide[pair], gene) for guide in (one, two)
    )
    # Scores explain a part of the noise of every gene.
    leverage = cells.leverage()
    noise = (first_noise + second_noise) * (1.0 - leverage[gene])
    difference = first_own - second_own
    usual, large = _own_departures(difference, noise)
    sizes = _learn_sizes(difference, noise + 2.0 * usual, large)
    spread = GuideSpread(np.zeros(n_factors), usual, large, float(freedom), sizes)
    # Scores, with weights n: E = 1 + noise of scores + c (t + own departures seen as scores).
    of, n = guides.group[grouped], guides.n[grouped]
    total = np.bincount(of, n)
    mean = np.zeros((len(total), n_factors))
    np.add.at(mean, of, n[:, None] * guides.scores[grouped])
    mean /= np.maximum(total, 1.0)[:, None]
    square = (n[:, None] * (guides.scores[grouped] - mean[of]) ** 2).sum(axis=0) / freedom
    count = float(n.sum() - (np.bincount(of, n**2) / np.maximum(total, 1.0)).sum()) / freedom
    projection = cells.projection()
    of_noise = projection**2 @ cells.psi
    of_own = (projection**2).sum(axis=1)
    along = (square - 1.0 - of_noise) / count - spread.own_variance() * of_own
    middle = (freedom * max(float(along.mean()), 0.0) + _PRIOR_FREEDOM * USUAL_ALONG) / (
        freedom + _PRIOR_FREEDOM
    )
    along = (freedom * np.maximum(along, 0.0) + _OF_FACTORS * middle) / (freedom + _OF_FACTORS)
    return replace(spread, along=along)


def _own_departures(difference: Array, noise: Array) -> tuple[float, Array]:
    """Return the usual variance of own departures and the frequencies of large ones, by EM.

    They are learned from differences between two guides, whose variance is ``noise + T_k + T_l``
    with probability ``pi_k pi_l``; T_0, the usual variance, is updated by Fisher scoring.
    """
    one, two = np.tril_indices(1 + len(LARGE_VARIANCES))
    members = np.zeros((len(one), 1 + len(LARGE_VARIANCES)))
    np.add.at(members, (np.arange(len(one)), one), 0.5)
    np.add.at(members, (np.arange(len(one)), two), 0.5)
    twice = np.where(one == two, 1.0, 2.0)
    square = difference[:, None] ** 2
    n = len(difference)
    usual = USUAL_OWN
    prior = np.append(1.0 - USUAL_LARGE.sum(), USUAL_LARGE)
    weights = prior.copy()
    for _ in range(_ROUNDS):
        sizes = np.append(usual, LARGE_VARIANCES)
        total = noise[:, None] + sizes[one] + sizes[two]
        chance = weights[one] * weights[two] * twice * np.exp(-0.5 * square / total)
        chance = np.maximum(chance / np.sqrt(total), 1e-300)
        chance /= chance.sum(axis=1, keepdims=True)
        counts = chance.sum(axis=0) @ members + _PRIOR_GENES * prior
        weights = counts / counts.sum()
        weights[1:] *= _MIN_VARIANCE_RATIO * usual < LARGE_VARIANCES
        weights /= weights.sum()
        # Both guides usual: s = noise + 2 T_0 moves by sum (d^2 - s) / s^2 over sum 1 / s^2.
        inverse = chance[:, 0] / total[:, 0] ** 2
        step = (inverse * (square[:, 0] - total[:, 0])).sum() / inverse.sum()
        usual = max(usual + 0.5 * step, 0.0)
    usual = (n * usual + _PRIOR_USUAL * USUAL_OWN) / (n + _PRIOR_USUAL)
    return float(usual), weights[1:]


def _normal_sizes(large: Array) -> Array:
    """Return the frequencies of :data:`SIZES` among normal departures of variances ``large``."""
    edges = np.append(SIZES / np.sqrt(SIZES[1] / SIZES[0]), np.inf)
    below = 2.0 * ndtr(edges[:, None] / np.sqrt(LARGE_VARIANCES)) - 1.0
    return np.asarray(np.diff(below, axis=0) @ large)


def _at_sizes(values: Array, variance: Array) -> Array:
    """Return the densities of values about departures of :data:`SIZES`, up or down.

    They have a further dimension for the sizes, and lack the factor ``1 / sqrt(2 pi)``.
    """
    total = variance[..., None] + (_OF_SIZE * SIZES) ** 2
    off = np.exp(-0.5 * (np.abs(values)[..., None] - SIZES) ** 2 / total)
    off += np.exp(-0.5 * (np.abs(values)[..., None] + SIZES) ** 2 / total)
    return np.asarray(0.5 * off / np.sqrt(total))


def _learn_sizes(difference: Array, variance: Array, large: Array) -> Array:
    """Return the frequencies of :data:`SIZES` from differences between two guides, by EM.

    ``variance`` is that of a difference without large departures. A difference is large with
    probability p = 2 q (1 - q), if each guide departs with probability q, as sizes of differences
    between two large departures are neglected.
    """
    usual = np.exp(-0.5 * difference**2 / variance) / np.sqrt(variance)
    density = np.maximum(np.column_stack([usual, _at_sizes(difference, variance)]), 1e-300)
    of_normal = 2.0 * _normal_sizes(large)
    prior = np.append(1.0 - of_normal.sum(), of_normal)
    pair_frequencies = _frequencies(density[None], prior)[0, 1:]
    return np.asarray(
        pair_frequencies / (1.0 + np.sqrt(max(1.0 - 2.0 * pair_frequencies.sum(), 0.0)))
    )


class Combined(NamedTuple):
    """What the guides of groups share, in units of genes.

    ``offset`` is added to the mean of a group, and ``own`` is the variance of its own noise, shape
    ``(n_groups, n_genes)``; ``along`` is the variance of noise along the factors, ``(n_groups,
    n_factors)``. ``coincidence`` is the probability that the effect is 0 and large departures of
    all guides coincide, ``(n_groups, n_genes)``.
    """

    offset: Array
    own: Array
    along: Array
    coincidence: Array


def combine_guides(
    guides: Guides, share: Array, spread: GuideSpread, departs: NDArray[np.bool_]
) -> Combined:
    """Return the shared effect of the guides of every group (equation 7).

    ``share`` is the weight of every guide in the mean of its group, ``(n_guides,)``, and
    ``departs`` says whether the guides of a group differ, ``(n_groups,)``. Group 0 holds the
    controls.
    """
    (n_groups, n_genes), cells = guides.ratio.shape, guides.cells
    kind = table_type(n_groups * n_genes)
    offset, own_variance, coincidence = np.zeros((3, n_groups, n_genes), kind)
    centre, variance, evidence = np.empty((3, n_genes))
    of, n = guides.group, guides.n
    noise = np.bincount(of, share**2 / n, n_groups)
    shares = np.where(departs, np.bincount(of, share**2, n_groups), 0.0)
    along = (guides.ratio.mean(axis=1) * noise)[:, None] + np.outer(shares, spread.along)
    sizes, weights = spread.mixture()
    room = np.empty((3, N_POINTS))
    order = np.argsort(of, kind="stable")
    starts = np.searchsorted(of[order], np.arange(n_groups + 1))
    count = np.diff(starts)
    agreements = {}
    for j in np.flatnonzero(count):
        members = order[starts[j] : starts[j + 1]]
        if count[j] > 1 and departs[j]:
            departures = guides.own(members)
            combine(*departures, sizes, weights, room, centre, variance, evidence)
            offset[j], own_variance[j] = centre, variance
            if j > 0:
                shared = centre, variance, evidence
                agreements[j] = _Agreement.of(guides, int(j), departures, shared, along[j], spread)
        else:
            own_variance[j] = cells.psi * guides.ratio[j] * noise[j]
    if agreements:
        coincidence[list(agreements)] = _coincidence(list(agreements.values()))
    single = np.flatnonzero((count == 1) & departs)
    if len(single):
        effect = _effects(guides, single)[0]
        own_variance[single] += unseen_departure(effect, own_variance[single], spread)
    return Combined(offset, own_variance, along, coincidence)


def _effects(guides: Guides, groups: NDArray[np.int64] | int) -> tuple[Array, Array]:
    """Return effects of groups off and along the factors; errors of the controls are neglected."""
    cells = guides.cells
    effect = (guides.centre[groups] - guides.centre[0]) / cells.unit
    along = cells.scores_of(effect) @ cells.factors.T
    return effect - along, along


class _Agreement(NamedTuple):
    """Densities of the means of the guides of a group at every gene, ``(n_genes,)`` each.

    ``sizes``, ``(n_genes, 1 + n_effects)``, are their densities if the own part of the effect is 0,
    or has one of the variances :data:`_EFFECTS`, with the normal density of what guides share.
    ``large`` is the density if the own part is 0 and guides have large departures; it is 0 where no
    effect is seen, or where coexpression confirms its sign. All are divided by the largest of a
    gene.
    """

    sizes: Array
    large: Array

    @classmethod
    def of(
        cls,
        guides: Guides,
        group: int,
        departures: tuple[Array, Array],
        shared: tuple[Array, Array, Array],
        noise_along: Array,
        spread: GuideSpread,
    ) -> _Agreement:
        """Return the densities, from departures of guides and what :func:`combine` fills.

        ``noise_along`` is the variance of the group's noise along the factors.
        """
        (offset, noise), (centre, variance, evidence) = departures, shared
        own_effect, along = _effects(guides, group)
        effect = own_effect + centre
        error = np.sqrt(variance)
        width = variance[:, None] + np.append(0.0, _EFFECTS)
        sizes = evidence[:, None] - 0.5 * effect[:, None] ** 2 / width
        sizes -= 0.5 * np.log(2.0 * np.pi * width)
        # Without an own part the effect is that along the factors: the sign is not in doubt where
        # other genes confirm it. The gene's own part in the scores is left out.
        leverage = guides.cells.leverage()
        along = along - leverage / (1.0 - leverage) * own_effect
        of_others = np.sqrt(guides.cells.factors**2 @ noise_along)
        doubted = along * np.sign(along + effect) < _CONFIRMED * of_others
        is_tested = doubted & (np.abs(effect) > _SEEN * error)
        values = (offset + own_effect)[:, is_tested]
        total = noise[:, is_tested] + spread.own
        usual = np.exp(-0.5 * values**2 / total) / np.sqrt(total) * (1.0 - spread.sizes.sum())
        with_large = np.maximum(usual + _at_sizes(values, total) @ spread.sizes, 1e-300)
        large = np.full(len(effect), -np.inf)
        large[is_tested] = np.log(with_large).sum(axis=0)
        # Minus the density without large departures.
        without = np.log(np.maximum(usual, 1e-300)).sum(axis=0) - large[is_tested]
        large[is_tested] += np.log1p(-np.minimum(np.exp(without), 1.0 - 1e-12))
        highest = np.maximum(sizes.max(axis=1), large)
        return cls(np.exp(sizes - highest[:, None]), np.exp(large - highest))


def _coincidence(agreements: list[_Agreement]) -> Array:
    """Return the probability of no own effect and coinciding large departures (equation 7).

    The frequencies of effects of every size, and of none, are learned from all groups, and then
    from each of them.
    """
    density = np.array([one.sizes for one in agreements])
    large = np.array([one.large for one in agreements])
    prior = np.append(1.0, np.full(len(_EFFECTS), 0.01))
    shared = _frequencies(density.reshape(1, -1, density.shape[-1]), prior)
    frequency = _frequencies(density, shared[0])
    coincide = frequency[:, :1] * large
    return np.asarray(coincide / (coincide + np.einsum("jim,jm->ji", density, frequency)))


def unseen_departure(effect: Array, noise: Array, spread: GuideSpread) -> Array:
    """Return the variance that the departure of a single guide adds to its effect.

    Usual departures are always part of it. A large part of an effect may be the perturbation's or a
    large departure of the guide: the probability of the latter is the frequency of departures of at
    least this size, over that of both together, which is learned from all perturbations with one
    guide. ``effect`` and its sampling variance ``noise`` have the shape ``(n_groups, n_genes)``.
    """
    total = (noise + spread.own)[..., None] + np.append(0.0, LARGE_VARIANCES)
    density = np.exp(-0.5 * effect[..., None] ** 2 / total) / np.sqrt(total)
    density = np.maximum(density, 1e-300)
    prior = np.append(1.0, spread.large + 0.01)
    frequency = _frequencies(density.reshape(1, -1, 1 + len(LARGE_VARIANCES)), prior)[0]
    share = np.cumsum(spread.large[::-1])[::-1] / np.cumsum(frequency[:0:-1])[::-1]
    chance = density * frequency
    chance /= chance.sum(axis=-1, keepdims=True)
    return np.asarray(spread.own + chance[..., 1:] @ (np.minimum(share, 1.0) * LARGE_VARIANCES))


def _frequencies(density: Array, prior: Array) -> Array:
    """Return the frequencies of no effect and of effects of several variances by EM.

    ``density`` has the shape ``(n_groups, n_genes, n_variances)``, and ``prior``, which counts as
    some genes, ``(n_variances,)``; the frequencies of each group, ``(n_groups, n_variances)``.
    """
    counted = _PRIOR_GENES * prior
    frequency = np.tile(counted / counted.sum(), (len(density), 1))
    for _ in range(_ROUNDS):
        chance = 1.0 / np.einsum("jim,jm->ji", density, frequency)
        counts = frequency * np.einsum("jim,ji->jm", density, chance) + counted
        frequency = counts / counts.sum(axis=1, keepdims=True)
    return frequency
