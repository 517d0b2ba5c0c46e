"""DAG-BLR with random shifts: the weights of a graph, however far shifts are to be believed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.effects import _kernels as kernels
from nextpert.core.effects.shift_prior import (
    TAU2,
    UNSEEN_WEIGHTS,
    ShiftPrior,
    departure_squares,
)
from nextpert.core.posterior._add import require_squares

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.cells.pool_guides import PooledGuides
    from nextpert.core.posterior.dag_blr import DagBlr

    Array = NDArray[np.float64]

# Genes for which the screen's mixture speaks in that of one perturbation.
_PSEUDO_COUNT = 20.0
# Genes without a shift that the prior adds to those of the screen (Stephens 2017, lambda_0 = 10):
# a shift of 0 and a very small one fit the cells alike, and the first is meant.
_NULL_COUNT = 9.0
_TOLERANCE = 1e-4  # of the bound, a node and perturbation
_MAX_STEPS = 100  # of each stage


@dataclass(frozen=True)
class RandomShifts:
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
        """Log evidence of all cells; where shifts are learned a lower bound of it."""
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
    given how far each mean is believed, then the mixtures. The weights common to the screen are
    learned first; then, held as a prior of 20 genes, those of each perturbation.

    Parameters
    ----------
    posterior
        Before any cells: the graph and its priors.
    cells
        The controls, which have no shift, and then the perturbations of the screen.
    shift
        Expected shift of every perturbation, shape ``(n_perturbations, n_nodes)``, units of the
        data.
    own
        Prior variance of ``u`` where it is not the mixture, squared units of the data; nan
        elsewhere; same shape.
    fixed
        Whether shifts are exact, as in Zhang et al. 2023: then nothing is learned of them.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, ScreenMoments
    >>> from nextpert.core.cells.pool_guides import pool_guides
    >>> from nextpert.core.effects.random_shifts import fit_random_shifts
    >>> rng, group = np.random.default_rng(0), np.repeat([0, 1, 2], [500, 50, 50])
    >>> x = rng.normal(size=(600, 8)) + 2.0 * (group == 1)[:, None] * (np.arange(8) < 2)
    >>> cells = pool_guides(ScreenMoments.from_array(x, group, 3), [0, 1, 2], 3)
    >>> found = fit_random_shifts(DagBlr(Dag.from_edges(8, [])), cells, np.zeros((2, 8)))
    >>> learned = found.prior.given(found.posterior).expected(found.posterior)
    >>> (abs(learned) > 1).tolist()[0]
    [True, True, False, False, False, False, False, False]
    """
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
    square = departure_squares(posterior, prior.mean, prior.shifts(posterior))
    weights = np.full_like(prior.weights, 1.0 / len(TAU2))
    share, spare = np.empty((2, *prior.mean.shape))
    own, n = prior.own / posterior.noise_var, prior.counted()
    common = weights[0]
    for shared in (True, False):
        before = -np.inf
        for _ in range(_MAX_STEPS):
            counts = np.zeros_like(weights)
            bound = kernels.mixture_step(square, n, TAU2, weights, own, share, spare, counts)
            if not counts.any():
                return prior
            if shared:
                bound += _log_prior_shared(common)
                common = _shared(counts)
                weights[:] = common
            else:
                bound += _log_prior(weights, common)
                weights = _own(counts, common)
            if bound - before < _TOLERANCE * square.size:
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
    for _ in range(3 if like.bound[0] else 1):
        ascent.step(left_out)
    return ascent.blr


def _shared(counts: Array) -> Array:
    """Return the weights common to all perturbations, from the genes counted in each component.

    Where each gene is a target of every perturbation none is counted, and the prior is left.
    """
    total = counts.sum(axis=0)
    if not total.any():
        return UNSEEN_WEIGHTS
    total += _NULL_COUNT * (TAU2 == 0.0)
    return total / total.sum()


def _log_prior_shared(common: Array) -> float:
    """Return what the prior of the common weights adds to the bound."""
    return _NULL_COUNT * float(np.log(common[TAU2 == 0.0]).sum())


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
        self.start, self.cells = posterior, cells
        self.shift = np.ascontiguousarray(shift)
        require_squares(cells.n_cells[1:, None], cells.mean[1:], cells.scatter, self.shift)
        shape = self.shift.shape
        self.own = np.full(shape, np.nan) if own is None else own
        self.n = np.ascontiguousarray(cells.counted[1:])
        self.mean = np.ascontiguousarray(cells.mean[1:])
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
        place = (blr.dag.indptr, blr.dag.indices, blr.vptr, blr.mptr)
        sums = (blr.xtx, blr.xty, blr.yty)
        kernels.add_within(*place, cells.scatter, *sums)
        control, counted = (np.ascontiguousarray(x[:1]) for x in (cells.mean, cells.counted))
        kernels.add_means(*place, control, 0.0 * control, counted, *sums)
        counted = self.n * (1.0 - self.share)
        kernels.add_means(*place, self.mean, self.shift, counted, *sums)
        blr.cells += float(cells.n_cells.sum())
        return blr

    def step(self, without: ArrayLike = ()) -> float:
        """Take one step of the ascent, all but the mixtures' weights; return the bound."""
        square = departure_squares(self.blr, self.mean, self.shift)
        own = self.own / self.blr.noise_var
        self.counts[:] = 0.0
        local = kernels.mixture_step(
            square, self.n, TAU2, self.weights, own, self.share, self.spare, self.counts
        )
        local += 0.5 * float((square * self.n * (1.0 - self.share)).sum())
        self.share[np.asarray(without, np.int64)] = 1.0
        self.blr = self._fitted()
        return self.blr.log_evidence() + local - 0.5 * self.blr.n_nodes * self.cells.log_grown

    def learn(self, common: Array | None) -> tuple[list[float], Array]:
        """Ascend until the bound grows no more; return it and the mean of the mixtures."""
        bounds: list[float] = []
        for _ in range(_MAX_STEPS):
            bound = self.step()
            if common is None:
                bound += _log_prior_shared(self.weights[0]) if len(self.weights) else 0.0
                self.weights[:] = _shared(self.counts)
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
        )  # fmt: skip
        return RandomShifts(self.blr, prior, common, bound)
