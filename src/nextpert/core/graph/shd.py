"""How far one graph is from another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nextpert.core.graph.dag import Dag


def shd(one: Dag, two: Dag) -> int:
    """Return the structural Hamming distance: pairs of nodes that two graphs join differently.

    An arc too many, one too few and one turned round count one each.

    Parameters
    ----------
    one, two
        Graphs over the same nodes.

    Raises
    ------
    ValueError
        If the numbers of nodes differ.

    Examples
    --------
    >>> from nextpert.core import Dag, shd
    >>> shd(Dag.from_edges(3, [(0, 1), (1, 2)]), Dag.from_edges(3, [(1, 0), (0, 2)]))
    3
    """
    if one.n_nodes != two.n_nodes:
        message = f"Graphs of {one.n_nodes} and {two.n_nodes} nodes cannot be compared."
        raise ValueError(message)
    apart = set(one.edges()) ^ set(two.edges())
    return len({frozenset(arc) for arc in apart})
