"""The cells of many environments of a screen at once, their scatter pooled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_finite, require_kind
from nextpert.core.cells.screen_moments import ScreenMoments
from nextpert.core.posterior._add import add_environments, require_squares

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nextpert.core.posterior.dag_blr import DagBlr


def add_screen(
    posterior: DagBlr,
    screen: ScreenMoments,
    shifts: ArrayLike,
    environments: ArrayLike | None = None,
) -> DagBlr:
    """Return the posterior after the cells of environments of a screen.

    The same as :meth:`DagBlr.update` with one environment after the other, where each has its
    cells' share of the scatter within all of them. Over all environments of a screen the sums are
    those of the cells, and no environment has a matrix of its own, here or in between.

    Parameters
    ----------
    posterior
        The posterior before; it is left as it is.
    screen
        Moments of the environments.
    shifts
        Shift of every node in every environment, shape ``(n_environments, n_nodes)``, units of
        the data.
    environments
        Numbers of the environments to add; ``None`` (default) stands for all.

    Raises
    ------
    ValueError
        If nodes or environments differ in number, or a value is not finite or too large to be
        squared.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import DagBlr, Moments, ScreenMoments, random_scm
    >>> from nextpert.core.posterior.add_screen import add_screen
    >>> scm, shifts = random_scm(3, rng=0), np.eye(3)
    >>> cells = np.concatenate([scm.sample(20, shift, rng=1) for shift in shifts])
    >>> screen = ScreenMoments.from_array(cells, np.repeat(np.arange(3), 20), 3)
    >>> start = DagBlr(scm.dag).update(Moments.from_array(scm.sample(100, rng=2)))
    >>> add_screen(start, screen, shifts).n_cells, add_screen(start, screen, shifts, [0]).n_cells
    (160, 120)
    """
    require_kind(screen, ScreenMoments, "screen")
    given = np.asarray(shifts, np.float64)
    if screen.n_nodes != posterior.n_nodes or given.shape != screen.mean.shape:
        message = (
            f"The graph has {posterior.n_nodes} nodes, the screen {screen.mean.shape} "
            f"environments x nodes and the shifts {given.shape}: they must fit."
        )
        raise ValueError(message)
    require_finite(given, "shifts")
    every = np.arange(screen.n_environments)
    chosen = every if environments is None else np.asarray(environments, np.int64)
    n, mean = screen.n[chosen, None], screen.mean[chosen]
    require_squares(n, mean, screen.scatter, given[chosen])
    new = posterior._copied(with_blocks=False)
    add_environments(new.dag, new._layout, new._statistics, screen, chosen, given)
    new._blocks = None
    return new
