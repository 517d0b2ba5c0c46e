"""Posteriors from which one environment at a time is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.posterior.add_screen import add_screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from nextpert.core.cells.screen_moments import ScreenMoments
    from nextpert.core.posterior.dag_blr import DagBlr


def leave_one_out(
    posterior: DagBlr,
    screen: ScreenMoments,
    shifts: ArrayLike,
    environments: ArrayLike | None = None,
) -> Iterator[DagBlr]:
    """Yield, for every environment in turn, the posterior after the cells of all the others.

    The posterior's sums are added up by halves: with K environments about ``K log2 K`` additions
    of means instead of ``K^2``, and nothing is ever subtracted, which would cost digits. The
    prior scale, where it is learned, is learned anew for each. The scatter within environments is
    pooled (see :func:`add_screen`), so what is left out of an environment is its mean and its
    cells' share of that scatter.

    Parameters
    ----------
    posterior
        The posterior before any of them, for instance after the control cells.
    screen
        Moments of the environments.
    shifts
        Shift of every node in every environment, shape ``(n_environments, n_nodes)``, units of
        the data.
    environments
        Numbers of the environments to go through; ``None`` (default) stands for all. The others
        are not added: add those to ``posterior`` before.

    Raises
    ------
    ValueError
        If nodes or environments differ in number.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import DagBlr, Moments, ScreenMoments, random_scm
    >>> from nextpert.core.predict.leave_one_out import leave_one_out
    >>> scm = random_scm(3, rng=0)
    >>> shifts = [[1.0, 0, 0], [0, 1.0, 0]]
    >>> cells = np.concatenate([scm.sample(n, a, rng=1) for n, a in zip([20, 30], shifts)])
    >>> screen = ScreenMoments.from_array(cells, np.repeat([0, 1], [20, 30]), 2)
    >>> start = DagBlr(scm.dag).update(Moments.from_array(scm.sample(100, rng=2)))
    >>> [left.n_cells for left in leave_one_out(start, screen, shifts)]
    [130, 120]
    """
    every = np.arange(screen.n_environments)
    chosen = every if environments is None else np.asarray(environments, np.int64)
    if len(chosen) == 0:
        return
    if len(chosen) == 1:
        yield posterior
        return
    halves = np.split(chosen, [len(chosen) // 2])
    for mine, others in (halves, halves[::-1]):
        without = add_screen(posterior, screen, shifts, others)
        yield from leave_one_out(without, screen, shifts, mine)
