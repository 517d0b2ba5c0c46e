"""Greedy sparsest permutation of the package ``causaldag``, as a reference."""

from __future__ import annotations

import random
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core._checks import as_rng, require_count
from nextpert.core.graph.dag import Dag
from nextpert.core.search.methods.gsp import DEPTH
from nextpert.core.search.minimal_imap import are_few, make_tests
from nextpert.core.search.registry import Found, register

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nextpert.core.screen.moments import Moments
    from nextpert.core.search.registry import SearchOptions


def causaldag_gsp(
    moments: Moments,
    *,
    alpha: float = 1e-3,
    n_runs: int = 100,
    rng: int | np.random.Generator | None = None,
) -> Dag:
    """Return the graph that the GSP implementation of the package ``causaldag`` finds.

    This implementation differs from :func:`gsp` in three points. Its tests during the search are
    two-sided as in :func:`gsp`, but its threshold for the minimal I-map of a permutation is
    one-sided: the I-map at its ``alpha`` is that of :func:`minimal_imap` at ``2 * alpha``. When it
    reverses a covered edge, it tests the adjacent edges given the parents before the reversal. Its
    starts eliminate nodes from the graph of partial correlations given all other nodes by adding
    edges, whereas :func:`gsp` repeats the tests among the remaining nodes.

    The package draws from the global generators of ``random`` and ``numpy.random``; these are
    seeded from ``rng`` for the search and restored afterwards. Do not call this function from
    several threads.

    Parameters
    ----------
    moments
        Moments of the (control) cells.
    alpha
        Significance level as ``causaldag`` defines it (see above).
    n_runs
        Number of runs.
    rng
        Seed or generator.

    Raises
    ------
    ImportError
        If ``causaldag`` is not installed.
    ValueError
        As for :func:`gsp`, or if there are fewer than ``n_nodes + 2`` cells.

    Examples
    --------
    >>> from nextpert.core import Dag, Moments, causaldag_gsp, random_scm
    >>> truth = Dag.from_edges(4, [(0, 3), (1, 3), (2, 3)])
    >>> cells = random_scm(4, truth, rng=0).sample(2000, rng=1)
    >>> dag = causaldag_gsp(Moments.from_array(cells), rng=2)  # doctest: +SKIP
    """
    tests, _ = make_tests(moments, alpha, None)
    if are_few(moments.n, moments.n_nodes):
        message = (
            f"causaldag needs at least {moments.n_nodes + 2} cells to test {moments.n_nodes} "
            f"nodes, but there are only {moments.n}: use gsp or boss, or fewer nodes."
        )
        raise ValueError(message)
    with _own_random_state(int(as_rng(rng).integers(2**32))):
        search, tester, test = _import_causaldag()
        # Sufficient statistics under the names that its tests use.
        precision = np.linalg.inv(tests.matrix)
        scale = np.sqrt(np.diag(precision))
        statistics = {
            "n": moments.n,
            "C": tests.matrix,
            "K": precision,
            "P": precision,
            "rho": precision / np.outer(scale, scale),
        }
        nodes = set(range(moments.n_nodes))
        tested = tester(test, statistics, alpha=alpha)
        edges = search(nodes, tested, depth=DEPTH, nruns=require_count(n_runs, "n_runs")).arcs
    return Dag.from_edges(moments.n_nodes, sorted((int(k), int(i)) for k, i in edges))


def _import_causaldag() -> tuple[Any, Any, Any]:
    try:
        tests = import_module("conditional_independence")
        learning = import_module("graphical_model_learning")
    except ImportError as error:
        message = "causaldag is not installed: run pip install 'nextpert[causaldag]', or use gsp."
        raise ImportError(message) from error
    return learning.gsp, tests.MemoizedCI_Tester, tests.partial_correlation_test


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed the two global generators, and restore their states afterwards."""
    # The package draws from both global generators and accepts no seed.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - causaldag draws from them
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@register("causaldag", default_runs=lambda _: 100, threads=False)
def learn(moments: Moments, options: SearchOptions, *, rng: np.random.Generator, **_: Any) -> Found:
    """Search as :func:`causaldag_gsp` does; prior knowledge is not supported."""
    if options.prior is not None:
        message = 'causaldag does not support prior knowledge: use method="gsp" or "boss".'
        raise ValueError(message)
    dag = causaldag_gsp(moments, n_runs=options.n_runs, rng=rng)
    return Found(dag, dag.order)
