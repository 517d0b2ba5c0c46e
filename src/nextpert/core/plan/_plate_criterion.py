"""What the cells of a whole plate leave of CIV, its slopes and curvatures in the cells.

For node i and candidate l the gap's term has the variance ``e_i (1/n + r_il)`` (see
``acquisition._uncertain_kernel``). With ``n_j`` cells of every candidate j the weights have the
covariance ``M = (M0^-1 + sum_j k_ij v_ij v_ij')^-1``, ``k = n/(1 + n t)``, of which
``r_il = y'My + t/(1 + n_l t)``, ``y = q - w z - b v`` and ``b = n_l t/(1 + n_l t)``, the share of
its shift that its own cells tell. All of it is one normal model of weights and shifts in which
cells add precision, so that r, and with it the criterion, is convex in the cells.

Candidates without cells and effects have the same ``y = q``: they enter by sums. All others are
taken one by one; what sums over them is a d x d matrix of each node, nothing is larger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._blas import one_thread
from nextpert.core._checks import as_vector, require_positive
from nextpert.core.acquisition._noise_aware import settle_by_noise
from nextpert.core.posterior.pair_shifts import pair_shifts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]


class Node(NamedTuple):
    """A node, with the candidates that are taken one by one (c of them) and the sums of others."""

    own: Vector  # y without hypothetical cells, (d, c)
    taught: Vector  # v, (d, c)
    spare: Vector  # t, (c,)
    slope: Vector  # of the gap's variance in r at r = 0, (c,)
    ideal: Vector  # q, (d,)
    sums: Vector  # of the others: weight, and weighted t, t^2, slope, t slope


class NodeLook(NamedTuple):
    """A node after the cells."""

    value: float
    cov: Vector  # M, (d, d)
    own: Vector  # y, (d, c)
    taught: Vector  # what a further cell tells of the weights, (d, c)
    spare: Vector  # of the shifts, (c,)
    pull: Vector  # weight times slope of the variance of the gap in r, (c,)
    rest: float  # the same of all others
    middle: Vector  # sum of pull times yy', (d, d)


class GraphPart:
    """The criterion on one graph."""

    def __init__(
        self, blr: DagBlr, known: ShiftPosterior, target: Vector, weights: Vector, gap_cells: float
    ) -> None:
        self.blr, self.weights, self.inv_n = blr, weights, 1 / gap_cells
        mean, _, effect = known.about_effect(blr)
        self.target, self.effect = target, effect
        self.mean, self.share, self.spare = mean, known.share, known.spare
        self.state = known.states(blr) - effect
        self.square = (known.expected(blr) - blr.ideal_shift(target)) ** 2
        self.alone = np.any((known.share > 0) | (effect != 0), axis=1)

    def settle(self, n_cells: float) -> None:
        """Set the noise of ``n_cells`` cells in all, and what their scatter tells."""
        self.e, self.kappa = self.blr.spread(n_cells, expected=True)
        self.now, self.settled = self.blr.blocks["cov"], settle_by_noise(self.blr, n_cells)

    def block(self, cov: Vector, i: int) -> Vector:
        start, stop = self.blr.mptr[i : i + 2]
        d = int(np.sqrt(stop - start))
        return cov[start:stop].reshape(d, d)

    def slopes(self, i: int) -> Vector:
        return 2 * self.kappa[i] * self.inv_n + 4 * self.e[i] * self.square[:, i]

    def design(self, i: int, values: Vector) -> Vector:
        """Return ``(1, values of the parents)``, (d, c), of values (c, p)."""
        parents = self.blr.dag.parents(i)
        rows = values[:, parents].T
        return np.vstack([np.ones((1, len(values))), rows]) if self.blr.intercept else rows

    def nodes(self, columns: Index) -> list[Node]:
        """Return every node with the candidates of ``columns`` one by one."""
        others = self.weights.copy()
        others[columns] = 0.0
        few = [each[columns] for each in (self.mean, self.state, self.share, self.spare)]
        mean, state, share, spare = few
        target = self.target - self.effect[columns]
        nodes = []
        for i in range(self.blr.n_nodes):
            slope, t = self.slopes(i), self.spare[:, i]
            seen = share[:, i] * self.design(i, mean)
            sums = np.array([others.sum(), others @ t, others @ t**2, others @ slope,
                             (others * t) @ slope])  # fmt: skip
            nodes.append(
                Node(
                    self.design(i, target) - seen, self.design(i, state) - seen,
                    spare[:, i], slope[columns], self.design(i, self.target[None])[:, 0], sums,
                )
            )  # fmt: skip
        return nodes

    def look(self, i: int, node: Node, weights: Vector, cells: Vector, cov: Vector) -> NodeLook:
        """Return node i after ``cells`` (c,) of the candidates one by one; none of others."""
        kappa = self.kappa[i]
        used = cells > 0
        left = 1 / (1 + cells * node.spare)  # of a shift, not told by its own cells
        if used.any():
            taught = node.taught[:, used]
            gram = (taught * (cells * left)[used]) @ taught.T
            solved = np.linalg.solve(np.eye(len(cov)) + cov @ gram, cov)
            cov = 0.5 * (solved + solved.T)
        own = node.own - (1 - left) * node.taught
        spare = node.spare * left
        r = np.einsum("ac,ac->c", own, cov @ own) + spare
        q = float(node.ideal @ cov @ node.ideal)
        weight, t, t2, slope, slope_t = node.sums
        value = weights @ (r * (kappa * r + node.slope))
        value += kappa * (t2 + q * (2 * t + q * weight)) + slope_t + q * slope
        pull = weights * (2 * kappa * r + node.slope)
        rest = 2 * kappa * (q * weight + t) + slope
        middle = (own * pull) @ own.T + rest * np.outer(node.ideal, node.ideal)
        return NodeLook(float(value), cov, own, left * node.taught, spare, pull, rest, middle)


def slopes_within(look: NodeLook) -> Vector:
    """Return the criterion's slopes in the cells of the candidates one by one, (c,)."""
    tells = look.cov @ look.taught
    cross = np.einsum("ac,ac->c", look.own, tells)
    out = np.einsum("ac,ac->c", tells, look.middle @ tells)
    return -out - look.pull * look.spare * (2 * cross + look.spare)


def curvature(look: NodeLook, node: Node, kappa: float, weights: Vector, free: Index) -> Vector:
    """Return the second derivatives in the cells of those ``free`` among them, (f, f)."""
    tells = look.cov @ look.taught[:, free]
    order = np.arange(len(free))
    joint = look.taught[:, free].T @ tells
    joint[order, order] += look.spare[free]
    cross = look.own.T @ tells
    cross[free, order] += look.spare[free]
    rest = node.ideal @ tells
    second = cross.T @ (look.pull[:, None] * cross) + look.rest * np.outer(rest, rest)
    square = cross**2
    both = square.T @ (weights[:, None] * square) + node.sums[0] * np.outer(rest**2, rest**2)
    return 2 * (kappa * both + joint * second)


class PlateCriterion:
    """CIV, above its floor, as a convex function of the cells of every candidate.

    Parameters
    ----------
    posterior, shifts, target_mean, weights
        As in :class:`UncertainCiv`, whose criterion it is, noise-aware. Over several graphs it is
        the mean of theirs; what lies between graphs is not convex in the cells and left out.
    n_cells
        Cells of the whole plate.
    gap_cells
        Cells of the mean whose gap counts; ``None`` for ``n_cells``.
    pending
        Cells under way, ``(n_candidates,)``.
    """

    @one_thread()
    def __init__(
        self,
        posterior: DagBlr | Sequence[DagBlr],
        shifts: ShiftPosterior | Sequence[ShiftPosterior],
        target_mean: ArrayLike,
        n_cells: float,
        *,
        gap_cells: float | None = None,
        weights: ArrayLike | None = None,
        pending: ArrayLike | None = None,
    ) -> None:
        pairs = pair_shifts(posterior, shifts)
        blr, known = pairs[0]
        self.size = known.n_perturbations
        target = as_vector(target_mean, blr.n_nodes, "target_mean")
        self.n_cells = require_positive(n_cells, "n_cells")
        self.pending = np.zeros(self.size)
        if pending is not None:
            self.pending = as_vector(pending, self.size, "pending")
            if self.pending.min() < 0:
                message = "Cells under way (pending) must be 0 or more."
                raise ValueError(message)
        self.weights = average_weights(weights, self.size)
        gap = require_positive(n_cells if gap_cells is None else gap_cells, "gap_cells")
        self.parts = [GraphPart(*pair, target, self.weights, gap) for pair in pairs]
        for part in self.parts:
            part.settle(self.n_cells + self.pending.sum())
        alone = np.any([part.alone for part in self.parts], axis=0)
        self.alone = np.flatnonzero(alone | (self.pending > 0))

    @one_thread()
    def before(self) -> float:
        """Return the criterion as things are now, without any cells to come."""
        value = 0.0
        for part in self.parts:
            for i, node in enumerate(part.nodes(self.alone)):
                none = np.zeros(len(self.alone))
                cov = part.block(part.now, i)
                value += part.look(i, node, self.weights[self.alone], none, cov).value
        return value / len(self.parts)

    def work_on(self, columns: Index) -> WorkingSet:
        """Return the criterion with no cells but of these candidates (and those under way)."""
        return WorkingSet(self, np.union1d(self.alone, columns))


class WorkingSet:
    """The criterion as a function of the cells of some candidates, the others without."""

    @one_thread()
    def __init__(self, whole: PlateCriterion, columns: Index) -> None:
        self.whole, self.columns = whole, columns
        self.weights = whole.weights[columns]
        self.pending = whole.pending[columns]
        self._nodes = [part.nodes(columns) for part in whole.parts]

    @one_thread()
    def look(self, cells: Vector) -> Look:
        """Return the criterion after ``cells`` of the candidates of this set, (c,)."""
        total = cells + self.pending
        found = [
            [
                part.look(i, node, self.weights, total, part.block(part.settled, i))
                for i, node in enumerate(nodes)
            ]
            for part, nodes in zip(self.whole.parts, self._nodes, strict=True)
        ]
        return Look(self, found)


class Look:
    """The criterion after the cells of a plate."""

    def __init__(self, working: WorkingSet, found: list[list[NodeLook]]) -> None:
        self.working, self.found = working, found
        self.value = sum(each.value for graph in found for each in graph) / len(found)

    @one_thread()
    def slopes(self) -> Vector:
        """Return slopes in the cells of the candidates of the set, (c,)."""
        parts = [slopes_within(each) for graph in self.found for each in graph]
        return np.sum(parts, axis=0) / len(self.found)

    @one_thread()
    def all_slopes(self) -> Vector:
        """Return slopes in the cells of every candidate, ``(n_candidates,)``."""
        whole = self.working.whole
        out = np.zeros(whole.size)
        for part, graph in zip(whole.parts, self.found, strict=True):
            for i, look in enumerate(graph):
                out -= self._rest(part, i, look)
        out /= len(self.found)
        out[self.working.columns] = self.slopes()
        return out

    def _rest(self, part: GraphPart, i: int, look: NodeLook) -> Vector:
        """Return what a cell of each candidate without cells takes from the criterion."""
        taught = part.design(i, part.state)
        ideal = part.design(i, part.target[None])[:, 0]
        tells = look.cov @ ideal
        q, t = float(ideal @ tells), part.spare[:, i]
        pull = part.weights * (2 * part.kappa[i] * (q + t) + part.slopes(i))
        matrix = look.cov @ look.middle @ look.cov
        taken = np.einsum("ac,ac->c", taught, matrix @ taught)
        return taken + pull * t * (2 * (tells @ taught) + t)

    @one_thread()
    def curvature(self, free: Index) -> Vector:
        """Return second derivatives in the cells of those ``free`` in the set, (f, f)."""
        working = self.working
        out = np.zeros((len(free), len(free)))
        for part, nodes, graph in zip(working.whole.parts, working._nodes, self.found, strict=True):
            for i, (node, look) in enumerate(zip(nodes, graph, strict=True)):
                out += curvature(look, node, part.kappa[i], working.weights, free)
        return out / len(self.found)


def average_weights(weights: ArrayLike | None, size: int) -> Vector:
    """Return what each candidate counts for in the average, sum 1."""
    if weights is None:
        return np.full(size, 1 / size)
    given = as_vector(weights, size, "weights")
    if given.min() < 0 or given.sum() == 0:
        message = "weights of candidates must be 0 or more, and one of them above."
        raise ValueError(message)
    return given / given.sum()
