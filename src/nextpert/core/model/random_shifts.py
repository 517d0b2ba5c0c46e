"""DAG-BLR with random shifts: the weights of a graph when shifts are uncertain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from nextpert.core._shown import Shown
from nextpert.core.graph.dag import Dag
from nextpert.core.model import shift_prior as kernels
from nextpert.core.model._blocks import solve_blocks
from nextpert.core.model._mixture import ENOUGH_PAIRS, add_scores, best_weights, fill_chances
from nextpert.core.model.dag_blr import DagBlr, require_squares
from nextpert.core.model.perturbations import enough_genes, in_blocks
from nextpert.core.model.shift_posterior import with_columns
from nextpert.core.model.shift_prior import TAU2, UNSEEN_WEIGHTS, ShiftPrior, departure_squares

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.interactions import Together
    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]

_GRID = np.linspace(0.0, 1.0, 101)  # of the correlation: far finer than screens tell it


def learn_together(prior: ShiftPrior, posterior: DagBlr) -> float:
    r"""Return how far the sizes of shifts of one perturbation go together, 0 to 1.

    The component of each shift is that which a standard normal picks by the weights. For two genes
    of a perturbation these normals have the correlation ``s``: 0 where every gene draws its own
    size, 1 where a perturbation has one. Given its departure a gene's normal has the expectation
    ``m``, of mean square ``v_i`` over perturbations. So for small ``s`` (large ones are found too
    large by up to .2) the sum :math:`\sum_i m_{ij}` of a perturbation has the variance

    .. math:: \sum_i v_i + s \Big( \big(\sum_i v_i\big)^2 - \sum_i v_i^2 \Big).

    Taken as normal, these sums are the likelihood of ``s``. All ``s`` are as likely before, and
    the expectation is returned: a half where the screen does not tell. What is expected of a gene
    uses the mean weights of all perturbations: their own have taken up what is common.

    Parameters
    ----------
    prior
        What was expected of the shifts, and the means of the cells.
    posterior
        The posterior of the weights of a graph. On a graph that lacks edges sizes go together more.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.model.shift_prior import TAU2, ShiftPrior
    >>> from nextpert.core.model.random_shifts import learn_together
    >>> blr = DagBlr(Dag.from_edges(40, []), noise_var=1.0, intercept=False)
    >>> rng = np.random.default_rng(0)
    >>> size = np.repeat(rng.choice([0.1, 2.0], size=(30, 1)), 40, axis=1)
    >>> for sizes in (size, rng.permuted(size.ravel()).reshape(size.shape)):
    ...     x, flat = sizes * rng.normal(size=size.shape), np.full((30, len(TAU2)), 1 / len(TAU2))
    ...     zero, none = np.zeros_like(x), np.full(x.shape, np.nan)
    ...     prior = ShiftPrior(np.full(30, 100.0), x, zero + 1, zero, zero, none, flat)
    ...     print(learn_together(prior, blr) > 0.5)
    True
    False
    """
    seen = np.flatnonzero((prior.n > 0) & np.isnan(prior.own).any(axis=1))
    prior = prior.rows(seen)
    own = prior.own / posterior.noise_var
    common = prior.weights.sum(axis=0) / max(len(seen), 1)
    square = departure_squares(posterior, prior.design, prior.shifts(posterior))
    below = np.empty((*square.shape, len(TAU2)), np.float32)
    weights = np.ascontiguousarray(np.broadcast_to(common, prior.weights.shape))
    fill_chances(square, prior.counted(), TAU2, weights, own, below, np.empty(len(TAU2)))
    sums, squares = np.zeros(len(seen)), np.zeros(square.shape[1])
    add_scores(below, own, _middles(common), sums, squares)
    drawn = np.isnan(own)
    node = squares / np.maximum(drawn.sum(axis=0), 1)
    alone, pairs = drawn @ node, (drawn @ node) ** 2 - drawn @ node**2
    told = alone > 0
    variance = alone[told, None] + np.outer(pairs[told], _GRID)
    log = -0.5 * (np.log(variance) + sums[told, None] ** 2 / variance).sum(axis=0)
    chance = np.exp(log - log.max())
    return float(chance @ _GRID / chance.sum())


def _middles(weights: Array) -> Array:
    """Return the mean of the standard normals that pick each component."""
    ends = np.clip(np.concatenate([[0.0], np.cumsum(weights)]), 0.0, 1.0)
    density = np.exp(-0.5 * ndtri(ends) ** 2) / np.sqrt(2 * np.pi)
    return (density[:-1] - density[1:]) / np.maximum(weights, np.finfo(np.float64).tiny)


# Genes for which the screen's mixture speaks in that of one perturbation.
_PSEUDO_COUNT = 20.0
# Genes that are counted in each component of the screen's mixture beforehand, four in all: enough
# that no prior variance is ruled out, and few, since what cells cannot tell apart should not be
# spread over all components. Small variances, which cells tell from 0 least, have less by their
# fourth root, so that intervals do not collapse where the best mixture is one point at 0: in 40
# simulated screens the lowest coverage of 90% intervals was 0.82, and 0.77 by UNSEEN_WEIGHTS alone.
_PRIOR_COUNTS = UNSEEN_WEIGHTS * np.maximum(TAU2, TAU2[1] / 2) ** 0.25
_PRIOR_COUNTS *= 4.0 / _PRIOR_COUNTS.sum()
_TOLERANCE = 1e-4  # of the bound, a node and perturbation
_MAX_STEPS = 100  # of each stage
_STEPS = 3  # to fit the weights of a graph where the mixtures are known


@dataclass(frozen=True, repr=False)
class RandomShifts(Shown):
    """Weights of a graph and the prior of shifts, learned together.

    Parameters
    ----------
    posterior
        Posterior over the weights, shifts integrated out.
    prior
        Prior of the shifts, its mixtures learned.
    common
        Weights of the prior variances common to the screen, shape ``(n_components,)``.
    bound
        Lower bound of the log evidence after every step of both stages.
    """

    posterior: DagBlr
    prior: ShiftPrior
    common: Array
    bound: tuple[list[float], list[float]]

    @property
    def log_evidence(self) -> float:
        """Log evidence of all cells; a lower bound of it if shifts are learned."""
        return self.bound[0][-1] if self.bound[0] else self.posterior.log_evidence()


def fit_random_shifts(
    posterior: DagBlr,
    cells: PooledGuides,
    shift: Array,
    *,
    own: Array | None = None,
    fixed: bool = False,
) -> RandomShifts:
    r"""Fit the weights of a graph and the shifts of perturbations by coordinate ascent.

    The shift of node ``i`` in perturbation ``j`` is ``a_ij + u_ij`` with
    :math:`u_{ij} \sim \sum_k \pi_{jk} N(0, \sigma_i^2 \tau_k^2)`, adaptive shrinkage on the grid
    ``TAU2`` (Stephens 2017, doi:10.1093/biostatistics/kxw041), and the cells' means count for
    ``n / (1 + n tau^2)`` cells. Each step is closed form and never lowers the bound: the weights
    given the shrinkage weight of each mean, then the mixtures. The weights common to the screen are
    learned first; then, held as a prior of 20 genes, those of each perturbation.

    Parameters
    ----------
    posterior
        Before any cells: the graph and its priors.
    cells
        The controls, which have no shift, and then the perturbations of the screen. Their fixed
        columns, such as batches, join the regression of every node that has an intercept.
    shift
        Expected shift of every perturbation, shape ``(n_perturbations, n_nodes)``, units of the
        data.
    own
        Prior variance of ``u`` where it is not the mixture, squared units of the data; nan
        elsewhere; same shape.
    fixed
        Whether shifts are exact, as in Zhang et al. 2023, and not learned.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, ScreenMoments
    >>> from nextpert.core.screen.guides import pool_guides
    >>> from nextpert.core.model.random_shifts import fit_random_shifts
    >>> rng, group = np.random.default_rng(0), np.repeat([0, 1, 2], [500, 50, 50])
    >>> x = rng.normal(size=(600, 8)) + 2.0 * (group == 1)[:, None] * (np.arange(8) < 2)
    >>> cells = pool_guides(ScreenMoments.from_array(x, group, 3), [0, 1, 2], 3)
    >>> found = fit_random_shifts(DagBlr(Dag.from_edges(8, [])), cells, np.zeros((2, 8)))
    >>> learned = found.prior.given(found.posterior).expected(found.posterior)
    >>> (abs(learned) > 1).tolist()[0]
    [True, True, False, False, False, False, False, False]
    """
    some = enough_genes(*shift.shape)
    if some is not None and not posterior.dag.n_edges and not fixed:
        # Genes are independent given the mixtures, which some of them tell.
        known = posterior.known_noise_var
        options = posterior.options | {"noise_var": None if known is None else known[some]}
        less = DagBlr(Dag.from_edges(len(some), []), **options)
        left = None if own is None else own[:, some]
        found = fit_random_shifts(less, cells.subset(some), shift[:, some], own=left)
        ascent = _Ascent(posterior, cells, shift, own, fixed=False)
        ascent.weights = found.prior.weights
        bounds = [ascent.step() for _ in range(_STEPS)]
        return ascent.result(found.common, (found.bound[0], [*found.bound[1], *bounds]))
    ascent = _Ascent(posterior, cells, shift, own, fixed=fixed)
    if fixed:
        return ascent.result(np.eye(len(TAU2))[0], ([], []))
    first, common = ascent.learn(None)
    second, _ = ascent.learn(common)
    return ascent.result(common, (first, second))


def learn_mixtures(posterior: DagBlr, prior: ShiftPrior) -> ShiftPrior:
    """Return the prior with mixtures learned anew for its expected effects, weights as they are.

    Where no shift is the mixture's (all are of combinations) it stays.
    """
    if not np.isnan(prior.own).any():
        return prior
    parts = []
    some = enough_genes(*prior.mean.shape)
    genes = slice(None) if some is None else some
    for rows in in_blocks(*prior.mean.shape):
        part = prior.rows(np.arange(len(prior.n))[rows])
        square = departure_squares(posterior, part.design, part.shifts(posterior))
        own = part.own / posterior.noise_var
        parts.append([x[:, genes] for x in (square, part.counted(), own)])
    square, n, own = (np.ascontiguousarray(np.concatenate(x)) for x in zip(*parts, strict=True))
    # Genes that are left out count as these do, so that the common mixture has its due weight.
    grown = prior.mean.shape[1] / square.shape[1]
    share, spare = np.empty((2, *square.shape))
    common, work = shared_mixture(square, n, own), np.empty((2, len(TAU2)))
    weights, before = np.tile(common, (len(square), 1)), -np.inf
    for _ in range(_MAX_STEPS):
        counts = np.zeros_like(weights)
        bound = grown * kernels.mixture_step(
            square, n, TAU2, weights, own, share, spare, counts, work
        )
        bound += _log_prior(weights, common)
        weights = _own(grown * counts, common)
        if bound - before < _TOLERANCE * prior.mean.size:
            break
        before = bound
    return replace(prior, weights=weights)


def refit(
    posterior: DagBlr,
    cells: PooledGuides,
    like: RandomShifts,
    *,
    without: ArrayLike | None = None,
) -> DagBlr:
    """Return the posterior on another graph, shifts and mixtures those of a fit.

    The means of perturbations ``without`` are left out; their cells' scatter, which says nothing
    of their effects, stays.
    """
    prior = like.prior
    left_out: ArrayLike = [] if without is None else without
    ascent = _Ascent(posterior, cells, prior.shift, prior.own, fixed=not like.bound[0])
    ascent.weights = like.prior.weights
    for _ in range(_STEPS if like.bound[0] else 1):
        ascent.step(left_out)
    return ascent.current()


def unseen_mixture(
    cells: PooledGuides, found: RandomShifts, expected: Array, together: Together | None = None
) -> Array:
    """Return the weights of the prior variances for perturbations without cells.

    They are learned from what perturbations differ by from the effects expected without their
    cells, in units of a gene's variance and on no graph. So the error of the graph and of other
    predictors, own changes that are not known, and shifts of many genes together are all in them. A
    shift of each gene ``i`` with the variance ``tau^2 sigma_i^2`` is one of ``tau^2`` times the
    variance of cells in every effect, whatever the graph: they serve as weights for shifts.

    Parameters
    ----------
    cells
        The controls, and then the perturbations.
    found
        The fit to them.
    expected
        Effect expected of every perturbation without its cells, shape
        ``(n_perturbations, n_nodes)``, units of the data.
    together
        What is expected of combinations, which are no matter of the mixture.
    """
    some = enough_genes(*expected.shape) if together is None else None
    if some is not None:
        cells, expected = cells.subset(some), expected[:, some]
        found = replace(found, prior=found.prior.subset(some))
    empty = DagBlr(Dag.from_edges(cells.mean.shape[1], []))
    prior = replace(found.prior, shift=expected, effect=np.zeros_like(expected))
    single = np.ones(len(expected), bool)
    if together is not None:
        prior = together.told(prior, np.ones(expected.shape[1]))
        single[together.rows] = False
    weights = learn_mixtures(refit(empty, cells, found), prior).weights
    return weights[single if single.any() else ~single].mean(axis=0)


def shared_mixture(square: Array, counted: Array, own: Array) -> Array:
    r"""Return the weights of the prior variances common to all perturbations.

    They maximise :math:`\sum_{ij} \log \sum_k \pi_k N_{ijk} + \sum_k a_k \log \pi_k`, with
    :math:`\log N_{ijk} = -\frac12 (\log g + n r^2 / g)`, :math:`g = 1 + n \tau_k^2`. EM would stop
    at a mixture with more mass about 0 and in the tails than cells show, so that intervals would be
    too narrow.

    Parameters
    ----------
    square
        Expected squares ``r^2`` of departures over the noise variance, shape
        ``(n_perturbations, n_nodes)``. Of more than 100,000 as many are drawn.
    counted
        Cells ``n``, same shape.
    own
        nan where the prior is the mixture, same shape; others are not read.
    """
    mixed = np.flatnonzero(np.isnan(own))
    if len(mixed) > ENOUGH_PAIRS:
        mixed = np.random.default_rng(0).choice(mixed, ENOUGH_PAIRS, replace=False)
    cells = counted.ravel()[mixed, None]
    grown = 1.0 + cells * TAU2
    logs = -0.5 * (np.log(grown) + square.ravel()[mixed, None] * cells / grown)
    chance = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    return best_weights(chance, _PRIOR_COUNTS, UNSEEN_WEIGHTS)


def _own(counts: Array, common: Array) -> Array:
    """Return each perturbation's weights, the common ones held as a prior."""
    grown = counts + _PSEUDO_COUNT * common
    return grown / grown.sum(axis=1, keepdims=True)


def _log_prior(weights: Array, common: Array) -> float:
    """Return what that prior adds to the bound."""
    return _PSEUDO_COUNT * float((common * np.log(np.maximum(weights, 1e-300))).sum())


class _Ascent:
    """The state of the coordinate ascent."""

    def __init__(
        self,
        posterior: DagBlr,
        cells: PooledGuides,
        shift: Array,
        own: Array | None,
        *,
        fixed: bool,
    ) -> None:
        some = cells.fixed.shape[1] if posterior.intercept else 0
        self.start, self.cells = posterior.with_fixed(some), cells
        self.shift = np.ascontiguousarray(shift)
        require_squares(cells.n_cells[1:, None], cells.mean[1:], cells.scatter, self.shift)
        shape = self.shift.shape
        self.own = np.full(shape, np.nan) if own is None else own
        self.n = np.ascontiguousarray(cells.counted[1:])
        self.mean = np.ascontiguousarray(cells.mean[1:])
        self.design = np.ascontiguousarray(with_columns(cells.mean, cells.fixed))
        self.weights = np.full((shape[0], len(TAU2)), 1.0 / len(TAU2))
        # Every mean is believed at first: the controls alone say what no perturbation means.
        self.share = self.n / (1.0 + self.n)
        if fixed:
            self.weights[:] = np.arange(len(TAU2)) == 0
            self.own, self.share = np.full(shape, np.nan), np.zeros(shape)
        self.spare = np.zeros(shape)
        self.counts = np.zeros_like(self.weights)
        self.blr = self._fitted()

    def _fitted(self) -> DagBlr:
        """Return the posterior of the weights, given how far each mean is believed."""
        start, cells = self.start, self.cells
        blr = start._copied(with_blocks=False)
        blr._blocks = None
        sums = (blr.xtx, blr.xty, blr.yty)
        room = np.empty(blr._layout.longest_row, np.int64)
        kernels.add_within(*blr.place, cells.scatter, cells.fixed_scatter, *sums, room)
        counted = np.ascontiguousarray(cells.counted[:1])
        row = np.empty(blr._layout.longest_row)
        kernels.add_means(*blr.place, self.design[:1], 0.0 * cells.mean[:1], counted, *sums, row)
        for rows in in_blocks(*self.shift.shape):
            counted = self.n[rows] * (1.0 - self.share[rows])
            kernels.add_means(
                *blr.place, self.design[1:][rows], self.shift[rows], counted, *sums, row
            )
        blr.cells += float(cells.n_cells.sum())
        return blr

    def step(self, without: ArrayLike = (), *, shared: bool = False) -> float:
        """Take one step of the ascent; return the bound.

        With ``shared`` the mixtures' weights are those best for all perturbations alike, else they
        stay.
        """
        every = None
        if shared:
            every = departure_squares(self.blr, self.design[1:], self.shift)
            self.weights[:] = shared_mixture(every, self.n, self.own)
        self.counts[:] = 0.0
        local = 0.0
        for rows in in_blocks(*self.shift.shape):
            if every is None:
                square = departure_squares(self.blr, self.design[1:][rows], self.shift[rows])
            else:
                square = every[rows]
            share, n = self.share[rows], self.n[rows]
            local += kernels.mixture_step(
                square, n, TAU2, self.weights[rows], self.own[rows] / self.blr.noise_var, share,
                self.spare[rows], self.counts[rows], np.empty((2, len(TAU2))),
            )  # fmt: skip
            local += 0.5 * float((square * n * (1.0 - share)).sum())
        self.share[np.asarray(without, np.int64)] = 1.0
        self.blr = self._fitted()
        return self.blr.log_evidence() + local - 0.5 * self.blr.n_nodes * self.cells.log_grown

    def learn(self, common: Array | None) -> tuple[list[float], Array]:
        """Ascend until the bound grows no more; return it and the mean of the mixtures."""
        bounds: list[float] = []
        for _ in range(_MAX_STEPS):
            bound = self.step(shared=common is None)
            if common is None:
                bound += float(_PRIOR_COUNTS @ np.log(self.weights[0]))
            else:
                bound += _log_prior(self.weights, common)
                self.weights = _own(self.counts, common)
            bounds.append(bound)
            if len(bounds) > 1 and bounds[-1] - bounds[-2] < _TOLERANCE * self.shift.size:
                break
        return bounds, self.weights.mean(axis=0)

    def result(self, common: Array, bound: tuple[list[float], list[float]]) -> RandomShifts:
        """Return what was found."""
        prior = ShiftPrior(
            self.cells.n[1:], self.mean, self.cells.variance_ratio[1:], self.shift,
            np.zeros_like(self.shift), self.own, self.weights,
            self.cells.fixed[1:, : self.blr.n_fixed],
        )  # fmt: skip
        return RandomShifts(self.current(), prior, common, bound)

    def current(self) -> DagBlr:
        r"""Return the posterior of the weights, components of shifts unknown in it (equation 9).

        The ascent takes the components of shifts as independent of the weights, and so a mean for
        :math:`E[k]` cells, with ``k = n / (1 + n tau^2)``. The curvature of the log evidence is
        less: of a component that is not known, :math:`Var[k] E[r^2/\sigma^2]` is missing (Louis
        1982, doi:10.1111/j.2517-6161.1982.tb01203.x), here at most all of ``E[k]``. The mean of the
        weights and what they leave stay: these cells are taken out at their fitted values.
        """
        blr, blocks = self.blr, self.blr.blocks
        row = np.empty(blr._layout.longest_row)
        for rows in in_blocks(*self.shift.shape):
            n, share = self.n[rows], self.share[rows]
            missing = n * np.maximum(n * self.spare[rows] - share, 0.0)
            missing = np.minimum(missing, n * (1.0 - share))
            if not missing.any():
                continue
            if blr is self.blr:
                blr = blr._copied(with_blocks=False)
            mean, shift = self.design[1:][rows], self.shift[rows]
            away, leverage = np.empty((2, *shift.shape))
            kernels.departures(
                *blr.place, blocks["weights"], blocks["cov"], mean, shift, away, leverage, row
            )
            sums = (blr.xtx, blr.xty, blr.yty)
            kernels.add_means(*blr.place, mean, shift + away, -missing, *sums, row)
        if blr is not self.blr:
            blr._blocks = solve_blocks(blr._layout, blr._statistics, blocks["precision"])
        return blr
