"""CIV from joint draws: the variance of distances that remains after cells (equations 32-34)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert.core._blas import in_blocks, one_thread
from nextpert.core._checks import as_vector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.goal import Goal

    Array = NDArray[np.float64]

_STEP = 5  # cells assigned at a time
_DRAWN, _SHIFT = 200, 0.1  # draws of cell noise for goals without a closed form, and step size


class NoiseTerms(NamedTuple):
    """Sampling variance of measured distances, ``linear v + square v^2`` for each candidate.

    ``v`` is ``1 / n_cells + shared``, where ``shared`` is ``tau^2 / n_guides`` with guides, else 0.
    """

    linear: Array
    square: Array
    shared: float = 0.0

    def rows(self, candidates: Sequence[int]) -> NoiseTerms:
        """Return the terms of some candidates."""
        return self._replace(
            linear=self.linear[list(candidates)], square=self.square[list(candidates)]
        )

    def at(self, n_cells: ArrayLike) -> Array:
        """Return the variance for a number of cells (above 0), common or per candidate."""
        v: Array = 1.0 / np.asarray(n_cells, np.float64) + self.shared
        return np.asarray(self.linear * v + self.square * v**2)

    def cells_for(self, variance: float) -> Array:
        """Return the cells needed for a variance, infinite if guides alone exceed it."""
        root = self.linear + np.sqrt(self.linear**2 + 4 * self.square * variance)
        room = 2 * variance / np.maximum(root, 1e-300) - self.shared
        return np.where(room > 0, np.ceil(1 / np.where(room > 0, room, 1.0)), np.inf)


@dataclass(frozen=True)
class CellNoise:
    """Covariance between cells, ``diag(own_variance) + loadings loadings'``, squared units."""

    own_variance: Array  # (n_genes,)
    loadings: Array  # (n_genes, n_factors)
    shared: float = 0.0  # variance due to guides, as in NoiseTerms

    @one_thread()
    def terms(self, goal: Goal, states: Array, seed: int = 0) -> NoiseTerms:
        """Return the sampling variance of the distance of a mean of cells for each candidate.

        It uses equation 32 for target states, without a matrix of genes x genes, and draws of cells
        for other goals.
        """
        if not goal.is_states:
            return self._drawn(goal, states, np.random.default_rng(seed))
        point = goal.shares @ goal.states
        linear = np.empty(len(states))
        for rows in in_blocks(*states.shape):
            slope = goal.rows(rows).weigh(states[rows] - point)
            linear[rows] = slope**2 @ self.own_variance + ((slope @ self.loadings) ** 2).sum(axis=1)
        out: list[tuple[int, ...]] = [()] * len(states)
        factor: Any = 1.0
        if goal.own_nodes is not None:
            left_out, factor = goal.own_nodes.left_out, goal.own_nodes.factor
            out = [tuple(nodes) for nodes in np.split(left_out.indices, left_out.indptr[1:-1])]
        # The trace of Q W Q W, with the weights Q without some nodes and the covariance W.
        trace = {}
        for nodes in set(out):
            weight = np.where(np.isin(np.arange(goal.n_nodes), nodes), 0, goal.weights)
            scaled = self.loadings * weight[:, None]
            trace[nodes] = ((weight * self.own_variance) ** 2).sum() + (
                (self.loadings.T @ scaled) ** 2
            ).sum()
            trace[nodes] += 2.0 * (scaled**2).sum(axis=1) @ self.own_variance
        square = 2.0 * factor**2 * np.array([trace[nodes] for nodes in out])
        return NoiseTerms(4.0 * linear, square, self.shared)

    def _drawn(self, goal: Goal, states: Array, rng: np.random.Generator) -> NoiseTerms:
        level = goal.distance(states)
        terms = []
        for _ in range(_DRAWN):
            step = np.sqrt(self.own_variance) * rng.standard_normal(len(self.own_variance))
            step = _SHIFT * (step + self.loadings @ rng.standard_normal(self.loadings.shape[1]))
            up, down = goal.distance(states + step), goal.distance(states - step)
            terms.append(((up - down) / (2 * _SHIFT), (up + down - 2 * level) / (2 * _SHIFT**2)))
        linear, square = np.array(terms).var(axis=0, ddof=1)
        return NoiseTerms(linear, square, self.shared)


class RemainingVariance:
    """Remaining variance of candidates' distances after cells of some candidates are observed.

    An observation is a rank-one update of the draws, so that no matrix of candidates x candidates
    is formed. Covariances estimated from few draws are noisy even if the true value is 0, so all
    covariances are shrunk by one factor (Schäfer and Strimmer 2005, doi:10.2202/1544-6115.1175).

    Parameters
    ----------
    draws
        Joint draws of the distances, shape ``(n_draws, n_candidates)``.
    weights
        Weight of each candidate, shape ``(n_candidates,)``, such as the probability that it is
        nearer to the target than the control is. If no candidate with a positive weight has an
        uncertain distance, all weights are set equal.
    centre
        Distance of the expected state of each candidate, shape ``(n_candidates,)``. The squared
        difference between the mean of the draws and this distance is added to the variance; only
        cells of the candidate itself reduce this term.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.remaining_variance import RemainingVariance
    >>> draws = np.random.default_rng(0).normal(size=(400, 3)) * [1.0, 2.0, 1.0]
    >>> remaining = RemainingVariance(draws, [1.0, 1.0, 0.0])
    >>> int(remaining.gains(np.full(3, 0.5)).argmax())
    1
    """

    @one_thread()
    def __init__(self, draws: Array, weights: ArrayLike, centre: ArrayLike | None = None) -> None:
        n, size = draws.shape
        count = as_vector(weights, size, "weights")
        mean = draws.mean(axis=0)
        centred = (draws - mean) / np.sqrt(n - 1)
        variance = (centred**2).sum(axis=0)
        excess = 0.0 * mean if centre is None else (mean - np.asarray(centre)) ** 2
        total = variance + excess
        if count @ total <= 1e-12 * count.sum() * total.max():  # no weight on uncertain distances
            count = np.ones(size)
        self.weights = count / count.sum()
        gram = (centred * self.weights) @ centred.T
        own_squares = (self.weights * variance) ** 2
        # Weighted squares of covariances between candidates.
        shared_squares = (gram**2).sum() - own_squares.sum()
        chance = ((self.weights @ variance) ** 2 - own_squares.sum() + shared_squares) / (n - 1)
        shrinkage = (
            min(max(1.0 - chance / shared_squares, 0.0), 1.0)
            if shared_squares > chance > 0
            else 0.0
        )
        self._root, self._gram = np.sqrt(shrinkage) * centred, shrinkage * gram
        self._within = np.eye(n)
        # Variance that a candidate does not share with others.
        self._own = (1.0 - shrinkage) * variance + excess
        self._common = shrinkage * variance
        self._gain = (self._root * (self._gram @ self._root)).sum(axis=0)
        self.before = float(self.weights @ total)

    def gains(self, noise: Array) -> Array:
        """Return the variance that cells of each candidate, with variances ``noise``, remove."""
        uncertain = self._common + self._own
        common = self._common
        fall = self._gain + self.weights * (uncertain**2 - common**2)
        total = uncertain + noise
        return np.divide(fall, total, out=np.zeros_like(fall), where=total > 0)

    @one_thread()
    def observe(self, k: int, noise: float) -> None:
        """Update with cells of a candidate, which measure its distance with variance ``noise``."""
        u = self._root[:, k].copy()
        own_variance = self._own[k]
        total = self._common[k] + own_variance + noise
        if total <= 0:
            return
        p = self._within @ u
        g = self._within @ (self._gram @ p)
        a, b = p @ self._root, g @ self._root
        self._common -= a**2 / total
        self._gain += a**2 * (g @ u) / total**2 - 2.0 * a * b / total
        self._within -= np.outer(p, p) / total
        # The remaining fraction of its own part, by which its weight on common parts also shrinks.
        remaining = noise / (own_variance + noise) if own_variance > 0 else 1.0
        lost = self.weights[k] * (1.0 - remaining**2)
        self._gain -= lost * (a * (1.0 - a[k] / total)) ** 2
        self._gram -= lost * np.outer(u, u)
        self._root[:, k] *= remaining
        self._own[k] *= remaining
        self._common[k] *= remaining**2
        self._gain[k] *= remaining**2

    def most_informative(
        self,
        size: int,
        noise: Array,
        *,
        allowed: NDArray[np.bool_],
        chosen: Sequence[int] = (),
        pending: Iterable[tuple[int, float]] = (),
        price: Array | None = None,
        fits: Callable[[list[int]], bool] | None = None,
    ) -> list[int]:
        """Return a plan: candidates in ``chosen``, then one by one the most informative others.

        A candidate is most informative if its cells remove most variance. The plan has at most
        ``size`` candidates; further ones must be ``allowed``. Cells of each candidate measure with
        variances ``noise``; ``pending`` holds candidates in progress, with the variances of their
        cells. With a ``price`` of each candidate, the most informative one removes most variance
        per price; ``fits`` says whether a plan can be paid.
        """
        remaining = deepcopy(self)
        plate = list(chosen)
        is_selectable = allowed.copy()
        is_selectable[plate] = False
        for k, variance in (*pending, *((k, float(noise[k])) for k in plate)):
            remaining.observe(k, variance)
        while len(plate) < size and is_selectable.any():
            gains = remaining.gains(noise) if price is None else remaining.gains(noise) / price
            best = int(np.where(is_selectable, gains, -np.inf).argmax())
            is_selectable[best] = False
            if fits is not None and not fits([*plate, best]):
                continue
            plate.append(best)
            remaining.observe(best, float(noise[best]))
        return plate

    @one_thread()
    def among(self, candidates: Sequence[int]) -> tuple[Array, Array]:
        """Return covariance and gain matrix of some candidates, for :func:`removed`."""
        u, own_variance = self._root[:, list(candidates)], self._own[list(candidates)]
        shared, weighted = u.T @ u, self.weights[list(candidates)] * own_variance
        gain = u.T @ self._gram @ u + shared * (weighted[:, None] + weighted)
        return shared + np.diag(own_variance), gain + np.diag(weighted * own_variance)


@one_thread()
def removed(covariance: Array, gain: Array, noise: Array, n: int) -> Array:
    """Return the variance removed by cells of the first 1, 2, ..., ``n`` candidates, ``(n,)``.

    It is ``tr((C + s)^-1 B)``. Candidates after the first ``n`` are always included.
    """
    traces = []
    for k in range(1, n + 1):
        block = np.ix_(*[[*range(k), *range(n, len(noise))]] * 2)
        total = covariance[block] + np.diag(noise[block[1][0]])
        traces.append(np.trace(np.linalg.lstsq(total, gain[block], rcond=None)[0]))
    return np.array(traces)


@one_thread()
def split_by_variance(
    covariance: Array, gain: Array, noise: NoiseTerms, n_cells: int, min_cells: int, fixed: Array
) -> NDArray[np.int64]:
    """Return the cells of each candidate in a plan, assigned 5 at a time to remove most variance.

    ``covariance`` and ``gain`` cover the plan, followed by candidates in progress, whose cells
    measure with variances ``fixed``; ``noise`` is that of the plan. Every candidate gets at least
    ``min_cells`` cells.
    """
    k = len(noise.linear)
    cells = np.full(k, min_cells, np.int64)
    unassigned = n_cells - min_cells * k
    # Keeps the matrix invertible if a distance is known exactly.
    tiny = 1e-12 * max(float(np.trace(covariance)), 1e-300)
    inverse = np.linalg.inv(covariance + np.diag(np.append(noise.at(cells), fixed) + tiny))
    while unassigned > 0:
        step = min(_STEP, unassigned)
        fall = noise.at(cells) - noise.at(cells + step)
        change = ((inverse @ gain) * inverse).sum(axis=1)[:k]
        best = int((fall * change / (1.0 - fall * inverse.diagonal()[:k])).argmax())
        row = inverse[best]
        inverse = inverse + np.outer(row, row) * fall[best] / (1.0 - fall[best] * row[best])
        cells[best] += step
        unassigned -= step
    return cells
