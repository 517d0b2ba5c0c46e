"""How often a structure search finds an arc when the cells are resampled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from nextpert.core._checks import as_rng, require_count
from nextpert.core.cells.moments import Moments
from nextpert.core.search._resamples import Resamples, arc_frequencies

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from nextpert.core.graph.dag import Dag


def bootstrap_dag(
    cells: ArrayLike | sp.sparray | sp.spmatrix,
    search: Callable[[Moments, np.random.Generator], Dag],
    *,
    n_bootstraps: int = 100,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
    progress: Callable[[int, int], None] | None = None,
) -> sp.csr_array:
    """Return how often a search finds each arc in resampled cells (Friedman et al. 1999).

    The Poisson bootstrap: a resample takes each cell ``w`` times, ``w`` Poisson of mean 1 and
    independent of all other cells, which differs from drawing ``n_cells`` of them with replacement
    only in that the number of cells varies. The moments of all resamples are summed in one pass
    over the cells and take ``8 n_bootstraps n_nodes^2`` bytes.

    Observational data do not tell arcs of Markov equivalent graphs apart: where both directions of
    an arc are found, their frequencies add up to that of the adjacency. Resamples repeat cells,
    so their tests and scores see a little more than there is, and weak false arcs are found more
    often than in the data themselves (Steck & Jaakkola 2003).

    Parameters
    ----------
    cells
        Cells of one environment, shape ``(n_cells, n_nodes)``, dense or sparse.
    search
        Takes the moments of a resample and a generator, and returns a graph.
    n_bootstraps
        Number of resamples.
    rng
        Seed or generator. Every resample gets seeds of its own, so the result depends on neither
        the number of workers nor the blocks in which cells are read.
    n_jobs
        Number of threads; ``None`` leaves it to joblib's context (with its dask backend, resamples
        are spread over a cluster).
    progress
        Called with the number of resamples done and of all resamples.

    Returns
    -------
    scipy.sparse.csr_array
        Share of the resamples whose graph holds the arc, between 0 and 1, shape
        ``(n_nodes, n_nodes)``, row = parent, column = child.

    Raises
    ------
    ValueError
        If ``n_bootstraps`` is below 1, cells are not a matrix or hold NaN or infinite values, or
        the search refuses a resample (a node that varies in few cells may be constant in it).

    Examples
    --------
    >>> from nextpert.core import random_scm
    >>> from nextpert.core import boss, bootstrap_dag
    >>> cells = random_scm(3, "in_star", rng=0).sample(2000, rng=1)
    >>> search = lambda moments, rng: boss(moments, rng=rng).dag
    >>> bootstrap_dag(cells, search, n_bootstraps=20, rng=2).toarray()
    array([[0., 0., 1.],
           [0., 0., 1.],
           [0., 0., 0.]])
    """
    n_bootstraps = require_count(n_bootstraps, "n_bootstraps")
    moments = Moments.from_array(cells)  # names columns that are not finite
    generator = as_rng(rng)
    resamples = Resamples(moments.n_nodes, generator.integers(0, 2**64, n_bootstraps, np.uint64))
    block = sp.csr_array(cells) if sp.issparse(cells) else np.asarray(cells)
    resamples.add(np.arange(moments.n), block)
    found = resamples.finish()
    return arc_frequencies(found, search, generator, n_jobs=n_jobs, progress=progress)
