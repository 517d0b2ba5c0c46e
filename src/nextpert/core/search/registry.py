"""The searches of ``tl.learn_dag``; every file in ``methods`` registers one."""

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
    """Options of a search, as in ``tl.learn_dag``.

    ``order`` is the order of the graph of all cells, from which searches on resamples start.
    """

    method: str
    n_runs: int
    prior: PriorKnowledge | None
    order: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Parameters
    ----------
    dag
        The graph, without context nodes.
    order
        A topological order of ``dag`` that agrees with the prior knowledge, shape ``(n_nodes,)``.
    context_edges
        Edges from context nodes into nodes, shape ``(n_context, n_nodes)``; empty for a search that
        does not support context nodes.
    stored
        Further results to store, by name.
    """

    dag: Dag
    order: NDArray[np.int64]
    context_edges: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    stored: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """A registered search.

    Parameters
    ----------
    learn
        ``learn(moments, options, *, n_context, rng, n_jobs, progress)``, which returns
        :class:`Found`.
    default_runs
        Function from the number of genes to the default number of runs.
    context
        Whether the search supports context nodes (nodes without parents that the experiment sets),
        and with them the cells of all environments; other searches get moments with these nodes
        regressed out.
    threads
        Whether several searches can run in one process at the same time, and report progress.
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
    """Return a decorator that registers a function as a search; see :class:`Search`."""

    def known(learn: Learn) -> Learn:
        _SEARCHES.add(name, Search(learn, default_runs, context, threads))
        return learn

    return known


def searches() -> dict[str, Search]:
    """Return all searches by name."""
    return _SEARCHES.every()


def names_that(condition: Callable[[Search], bool]) -> str:
    """Return the names of searches that meet a condition, for messages: ``"boss" or "gsp"``."""
    return " or ".join(f'"{name}"' for name, search in searches().items() if condition(search))
