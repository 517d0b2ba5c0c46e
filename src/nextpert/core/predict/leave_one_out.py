"""Posteriors from which one environment at a time is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

    from nextpert.core.cells.moments import Moments
    from nextpert.core.posterior.dag_blr import DagBlr


def leave_one_out(
    posterior: DagBlr, environments: Sequence[tuple[Moments, ArrayLike]]
) -> Iterator[DagBlr]:
    """Yield, for every environment in turn, the posterior after the cells of all the others.

    The posterior's sums are added up by halves: with K environments about ``K log2 K`` additions
    of moments instead of ``K^2``, and nothing is ever subtracted, which would cost digits. The
    prior scale, where it is learned, is learned anew for each.

    Parameters
    ----------
    posterior
        The posterior before any of them, for instance after the control cells.
    environments
        Moments of the cells of each, and the shift in them, shape ``(n_nodes,)``, units of the
        data.

    Raises
    ------
    ValueError
        If the nodes of the cells or of a shift are not those of the posterior.

    Examples
    --------
    >>> from nextpert.core import DagBlr, Moments, random_scm
    >>> from nextpert.core.predict.leave_one_out import leave_one_out
    >>> scm = random_scm(3, rng=0)
    >>> shifts = [[1.0, 0, 0], [0, 1.0, 0]]
    >>> cells = [Moments.from_array(scm.sample(n, a, rng=1)) for n, a in zip([20, 30], shifts)]
    >>> start = DagBlr(scm.dag).update(Moments.from_array(scm.sample(100, rng=2)))
    >>> [left.n_cells for left in leave_one_out(start, list(zip(cells, shifts)))]
    [130, 120]
    """
    if not environments:
        return
    if len(environments) == 1:
        yield posterior
        return
    half = len(environments) // 2
    for mine, others in (
        (environments[:half], environments[half:]),
        (environments[half:], environments[:half]),
    ):
        without = posterior
        for moments, shift in others:
            without = without.update(moments, shift)
        yield from leave_one_out(without, mine)
