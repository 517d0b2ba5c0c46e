"""CIV as a convex function of the cells of a plate, on one graph or several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._blas import one_thread
from nextpert.core._checks import as_vector, require_positive
from nextpert.core.acquisition._civ_groups import average_weights
from nextpert.core.acquisition.uncertain_civ import goal_gap
from nextpert.core.plan._plate_node import (
    GraphPart,
    change,
    change_within,
    curvature,
    slopes_within,
    too_far_apart,
)
from nextpert.core.plan._promise_kernel import first_falls, promise
from nextpert.core.posterior.pair_shifts import pair_shifts, weights_of
from nextpert.core.predict.goal import as_goal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.plan._plate_node import Node, NodeLook
    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]


class PlateCriterion:
    """CIV, above its floor, as a convex function of the cells of every candidate.

    Parameters
    ----------
    posterior, shifts, target, weights
        As in :class:`UncertainCiv`, whose criterion it is, noise-aware. Over several graphs it is
        the mean of theirs by their weights; what lies between graphs is not convex in the cells and
        left out.
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
        target: ArrayLike | Goal,
        n_cells: float,
        *,
        gap_cells: float | None = None,
        weights: ArrayLike | None = None,
        pending: ArrayLike | None = None,
    ) -> None:
        pairs = pair_shifts(posterior, shifts)
        blr, known = pairs[0]
        self.size = known.n_perturbations
        point, counts = goal_gap(pairs, as_goal(target, blr.n_nodes))
        self.n_cells = require_positive(n_cells, "n_cells")
        self.pending = np.zeros(self.size)
        if pending is not None:
            self.pending = as_vector(pending, self.size, "pending")
            if self.pending.min() < 0:
                message = "Cells under way (pending) must be 0 or more."
                raise ValueError(message)
        self.weights = average_weights(weights, self.size)
        gap = require_positive(n_cells if gap_cells is None else gap_cells, "gap_cells")
        self.parts = [GraphPart(*pair, point, counts, self.weights, gap) for pair in pairs]
        self.shares = weights_of(pairs).tolist()
        self.settle(self.n_cells)
        alone = np.any([part.alone for part in self.parts], axis=0)
        self.alone = np.flatnonzero(alone | (self.pending > 0))

    @one_thread()
    def settle(self, n_cells: float) -> None:
        """Reckon noise as after so many cells, and those under way."""
        for part in self.parts:
            part.settle(n_cells + self.pending.sum())

    @one_thread()
    def before(self) -> float:
        """Return the criterion as things are now, without any cells to come."""
        value = 0.0
        for part, share in zip(self.parts, self.shares, strict=True):
            for i, node in enumerate(part.nodes(self.alone)):
                none = np.zeros(len(self.alone))
                cov = part.block(part.now, i)
                value += share * part.look(i, node, self.weights[self.alone], none, cov).value
        return value

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
        self.nodes = [part.nodes(columns) for part in whole.parts]

    def zip(
        self, found: list[list[NodeLook]]
    ) -> Iterator[tuple[float, GraphPart, int, Node, NodeLook]]:
        """Yield weight, graph, number, node and what was found of it, of all nodes and graphs."""
        whole = self.whole
        for share, part, nodes, graph in zip(
            whole.shares, whole.parts, self.nodes, found, strict=True
        ):
            for i, (node, look) in enumerate(zip(nodes, graph, strict=True)):
                yield share, part, i, node, look

    @one_thread()
    def look_told(self, told: Vector) -> Look:
        """Return the criterion after cells that tell ``told``, (P, c): its slopes are in k.

        P are the nodes of every graph, one graph after the other.
        """
        rows, found = iter(told), []
        for part, nodes in zip(self.whole.parts, self.nodes, strict=True):
            graph = []
            for i, node in enumerate(nodes):
                k, cov = next(rows), part.block(part.settled, i)
                left = 1 - k * node.spare
                graph.append(part.look_told(i, node, self.weights, k, left, cov))
            found.append(graph)
        return Look(self, found)

    @one_thread()
    def look(self, cells: Vector) -> Look:
        """Return the criterion after ``cells`` of the candidates of this set, (c,)."""
        total = cells + self.pending
        found = [
            [
                part.look(i, node, self.weights, total, part.block(part.settled, i))
                for i, node in enumerate(nodes)
            ]
            for part, nodes in zip(self.whole.parts, self.nodes, strict=True)
        ]
        return Look(self, found)


class Look:
    """The criterion after the cells of a plate."""

    def __init__(self, working: WorkingSet, found: list[list[NodeLook]]) -> None:
        self.working, self.found = working, found
        self.shares = working.whole.shares
        every = zip(self.shares, found, strict=True)
        self.value = sum(share * each.value for share, graph in every for each in graph)
        if not np.isfinite(self.value):
            raise too_far_apart()

    def slopes(self) -> Vector:
        """Return slopes in the cells of the candidates of the set, (c,)."""
        return np.sum(self.node_slopes(), axis=0)

    @one_thread()
    def node_slopes(self) -> Vector:
        """Return the slopes of every node of every graph, (P, c)."""
        every = zip(self.shares, self.found, strict=True)
        return np.array([share * slopes_within(each) for share, graph in every for each in graph])

    def all_slopes(self) -> Vector:
        """Return slopes in the cells of every candidate, ``(n_candidates,)``."""
        return np.sum(self.all_node_slopes(), axis=0)

    @one_thread()
    def all_node_slopes(self) -> Vector:
        """Return the slopes of every node of every graph, ``(P, n_candidates)``."""
        whole, out = self.working.whole, []
        for share, part, flat, _ in self._flat():
            falls = np.empty((part.blr.n_nodes, whole.size))
            first_falls(part.pool, *flat, falls)
            out.append(-share * falls)
        slopes = np.vstack(out)
        slopes[:, self.working.columns] = self.node_slopes()
        return slopes

    @one_thread()
    def lower_bounds(self, cells: float) -> Vector:
        """Return bounds below the changes of the criterion by ``cells`` more of each candidate."""
        whole = self.working.whole
        out = np.zeros(whole.size)
        for share, part, flat, others in self._flat():
            mine = np.zeros(whole.size)
            promise(part.pool, *flat, others, 1 / cells, mine)
            out += share * mine
        parts = self.working.zip(self.found)
        within = [
            share * change_within(look, node, part.kappa[i], self.working.weights, cells)
            for share, part, i, node, look in parts
        ]
        out[self.working.columns] = np.sum(within, axis=0)
        return out

    def _flat(self) -> Iterator[tuple[float, GraphPart, tuple[Vector, Vector, Vector], float]]:
        """Yield of every graph what the compiled sums over candidates take."""
        whole = self.working.whole
        every = zip(self.shares, whole.parts, self.working.nodes, self.found, strict=True)
        for share, part, nodes, graph in every:
            product = [each.cov @ node.ideal for each, node in zip(graph, nodes, strict=True)]
            level = [node.ideal @ each for each, node in zip(product, nodes, strict=True)]
            flat = (
                _flat([each.cov for each in graph]),
                _flat([each.cov @ each.middle @ each.cov for each in graph]),
                _flat([*product, np.array(level)]),
            )
            yield share, part, flat, nodes[0].sums[0]

    @one_thread()
    def changes(self, candidates: Index, cells: float) -> Vector:
        """Return the changes of the criterion by ``cells`` more of each of some candidates."""
        columns = self.working.columns
        place = np.minimum(np.searchsorted(columns, candidates), max(len(columns) - 1, 0))
        inside = columns[place] == candidates if len(columns) else np.zeros(len(candidates), bool)
        out = np.zeros(len(candidates))
        for share, part, i, node, look in self.working.zip(self.found):
            out += share * change(
                part, i, node, look, self.working.weights, candidates,
                np.where(inside, place, -1), cells,
            )  # fmt: skip
        return out

    @one_thread()
    def curvature(self, free: Index) -> Vector:
        """Return second derivatives in the cells of those ``free`` in the set, (f, f)."""
        out = np.zeros((len(free), len(free)))
        for share, part, i, node, look in self.working.zip(self.found):
            out += share * curvature(look, node, part.kappa[i], self.working.weights, free)
        return out


def _flat(blocks: Sequence[Vector]) -> Vector:
    return np.concatenate([each.ravel() for each in blocks])
