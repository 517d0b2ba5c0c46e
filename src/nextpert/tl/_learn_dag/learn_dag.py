"""``tl.learn_dag``: the graph of a gene panel, from control cells."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata.environments import require_varying, warn_values
from nextpert.core._checks import as_rng, require_count
from nextpert.core.search._open_arcs import open_arcs
from nextpert.core.search._statistics import are_few
from nextpert.tl._learn_dag.given import given_graph
from nextpert.tl._learn_dag.resample import resample
from nextpert.tl._learn_dag.search import (
    SearchOptions,
    Workers,
    default_runs,
    frequencies,
    read_prior,
    search,
    warn_if_not_sparsest,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert.core import Moments

logger = logging.getLogger(__name__)

KNOWN = {
    "method": ("gsp", "boss", "given"),
    "score": ("bic", "bge"),
    "backend": ("nextpert", "causaldag"),
}


def learn_dag(
    adata: ad.AnnData,
    *,
    genes: Iterable[str] | None = None,
    gene_symbols: str | None = None,
    perturbation_key: str = "perturbation",
    control: str = "control",
    method: str = "gsp",
    dag: Any = None,
    alpha: float = 1e-3,
    depth: int = 4,
    score: str = "bic",
    penalty: float = 2.0,
    n_runs: int | None = None,
    n_bootstraps: int = 0,
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
    doi:10.1038/s42256-023-00719-0). The best-order score search (BOSS; Andrews et al. 2023,
    arXiv:2310.17679) moves one gene after the other to its best place in the order.

    One run of GSP starts from the order that BOSS finds, for those it draws itself are often far
    from the sparsest: in 20 models of 36 genes (109 arcs, 5,039 cells) GSP alone ended with 116.5
    arcs, 12.2 edges from the truth's equivalence class; from BOSS's order with 109.6, 0.6 from it,
    and with 500 cells 3.9 (BOSS itself 0.5 and 2.4). In 5,000 cells of 100 genes, 6 neighbours
    each, the F1 of BOSS's adjacencies is above 0.99; at 400 genes, 0.997.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory or backed.
    genes
        The panel; ``None`` (default) takes every gene, or those of the given graph.
    gene_symbols
        Column of ``adata.var`` with the names of genes that labels, ``genes`` and arcs use, where
        ``adata.var_names`` holds others (Ensembl ids); later calls take it from the graph.
    perturbation_key
        Column of ``adata.obs`` with the label of every cell.
    control
        Label of the unperturbed cells, the only ones that are read.
    method
        ``"gsp"`` (default), ``"boss"``, or ``"given"`` to use ``dag``.
    dag
        Your own graph, for ``method="given"``: arcs as pairs ``(parent, child)`` of gene names
        (name the panel in ``genes`` if it has genes without arcs), a DataFrame (rows = parents,
        columns = children), a matrix over the panel (row = parent) or a
        :class:`nextpert.core.Dag`. No cells are read then.
    alpha
        GSP: significance level of the tests, above 0 and below 1.
    depth
        GSP: largest number of arcs turned round in search of a sparser graph.
    score
        BOSS: ``"bic"``, or ``"bge"`` for the marginal likelihood (see
        :func:`nextpert.core.boss`).
    penalty
        BOSS: factor on the penalty of the BIC; 1 is the BIC proper, higher gives fewer arcs.
    n_runs
        Number of restarts; ``None`` (default) stands for 100 of GSP and for 10 of BOSS (3 above
        100 genes). In 8 of 23 models of 20 to 100 genes, simulated as above, a single start of
        BOSS ended with 3 to 63 % more arcs than are true; the best of 10 did in none.
    n_bootstraps
        Number of resamples of the control cells to search as well, for the frequency of every
        arc; see :func:`nextpert.core.bootstrap_dag`. In a resample a cell counts ``w`` times,
        ``w`` Poisson of mean 1 (the Poisson bootstrap), so the number of cells varies a little.
        All resamples are made in one pass, in ``8 n_bootstraps n_genes^2`` bytes.
    before
        Prior knowledge: pairs ``(earlier, later)`` of genes; no path leads from the later to the
        earlier, and none need lead from the earlier to the later.
    tiers
        Prior knowledge: lists of genes, the most upstream first, or a mapping gene -> tier.
        No path leads from a later tier to an earlier one; genes in no tier are free.
    required, forbidden
        Prior knowledge: arcs ``(parent, child)`` that the graph must, or must not, have.
    backend
        ``"nextpert"``, or ``"causaldag"`` for the original implementation of GSP, where the extra
        ``nextpert[causaldag]`` is installed.
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    rng
        Seed or generator.
    n_jobs
        Number of threads; the result does not depend on it. With joblib's dask backend
        (``joblib.parallel_config("dask")``) runs and bootstraps are spread over a cluster.
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
        - ``varp["dag_frequency"]``, with ``n_bootstraps``: share of the resamples whose graph has
          the arc, laid out the same way. Cells without perturbations do not tell directions of
          Markov equivalent graphs apart: the frequency of an adjacency is the sum of both.
        - ``uns["dag"]``: ``genes``, ``n_edges``, ``order`` (the genes in topological order) and
          ``params``; where the graph was learned also ``n_control_cells`` and ``open_arcs``, of
          GSP by our own backend ``run_n_edges`` (number of arcs at the end of every run, the one
          from BOSS's order last, shape ``(n_runs + 1,)``), of BOSS ``score`` and ``run_scores``,
          and with ``n_bootstraps`` ``frequency_key``. ``open_arcs`` are the arcs (parent, child)
          that point the other way in another graph that fits these cells as well and agrees with
          the prior knowledge, shape ``(n_open, 2)``.

    Warns
    -----
    UserWarning
        With fewer control cells than genes (and two), for which correlations are shrunk; and with
        ``backend="causaldag"``, if its graph is not the sparsest: the order found by BOSS has
        a minimal I-map of fewer arcs at the same ``alpha``.

    Raises
    ------
    ValueError
        If a gene is absent, given twice or constant among the control cells, a value is NaN or
        infinite, there are fewer than four control cells, the column of labels is
        absent, an option is unknown or out of range, or a gene is constant in a resample. Nothing
        is written then.
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
    _adata.check_arguments(locals())
    _adata.check_key(key_added)
    _adata.check_writable(adata, copy=copy)
    _check_options({"method": method, "score": score, "backend": backend}, dag, alpha)
    n_bootstraps = _check_bootstraps(n_bootstraps, method)
    params: dict[str, Any] = {"method": method}
    stored: dict[str, Any] = {}
    varp: dict[str, Any] = {}
    if method == "given":
        panel = (
            None
            if genes is None
            else _adata.resolve_panel(adata, genes, gene_symbols=gene_symbols)[0]
        )
        names, columns, graph = given_graph(adata, dag, panel, gene_symbols)
        order = graph.order
    else:
        names, columns = _adata.resolve_panel(adata, genes, least=2, gene_symbols=gene_symbols)
        runs = default_runs(method, len(names)) if n_runs is None else n_runs
        options = SearchOptions(method, alpha, depth, score, penalty, runs, backend)
        prior = read_prior(names, before, tiers, required, forbidden)
        labels = _adata.read_labels(adata, perturbation_key)
        _adata.require_control(labels, control)
        groups = labels.groups([control])
        (cells,) = _adata.environment_moments(
            adata, columns, groups, 1, layer=layer, show_progress=show_progress
        )
        _require_enough(cells, names, method)
        warn_values(cells, layer)
        rng, workers = as_rng(rng), Workers(n_jobs, show_progress)
        found = search(cells, names, prior, options, rng, workers)
        graph, order = found.dag, found.order
        if backend == "causaldag":
            warn_if_not_sparsest(cells, graph, prior, alpha)
        params = options.used() | {"perturbation_key": perturbation_key, "control": control}
        if layer is not None:
            params["layer"] = layer
        turnable = open_arcs(graph, prior)
        stored |= {"n_control_cells": cells.n, "open_arcs": _pairs(turnable, names), **found.stored}
        if n_bootstraps:
            controls = np.flatnonzero(groups == 0)
            resampled = resample(adata, columns, controls, n_bootstraps, rng, layer=layer)
            share = frequencies(resampled, names, prior, options, rng, workers)
            params["n_bootstraps"] = n_bootstraps
            stored["frequency_key"] = f"{key_added}_frequency"
            varp[stored["frequency_key"]] = _adata.to_all_genes(share, columns, adata.n_vars)
    if gene_symbols is not None:
        params["gene_symbols"] = gene_symbols
    stored |= {
        "genes": _adata.strings(names),
        "n_edges": graph.n_edges,
        "order": _adata.strings(names[i] for i in order),
        "params": params,
    }
    varp[key_added] = _adata.to_all_genes(graph.to_matrix(), columns, adata.n_vars)
    logger.info("Graph of %d genes with %d arcs (%s).", len(names), graph.n_edges, method)
    if method != "given":
        logger.info(
            "The cells do not tell the direction of %d of these arcs (uns[%r]['open_arcs']).",
            len(stored["open_arcs"]), key_added,
        )  # fmt: skip
    return _write(adata, key_added, stored, varp, copy=copy)


def _pairs(arcs: list[tuple[int, int]], names: list[str]) -> NDArray[np.object_]:
    """Return arcs as rows of two gene names, as the objects that come back from a file."""
    return _adata.strings(names[i] for arc in arcs for i in arc).reshape(-1, 2)


def _write(
    adata: ad.AnnData, key: str, stored: dict[str, Any], varp: dict[str, Any], *, copy: bool
) -> ad.AnnData | None:
    """Write the results; frequencies of a graph that is written over go with it."""
    earlier = adata.uns.get(key)
    stale = earlier.get("frequency_key") if hasattr(earlier, "get") else None
    written = _adata.write_results(adata, uns={key: stored}, varp=varp, copy=copy)
    target = adata if written is None else written
    if isinstance(stale, str) and stale not in varp and stale in target.varp:
        del target.varp[stale]
    return written


def _check_options(chosen: dict[str, str], dag: Any, alpha: float) -> None:
    for name, value in chosen.items():
        if value not in KNOWN[name]:
            message = f"{name} must be one of {', '.join(KNOWN[name])}, but is {value!r}."
            raise ValueError(message)
    method, backend = chosen["method"], chosen["backend"]
    if (method == "given") != (dag is not None):
        message = 'method="given" and dag belong together: give both or neither.'
        raise ValueError(message)
    if method == "boss" and backend != "nextpert":
        message = f'backend={backend!r} has no method="boss": use method="gsp" with it.'
        raise ValueError(message)
    if isinstance(alpha, str) or not 0 < alpha < 1:
        message = f"alpha must lie between 0 and 1, both excluded, but is {alpha!r}."
        raise ValueError(message)


def _check_bootstraps(n_bootstraps: int, method: str) -> int:
    n_bootstraps = require_count(n_bootstraps, "n_bootstraps", least=0)
    if n_bootstraps and method == "given":
        message = 'n_bootstraps needs a graph that is learned: leave it out with method="given".'
        raise ValueError(message)
    return n_bootstraps


def _require_enough(cells: Moments, genes: list[str], method: str) -> None:
    if cells.n < 4:
        message = (
            f"Only {cells.n} control cells: a graph needs at least 4, and {len(genes) + 2} for "
            f'{len(genes)} genes to be sound. Give your own graph (method="given") without them.'
        )
        raise ValueError(message)
    require_varying(cells, genes)
    if are_few(cells.n, len(genes)):
        hint = ' GSP finds few arcs in this way: use method="boss".' if method == "gsp" else ""
        message = (
            f"Only {cells.n} control cells for {len(genes)} genes: correlations are shrunk, as if "
            f"5 cells of independent genes had been seen as well, and weak arcs are missed. Take "
            f"fewer genes (genes=[...]) or {len(genes) + 2} control cells and more.{hint}"
        )
        warnings.warn(message, UserWarning, stacklevel=3)
