"""Prior knowledge of a graph: orders of nodes, and required and forbidden edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_nodes, is_pair, require_count
from nextpert.core.graph.dag import CycleError, Dag, is_acyclic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Pairs = Iterable[Sequence[int]]


class PriorKnowledge:
    """Prior knowledge of a graph: orders of nodes, and required and forbidden edges.

    Parameters
    ----------
    n_nodes
        Number of nodes.
    before
        Pairs ``(a, b)``: no directed path leads from ``b`` to ``a``. They do not imply an edge.
    required, forbidden
        Edges ``(parent, child)`` that the graph must contain (``required``, which also implies the
        order) or must not contain (``forbidden``). As attributes, ``before``, ``required`` and
        ``forbidden`` are matrices, ``(n_nodes, n_nodes)``, row = parent; ``before`` then includes
        all implied orders (the transitive closure).
    names
        Names of the nodes for error messages; by default their numbers.

    Raises
    ------
    CycleError
        If the orders have a cycle; the message lists its nodes.
    ValueError
        If a node is out of range, or an edge is both required and forbidden.

    Examples
    --------
    >>> from nextpert.core import PriorKnowledge
    >>> prior = PriorKnowledge(4, before=[(0, 1)], required=[(1, 2)])
    >>> bool(prior.before[0, 2]), prior.first_conflict([3, 0, 1, 2]) is None
    (True, True)
    """

    def __init__(
        self,
        n_nodes: int,
        *,
        before: Pairs = (),
        required: Pairs = (),
        forbidden: Pairs = (),
        names: Sequence[str] | None = None,
    ) -> None:
        self.n_nodes = require_count(n_nodes, "n_nodes")
        self.required: NDArray[np.bool_] = self._pairs(required, "required")
        self.forbidden: NDArray[np.bool_] = self._pairs(forbidden, "forbidden")
        called = names if names is not None else [str(node) for node in range(self.n_nodes)]
        # required_ab: a -> b is in the graph; forbidden_ab: it is not in the graph.
        contradictory = np.argwhere(self.required & self.forbidden)
        if len(contradictory):
            parent, child = (called[node] for node in contradictory[0])
            message = (
                f"The edge {parent} -> {child} is both required and forbidden: remove it from one "
                f"of the two."
            )
            raise ValueError(message)
        # A required edge implies an order; before is the transitive closure of all orders.
        orders = self._pairs(before, "before") | self.required
        try:
            order = Dag.from_matrix(orders).order
        except CycleError as error:
            raise error.named(called) from None
        self.before: NDArray[np.bool_] = orders.copy()
        # From the last node back: a node comes before its children and all nodes after them.
        for node in order[::-1]:
            self.before[node] |= self.before[orders[node]].any(axis=0)
        for matrix in (self.required, self.forbidden, self.before):
            matrix.flags.writeable = False

    def first_conflict(self, order: ArrayLike) -> tuple[int, int] | None:
        """Return a pair ``(a, b)`` where ``a`` must precede ``b`` but does not, or None."""
        # place_a > place_b although a must precede b.
        position = np.argsort(np.asarray(order, np.int64))
        wrong = np.argwhere(self.before & (position[:, None] > position[None, :]))
        return (int(wrong[0, 0]), int(wrong[0, 1])) if len(wrong) else None

    def allows(self, dag: Dag) -> bool:
        """Return whether a graph agrees with all orders and all required and forbidden edges."""
        edges = dag.to_matrix().toarray() != 0
        if (self.required & ~edges).any() or (self.forbidden & edges).any():
            return False
        # A graph respects the orders if edges and orders together have no cycle.
        return is_acyclic(self.n_nodes, zip(*np.nonzero(edges | self.before), strict=True))

    def order_of(self, dag: Dag) -> NDArray[np.int64]:
        """Return a topological order of the graph that respects all orders; raise if none does."""
        return Dag.from_matrix((dag.to_matrix().toarray() != 0) | self.before).order

    def with_context(
        self, n_context: int, targets: Mapping[int, Iterable[int]] | None = None
    ) -> PriorKnowledge:
        """Return the prior knowledge with context nodes appended; these have no parents.

        ``targets`` maps the number of a context node (from 0) to its known targets: edges into
        these are required, and its other edges are forbidden. Edges of other context nodes are not
        restricted.

        Examples
        --------
        >>> from nextpert.core import PriorKnowledge
        >>> PriorKnowledge(2).with_context(1, {0: [1]}).required.astype(int).tolist()
        [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
        """
        p = self.n_nodes
        out = PriorKnowledge(p + n_context)
        for name in ("required", "forbidden", "before"):
            setattr(out, name, np.pad(getattr(self, name), (0, n_context)))
        # Context nodes come before all other nodes, and have no parents.
        out.before[p:, :p] = True
        out.forbidden[:, p:] = True
        np.fill_diagonal(out.forbidden, False)
        targets_of_context = {} if targets is None else targets
        places = as_nodes(targets_of_context, n_context, "targets")
        # A context node with known targets has edges into these only.
        for k, nodes in zip(places, targets_of_context.values(), strict=True):
            acts = np.zeros(p, np.bool_)
            acts[as_nodes(nodes, p, f"The targets of context node {k}")] = True
            out.required[p + k, :p] = acts
            out.forbidden[p + k, :p] = ~acts
        return out

    def nearest_order(self, order: ArrayLike) -> NDArray[np.int64]:
        """Return an order that agrees, by repeatedly taking the first allowed node of ``order``."""
        remaining = np.asarray(order, np.int64)
        missing = self.before.sum(axis=0)
        nearest = []
        while len(remaining):
            first = int(np.argmin(missing[remaining]))  # no remaining node must precede it
            nearest.append(remaining[first])
            missing -= self.before[remaining[first]]
            remaining = np.delete(remaining, first)
        return np.array(nearest)

    def _pairs(self, pairs: Pairs, name: str) -> NDArray[np.bool_]:
        matrix = np.zeros((self.n_nodes, self.n_nodes), dtype=bool)
        if not isinstance(pairs, Iterable):
            message = f"{name} must be a list of pairs, but is of type {type(pairs).__name__}."
            raise TypeError(message)
        for pair in pairs:
            if not is_pair(pair) or not all(
                0 <= node < self.n_nodes and int(node) == node for node in pair
            ):
                message = (
                    f"{name} contains {pair!r}, but each entry must be a pair of nodes "
                    f"in 0..{self.n_nodes - 1}."
                )
                raise ValueError(message)
            matrix[pair[0], pair[1]] = True
        return matrix
