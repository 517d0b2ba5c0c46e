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

from nextpert.core.acquisition._noise_aware import settle_by_noise
from nextpert.core.plan._promise_kernel import Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        self,
        blr: DagBlr,
        known: ShiftPosterior,
        target: Vector,
        counts: Vector,
        weights: Vector,
        gap_cells: float,
    ) -> None:
        self.blr, self.weights, self.inv_n = blr, weights, 1 / gap_cells
        mean, _, effect = known.about_effect(blr)
        self.target, self.effect = target, effect
        self.mean, self.share, self.spare = _rows(mean), _rows(known.share), _rows(known.spare)
        self.state = _rows(known.states(blr) - effect)
        self.counts = counts  # of each node in the gap
        self.square = _rows(counts * (known.expected(blr) - blr.ideal_shift(target)) ** 2)
        self.alone = np.any((known.share > 0) | (effect != 0), axis=1)

    def settle(self, n_cells: float) -> None:
        """Set the noise of ``n_cells`` cells in all, and what their scatter tells."""
        e, kappa = self.blr.spread(n_cells, expected=True)
        self.e, self.kappa = self.counts * e, self.counts**2 * kappa
        self.now, self.settled = self.blr.blocks["cov"], settle_by_noise(self.blr, n_cells)
        every = np.arange(len(self.weights))
        self.totals = _sums(self.weights, self.spare, self.slopes(every))
        dag = self.blr.dag
        self.pool = Pool(
            dag.indptr, dag.indices, self.blr.vptr, self.blr.mptr, self.state, self.spare,
            self.square, self.weights, self.e, self.kappa, self.inv_n,
        )  # fmt: skip

    def block(self, cov: Vector, i: int) -> Vector:
        start, stop = self.blr.mptr[i : i + 2]
        d = int(np.sqrt(stop - start))
        return cov[start:stop].reshape(d, d)

    def slopes(self, columns: Index) -> Vector:
        """Return slopes of the gaps' variances in r at r = 0, (p, c)."""
        level = 2 * self.kappa * self.inv_n
        return level[:, None] + 4 * self.e[:, None] * self.square[:, columns]

    def design(self, i: int, values: Vector) -> Vector:
        """Return ``(1, f, values of the parents)``, (d, c), of values (p, c).

        Fixed columns f come after the nodes, or are 0 where values end with these.
        """
        parents, k = self.blr.dag.parents(i), int(self.blr.intercept)
        fixed = values[self.blr.n_nodes :]
        if not len(fixed):
            fixed = np.zeros((self.blr.n_fixed, values.shape[1]))
        return np.vstack([np.ones((k, values.shape[1])), fixed, values[parents]])

    def nodes(self, columns: Index) -> list[Node]:
        """Return every node with the candidates of ``columns`` one by one."""
        few = [each[:, columns] for each in (self.mean, self.state, self.share, self.spare)]
        mean, state, share, spare = few
        target = (self.target - self.effect[columns]).T
        nodes = []
        slope = self.slopes(columns)
        # Sums over the others: nothing, and no rounding of it, where there are none.
        some = float(len(columns) < len(self.weights))
        sums = some * np.maximum(self.totals - _sums(self.weights[columns], spare, slope), 0.0)
        for i in range(self.blr.n_nodes):
            seen = share[i] * self.design(i, mean)
            nodes.append(
                Node(
                    self.design(i, target) - seen, self.design(i, state) - seen,
                    spare[i], slope[i], self.design(i, self.target[:, None])[:, 0], sums[:, i],
                )
            )  # fmt: skip
        return nodes

    def look(self, i: int, node: Node, weights: Vector, cells: Vector, cov: Vector) -> NodeLook:
        """Return node i after ``cells`` (c,) of the candidates one by one; none of others."""
        left = 1 / (1 + cells * node.spare)  # of a shift, not told by its own cells
        look = self.look_told(i, node, weights, cells * left, left, cov)
        return look._replace(taught=left * node.taught, spare=node.spare * left)

    def look_told(
        self, i: int, node: Node, weights: Vector, told: Vector, left: Vector, cov: Vector
    ) -> NodeLook:
        """Return node i after cells that tell ``told`` (c,), k; ``left`` is ``1 - k t``.

        The criterion is convex in k too. What is returned teaches per k, not per cell.
        """
        kappa = self.kappa[i]
        used = told > 0
        if used.any():
            taught = node.taught[:, used]
            gram = (taught * told[used]) @ taught.T
            try:
                solved = np.linalg.solve(np.eye(len(cov)) + cov @ gram, cov)
            except np.linalg.LinAlgError:
                raise too_far_apart() from None
            cov = 0.5 * (solved + solved.T)
        own = node.own - (1 - left) * node.taught
        r = np.einsum("ac,ac->c", own, cov @ own) + node.spare * left
        q = float(node.ideal @ cov @ node.ideal)
        weight, t, t2, slope, slope_t = node.sums
        value = weights @ (r * (kappa * r + node.slope))
        value += kappa * (t2 + q * (2 * t + q * weight)) + slope_t + q * slope
        pull = weights * (2 * kappa * r + node.slope)
        rest = 2 * kappa * (q * weight + t) + slope
        middle = (own * pull) @ own.T + rest * np.outer(node.ideal, node.ideal)
        return NodeLook(float(value), cov, own, node.taught, node.spare, pull, rest, middle)


def too_far_apart() -> ValueError:
    """Return the error about distances that floating point numbers do not hold squared."""
    return ValueError(
        "States of candidates and target lie too far apart for their distances to be squared: give "
        "cells, target and shifts in smaller units, or smaller weights."
    )


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


def change_within(
    look: NodeLook, node: Node, kappa: float, weights: Vector, cells: float
) -> Vector:
    """Return bounds below the changes by ``cells`` more of the candidates one by one, (c,).

    Of the fourth powers, none of which is negative, only those of each itself and of the
    candidates without cells are counted.
    """
    tells = look.cov @ look.taught
    cross = np.einsum("ac,ac->c", look.own, tells)
    fall = np.einsum("ac,ac->c", tells, look.middle @ tells)
    fall += look.pull * look.spare * (2 * cross + look.spare)
    d2 = 1 / cells + np.einsum("ac,ac->c", look.taught, tells) + look.spare
    fourth = weights * (cross + look.spare) ** 4 + node.sums[0] * (node.ideal @ tells) ** 4
    bound: Vector = kappa * fourth / d2**2 - fall / d2
    return bound


def change(
    part: GraphPart, i: int, node: Node, look: NodeLook, weights: Vector, candidates: Index,
    place: Index, cells: float,
) -> Vector:  # fmt: skip
    """Return changes by ``cells`` more of candidates; ``place`` among those one by one, or -1."""
    inside, kappa = place >= 0, part.kappa[i]
    taught, spare = part.design(i, part.state[:, candidates]), part.spare[i, candidates]
    taught[:, inside], spare[inside] = look.taught[:, place[inside]], look.spare[place[inside]]
    tells = look.cov @ taught
    d2 = 1 / cells + np.einsum("ac,ac->c", taught, tells) + spare
    cross, rest = look.own.T @ tells, node.ideal @ tells
    cross[place[inside], np.flatnonzero(inside)] += spare[inside]
    fall = look.pull @ cross**2 + look.rest * rest**2
    fourth = weights @ cross**4 + node.sums[0] * rest**4
    # Of those without cells, their own shift comes on top.
    own, weight = (rest + spare) ** 2, np.where(inside, 0.0, part.weights[candidates])
    level = float(node.ideal @ look.cov @ node.ideal)
    slope = 2 * kappa * part.inv_n + 4 * part.e[i] * part.square[i, candidates]
    fall += weight * (2 * kappa * (level + spare) + slope) * (own - rest**2)
    fourth += weight * (own**2 - rest**4)
    change: Vector = kappa * fourth / d2**2 - fall / d2
    return change


def _sums(weights: Vector, spare: Vector, slope: Vector) -> Vector:
    """Return weight, and weighted t, t^2, slope and t slope of every node, (5, p)."""
    weighted = spare * weights
    whole = np.full(len(spare), weights.sum())
    squares = np.einsum("ij,ij->i", weighted, spare)
    both = np.einsum("ij,ij->i", weighted, slope)
    return np.array([whole, weighted.sum(axis=1), squares, slope @ weights, both])


def _rows(values: Vector) -> Vector:
    return np.ascontiguousarray(values.T, dtype=np.float64)
