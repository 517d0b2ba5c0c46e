"""The state of a chain of the hierarchical model, and one sweep of it (equations 13 to 19)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from joblib import cpu_count
from scipy.linalg import eigh

from nextpert.core._blas import in_blocks
from nextpert.core._codec import table_type
from nextpert.core.model._density_kernel import N_DENSITIES, N_VARIANCES
from nextpert.core.model._hierarchical_kernel import Block, Grid, Means, State, visit
from nextpert.core.model.effect_draws import HIGHEST, LOWEST, SCALES, TAILS, VARIANCE
from nextpert.core.model.mixture_weights import best_weights
from nextpert.core.model.within_cells import WITHOUT_CORRELATION, coexpression, noise_tails

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]
    Workers = Callable[[Callable[[int], Any], Sequence[int]], Iterable[Any]]

# Exponents of 2 for prior variances of scores, in units of the variance between cells: up to those
# of own parts, and lower.
SCORES = np.arange(-14.0, 5.0)
# Weight, in observations, of the prior of the weights of a grid. A larger weight predicts effects
# along coexpression that do not exist, and a smaller one excludes effects that few perturbations
# have: 5 is the smallest weight without loss on TAP-seq.
_PRIOR_COUNT = 5.0
_NO_PROGRAM = 1e-12  # variance of the program in a model without one
_SHORT_VARIANCE = np.resize(VARIANCE[:N_VARIANCES], N_DENSITIES).astype(np.float32)
# Maximum number of pairs of perturbation and gene used to learn the weights of tails.
_TAIL_PAIRS = 100_000
_BLOCK = 32  # perturbations visited by one task; the draws do not depend on the thread

_FOR_ALL = 20_000  # with more effects than this, all processors are used
# Maximum effects of all stored draws, one byte each: with more, sweeps take hours and summaries
# minutes. The second number applies to screens for which the first allows fewer than 40 draws.
_ROOM = 80_000_000
_MAX_STORED_EFFECTS = 500_000_000


def threads(size: int) -> int:
    """Return the number of threads for a number of effects: all for many effects, otherwise one.

    Results do not depend on it. On two cores, 10,000 effects take 0.9 times as long as on one,
    30,000 to 60,000 effects 0.8 times, and 4,000 effects longer. A worker process uses one thread.
    """
    return cpu_count() if size > _FOR_ALL and parent_process() is None else 1


class Chain(NamedTuple):
    """Lengths of a chain.

    Parameters
    ----------
    burn
        Number of initial sweeps that are discarded.
    keep
        Number of draws that are stored.
    thinning
        Number of sweeps from one draw to the next.
    warm
        Number of initial sweeps in which the weights of tails have their most probable values.
    """

    burn: int = 50
    keep: int = 200
    thinning: int = 1
    warm: int = 0

    @classmethod
    def of_size(cls, size: int) -> Chain:
        """Return lengths for a number of effects; with more effects, never more sweeps.

        With up to 400,000 effects, 50 sweeps are discarded and 200 draws stored: on TAP-seq with 20
        cells per perturbation, means have an error of 0.07 to 0.11 SD (root mean square, four
        seeds), and of 0.07 SD with 1,000 sweeps. With up to 800,000 effects, every second of these
        draws is stored. With 10 million effects, 40 sweeps are discarded, and 80 give 40 draws;
        with at least 50 million, 15 are discarded, and 20 give 10 draws.
        """
        # Draws that fit into memory, but at least the minimum.
        min_draws = np.clip(_MAX_STORED_EFFECTS // max(size, 1), 10, 40)
        keep = int(np.clip(_ROOM // max(size, 1), min_draws, cls().keep))
        if keep == cls().keep:
            return cls()
        keep = min(keep, cls().keep // 2)
        return cls(int(np.clip(keep, 15, cls().burn)), keep, 2, 10)

    def unthinned(self) -> Chain:
        """Return the chain that stores every sweep after the discarded ones.

        It is for parts of a screen, which have room for more draws than the whole.
        """
        return self._replace(keep=self.keep * self.thinning, thinning=1)

    def sweeps(
        self, n_jobs: int, progress: Callable[[int, int], object] | None
    ) -> Iterator[tuple[int, int | None, Workers]]:
        """Yield the number of every sweep, the number of its stored draw, and the workers.

        The draw is ``None`` for sweeps without a stored draw. The arguments are as in
        :func:`~nextpert.core.model.hierarchical.fit_hierarchical`.
        """
        n_sweeps = self.burn + self.keep * self.thinning
        if n_jobs < 0:  # -1 are all processors
            n_jobs = max(cpu_count() + 1 + n_jobs, 1)
        # A chain has many short sweeps: a single thread avoids the pool, and a pool of joblib takes
        # longer than a sweep of 60,000 effects gains. Results come in the order of the blocks.
        with ThreadPoolExecutor(n_jobs) as pool:
            workers: Workers = map if n_jobs == 1 else pool.map
            for number in range(n_sweeps):
                draw, remainder = divmod(number - self.burn + 1, self.thinning)
                yield number, draw - 1 if draw > 0 and remainder == 0 else None, workers
                if progress is not None:
                    progress(number + 1, n_sweeps)


class Prior(NamedTuple):
    """The prior of effects, with arrays of shape ``(n_perturbations, n_genes)``.

    Parameters
    ----------
    expected
        Prior means ``E`` of the effects, units of the data; ``None`` for 0.
    variance
        Variance of the error of ``E``, as for combinations predicted from their members, in squared
        units of the data; ``None`` if ``E`` has no error.
    own_variance
        Variance of own parts if it is known, as for target genes from the efficacy of the screen;
        NaN if the model learns it. ``None`` if no variance is known.
    """

    expected: Array | None = None
    variance: Array | None = None
    own_variance: Array | None = None


NO_PRIOR = Prior()


class Sampler:
    """The state of a chain, with the methods of a sweep.

    The parameters are as in :func:`~nextpert.core.model.hierarchical.fit_hierarchical`.
    """

    def __init__(
        self,
        cells: PooledGuides,
        prior: Prior,
        rng: np.random.Generator,
        within_cells: PooledGuides | None = None,
    ) -> None:
        n, p = cells.mean.shape[0] - 1, cells.mean.shape[1]
        expected, prior_mean_variance, own_variance = prior
        self.expected = np.zeros((n, p)) if expected is None else expected
        own_variance = np.broadcast_to(np.nan, (n, p)) if own_variance is None else own_variance
        errors = cells.errors
        # Guides differ along the factors with which their variance was learned.
        gamma, psi, self.unit = (
            coexpression(cells, within_cells) if errors is None else errors.cells
        )
        q = gamma.shape[1]
        # x_j - E_j and its sampling variance 1 / n_j, in units of genes; for factors, the mean.
        x, error = np.empty((2, n, p), table_type(n * p))
        along, spread = np.empty((n, q)), np.zeros(n)
        prior_variance = np.zeros((0, 0) if prior_mean_variance is None else (n, p))
        doubled, tailed = np.zeros(n), np.ones(n)
        if errors is None and cells.are_cells:
            doubled, tailed = noise_tails(cells.freedom[1:] + cells.prior_freedom)
        shared, batch_error = np.zeros((n, 0)), np.zeros(n)
        if cells.fixed_errors.shape[1]:
            shared, batch_error = batch_columns(cells)
        for rows in in_blocks(n, p):
            x[rows] = (cells.mean[1:][rows] - self.expected[rows]) / self.unit
            if errors is None:
                own_error = cells.variance_ratio[1:][rows] / cells.n[1:][rows, None]
                noise = own_error.mean(axis=1)[:, None]
                own_error *= tailed[rows, None]
            else:
                own_error, noise = errors.own[1:][rows] / psi, errors.along[1:][rows]
            error[rows] = own_error + batch_error[rows, None]
            along[rows] = 1.0 / (noise + batch_error[rows, None])
            # The error of E has the covariance of means: along factors, and in each gene.
            if prior_mean_variance is not None:
                prior_variance[rows] = of_prior_mean = prior_mean_variance[rows] / self.unit**2
                spread[rows] = of_prior_mean.mean(axis=1)
        # In memory order, whatever that of gamma: a visit is compiled once and sweeps read rows.
        design = np.ascontiguousarray(np.vstack([np.zeros((1, p)), gamma.T]))
        # At least the smallest variance of the grid, so that precisions are finite.
        has_known_variance = not np.isnan(own_variance).all()
        own_variance = (
            np.maximum(own_variance / self.unit**2, VARIANCE[0])
            if has_known_variance
            else np.zeros((0, 0))
        )
        tables = (
            x,
            error,
            doubled,
            prior_variance,
            psi,
            design,
            own_variance,
            along,
            shared,
            spread,
        )
        self.means = Means(*map(np.ascontiguousarray, tables))
        one, two = np.tril_indices(shared.shape[1])
        self.columns, self.products = shared, shared[:, one] * shared[:, two]
        self.prior_mean_variance = prior_mean_variance
        if errors is None:
            own_error = cells.variance_ratio[0] / cells.n[0]
            noise = np.full(q, own_error.mean())
        else:
            own_error, noise = errors.own[0] / psi, errors.along[0]
        self.control_x, self.control_noise = cells.mean[0] / self.unit, psi * own_error
        # The scores of the controls' noise along the factors (equation 14 with only these terms).
        # The coefficients of batches have the variance of one cell.
        self.batches, self.batch_scores = (np.zeros((shared.shape[1], k)) for k in (p, q))
        # eta_b of a coefficient with the variance of one cell: precision Gamma' Psi^-1 Gamma + I.
        of_cell = gamma.T @ (gamma / psi[:, None]) + np.eye(q)
        self.batch_cov = np.linalg.inv(of_cell)
        self.batch_root = np.linalg.cholesky(self.batch_cov)
        # h_0 of the controls: precision Gamma' diag(n_0 / Psi) Gamma + n_0 I.
        precision = gamma.T @ (gamma / self.control_noise[:, None])
        self.control_precision = 1.0 / noise
        precision += np.diag(self.control_precision)
        self.control_cov = np.linalg.inv(precision)
        self.control_root = np.linalg.cholesky(self.control_cov)
        self.rng, key = rng, int(rng.integers(2**63))
        bits = [np.random.Philox(key=key) for _ in range(0, n, _BLOCK)]
        self.streams, self.fresh = [np.random.Generator(x) for x in bits], bits[0].state
        # All variances start at one: from small variances, effects are found slowly.
        entries = np.full((n, p), np.searchsorted(VARIANCE, 1.0), np.int8)
        if own_variance.size:
            entries[~np.isnan(own_variance)] = N_VARIANCES
        self.state = State(
            entries,
            np.zeros((n, p), np.int8),
            np.full((n, 1 + q), np.searchsorted(SCORES, 0.0), np.int8),
            np.zeros((n, 2 * q + 1)),
            np.zeros(n, np.int64),
        )
        self.control = self.control_x.copy()
        # The program starts as the first principal direction of standardised differences.
        square = np.zeros((p, p))
        for rows in in_blocks(n, p):
            variance = (
                error[rows] if prior_mean_variance is None else error[rows] + prior_variance[rows]
            )
            departure = (x[rows] - self.control) / np.sqrt(psi * variance + 1.0)
            square += departure.T @ departure
        design[0] = eigh(square, subset_by_index=[p - 1, p - 1])[1][:, 0]
        # With many perturbations, unknown correlated errors would be mistaken for a program.
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
        """Draw every block of parameters once, given all others."""
        if self.sums is not None:
            self._draw_program(self.sums)
            # The weights of all grids (equation 17); initially, tails have the most probable ones.
            size = self.state.size
            drawn = []
            for entries, n in (
                (size[:, 0], len(SCORES)),
                (size[:, 1:], len(SCORES)),
                (self.state.scale, len(SCALES)),
            ):
                counts = (
                    np.bincount(entries.ravel().astype(np.int64), minlength=n) + _PRIOR_COUNT / n
                )
                drawn.append(self.rng.dirichlet(counts) + 1e-300)
            self.score_weights[:], self.scale_weights = drawn[:2], drawn[2]
            self.tail_weights = self.rng.dirichlet(self.count + 0.5) + 1e-300
            if number < self.warm:
                self.tail_weights = self.likely_tails(np.ones(len(TAILS)))
            self._move_common()
        self.visit_all(number, workers)

    def draw(self) -> tuple[Array, ...]:
        """Return the present draw of the shared parameters and scores.

        The last element is the sum of squared differences of the cells' means from the controls.
        """
        # Columns of scores: program, q of the effect along factors, q of the cells' noise along
        # them.
        scores, q = self.state.scores, len(self.means.design) - 1
        squares = np.zeros(())
        for rows in in_blocks(*self.means.x.shape):
            departure = self.means.x[rows] + self.expected[rows] / self.unit - self.control
            squares += (departure**2).sum()
        return (
            self.control.copy(),
            self.means.design[0].copy(),
            scores[:, 0].copy(),
            scores[:, 1 : 1 + q].copy(),
            scores[:, 1 + q :].copy(),
            self.batches.copy(),
            squares,
        )

    def visit_all(self, number: int, workers: Workers) -> Array:
        """Visit all perturbations; store and return the sums for the regressions of genes."""
        n, p = self.means.x.shape
        count = np.zeros(len(TAILS))
        sums = np.zeros((5 + 3 * self.columns.shape[1] + self.products.shape[1], p))
        for block_sums, counted in workers(partial(self.visit, number=number), range(0, n, _BLOCK)):
            sums += block_sums
            count += counted
        self.sums, self.count = sums, count
        return sums

    def visit(
        self,
        first: int,
        *,
        number: int = 0,
        last: int | None = None,
        random: tuple[Array, Array] | None = None,
    ) -> tuple[Array, Array]:
        """Visit the perturbations from ``first`` to ``last`` (by default a block) in one sweep.

        ``random`` holds normal and uniform random numbers. They and the results ``sums`` and
        ``count`` are as in :func:`visit`; the sums are followed by those with the batch columns
        ``z``: of ``w z``, ``w z f`` and ``w z y``, and of ``w z z'`` for all pairs of columns in
        the lower triangle.
        """
        # A block has at most 32 perturbations, and may run in any thread.
        (n, p), size = self.means.x.shape, self.state.scores.shape[1]
        q, last = len(self.means.design) - 1, min(first + _BLOCK, n) if last is None else last
        if random is None:
            # Every block and sweep has a separate stream; a new generator would take longer.
            rng = self.streams[first // _BLOCK]
            counter = {"counter": np.array([0, 0, number, first], np.uint64)}
            rng.bit_generator.state = self.fresh | {"state": self.fresh["state"] | counter}
            normal = rng.standard_normal((last - first, size))
            random = normal, rng.random((last - first, p + 1 + self.state.size.shape[1]))
        grid = Grid(
            VARIANCE,
            _SHORT_VARIANCE,
            np.log(self.scale_weights),
            self.tail_weights,
            self.tail_weights.astype(np.float32),
            2.0**SCORES,
            np.log(np.repeat(self.score_weights, [1, q], axis=0)),
        )
        block = Block(
            *random,
            np.zeros((5, p)),
            np.empty((2, last - first, p)),
            np.zeros(len(TAILS)),
            np.empty((size, size)),
            np.empty((size, size)),
            np.empty((6, p)),
            np.empty((p, N_DENSITIES), np.float32),
            np.empty(N_VARIANCES),
            np.empty(len(SCALES), np.int64),
            np.empty((3, len(SCORES))),
        )
        visit(self.means, first, last, grid, self.control, self.batches, self.state, block)
        # For the batch columns: sums of w z, w z f, w z y and w z z'.
        z, f = self.columns[first:last], self.state.scores[first:last, :1]
        weight, weighted = block.held
        by_columns = (z.T @ weight, (z * f).T @ weight, z.T @ weighted)
        sums = np.vstack([block.sums, *by_columns, self.products[first:last].T @ weight])
        return sums, block.drawn

    def _draw_program(self, sums: Array) -> None:
        """Draw the controls' means, the program, and the coefficients of batches (equation 16).

        They are drawn by a separate regression for each gene.
        """
        program, gamma = self.means.design[0], self.means.design[1:].T
        p, q = gamma.shape
        # h_0 given mu_0, informed only by the controls' mean: N(cov right, cov).
        right = gamma.T @ ((self.control_x - self.control) / self.control_noise)
        chance = self.control_root @ self.rng.standard_normal(q)
        self.control_scores = self.control_cov @ right + chance
        common = gamma @ self.control_scores
        n_columns, columns = len(self.batches), None
        less, less_right = np.zeros((p, 2, 2)), np.zeros((p, 2))
        if n_columns:
            chance = self.rng.standard_normal((n_columns, q)) @ self.batch_root.T
            self.batch_scores = chance - (self.batches / self.means.psi) @ gamma @ self.batch_cov
            # Precision, coupling and right-hand side of the batch columns, gene by gene.
            cross = sums[5 : 5 + 3 * n_columns].reshape(3, n_columns, p).transpose(2, 1, 0)
            block = np.empty((p, n_columns, n_columns))
            first, second = np.tril_indices(n_columns)
            block[:, first, second] = block[:, second, first] = sums[5 + 3 * n_columns :].T
            diagonal = np.arange(n_columns)
            block[:, diagonal, diagonal] += 1.0 / self.means.psi[:, None]
            of_columns, cross = cross[:, :, 2].copy(), cross[:, :, :2]
            of_columns -= (gamma @ self.batch_scores.T) / self.means.psi[:, None]
            columns, less, less_right = Columns.integrated(block, cross, of_columns)
        # Precision of (mu_0, lambda) of every gene, with batches integrated out; Lambda^-1 zeta.
        one = sums[0] + 1.0 / self.control_noise - less[:, 0, 0]
        two = sums[2] + 1.0 / self.program_variance - less[:, 1, 1]
        coupling, along = sums[1] - less[:, 0, 1], sums[4] - less_right[:, 1]
        right = sums[3] + (self.control_x - common) / self.control_noise - less_right[:, 0]
        det = one * two - coupling**2
        normal = self.rng.standard_normal((2, p))
        # lambda from its marginal, then mu_0 given lambda.
        program[:] = (one * along - coupling * right) / det + np.sqrt(one / det) * normal[0]
        if not self.has_program:
            program[:] = 0.0
        self.control = (right - coupling * program + np.sqrt(one) * normal[1]) / one
        if columns is not None:
            drawn = columns.draw(np.column_stack([self.control, program]), self.rng)
            self.batches = np.ascontiguousarray(drawn.T)
        # T_lambda of (17), inverse gamma.
        rate = 0.001 + (program**2).sum() / 2.0
        drawn_variance = rate / self.rng.gamma(1.0 + p / 2.0)
        self.program_variance = drawn_variance if self.has_program else _NO_PROGRAM

    def _move_common(self) -> None:
        """Move a part common to all perturbations from scores to shared parameters (equation 19).

        The scores are not updated, because they are drawn next.
        """
        q, means = len(self.means.design) - 1, self.means
        scores, variance = self.state.scores, 2.0 ** SCORES[self.state.size]
        total = scores[:, : 1 + q].copy()
        total[:, 1:] += scores[:, 1 + q :]
        variance[:, 1:] += means.spread[:, None] + 1.0 / means.along
        # sum_j 1 / T_j and sum_j y_j / T_j along the program and every factor.
        precision, right = (1.0 / variance).sum(axis=0), (total / variance).sum(axis=0)
        # The controls' cells: along the factors by their noise, along the program by their mean.
        program, gamma = means.design[0], means.design[1:].T
        residual = self.control_x - self.control - gamma @ self.control_scores
        precision[0] += (program**2 / self.control_noise).sum()
        right[0] += (program * residual / self.control_noise).sum()
        precision[1:] += self.control_precision
        right[1:] += self.control_precision * self.control_scores
        # The same for batches.
        shared, columns = means.columns, None
        if shared.shape[1]:
            block = np.einsum("js,jb,jc->sbc", 1.0 / variance, shared, shared, optimize=True)
            of_columns = (total / variance).T @ shared
            diagonal = np.arange(shared.shape[1])
            block[0, diagonal, diagonal] += (program**2 / means.psi).sum()
            block[1:, diagonal, diagonal] += 1.0
            of_columns[0] -= ((self.batches + self.batch_scores @ gamma.T) / means.psi) @ program
            of_columns[1:] += self.batch_scores.T
            cross = ((1.0 / variance).T @ shared)[:, :, None]
            columns, less, less_right = Columns.integrated(block, cross, of_columns)
            precision, right = precision - less[:, 0, 0], right - less_right[:, 0]
        # Upsilon of (19), which is moved from the scores to mu_0 and, given mu_0, to the batches.
        moved = right / precision + self.rng.standard_normal(1 + q) / np.sqrt(precision)
        self.control += moved @ means.design
        if columns is not None:
            self.batches += columns.draw(moved[:, None], self.rng).T @ means.design

    def own_places(self) -> NDArray[np.int8]:
        """Return entries of the grid for variances of own parts plus those of prior means.

        If the sum is not on the grid, the entry below or above is chosen at random, so that the
        expected variance equals the sum.
        """
        assert self.prior_mean_variance is not None
        entries, rows = self.state.place.copy(), np.flatnonzero(self.means.spread > 0)
        drawn = entries[rows] < N_VARIANCES
        of_prior_mean = self.means.psi * self.prior_mean_variance[rows] / self.unit**2
        # log2(T + Psi v) lies between two whole exponents: up with the probability that keeps the
        # mean.
        total = np.log2(VARIANCE[np.where(drawn, entries[rows], 0)] + of_prior_mean)
        below = np.floor(total)
        up = self.rng.random(total.shape) < 2.0 ** (total - below) - 1.0
        entry = np.clip(below + up, LOWEST, HIGHEST) - (SCALES[0] + TAILS[0])
        entries[rows] = np.where(drawn & (of_prior_mean > 0), entry, entries[rows])
        return entries

    def likely_tails(self, prior: Array) -> Array:
        """Return the most probable weights of tails for some effects, given all other parameters.

        ``prior`` are the counts of :func:`best_weights`. Draws of these weights move slowly from
        their start if most effects are small: the drawn tail of an effect that the cells cannot
        distinguish from 0 repeats the current weights.
        """
        (n, p), (design, scores) = self.means.x.shape, (self.means.design, self.state.scores)
        # Departures r of some pairs, and N(r; 0, V + 2^(scale + tail)) at every tail.
        row, gene = (self.rng.integers(size, size=_TAIL_PAIRS) for size in (n, p))
        drawn = self.state.place[row, gene] < N_VARIANCES
        row, gene = row[drawn], gene[drawn]
        total, rank = scores[row, : len(design)].copy(), len(design)
        total[:, 1:] += scores[row, rank:]
        residual = (
            self.means.x[row, gene] - self.control[gene] - (total * design[:, gene].T).sum(axis=1)
        )
        residual -= (self.means.columns[row] * self.batches[:, gene].T).sum(axis=1)
        variance = VARIANCE[self.state.scale[row, None] + np.arange(len(TAILS))]
        error = self.means.error[row, gene] * (1.0 + self.means.doubled[row])
        if self.prior_mean_variance is not None:
            error += self.means.prior_mean_variance[row, gene]
        variance = variance + (self.means.psi[gene] * error)[:, None]
        logs = -0.5 * (np.log(variance) + residual[:, None] ** 2 / variance)
        chance = np.exp(logs - logs.max(axis=1, keepdims=True))
        return best_weights(chance, prior, np.full(len(TAILS), 1.0 / len(TAILS)))


# Minimum squared singular values, relative to the noise of perturbations, of columns that are kept:
# an absolute value, and a share of sqrt(n / p), above which a direction of n perturbations and p
# genes exceeds noise (Baik, Ben Arous and Péché 2005). Columns below these values are too weak to
# be mistaken for a program.
_MIN_BATCH_SQUARE = 0.1
_BATCH_SHARE = 0.5


def batch_columns(cells: PooledGuides) -> tuple[Array, Array]:
    """Return columns of errors of batch effects in effects, and the remaining error variance.

    Both are in units of the noise of a cell, in coordinates that are uncorrelated over
    perturbations: columns common to perturbations, ``(n_perturbations, n_columns)``, and the
    variance of the rest, which counts as noise of each perturbation, ``(n_perturbations,)``.
    """
    # Errors in differences from the controls, in uncorrelated directions.
    differences = cells.fixed_errors[1:] - cells.fixed_errors[:1]
    size, turn = np.linalg.svd(np.sqrt(cells.n[1:, None]) * differences, full_matrices=False)[1:]
    turned = differences @ turn.T
    chance_square = _BATCH_SHARE * np.sqrt(len(differences) / cells.mean.shape[1])
    is_included = size**2 > max(_MIN_BATCH_SQUARE, chance_square)
    common = np.ascontiguousarray(turned[:, is_included])
    return common, (turned[:, ~is_included] ** 2).sum(axis=1)


class Columns(NamedTuple):
    """The coefficients of columns in stacked regressions, given those of ``m`` other terms.

    Parameters
    ----------
    by
        Decrease of their means per unit of each other term, shape ``(..., n_columns, m)``.
    at
        Their means if all other terms are 0, shape ``(..., n_columns)``.
    root
        Cholesky factor of their precision, shape ``(..., n_columns, n_columns)``.
    """

    by: Array
    at: Array
    root: Array

    @classmethod
    def integrated(cls, block: Array, cross: Array, right: Array) -> tuple[Columns, Array, Array]:
        """Return the coefficients, and the reductions for other terms after their integration.

        ``block`` is the precision of the coefficients, ``cross``, ``(..., n_columns, m)``, couples
        them to other terms, and ``right`` is their right-hand side. The reduction of the precision
        of the other terms has the shape ``(..., m, m)``, and that of their right-hand side
        ``(..., m)``.
        """
        # For a precision A = [[a, c], [c', b]], b becomes b - c' a^-1 c.
        solved = np.linalg.solve(block, np.concatenate([cross, right[..., None]], axis=-1))
        less = np.swapaxes(cross, -1, -2) @ solved
        root: Array = np.linalg.cholesky(block).astype(np.float64, copy=False)
        return cls(solved[..., :-1], solved[..., -1], root), less[..., :-1], less[..., -1]

    def draw(self, terms: Array, rng: np.random.Generator) -> Array:
        """Return a draw given the other terms, ``(..., m)``; shape ``(..., n_columns)``."""
        normal = rng.standard_normal((*self.at.shape, 1))
        chance = np.linalg.solve(np.swapaxes(self.root, -1, -2), normal)
        return np.asarray(self.at + (chance - self.by @ terms[..., None])[..., 0])
