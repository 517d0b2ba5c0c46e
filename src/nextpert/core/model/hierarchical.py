"""One hierarchical model of effects: a shared program, coexpression, and sparse own parts.

In units of the standard deviation of each gene within cells, with the covariance within cells
written as ``Psi + Gamma Gamma'``, the means of the controls and of perturbation j are (equation 19)

    x_0 = c + Gamma h_0 + e_0,
    x_j = c + E_j + lambda f_j + Gamma (g_j + h_j) + u_j + e_j,

with the noise of sampling ``h_j ~ N(0, k_j I)`` and ``e_jg ~ N(0, k_jg Psi_g)``, where k is one
over the cells that count. ``E_j`` is what is expected beforehand. The effect of j is ``E_j +
lambda f_j + Gamma g_j + u_j``: a program that the perturbations share, a part along the
coexpression of genes, and an own part, which is sparse and whose scale is uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh

from nextpert.core._blas import one_thread
from nextpert.core._checks import as_rng
from nextpert.core._codec import array, nested, series, table_type
from nextpert.core.model._hierarchical_kernel import (
    N_VARIANCES,
    Grid,
    Means,
    Room,
    State,
    visit,
)
from nextpert.core.model._mixture import ENOUGH_PAIRS, best_weights
from nextpert.core.model.chain import Chain
from nextpert.core.model.effect_draws import (
    SCALES,
    TAILS,
    VARIANCE,
    Condition,
    EffectDraws,
    FromCells,
)
from nextpert.core.model.perturbations import in_blocks
from nextpert.core.model.within_cells import LEAST_PSI, factors, responses, without_responses

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.chain import Workers
    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]

# Exponents of 2 of prior variances of scores, in units of the variance within cells: as far as
# those of own parts, and less.
SCORES = np.arange(-14.0, 5.0)
# Observations that the prior of the weights of a grid counts for. More expect effects along
# coexpression where there are none, fewer rule out what few perturbations show: 5 is the least that
# loses nothing on TAP-seq.
_TOLD = 5.0
_FACTORS = 8  # of coexpression at most; a tenth of the genes where these are few
# Perturbations of a table that does not say how errors of genes are correlated, up to which a
# program is modelled. Of 100 perturbations x 100 coexpressed genes, 70 of 467 effects were false.
WITHOUT_CORRELATION = 30
_NO_PROGRAM = 1e-12  # variance of a program that is none
_BLOCK = 32  # perturbations visited by one task; the draws do not depend on who does it


@dataclass(frozen=True)
class Weights:
    """Draws of the weights of prior variances, the number of draws first.

    Parameters
    ----------
    program, factors
        Of :data:`SCORES`: for scores on the program, and for those along all factors.
    scales, tails
        Of :data:`~nextpert.core.model.effect_draws.SCALES` and
        :data:`~nextpert.core.model.effect_draws.TAILS`.
    """

    program: Array = array("n_draws", len(SCORES), least=0)
    factors: Array = array("n_draws", len(SCORES), least=0)
    scales: Array = array("n_draws", len(SCALES), least=0)
    tails: Array = array("n_draws", len(TAILS), least=0)


@dataclass(frozen=True)
class Hierarchical:
    """The posterior of the hierarchical model, by draws.

    Parameters
    ----------
    effects
        Draws of the effects of the perturbations that have cells.
    control
        Means of the controls, shape ``(n_draws, n_genes)``, units of the data.
    program
        The program, same shape, in units of the standard deviations of genes within cells.
    scores
        Scores on the program, shape ``(n_draws, n_perturbations)``.
    along
        Scores along the factors of coexpression, ``(n_draws, n_perturbations, n_factors)``.
    factors
        The factors, shape ``(n_genes, n_factors)``, in the units of ``program``.
    weights
        Weights of the prior variances.
    squares
        Squared differences of the cells' means to the controls, summed, in these units, shape
        ``(n_draws,)``.
    conditions
        What differs between conditions, if effects were modelled in each; ``effects`` are then the
        averages over the cells of all conditions. ``None`` where they were pooled.
    """

    effects: EffectDraws = nested(EffectDraws)
    control: Array = array("n_draws", "n_nodes")
    program: Array = array("n_draws", "n_nodes")
    scores: Array = array("n_draws", "n_measured")
    along: Array = array("n_draws", "n_measured", "n_factors")
    factors: Array = array("n_nodes", "n_factors")
    weights: Weights = nested(Weights)
    squares: Array = array("n_draws", above=0)
    conditions: list[Condition] | None = series(nested(Condition), optional=True)

    def __post_init__(self) -> None:
        if self.effects.cells is not None:  # what both have is stored once
            told = replace(
                self.effects.cells, control=self.control / self.effects.unit, program=self.program,
                factors=self.factors, scores=self.scores, along=self.along,
            )  # fmt: skip
            object.__setattr__(self, "effects", replace(self.effects, cells=told))

    def thinned(self, size: int) -> Hierarchical:
        """Return as many of its draws as are kept of a number of effects."""
        keep = Chain.of_size(size).keep
        if keep >= self.effects.n_draws:
            return self
        k = np.array([k for k, _ in self.effects.taken(keep)], np.int64)
        every, weights = self.conditions, self.weights
        names = ("control", "program", "scores", "along", "squares")
        return replace(
            self,
            effects=self.effects.some_draws(k),
            conditions=every and [each.some_draws(k) for each in every],
            weights=Weights(*(getattr(weights, x)[k] for x in weights.__dataclass_fields__)),
            **{name: getattr(self, name)[k] for name in names},
        )

    def in_condition(self, number: int) -> Hierarchical:
        """Return it with the effects and controls of one condition, by its number."""
        assert self.conditions is not None
        one = self.conditions[number]
        return replace(self, effects=one.effects, control=one.control, conditions=None)

    def rows(self, index: ArrayLike) -> Hierarchical:
        """Return some perturbations, in the order given."""
        which, every = np.asarray(index, np.int64), self.conditions
        return replace(
            self, effects=self.effects.rows(which), scores=self.scores[:, which],
            along=self.along[:, which], conditions=every and [each.rows(which) for each in every],
        )  # fmt: skip

    def predict(
        self,
        expected: ArrayLike,
        *,
        own_variance: ArrayLike | None = None,
        scale: ArrayLike | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> EffectDraws:
        """Return draws of the effects of perturbations without cells (equations 19 and 33).

        In every draw each is like one of the perturbations with cells, taken at random: it has the
        sizes of its scores and, in any order of genes, of its own part. So a prediction says how
        far perturbations of this screen differ from what is expected of them, and how they do:
        along the program, along coexpression, or in genes of their own. Draws go with those of
        the perturbations that have cells.

        Parameters
        ----------
        expected
            Expected effects, such as those of weighted predictors, shape ``(n_new, n_genes)``,
            units of the data. They are the means of the draws.
        own_variance
            Variance of own parts where it is known, as in :func:`fit_hierarchical`.
        scale
            What variances of what scores add, and those of other own parts, are multiplied by,
            shape ``(n_new, 2)``; 1 by default.
        rng
            Seed or generator.
        """
        generator, known = as_rng(rng), self.effects
        expected = np.array(expected, np.float64)
        (n, p), n_draws = expected.shape, known.n_draws
        place = np.empty((n, p, n_draws), np.int8)
        scores = np.empty((n_draws, n, 1 + self.factors.shape[1]))
        shared, factor = np.ones((2, n)) if scale is None else np.array(scale, np.float64).T
        # Own parts have variances of the grid: its entry is moved up or down by whole steps, of
        # which one more is taken at random, so that the variance is that wanted on average.
        step = np.floor(np.log2(factor))
        more = factor / 2.0**step - 1.0
        steps = np.arange(step.min(initial=0), step.max(initial=0) + 2)
        moved = np.clip(np.outer(2.0**steps, VARIANCE[:-1]), VARIANCE[0], VARIANCE[-2])
        moved = np.searchsorted(VARIANCE[:-1], moved)
        for k in range(n_draws):
            like = generator.integers(len(known.expected), size=n)
            scores[k] = np.column_stack([self.scores[k, like], self.along[k, like]])
            scores[k] *= generator.choice([-1.0, 1.0], scores[k].shape)
            size = generator.permuted(known.place[like, :, k], axis=1)
            told = size == N_VARIANCES  # a variance that was known is none of another gene
            size[told] = generator.permuted(np.where(told, 0, size), axis=1)[told]
            if (factor != 1.0).any():
                up = step[:, None] - steps[0] + (generator.random((n, p)) < more[:, None])
                size = moved[up.astype(np.int64), size]
            place[:, :, k] = size
        scores *= np.sqrt(shared)[:, None]
        precision, fixed = np.zeros((n, p), np.float32), np.zeros((n, p), bool)
        if own_variance is not None:
            known_variance = _told(own_variance, known.unit)
            fixed = ~np.isnan(known_variance)
            # Their variance is told in full: neither program nor coexpression adds to it.
            place[fixed], precision[fixed] = N_VARIANCES, 1.0 / known_variance[fixed]
        cells = FromCells(
            np.zeros((n, p), np.float32), sp.csr_array(fixed, dtype=np.float64), np.zeros(n),
            0.0 * scores[:, :, 1:], np.zeros((n_draws, n)), self.control / known.unit,
            self.program, self.factors, scores[:, :, 0], scores[:, :, 1:],
        )  # fmt: skip
        drawn = EffectDraws(known.unit, np.zeros((n, p)), precision, place, None, cells)
        if n_draws > 1:  # what is expected is known exactly, whatever these few draws
            expected -= drawn.posterior_mean()
        return replace(drawn, expected=expected)


@one_thread()
def fit_hierarchical(
    cells: PooledGuides,
    *,
    expected: ArrayLike | None = None,
    own_variance: ArrayLike | None = None,
    chain: Chain | None = None,
    rng: int | np.random.Generator | None = None,
    n_jobs: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> Hierarchical:
    """Sample the effects of the perturbations of a screen by Gibbs sampling (equations 19 to 25).

    Parameters
    ----------
    cells
        The controls, and then the perturbations. Where guides were pooled with a variance, they
        count for fewer cells; what batches leave in a mean counts as noise of its own.
    expected
        Expected effects, shape ``(n_perturbations, n_genes)``, units of the data; 0 by default.
    own_variance
        Variance of own parts where it is known, such as that of target genes by the efficacy of the
        screen; nan where the model learns it, same shape, squared units of the data. By default
        none is known.
    chain
        Lengths of the chain; by default :meth:`Chain.of_size`.
    rng
        Seed or generator. The same seed gives the same bits for any ``n_jobs``.
    n_jobs
        Threads.
    progress
        Called with the number of sweeps done and of all.

    Raises
    ------
    ValueError
        If there are no perturbations, the controls or a perturbation have no cells, no gene varies
        within them, or the expected effects do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.model.hierarchical import fit_hierarchical
    >>> from nextpert.core.screen.guides import pool_guides
    >>> rng = np.random.default_rng(0)
    >>> effect = np.outer([0.0, 1.0, -1.0, 1.0, 0.0], np.arange(6) < 2)
    >>> code = np.repeat(np.arange(5), [500, 25, 25, 25, 25])
    >>> x = effect[code] + rng.normal(size=(600, 6))
    >>> cells = pool_guides(ScreenMoments.from_array(x, code, 5), range(5), 5)
    >>> fit = fit_hierarchical(cells, rng=0)
    >>> (fit.effects.summary().lfsr < 0.05).astype(int).tolist()
    [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    """
    sampler = _Sampler(cells, expected, own_variance, as_rng(rng))
    n, p = sampler.means.x.shape
    length = chain or Chain.of_size(n * p)
    sampler.warm = length.warm
    place = np.empty((n, p, length.keep), np.int8)
    kept: list[tuple[Array, ...]] = []
    for k in length.run(sampler.sweep, n_jobs, progress):
        kept.append(sampler.parameters())
        place[:, :, k] = sampler.state.place
    columns = (np.array(x) for x in zip(*kept, strict=True))
    control, program, scores, along, noise, *weights, squares = columns
    means, unit, expected = sampler.means, sampler.unit, sampler.expected
    precision, shares = np.empty((n, p), np.float32), []
    for rows in in_blocks(n, p):
        variance = means.psi * means.error[rows]
        own = means.told[rows] if means.told.size else np.full(variance.shape, np.nan)
        precision[rows] = 1.0 / variance + 1.0 / np.where(np.isnan(own), np.inf, own)
        shares.append(sp.csr_array(np.where(np.isnan(own), 0.0, own / (own + variance))))
    factors = means.design[1:].T.copy()
    from_cells = FromCells(
        means.x.astype(np.float32, copy=False), sp.csr_array(sp.vstack(shares)), np.ones(n), noise,
        np.zeros((length.keep, n)), control, program, factors, scores, along,
    )  # fmt: skip
    effects = EffectDraws(unit, expected, precision, place, None, from_cells)
    response = responses(
        cells, lambda rows: (effects.posterior_mean(np.arange(n)[rows]) / unit) ** 2,
        length.keep, sampler.rng,
    )  # fmt: skip
    effects = replace(effects, cells=replace(from_cells, response=response.T))
    return Hierarchical(
        effects, control * unit, program, scores, along, factors, Weights(*weights), squares
    )


class _Sampler:
    """The state of a chain, and one sweep of it.

    Parameters as in :func:`fit_hierarchical`.
    """

    def __init__(
        self,
        cells: PooledGuides,
        expected: ArrayLike | None,
        own_variance: ArrayLike | None,
        rng: np.random.Generator,
    ) -> None:
        n, p = cells.mean.shape[0] - 1, cells.mean.shape[1]
        self.expected = np.zeros((n, p)) if expected is None else np.asarray(expected, np.float64)
        told = np.broadcast_to(np.nan, (n, p)) if own_variance is None else np.asarray(own_variance)
        _check(cells, self.expected, told)
        within = cells.covariance
        # A gene that no cell varies in, as happens in halves, is taken to vary as the median one.
        varies = within.diagonal() > 0
        middle = np.median(within.diagonal()[varies])
        self.unit = np.sqrt(np.where(varies, within.diagonal(), middle))
        gamma, psi = np.zeros((p, 0)), np.ones(p)  # a table may say nothing of coexpression
        if cells.knows_correlation:
            q = int(np.clip(p // 10, 1, _FACTORS))
            alike = without_responses(cells, self.unit)
            sd = np.sqrt(np.maximum(alike.diagonal(), LEAST_PSI))
            gamma, psi = factors(alike / np.outer(sd, sd), q)
        q = gamma.shape[1]
        x, error = np.empty((2, n, p), table_type(n * p))
        fixed, along = cells.fixed_error()[1:, None], np.empty(n)
        for rows in in_blocks(n, p):
            each = cells.variance_ratio[1:][rows] / cells.n[1:][rows, None] + fixed[rows]
            x[rows] = (cells.mean[1:][rows] - self.expected[rows]) / self.unit
            error[rows], along[rows] = each, 1.0 / each.mean(axis=1)
        design = np.vstack([np.zeros((1, p)), gamma.T])
        told = np.zeros((0, 0)) if np.isnan(told).all() else _told(told, self.unit)
        self.means = Means(x, error, psi, design, told, along)
        counted = cells.n[0] / cells.variance_ratio[0]
        self.control_x, self.control_noise = cells.mean[0] / self.unit, psi / counted
        # The scores of the controls' noise along the factors, equation 20 without the others.
        precision = gamma.T @ (gamma / self.control_noise[:, None])
        self.control_precision = 1.0 / np.mean(1.0 / counted)
        precision += np.eye(q) * self.control_precision
        self.control_cov = np.linalg.inv(precision)
        self.control_root = np.linalg.cholesky(self.control_cov)
        self.rng, key = rng, int(rng.integers(2**63))
        bits = [np.random.Philox(key=key) for _ in range(0, n, _BLOCK)]
        self.streams, self.fresh = [np.random.Generator(x) for x in bits], bits[0].state
        # A loud start, all variances one: a quiet one takes long to find what is there.
        place = np.full((n, p), np.searchsorted(VARIANCE, 1.0), np.int8)
        if told.size:
            place[~np.isnan(told)] = N_VARIANCES
        self.state = State(
            place,
            np.full((n, 1 + q), np.searchsorted(SCORES, 0.0), np.int8), np.zeros((n, 2 * q + 1)),
            np.zeros(n, np.int64),
        )  # fmt: skip
        self.control = self.control_x.copy()
        square = np.zeros((p, p))
        for rows in in_blocks(n, p):
            away = (x[rows] - self.control) / np.sqrt(psi * error[rows] + 1.0)
            square += away.T @ away
        design[0] = eigh(square, subset_by_index=[p - 1, p - 1])[1][:, 0]
        # Errors of genes that go together are a program, if many perturbations show them.
        self.has_program = cells.knows_correlation or n <= WITHOUT_CORRELATION
        self.program_variance = 1.0 / p
        if not self.has_program:
            design[0], self.program_variance = 0.0, _NO_PROGRAM
        self.score_weights = np.full((2, len(SCORES)), 1.0 / len(SCORES))  # program; factors
        self.scale_weights = np.full(len(SCALES), 1.0 / len(SCALES))
        self.tail_weights = np.full(len(TAILS), 1.0 / len(TAILS))
        self.sums: Array | None = None
        self.count = np.zeros(len(TAILS))
        self.warm = 0

    def sweep(self, number: int, workers: Workers) -> None:
        """Draw everything once, given the rest."""
        if self.sums is not None:
            self._draw_program(self.sums)
            self._draw_weights(number)
            self._move_common()
        self.visit_all(number, workers)

    def visit_all(self, number: int, workers: Workers) -> Array:
        """Visit all perturbations; keep and return what the regressions of genes need of them."""
        n, p = self.means.x.shape
        size = self.state.scores.shape[1]

        def block(first: int) -> tuple[Array, Array]:
            last = min(first + _BLOCK, n)
            # A stream of its own for every block and sweep; a new generator would cost more.
            rng = self.streams[first // _BLOCK]
            place = {"counter": np.array([0, 0, number, first], np.uint64)}
            rng.bit_generator.state = self.fresh | {"state": self.fresh["state"] | place}
            normal = rng.standard_normal((last - first, size))
            uniform = rng.random((last - first, p + 1 + self.state.size.shape[1]))
            return self.visit(first, last, normal, uniform)

        done = list(workers(block, range(0, n, _BLOCK)))
        sums: Array = sum(sums for sums, _ in done)
        self.sums, self.count = sums, sum(count for _, count in done)
        return sums

    def visit(self, first: int, last: int, normal: Array, uniform: Array) -> tuple[Array, Array]:
        """Visit the perturbations from the first to before the last.

        Random numbers, and what is returned (``sums`` and ``count``), are as in :func:`visit`.
        """
        p, size, q = self.means.x.shape[1], self.state.scores.shape[1], len(self.means.design) - 1
        grid = Grid(
            VARIANCE, np.log(self.scale_weights), self.tail_weights, 2.0**SCORES,
            np.log(np.repeat(self.score_weights, [1, q], axis=0)),
        )  # fmt: skip
        sums, count = np.zeros((5, p)), np.zeros(len(TAILS))
        room = Room(
            np.empty((size, size)), np.empty((size, size)), np.empty((4, p)),
            np.empty((p, N_VARIANCES)), np.empty((2, len(SCORES))),
        )  # fmt: skip
        visit(
            self.means, first, last, grid, self.control, normal, uniform, self.state, sums, count,
            room,
        )  # fmt: skip
        return sums, count

    def _draw_program(self, sums: Array) -> None:
        """Draw the controls' means and the program, by regression gene by gene (equation 22)."""
        program, gamma = self.means.design[0], self.means.design[1:].T
        p, q = gamma.shape
        right = gamma.T @ ((self.control_x - self.control) / self.control_noise)
        chance = self.control_root @ self.rng.standard_normal(q)
        self.control_scores = self.control_cov @ right + chance
        common = gamma @ self.control_scores
        one = sums[0] + 1.0 / self.control_noise
        two = sums[2] + 1.0 / self.program_variance
        right = sums[3] + (self.control_x - common) / self.control_noise
        det = one * two - sums[1] ** 2
        normal = self.rng.standard_normal((2, p))
        program[:] = (one * sums[4] - sums[1] * right) / det + np.sqrt(one / det) * normal[0]
        self.control = (right - sums[1] * program + np.sqrt(one) * normal[1]) / one
        rate = 0.001 + (program**2).sum() / 2.0
        self.program_variance = rate / self.rng.gamma(1.0 + p / 2.0)
        if not self.has_program:
            program[:], self.program_variance = 0.0, _NO_PROGRAM

    def _move_common(self) -> None:
        """Move what all perturbations share between the controls' means and scores (equation 25).

        Scores are drawn next, so that they need not be changed.
        """
        q = len(self.means.design) - 1
        scores, variance = self.state.scores, 2.0 ** SCORES[self.state.size]
        total = scores[:, : 1 + q].copy()
        total[:, 1:] += scores[:, 1 + q :]
        variance[:, 1:] += 1.0 / self.means.along[:, None]
        precision, right = (1.0 / variance).sum(axis=0), (total / variance).sum(axis=0)
        # The controls' cells: along the factors as their noise allows, along the program as seen.
        program, gamma = self.means.design[0], self.means.design[1:].T
        left = self.control_x - self.control - gamma @ self.control_scores
        precision[0] += (program**2 / self.control_noise).sum()
        right[0] += (program * left / self.control_noise).sum()
        precision[1:] += self.control_precision
        right[1:] += self.control_precision * self.control_scores
        moved = right / precision + self.rng.standard_normal(1 + q) / np.sqrt(precision)
        self.control += moved @ self.means.design

    def _draw_weights(self, number: int) -> None:
        """Draw the weights of all grids (equation 23); those of tails are at first most likely."""
        size = self.state.size
        for row, columns in enumerate((size[:, :1], size[:, 1:])):
            self.score_weights[row] = self._weights(columns.ravel().astype(np.int64), len(SCORES))
        self.scale_weights = self._weights(self.state.scale, len(SCALES))
        self.tail_weights = self.rng.dirichlet(self.count + 0.5) + 1e-300
        if number < self.warm:
            self.tail_weights = self.likely_tails(np.ones(len(TAILS)))

    def likely_tails(self, prior: Array) -> Array:
        """Return the weights of tails that some effects make most likely, all else as it is.

        ``prior`` are the counts of :func:`best_weights`.
        Draws of these weights move slowly from where they start if most effects are small: what is
        drawn of an effect that the cells do not tell from 0 repeats what was thought of it.
        """
        (n, p), (design, scores) = self.means.x.shape, (self.means.design, self.state.scores)
        row, gene = (self.rng.integers(size, size=ENOUGH_PAIRS) for size in (n, p))
        drawn = self.state.place[row, gene] < N_VARIANCES
        row, gene = row[drawn], gene[drawn]
        total, rank = scores[row, : len(design)].copy(), len(design)
        total[:, 1:] += scores[row, rank:]
        left = (
            self.means.x[row, gene] - self.control[gene] - (total * design[:, gene].T).sum(axis=1)
        )
        variance = VARIANCE[self.state.scale[row, None] + np.arange(len(TAILS))]
        variance = variance + (self.means.psi[gene] * self.means.error[row, gene])[:, None]
        logs = -0.5 * (np.log(variance) + left[:, None] ** 2 / variance)
        chance = np.exp(logs - logs.max(axis=1, keepdims=True))
        return best_weights(chance, prior, np.full(len(TAILS), 1.0 / len(TAILS)))

    def _weights(self, which: NDArray[np.int64], size: int) -> Array:
        counts = np.bincount(which, minlength=size) + _TOLD / size
        return self.rng.dirichlet(counts) + 1e-300

    def parameters(self) -> tuple[Array, ...]:
        """Return a draw of all but the own parts, in the order of :class:`Hierarchical`.

        After the scores along factors there are those of the cells' noise.
        """
        q = len(self.means.design) - 1
        scores, x, expected = self.state.scores, self.means.x, self.expected
        squares = np.zeros(())
        for rows in in_blocks(*x.shape):
            squares += ((x[rows] + expected[rows] / self.unit - self.control) ** 2).sum()
        return (
            self.control.copy(), self.means.design[0].copy(), scores[:, 0].copy(),
            scores[:, 1 : 1 + q].copy(), scores[:, 1 + q :].copy(), self.score_weights[0].copy(),
            self.score_weights[1].copy(), self.scale_weights, self.tail_weights, squares,
        )  # fmt: skip


def _told(variance: ArrayLike, unit: Array) -> Array:
    # No less than the smallest of the grid, so that precisions stay finite.
    return np.maximum(np.asarray(variance, np.float64) / unit**2, VARIANCE[0])


def _check(cells: PooledGuides, expected: Array, own_variance: Array) -> None:
    n, p = cells.mean.shape
    if n < 2:
        message = "The model of effects needs the controls and at least one perturbation."
        raise ValueError(message)
    if not (cells.n > 0).all():
        empty = np.flatnonzero(~(cells.n > 0)).tolist()
        message = f"Groups {empty} have no cells: leave them out, and predict them by predict()."
        raise ValueError(message)
    if not (cells.scatter.diagonal() > 0).any():
        message = "No node varies within perturbations: give the values of cells, not their means."
        raise ValueError(message)
    for name, table in (("expected", expected), ("own_variance", own_variance)):
        if table.shape != (n - 1, p):
            message = f"{name} has the shape {table.shape}, but {(n - 1, p)} is needed."
            raise ValueError(message)
    if (own_variance < 0).any():
        message = "own_variance has values below 0: give variances, or nan where none is known."
        raise ValueError(message)
