"""``tl.learn_dag``: the graph of a gene panel, from control cells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert.tl._dag_search import SearchOptions, read_prior, search
from nextpert.tl._environments import require_varying
from nextpert.tl._given_graph import given_graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import anndata as ad

    from nextpert.core import Moments

logger = logging.getLogger(__name__)

METHODS = ("gsp", "given")
BACKENDS = ("nextpert", "causaldag")


def learn_dag(
    adata: ad.AnnData,
    *,
    genes: Iterable[str] | None = None,
    perturbation_key: str = "perturbation",
    control: str = "control",
    method: str = "gsp",
    dag: Any = None,
    alpha: float = 1e-3,
    depth: int = 4,
    n_runs: int = 100,
    before: Iterable[tuple[str, str]] | None = None,
    tiers: Mapping[str, float] | Sequence[Iterable[str]] | None = None,
    required: Iterable[tuple[str, str]] | None = None,
    forbidden: Iterable[tuple[str, str]] | None = None,
    backend: str = "nextpert",
    layer: str | None = None,
    rng: int | np.random.Generator | None = 0,
    n_jobs: int = 1,
    show_progress: bool = False,
    key_added: str = "dag",
    copy: bool = False,
) -> ad.AnnData | None:
    """Learn the graph of a gene panel from control cells, or take your own.

    The greedy sparsest permutation algorithm (GSP) looks for the order of genes whose minimal
    I-map has the fewest arcs, testing partial correlations with Fisher's z, two-sided, at
    ``alpha`` (Solus et al. 2021, doi:10.1093/biomet/asaa104; as used by Zhang et al. 2023,
    doi:10.1038/s42256-023-00719-0).

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory or backed.
    genes
        The panel; ``None`` (default) takes every gene, or those of the given graph. GSP suits
        panels of up to a hundred genes or so.
    perturbation_key
        Column of ``adata.obs`` with the label of every cell.
    control
        Label of the unperturbed cells, the only ones that are read.
    method
        ``"gsp"`` (default), or ``"given"`` to use ``dag``.
    dag
        Your own graph, for ``method="given"``: arcs as pairs ``(parent, child)`` of gene names
        (name the panel in ``genes`` if it has genes without arcs), a DataFrame (rows = parents,
        columns = children), a matrix over the panel (row = parent) or a
        :class:`nextpert.core.Dag`. No cells are read then.
    alpha
        Significance level of the tests, above 0 and below 1.
    depth
        Largest number of arcs turned round in search of a sparser graph.
    n_runs
        Number of restarts.
    before
        Prior knowledge: pairs ``(earlier, later)`` of genes; no path leads from the later to the
        earlier, and none need lead from the earlier to the later.
    tiers
        Prior knowledge: lists of genes, the most upstream first, or a mapping gene -> tier.
        No path leads from a later tier to an earlier one; genes in no tier are free.
    required, forbidden
        Prior knowledge: arcs ``(parent, child)`` that the graph must, or must not, have.
    backend
        ``"nextpert"``, or ``"causaldag"`` for the original implementation, where the extra
        ``nextpert[causaldag]`` is installed.
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    rng
        Seed or generator.
    n_jobs
        Number of threads; the result does not depend on it.
    show_progress
        Whether to show a progress bar.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Fields written:

        - ``varp["dag"]``: the graph over all genes, CSR ``(n_vars, n_vars)``, row = parent,
          column = child, ones on arcs.
        - ``uns["dag"]``: ``genes``, ``n_edges``, ``order`` (the genes in topological order) and
          ``params``; where the graph was learned also ``n_control_cells`` and, by our own
          backend, ``run_n_edges`` (number of arcs at the end of every run, shape ``(n_runs,)``).

    Raises
    ------
    ValueError
        If a gene is absent, given twice or constant among the control cells, a value is NaN or
        infinite, there are no control cells or too few for the panel, the column of labels is
        absent, or ``alpha`` is not between 0 and 1. Nothing is written then.
    nextpert.core.CycleError
        If the given graph, or the prior knowledge, runs in a circle; its genes are named.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd, nextpert as npt
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 500))
    >>> x = np.column_stack([a, b, a + b + rng.normal(size=500)])
    >>> obs = pd.DataFrame({"perturbation": ["control"] * 500}, index=np.arange(500).astype(str))
    >>> adata = ad.AnnData(x, obs, pd.DataFrame(index=["A", "B", "C"]))
    >>> npt.tl.learn_dag(adata, n_runs=10)
    >>> adata.varp["dag"].toarray().astype(int).tolist()
    [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    """
    _adata.check_key(key_added)
    _adata.check_writable(adata, copy=copy)
    _check_options(method, dag, backend, alpha)
    params: dict[str, Any] = {"method": method}
    stored: dict[str, Any] = {}
    if method == "given":
        panel = None if genes is None else _adata.resolve_panel(adata, genes)[0]
        names, columns, graph = given_graph(adata, dag, panel)
        order = graph.order
    else:
        names, columns = _adata.resolve_panel(adata, genes, least=2)
        options = SearchOptions(alpha, depth, n_runs, n_jobs, show_progress, backend, rng)
        prior = read_prior(names, before, tiers, required, forbidden)
        labels = _adata.read_labels(adata, perturbation_key)
        _adata.require_control(labels, control)
        groups = labels.groups([control])
        (cells,) = _adata.environment_moments(adata, columns, groups, 1, layer=layer)
        _require_enough(cells, names)
        graph, order, run_n_edges = search(cells, names, prior, options)
        params |= {
            "alpha": float(alpha),
            "depth": int(depth),
            "n_runs": int(n_runs),
            "backend": backend,
            "perturbation_key": perturbation_key,
            "control": control,
        }
        if layer is not None:
            params["layer"] = layer
        stored["n_control_cells"] = cells.n
        if run_n_edges is not None:
            stored["run_n_edges"] = run_n_edges
    stored |= {
        "genes": _adata.strings(names),
        "n_edges": graph.n_edges,
        "order": _adata.strings(names[i] for i in order),
        "params": params,
    }
    matrix = _adata.to_all_genes(graph.to_matrix(), columns, adata.n_vars)
    logger.info("Graph of %d genes with %d arcs (%s).", len(names), graph.n_edges, method)
    return _adata.write_results(adata, uns={key_added: stored}, varp={key_added: matrix}, copy=copy)


def _check_options(method: str, dag: Any, backend: str, alpha: float) -> None:
    for name, value, known in (("method", method, METHODS), ("backend", backend, BACKENDS)):
        if value not in known:
            message = f"{name} must be one of {', '.join(known)}, but is {value!r}."
            raise ValueError(message)
    if (method == "given") != (dag is not None):
        message = 'method="given" and dag belong together: give both or neither.'
        raise ValueError(message)
    if not 0 < alpha < 1:
        message = f"alpha must lie between 0 and 1, both excluded, but is {alpha!r}."
        raise ValueError(message)


def _require_enough(cells: Moments, genes: list[str]) -> None:
    # Fisher's z of a pair given all other genes needs n - (p - 2) - 3 > 0.
    if cells.n < len(genes) + 2:
        message = (
            f"Only {cells.n} control cells for {len(genes)} genes: learn the graph from fewer "
            f"genes (genes=[...]) or from at least {len(genes) + 2} control cells."
        )
        raise ValueError(message)
    require_varying(cells, genes)
