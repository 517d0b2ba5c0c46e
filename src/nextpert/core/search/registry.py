"""The searches that ``tl.learn_dag`` offers: every file in ``methods`` registers one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core._registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from nextpert.core.graph.dag import Dag
    from nextpert.core.search.prior_knowledge import PriorKnowledge

    Learn = Callable[..., "Found"]


@dataclass(frozen=True)
class SearchOptions:
    """What a search is asked for, as in ``tl.learn_dag``.

    An ``order`` is that of the graph of all cells, from which resamples of them start.
    """

    method: str
    n_runs: int
    prior: PriorKnowledge | None
    order: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Found:
    """What a search found.

    Parameters
    ----------
    dag
        The graph over the nodes other than context nodes.
    order
        A topological order of it that agrees with the prior knowledge, shape ``(n_nodes,)``.
    context_edges
        Which nodes a context node acts on, shape ``(n_context, n_nodes)``; left out by a
        search that takes none.
    stored
        What else is stored of the search, by name.
    """

    dag: Dag
    order: NDArray[np.int64]
    context_edges: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    stored: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """A search under the name that users give.

    Parameters
    ----------
    learn
        ``learn(moments, options, *, n_context, rng, n_jobs, progress)``, which returns
        :class:`Found`.
    default_runs
        From the number of genes to that of runs, where users give none.
    context
        Whether it takes what the experiment set as nodes without parents, and with them cells of
        all environments; others get moments at fixed values of these.
    threads
        Whether several may run in one process at a time, and tell how far they are.
    """

    learn: Learn
    default_runs: Callable[[int], int]
    context: bool
    threads: bool

    def __str__(self) -> str:
        return f"{self.learn.__module__}.{self.learn.__qualname__}"


_SEARCHES: Registry[Search] = Registry("nextpert.core.search.methods", "a search")


def register(
    name: str,
    *,
    default_runs: Callable[[int], int] = lambda _: 1,
    context: bool = False,
    threads: bool = True,
) -> Callable[[Learn], Learn]:
    """Make a function known as a search, under the name of its file; see :class:`Search`."""

    def known(learn: Learn) -> Learn:
        _SEARCHES.add(name, Search(learn, default_runs, context, threads))
        return learn

    return known


def searches() -> dict[str, Search]:
    """Return all searches by name."""
    return _SEARCHES.every()


def names_that(condition: Callable[[Search], bool]) -> str:
    """Return the searches that meet a condition, for a message: ``"boss" or "gsp"``."""
    return " or ".join(f'"{name}"' for name, search in searches().items() if condition(search))
