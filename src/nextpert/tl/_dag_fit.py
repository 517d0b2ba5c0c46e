"""``tl.dag_fit``: how well parents predict their children, compared with random graphs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import at_least, checked
from nextpert._adata.table import require_cells
from nextpert.core._checks import as_rng
from nextpert.core.causal.scm import matched_random_dag
from nextpert.core.causal.weights import parent_fit
from nextpert.core.screen.moments import Moments
from nextpert.study.environments import require_varying, warn_other_layer

if TYPE_CHECKING:
    import anndata as ad

    from nextpert.core import Dag

logger = logging.getLogger(__name__)


@checked(n_folds=at_least(2), n_random=at_least(2))
def dag_fit(
    adata: ad.AnnData,
    *,
    dag_key: str = "dag",
    perturbation_key: str | None = None,
    control: str | None = None,
    n_folds: int = 5,
    n_random: int = 100,
    layer: str | None = None,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "dag_fit",
    copy: bool = False,
) -> ad.AnnData | None:
    """Correlate every gene with its prediction from its parents, compared with random graphs.

    Every gene is regressed on its parents in the control cells, and the Pearson correlation ``r``
    of gene and prediction is compared with that in random graphs whose genes have the same numbers
    of parents (Extended Data Fig. 7 of Zhang et al. 2023, doi:10.1038/s42256-023-00719-0). Each
    fold of the cells is predicted by a regression on the other folds, because ``r`` in the cells of
    the regression itself increases with the number of parents.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory or backed.
    dag_key
        Graph in ``adata.varp`` (row = parent), from :func:`learn_dag` or put there by hand.
    perturbation_key, control, layer
        Column of labels, label of the controls (the cells used), and layer. ``None`` takes the
        declared ones (:func:`nextpert.pp.setup_screen`), or ``"perturbation"``, ``"control"`` and
        ``adata.X``.
    n_folds
        Number of folds, at least 2.
    n_random
        Number of random graphs, at least 2. The smallest p-value is ``1 / (n_random + 1)``.
    rng
        Seed or generator of the folds and the random graphs.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. :doc:`/model/stored_results` lists all columns.
        Writes ``uns["dag_fit"]`` with:

        - ``table`` (table): one row per gene with parents: ``r`` in held-out cells, its mean and
          standard deviation in random graphs, and the p-value.
        - ``random_r`` (array, ``(n_random, n_rows)``): the held-out ``r`` in every random graph.
        - ``mean_r`` (number): mean ``r`` over all genes of the table.
        - ``random_mean_r`` (array, ``(n_random,)``): the same in every random graph.
        - ``z``, ``p_value`` (numbers): the difference of ``mean_r`` from the random graphs in their
          standard deviations, and the fraction of graphs in which it is at least as high.
        - ``n_cells`` (number): control cells read.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If the graph or the labels are absent, the graph has no edges, there are too few control
        cells, a gene is constant in them, or a value is not finite. Nothing is written on error.

    Notes
    -----
    If the graph was learned from the same cells, the folds are not held out of the choice of
    parents. To avoid this, learn the graph from a part of the controls, labelled in a column of
    ``adata.obs``, and pass the label of the others as ``control`` here. Any graph between
    correlated genes predicts better than a random graph, also with its edges reversed: a high ``r``
    does not show that directions are correct.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=10, n_control=500, expected_degree=3)
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 5})
    >>> npt.tl.dag_fit(adata)
    >>> bool(adata.uns["dag_fit"]["mean_r"] > adata.uns["dag_fit"]["random_mean_r"].max())
    True
    """
    require_cells(adata, "dag_fit")
    roles = _adata.read_roles(
        adata, perturbation_key=perturbation_key, control=control, layer=layer
    )
    genes, columns, dag = _adata.read_graph(adata, dag_key)
    if not dag.n_edges:
        message = f"The graph {dag_key!r} has no edges to compare: give a graph with edges."
        raise ValueError(message)
    labels = _adata.read_labels(adata, roles.perturbation_key)
    _adata.require_control(labels, roles.control)
    generator = as_rng(rng)
    cells = np.flatnonzero(labels.groups([roles.control]) == 0)
    _require_enough(len(cells), n_folds, dag, genes)
    _adata.check_scale(adata, columns, cells, roles, only_warn=True)
    codes = np.full(adata.n_obs, -1, dtype=np.int64)
    codes[cells] = generator.permutation(np.arange(len(cells)) % n_folds)
    (folds,), _ = _adata.read_groupings(adata, columns, [(codes, n_folds)], roles)
    all_cells = sum(folds[1:], start=folds[0])
    require_varying(all_cells, genes)
    warn_other_layer(roles.layer, adata.uns.get(dag_key))
    training = [
        sum((fold for g, fold in enumerate(folds) if g != f), start=Moments.zeros(len(genes)))
        for f in range(n_folds)
    ]
    graphs = [dag, *(matched_random_dag(dag.in_degree, rng=generator) for _ in range(n_random))]
    nodes = np.flatnonzero(dag.in_degree).tolist()
    r = np.column_stack(  # one row per graph, one column per gene; the first row is of this graph
        [parent_fit(training, folds, i, [graph.parents(i) for graph in graphs]) for i in nodes]
    )
    table = pd.DataFrame(
        {
            "gene": _adata.strings(genes[i] for i in nodes),
            "n_parents": dag.in_degree[nodes],
            "r": r[0],
            "r_in_sample": [
                parent_fit([all_cells], [all_cells], i, [dag.parents(i)])[0] for i in nodes
            ],
            "random_mean": r[1:].mean(axis=0),
            "random_sd": r[1:].std(axis=0, ddof=1),
            "p_value": (r >= r[0]).mean(axis=0),
        },
        index=pd.Index(np.arange(len(nodes))),
    )
    mean = r.mean(axis=1)  # over all genes
    graph_mean, random = float(mean[0]), mean[1:]
    sd = float(random.std(ddof=1))
    stored = {
        "mean_r": graph_mean,
        "random_mean_r": random,
        "z": (graph_mean - float(random.mean())) / sd if sd > 0 else float("nan"),
        "p_value": float((mean >= graph_mean).mean()),
        "table": table,
        "random_r": r[1:],
        "n_cells": len(cells),
        "genes": _adata.strings(genes),
        **_adata.origin_of_cells(adata, roles, columns, only_controls=True),
        "params": {
            "dag_key": dag_key,
            **roles.stored(),
            "n_folds": n_folds,
            "n_random": n_random,
            "rng": _adata.seed_of(rng),
        },
    }
    logger.info(
        "Mean r of %d genes with their parents: %.3f, in random graphs %.3f.",
        len(nodes),
        graph_mean,
        random.mean(),
    )
    return _adata.write_results(adata, uns={key_added: stored}, copy=copy)


def _require_enough(n_cells: int, n_folds: int, dag: Dag, genes: list[str]) -> None:
    max_parents = int(dag.in_degree.max())
    if n_cells - -(-n_cells // n_folds) < max_parents + 2 or n_cells < 2 * n_folds:
        message = (
            f"{n_cells} control cells in {n_folds} folds do not suffice to regress "
            f"{genes[int(dag.in_degree.argmax())]} on its {max_parents} parents: use more control "
            f"cells, or a graph with fewer parents."
        )
        raise ValueError(message)
