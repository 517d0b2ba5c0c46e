"""From the cells of a screen to its graph, its direct targets and what orients each edge."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import list_names, strings
from nextpert._adata.environments import require_varying
from nextpert._adata.progress import progress
from nextpert._adata.screen import describe, screen_moments
from nextpert._warn import warn
from nextpert.core.search._classes import INTERVENTIONS, OPEN, oriented_by
from nextpert.core.search.minimal_imap import are_few
from nextpert.tl._learn_dag.context import ContextNodes, Joint, search
from nextpert.tl._learn_dag.graphs import ensemble
from nextpert.tl._learn_dag.prior import stored_knowledge, stored_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp
    from numpy.typing import NDArray

    from nextpert.core import Dag, Moments
    from nextpert.core.search.registry import SearchOptions
    from nextpert.tl._learn_dag.context import Panel

logger = logging.getLogger(__name__)


def learn_from_cells(
    panel: Panel,
    n_graphs: int,
    options: SearchOptions,
    rng: np.random.Generator,
    n_jobs: int,
) -> tuple[Dag, dict[str, Any], sp.csr_array | None]:
    """Return the graph of the cells, what is stored of it, and how often resamples have each edge.

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
    adata, columns, genes, environments, known_targets = panel
    context = ContextNodes.of(environments, genes, known_targets)
    screen = screen_moments(adata, columns, environments)
    joint = Joint.of(screen, len(genes), context)
    logger.info("%s.", describe(environments))
    explained = sorted(set(range(len(context.names))) - set(joint.present.tolist()))
    if explained:  # such as perturbations of a plate without controls: one is the plate's effect
        logger.warning(
            "Left out of the search, because batches and other perturbations explain them: %s.",
            list_names([context.names[k] for k in explained]),
        )
    is_control = environments.perturbation == environments.roles.control
    what = "control cells" if is_control.all() else "cells"
    _require_enough(joint.moments.subset(np.arange(len(genes))), genes, options.method, what)
    with progress(options.n_runs, options.method.upper()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        best = search(joint, genes, options, rng, "among the cells", n_jobs=n_jobs, progress=show)
    edges = oriented_by(best.dag, best.context_edges, options.prior)
    stored = {
        "order": strings(genes[i] for i in best.order),
        "n_control_cells": int(screen.n[is_control].sum()),
        "n_cells": joint.moments.n,
        "edges": pd.DataFrame(
            {
                "parent": strings(genes[x] for x, _, _ in edges),
                "child": strings(genes[y] for _, y, _ in edges),
                "oriented_by": strings(how for _, _, how in edges),
            }
        ),
        **best.stored,
        **stored_targets(known_targets),
        **stored_knowledge(options.prior),
    }
    frequency = of_context = None
    if n_graphs > 1:  # from where the search of all cells ended
        from_there = replace(options, order=best.order)
        many = ensemble(panel, context, n_graphs, from_there, rng, n_jobs)
        frequency, of_context = many.frequency, many.context_frequency[joint.present]
        each = frequency.toarray()
        stored["edges"]["frequency"] = np.array([each[x, y] for x, y, _ in edges])
        stored["edges"]["adjacency"] = np.array([each[x, y] + each[y, x] for x, y, _ in edges])
        stored["graphs"] = many.stored()
    if joint.names:
        stored["direct_targets"] = target_table(joint.names, genes, best.context_edges, of_context)
    by = [how for _, _, how in edges]
    logger.info(
        "%d edges are oriented by interventions; %d remain unoriented (the table 'edges').",
        by.count(INTERVENTIONS), by.count(OPEN),
    )  # fmt: skip
    return best.dag, stored, frequency


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
            "perturbation": strings(names[k] for k in rows),
            "gene": strings(genes[i] for i in columns),
        }
    )
    if frequency is not None:
        table["frequency"] = frequency[rows, columns]
    return table


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
