"""The sparsest graph that a permutation of the nodes allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_kind
from nextpert.core.cells.moments import Moments
from nextpert.core.graph.dag import Dag
from nextpert.core.search._bits import unpack_rows
from nextpert.core.search._imap import Scratch, imap_of_order
from nextpert.core.search._statistics import make_problem

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nextpert.core.search.prior_knowledge import PriorKnowledge


def minimal_imap(
    moments: Moments,
    permutation: ArrayLike,
    *,
    alpha: float = 1e-3,
    prior: PriorKnowledge | None = None,
) -> Dag:
    """Return the minimal I-map of a permutation.

    An earlier node is a parent of a later one unless the two are independent given all the other
    nodes before the later one: ``sqrt(n - k - 3) |atanh r|`` of their partial correlation is below
    the two-sided ``alpha`` quantile (Raskutti & Uhler 2018, doi:10.1002/sta4.183). All tests of a
    permutation together take ``n_nodes^3 / 3`` multiplications.

    Parameters
    ----------
    moments
        Moments of the (control) cells.
    permutation
        All nodes in the order wanted, shape ``(n_nodes,)``.
    alpha
        Significance level of every test, two-sided.
    prior
        Required arcs are put in and forbidden ones left out; the permutation must agree with the
        orders.

    Raises
    ------
    ValueError
        If ``permutation`` does not name each node once or contradicts an order, ``alpha`` is not
        between 0 and 1, or the moments do not allow all tests (too few cells, constant or
        linearly dependent nodes).

    Examples
    --------
    >>> from nextpert.core import Moments, random_scm
    >>> from nextpert.core import minimal_imap
    >>> cells = random_scm(4, "path", rng=0).sample(2000, rng=1)
    >>> minimal_imap(Moments.from_array(cells), [0, 1, 2, 3]).edges()
    [(0, 1), (1, 2), (2, 3)]
    """
    order = np.array(permutation)
    require_kind(moments, Moments, "moments")
    p = moments.n_nodes
    if order.shape != (p,) or not np.array_equal(np.sort(order), np.arange(p)):
        message = f"permutation must name each of the nodes 0..{p - 1} once, but is {order}."
        raise ValueError(message)
    problem = make_problem(moments, alpha, prior)
    conflict = prior.first_conflict(order) if prior is not None else None
    if conflict is not None:
        message = f"permutation puts node {conflict[1]} before {conflict[0]}, against the prior."
        raise ValueError(message)
    parents = np.zeros_like(problem.before)
    imap_of_order(problem, order.astype(np.int64), Scratch.empty(p), parents)
    return Dag.from_matrix(unpack_rows(parents, p).T)
