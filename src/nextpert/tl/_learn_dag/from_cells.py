"""From the cells of a screen to its graph, its direct targets and what orients each edge."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.environments import require_varying
from nextpert._adata.progress import progress
from nextpert._adata.screen import describe, screen_moments
from nextpert._warn import warn
from nextpert.core.search._classes import INTERVENTIONS, OPEN, oriented_by
from nextpert.core.search.minimal_imap import are_few
from nextpert.tl._learn_dag.context import ContextNodes, Joint, search, warn_explained
from nextpert.tl._learn_dag.graphs import ensemble
from nextpert.tl._learn_dag.prior import stored_knowledge, stored_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp
    from numpy.typing import NDArray

    from nextpert._adata.screen import Environments
    from nextpert.core import Dag, Moments
    from nextpert.core.search.registry import Found, SearchOptions
    from nextpert.tl._learn_dag.context import Panel
    from nextpert.tl._learn_dag.graphs import Ensemble

logger = logging.getLogger(__name__)


class Learned(NamedTuple):
    """A graph, a topological order of it, what is stored of it, and how often its edges occur."""

    dag: Dag
    order: NDArray[np.int64]
    stored: dict[str, Any]
    frequency: sp.csr_array | None


def learn_from_cells(
    panel: Panel,
    n_graphs: int,
    options: SearchOptions,
    rng: np.random.Generator,
    n_jobs: int,
) -> Learned:
    """Return the graph of the environments, and with ``n_graphs`` above 1 of resamples of them.

    Parameters
    ----------
    panel
        Cells, genes and environments that are read.
    n_graphs
        Number of resamples; 1 for none.
    options, rng
        Those of the search.
    n_jobs
        Number of threads.

    Raises
    ------
    ValueError
        If genes are constant or linearly dependent, or cells too few; the genes are named.
    """
    adata, columns, genes, environments, told = panel
    context = ContextNodes.of(environments, genes, told)
    screen = screen_moments(adata, columns, environments)
    joint = Joint.of(screen, len(genes), context)
    logger.info("%s.", describe(environments))
    warn_explained(context, joint.present)
    is_control = environments.perturbation == environments.roles.control
    what = "control cells" if is_control.all() else "cells"
    _require_enough(joint.moments.subset(np.arange(len(genes))), genes, options.method, what)
    with progress(options.n_runs, options.method.upper()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        where = "among the cells"
        found = search(joint, genes, options, rng, where, n_jobs=n_jobs, progress=show)
    many = None
    if n_graphs > 1:  # from where the search of all cells ended
        known = replace(options, order=found.order)
        many = ensemble(panel, context, n_graphs, known, rng, n_jobs)
    stored = {
        "n_control_cells": int(screen.n[is_control].sum()),
        "n_cells": joint.moments.n,
        "edges": edge_table(genes, found, options, many),
        **found.stored,
        **stored_targets(told),
        **stored_knowledge(options.prior),
    }
    if joint.names:
        frequency = None if many is None else many.context_frequency[joint.present]
        stored["direct_targets"] = target_table(joint.names, genes, found.context_edges, frequency)
    if many is not None:
        stored["graphs"] = many.stored()
    return Learned(found.dag, found.order, stored, None if many is None else many.frequency)


def edge_table(
    genes: Sequence[str], found: Found, options: SearchOptions, many: Ensemble | None
) -> pd.DataFrame:
    """Return one row per edge: parent, child, what orients it, and how often it is found.

    Of resamples, ``frequency`` has this direction and ``adjacency`` either.
    """
    edges = oriented_by(found.dag, found.context_edges, options.prior)
    table = pd.DataFrame(
        {
            "parent": _adata.strings(genes[x] for x, _, _ in edges),
            "child": _adata.strings(genes[y] for _, y, _ in edges),
            "oriented_by": _adata.strings(how for _, _, how in edges),
        }
    )
    if many is not None:
        share = many.frequency.toarray()
        table["frequency"] = np.array([share[x, y] for x, y, _ in edges])
        table["adjacency"] = np.array([share[x, y] + share[y, x] for x, y, _ in edges])
    return table


def target_table(
    names: Sequence[str],
    genes: Sequence[str],
    edges: NDArray[np.bool_],
    frequency: NDArray[np.float64] | None,
) -> pd.DataFrame:
    """Return one row per gene on which something that the experiment set acts directly.

    ``edges`` and their ``frequency`` in resamples have a row a name, ``(n_context, n_genes)``;
    shown are edges of the graph, and those that are in half of the resamples.
    """
    shown = edges if frequency is None else edges | (frequency >= 0.5)
    rows, columns = (index.tolist() for index in np.nonzero(shown))
    table = pd.DataFrame(
        {
            "perturbation": _adata.strings(names[k] for k in rows),
            "gene": _adata.strings(genes[i] for i in columns),
        }
    )
    if frequency is not None:
        table["frequency"] = frequency[rows, columns]
    return table


def report(learned: Learned, environments: Environments, which: str, key: str) -> None:
    """Log what orients the edges, and what perturbed cells could orient."""
    how = learned.stored["edges"]["oriented_by"]
    n_open, n_oriented = int((how == OPEN).sum()), int((how == INTERVENTIONS).sum())
    logger.info(
        "%d edges are oriented by interventions; %d remain unoriented (uns[%r]['edges']).",
        n_oriented, n_open, key,
    )  # fmt: skip
    if which == "control" and n_open and environments.perturbations():
        logger.info(
            'The cells of %d perturbations were not read: method="boss", environments="all" '
            "learns from them too, and orients more edges.", len(environments.perturbations()),
        )  # fmt: skip


def _require_enough(cells: Moments, genes: list[str], method: str, what: str) -> None:
    require_varying(cells, genes, what)
    if are_few(cells.n, len(genes)) and cells.n > 3:
        hint = ' GSP finds few edges in this way: use method="boss".' if method == "gsp" else ""
        message = (
            f"Only {cells.n} {what} for {len(genes)} genes: correlations are shrunk, as if 5 cells "
            f"of independent genes had been added, and weak edges are missed. Use fewer "
            f"genes (genes=[...]) or {len(genes) + 2} {what} and more.{hint}"
        )
        warn(message)
