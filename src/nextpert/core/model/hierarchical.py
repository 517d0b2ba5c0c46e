"""One hierarchical model of effects: a shared program, coexpression, and sparse own parts.

In units of the standard deviation of each gene between cells, with the covariance between cells
written as ``Psi + Gamma Gamma'``, the means of the controls and of perturbation j are (equation 13)

    x_0 = c + Gamma h_0 + e_0,
    x_j = c + E_j + lambda f_j + Gamma (g_j + h_j) + u_j + e_j,

with sampling noise ``h_j ~ N(0, k_j I)`` and ``e_jg ~ N(0, k_jg Psi_g)``, where k is one over the
effective number of cells. ``E_j`` is the prior mean. The effect of j is ``E_j + lambda f_j + Gamma
g_j + u_j``: the prior mean, a program that the perturbations share, a part along the coexpression
of genes, and an own part, which is sparse and whose scale is uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from nextpert.core._blas import in_blocks, one_thread
from nextpert.core._checks import as_rng
from nextpert.core._codec import array, nested, series
from nextpert.core.model._hierarchical_kernel import N_VARIANCES
from nextpert.core.model.effect_draws import VARIANCE, Condition, EffectDraws, FromCells
from nextpert.core.model.sampler import NO_PRIOR, Chain, Prior, Sampler
from nextpert.core.model.within_cells import MIN_PSI, response_variance

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Hierarchical:
    """The posterior of the hierarchical model, as draws.

    Parameters
    ----------
    effects
        Draws of the effects of the perturbations that have cells.
    control
        Means of the controls, shape ``(n_draws, n_genes)``, units of the data.
    program
        The program, same shape, in units of the standard deviations of genes between cells.
    scores
        Scores on the program, shape ``(n_draws, n_perturbations)``.
    along
        Scores along the factors of coexpression, ``(n_draws, n_perturbations, n_factors)``.
    factors
        The factors, shape ``(n_genes, n_factors)``, in the units of ``program``.
    squares
        Sum of squared differences of the cells' means from the controls, in the units of
        ``program``, shape ``(n_draws,)``.
    conditions
        Separate fits to each of several conditions; ``effects`` then come from the cells of all
        conditions, compared within conditions. ``None`` without conditions.
    """

    effects: EffectDraws = nested(EffectDraws)
    control: Array = array("n_draws", "n_nodes")
    program: Array = array("n_draws", "n_nodes")
    scores: Array = array("n_draws", "n_measured")
    along: Array = array("n_draws", "n_measured", "n_factors")
    factors: Array = array("n_nodes", "n_factors")
    squares: Array = array("n_draws")
    conditions: list[Condition] | None = series(nested(Condition), optional=True)

    def __post_init__(self) -> None:
        # Fields that both records have are stored once.
        if self.effects.cells is not None:
            cells = replace(
                self.effects.cells,
                control=self.control / self.effects.unit,
                program=self.program,
                factors=self.factors,
                scores=self.scores,
                along=self.along,
            )
            object.__setattr__(self, "effects", replace(self.effects, cells=cells))

    def thinned(self, size: int) -> Hierarchical:
        """Return the model with at most as many draws as are kept for ``size`` effects."""
        # The draws are evenly spread over all stored ones.
        keep = Chain.of_size(size).keep
        if keep >= self.effects.n_draws:
            return self
        k = np.arange(keep) * self.effects.n_draws // keep
        names = ("control", "program", "scores", "along", "squares")
        by_draw = {name: getattr(self, name)[k] for name in names}
        return replace(self, effects=self.effects.some_draws(k), conditions=None, **by_draw)

    def within_cells(self) -> tuple[Array, Array]:
        """Return own variances and factors of the covariance between cells, units of the data."""
        psi = np.maximum(1.0 - (self.factors**2).sum(axis=1), MIN_PSI)
        return psi * self.effects.unit**2, self.factors * self.effects.unit[:, None]

    def in_condition(self, number: int) -> Hierarchical:
        """Return the model with the effects and controls of one condition, given by number."""
        assert self.conditions is not None
        one = self.conditions[number]
        # Convert program and factors from units of all cells to those of the condition.
        by = self.effects.unit / one.effects.unit
        return replace(
            self,
            effects=one.effects,
            control=one.control,
            program=self.program * by,
            factors=self.factors * by[:, None],
            conditions=None,
        )

    def rows(self, index: ArrayLike) -> Hierarchical:
        """Return some perturbations, in the given order."""
        selected, conditions = np.asarray(index, np.int64), self.conditions
        return replace(
            self,
            effects=self.effects.rows(selected),
            scores=self.scores[:, selected],
            along=self.along[:, selected],
            conditions=conditions and [condition.rows(selected) for condition in conditions],
        )

    def predict(
        self,
        expected: ArrayLike,
        *,
        own_variance: ArrayLike | None = None,
        scale: ArrayLike | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> EffectDraws:
        """Return draws of the effects of perturbations without cells (equations 13 and 21).

        In every draw, a new perturbation resembles a random perturbation with cells: it has scores
        of the same size and an own part with the same variances, in random order of genes. The
        draws thus describe how much perturbations of this screen differ from predictions, and
        whether they differ along the program, along coexpression, or in single genes. They are
        joint with the draws of perturbations that have cells; their means are the ``expected``
        effects, shape ``(n_new, n_genes)``. ``own_variance`` is as in :class:`Prior`; the columns
        of ``scale``, ``(n_new, 2)``, multiply the variances of scores and of unknown own parts (by
        default 1).
        """
        # A draw of a new perturbation takes scores and exponents of own parts from one with cells.
        generator, measured = as_rng(rng), self.effects
        expected = np.array(expected, np.float64)
        (n, p), n_draws = expected.shape, measured.n_draws
        entries = np.empty((n, p, n_draws), np.int8)
        scores = np.empty((n_draws, n, 1 + self.factors.shape[1]))
        shared, factor = np.ones((2, n)) if scale is None else np.array(scale, np.float64).T
        # A variance of the grid is multiplied by 2^step (1 + up_probability): its entry moves up by
        # `step`, and by one more with `up_probability`, so that the expected factor is `factor`.
        step = np.floor(np.log2(factor))
        up_probability = factor / 2.0**step - 1.0
        steps = np.arange(step.min(initial=0), step.max(initial=0) + 2)
        moved = np.clip(np.outer(2.0**steps, VARIANCE[:-1]), VARIANCE[0], VARIANCE[-2])
        moved = np.searchsorted(VARIANCE[:-1], moved)
        for k in range(n_draws):
            # The perturbations they resemble. Signs of scores and order of genes are exchangeable.
            like = generator.integers(len(measured.expected), size=n)
            scores[k] = np.column_stack([self.scores[k, like], self.along[k, like]])
            scores[k] *= generator.choice([-1.0, 1.0], scores[k].shape)
            # Exponents of own parts, with genes in random order.
            size = generator.permuted(measured.place[like, :, k] % (1 + N_VARIANCES), axis=1)
            # A known variance does not apply to another gene.
            is_known = size == N_VARIANCES
            size[is_known] = generator.permuted(np.where(is_known, 0, size), axis=1)[is_known]
            if (factor != 1.0).any():
                up = step[:, None] - steps[0] + (generator.random((n, p)) < up_probability[:, None])
                size = moved[up.astype(np.int64), size]
            entries[:, :, k] = size
        scores *= np.sqrt(shared)[:, None]
        precision, fixed = np.zeros((n, p), np.float32), np.zeros((n, p), bool)
        if own_variance is not None:
            variance = np.asarray(own_variance, np.float64)
            known_variance = np.maximum(variance / measured.unit**2, VARIANCE[0])
            fixed = ~np.isnan(known_variance)
            # The variance of the whole effect is known: no program or coexpression adds to it.
            entries[fixed], precision[fixed] = N_VARIANCES, 1.0 / known_variance[fixed]
        batches = np.zeros((n_draws, 0, p)) if measured.cells is None else measured.cells.batches
        n_columns = batches.shape[1]
        cells = FromCells(
            np.zeros((n, p), np.float32),
            sp.csr_array(fixed, dtype=np.float64),
            sp.csr_array((n, p)),
            np.zeros(n),
            0.0 * scores[:, :, 1:],
            np.zeros((n_draws, n)),
            np.zeros((n, n_columns)),
            batches,
            self.control / measured.unit,
            self.program,
            self.factors,
            scores[:, :, 0],
            scores[:, :, 1:],
        )
        # Without cells, change and noise are 0, and the precision is that of known own parts.
        drawn = EffectDraws(measured.unit, np.zeros((n, p)), precision, entries, None, cells)
        # The mean is known exactly: remove the sampling error of few draws.
        if n_draws > 1:
            expected -= drawn.posterior_mean()
        return replace(drawn, expected=expected)


# Variances of departures, relative to that of cells, for a screen without perturbations, and their
# weights: equal up to an eighth, and halved for each doubling beyond. The mean is a tenth; screens
# have 0.02 (TAP-seq) to 0.06 (Norman).
_UNSEEN = 2.0 ** np.arange(-13.0, 6.0)
_UNSEEN_WEIGHTS = np.minimum(1.0, 0.125 / _UNSEEN)
_UNSEEN_WEIGHTS /= _UNSEEN_WEIGHTS.sum()
UNSEEN_VARIANCE = float(_UNSEEN @ _UNSEEN_WEIGHTS)


def controls_alone(
    cells: PooledGuides, *, rng: int | np.random.Generator | None = 0
) -> Hierarchical:
    """Return the model of controls alone, which predicts effects from a prior."""
    generator, p, n_draws = as_rng(rng), cells.mean.shape[1], Chain().keep
    unit = np.sqrt(np.maximum(cells.covariance.diagonal(), np.finfo(np.float64).tiny))
    control = cells.mean[0] + unit * generator.standard_normal((n_draws, p)) / np.sqrt(cells.n[0])
    # One perturbation without effect, from which `predict` takes draws of variances.
    drawn = generator.choice(
        np.searchsorted(VARIANCE[:-1], _UNSEEN), (1, p, n_draws), p=_UNSEEN_WEIGHTS
    )
    program, none = np.zeros((n_draws, p)), np.zeros((n_draws, 1))
    along = np.zeros((n_draws, 1, 0))
    from_cells = FromCells(
        np.zeros((1, p), np.float32),
        sp.csr_array((1, p)),
        sp.csr_array((1, p)),
        np.zeros(1),
        along,
        none,
    )
    effects = EffectDraws(
        unit,
        np.zeros((1, p)),
        np.zeros((1, p), np.float32),
        drawn.astype(np.int8),
        None,
        from_cells,
    )
    return Hierarchical(effects, control, program, none, along, np.zeros((p, 0)), np.ones(n_draws))


# Probabilities below this are not stored: they change no local false sign rate that is reported.
_MIN_COINCIDENCE = 1e-5


@one_thread()
def fit_hierarchical(
    cells: PooledGuides,
    prior: Prior = NO_PRIOR,
    *,
    within: PooledGuides | None = None,
    chain: Chain | None = None,
    rng: int | np.random.Generator | None = None,
    n_jobs: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> Hierarchical:
    """Sample the effects of the perturbations of a screen by Gibbs sampling (equations 13 to 19).

    Parameters
    ----------
    cells
        The controls, followed by at least one perturbation, all with cells. Variance between guides
        reduces effective cells; the errors of batch effects in means are drawn.
    prior
        The prior of effects.
    within
        Cells for the coexpression of genes and the response of cells; by default ``cells``.
    chain
        Lengths of the chain; by default :meth:`Chain.of_size`.
    rng
        Seed or generator. The same seed gives bitwise identical results for any ``n_jobs``.
    n_jobs
        Number of threads.
    progress
        Called with the number of completed sweeps and the total number.

    Raises
    ------
    ValueError
        If no gene varies within perturbations.
    """
    n, p = len(cells.mean) - 1, cells.mean.shape[1]
    if not (cells.scatter.diagonal() > 0).any():
        message = "No node varies within perturbations: give the values of cells, not their means."
        raise ValueError(message)
    # Sweeps of (14) to (19); after the first, some are kept as draws.
    sampler = Sampler(cells, prior, as_rng(rng), within)
    length = chain or Chain.of_size(n * p)
    sampler.warm = length.warm
    entries = np.empty((n, p, length.keep), np.int8)
    draws: list[tuple[Array, ...]] = []
    for number, k, workers in length.sweeps(n_jobs, progress):
        sampler.sweep(number, workers)
        if k is not None:
            draws.append(sampler.draw())
            entries[:, :, k] = (
                sampler.state.place if sampler.prior_mean_variance is None else sampler.own_places()
            )
            # The second half of entries has doubled variances of noise.
            entries[:, :, k] += np.int8(1 + N_VARIANCES) * sampler.state.doubled
    columns = (np.array(x) for x in zip(*draws, strict=True))
    control, program, scores, along, noise, batches, squares = columns
    # Given a draw, an effect is normal. Its mean follows from the cells (x minus shared parts), and
    # its precision sums those of a mean's own noise, 1 / V, and of own parts of known variance.
    means, unit = sampler.means, sampler.unit
    precision = np.empty((n, p), np.float32)
    shares, coincide = [], []
    for rows in in_blocks(n, p):
        # The uncertainty of the prior mean is part of the effect, not of its noise.
        variance = means.psi * means.error[rows]
        own_variance = (
            means.own_variance[rows] if means.own_variance.size else np.full(variance.shape, np.nan)
        )
        is_unknown = np.isnan(own_variance)
        precision[rows] = 1.0 / variance + 1.0 / np.where(is_unknown, np.inf, own_variance)
        share = np.where(is_unknown, 0.0, own_variance / (own_variance + variance))
        shares.append(sp.csr_array(share))
        # Of a target gene, an effect is expected: it is not that large departures coincide.
        chance = np.zeros(own_variance.shape)
        if cells.errors is not None:
            chance += np.where(is_unknown, cells.errors.coincidence[1:][rows], 0.0)
        coincide.append(sp.csr_array(np.where(chance < _MIN_COINCIDENCE, 0.0, chance)))
    factors = means.design[1:].T.copy()
    from_cells = FromCells(
        means.x.astype(np.float32, copy=False),
        sp.csr_array(sp.vstack(shares)),
        sp.csr_array(sp.vstack(coincide)),
        np.ones(n),
        noise,
        np.zeros((length.keep, n)),
        means.columns,
        batches,
        control,
        program,
        factors,
        scores,
        along,
    )
    effects = EffectDraws(unit, sampler.expected, precision, entries, None, from_cells)
    # Response of cells relative to the average (equation 23): log-normal with mean 1, and the
    # variance phi of a cell divided by the number of cells.
    response_cells = cells if within is None else within
    phi = response_variance(response_cells, effects.posterior_mean, unit)
    spread = phi / np.maximum(response_cells.n[1:, None], 1.0)
    # exp(sqrt(v) z - v / 2) - 1 with v = phi / n.
    chance = sampler.rng.standard_normal((len(spread), length.keep))
    response = np.expm1(np.sqrt(spread) * chance - spread / 2)
    effects = replace(effects, cells=replace(from_cells, response=response.T))
    return Hierarchical(effects, control * unit, program, scores, along, factors, squares)
