"""``tl.learn_dag``: the graph of a gene panel, from control cells or from all cells."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata
from nextpert._adata import strings
from nextpert._adata.arguments import WORKERS, checked, one_of, options
from nextpert._adata.graph import HeldOutRecord, graphs_record, resampled_screens
from nextpert._adata.labels import left_out_table, say_left_out
from nextpert._adata.presets import PRESETS
from nextpert._adata.progress import progress
from nextpert._adata.read import read_screens
from nextpert._adata.roles import read_roles
from nextpert._adata.screen import coding_without, describe, read_environments, without_sets
from nextpert._adata.table import require_cells
from nextpert._warn import warn
from nextpert.core._checks import as_rng
from nextpert.core._codec import pack
from nextpert.core.fit.learn import folds_of
from nextpert.core.search._classes import INTERVENTIONS, OPEN, oriented_by
from nextpert.core.search.context import Joint, search
from nextpert.core.search.minimal_imap import are_few
from nextpert.core.search.registry import SearchOptions, names_that, searches
from nextpert.study.context_nodes import context_nodes, log_explained, target_table
from nextpert.study.environments import require_varying
from nextpert.study.prior import (
    GraphPrior,
    read_prior,
    read_targets,
    stored_knowledge,
    stored_targets,
)
from nextpert.study.searches import HeldOut, graphs_without, resampled_graphs
from nextpert.tl._read_graphs import given_graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.screen import Environments
    from nextpert.core import Dag, Moments


logger = logging.getLogger(__name__)


@options(prior=GraphPrior)
@dataclass(frozen=True)
class _SearchOptions:
    """``search_options``: each is documented there."""

    n_runs: int | None = None
    prior: Mapping[str, Any] | None = None


@checked(
    method=one_of(lambda: [*searches(), "given"]),
    environments=one_of("control", "all"),
    n_jobs=WORKERS,
    search_options=_SearchOptions,
    preset=one_of(*PRESETS),
)
def learn_dag(
    adata: ad.AnnData,
    *,
    genes: Iterable[str] | None = None,
    method: str = "gsp",
    environments: str = "control",
    dag: Any = None,
    n_graphs: int = 1,
    search_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    rng: int | np.random.Generator | None = 0,
    n_jobs: int = 1,
    key_added: str = "dag",
    copy: bool = False,
) -> ad.AnnData | None:
    """Learn the graph of a gene panel from control cells or from all cells, or store a given graph.

    We recommend ``method="boss", environments="all"`` (best order score search; Andrews et al.
    2023, arXiv:2310.17679): perturbed cells orient edges that control cells leave unoriented.
    Perturbations, conditions and covariates are context nodes without parents (joint causal
    inference; Mooij et al. 2020, JMLR 21:99), so targets need not be measured. The default is the
    greedy sparsest permutation algorithm on control cells (GSP; Solus et al. 2021,
    doi:10.1093/biomet/asaa104), as in Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0), with one
    more start from the order that BOSS finds. See :doc:`/guides/learn_a_graph`.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory, backed or lazy.
        Declare columns of labels, batches and guides with :func:`nextpert.pp.setup_screen`.
    genes
        The panel. ``None`` (default) takes every gene, or the genes of the edges in ``dag``.
    method
        ``"gsp"`` (default), ``"boss"``, ``"causaldag"`` (the original GSP; install
        ``nextpert[causaldag]``), or ``"given"`` to use ``dag``.
    environments
        ``"control"`` (default) or, with ``method="boss"``, ``"all"`` labelled cells. Of more than
        300 perturbations, the strongest 300 orient edges; the others inform only the covariance.
        Graphs without each fifth of the perturbations, which judge the graph, are learned as well.
    dag
        Your own graph, with ``method="given"``: edges as pairs ``(parent, child)``, a matrix over
        the panel (row = parent), or a :class:`nextpert.core.Dag`.
    n_graphs
        Number of bootstrap graphs (25 is usual), with which credible intervals include uncertainty
        about the graph; 1 learns none.
    search_options
        Rarely changed options, a mapping with some of:

        - ``"n_runs"``: number of starts, 100 for GSP and 10 for BOSS (3 above 100 genes). With at
          most 50 genes, BOSS then restarts 20 times from its best order, slightly perturbed.
        - ``"prior"``: a mapping with ``"before"`` (pairs ``(earlier, later)``: no path leads back),
          ``"tiers"`` (lists of genes, upstream first, or gene -> tier), ``"required"`` and
          ``"forbidden"`` (edges ``(parent, child)``), and ``"perturbation_targets"``:
          ``"learned"`` (default), ``"known"`` (the perturbed gene alone), or perturbation -> genes.
    preset
        ``"zhang2023"``: GSP on control cells with 1,000 starts; arguments must not contradict it.
    rng
        Seed or generator of the starts and resamples.
    n_jobs
        Number of threads; the result does not depend on it.
    key_added, copy
        Name of the results, and whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. :doc:`/model/stored_results` lists all fields.
        Fields written:

        - ``varp["dag"]`` (sparse, ``(n_vars, n_vars)``): the graph, row = parent, 1 for each edge.
        - ``varp["dag_frequency"]`` (sparse, ``(n_vars, n_vars)``): share of bootstrap graphs with
          each edge.

        Fields of ``uns["dag"]``:

        - ``edges`` (table): ``parent``, ``child``, and what the edge is ``oriented_by``.
        - ``direct_targets`` (table): edges from context nodes into genes.

    Raises
    ------
    ValueError
        If genes, columns or controls are absent, a gene is constant, or values are not finite or
        not log-normalised; :class:`nextpert.core.CycleError` if the graph or the prior has a cycle.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.learn_dag(adata, method="boss", environments="all")
    >>> edges = adata.uns["dag"]["edges"]  # of which genes is GATA1 a parent?
    >>> edges.loc[edges["parent"] == "GATA1", ["child", "oriented_by"]].head(2)
         child    oriented_by
    0   ANGPT1  interventions
    7    ASAP1          cells
    """
    chosen = _SearchOptions(**search_options or {})
    _check_together(method, environments, dag, n_graphs, chosen)
    roles = read_roles(adata)
    params: dict[str, Any] = {"method": method}
    frequency = None
    if method == "given":
        names, columns, graph = given_graph(adata, dag, genes)
        stored: dict[str, Any] = {"order": strings(names[i] for i in graph.order)}
    else:
        require_cells(adata, f"learn_dag with method={method!r}")
        names, columns = _adata.resolve_panel(adata, genes, least=2)
        all_environments = read_environments(adata, roles)
        kind, is_all = searches()[method], environments == "all"
        read = all_environments if is_all else all_environments.only([roles.control])
        n_runs = int(kind.default_runs(len(names)) if chosen.n_runs is None else chosen.n_runs)
        prior = GraphPrior(**chosen.prior or {})
        options = SearchOptions(method, n_runs, read_prior(names, prior))
        _adata.check_scale(adata, columns, np.flatnonzero(read.codes >= 0), roles)
        if is_all:
            say_left_out(all_environments.left_out, roles.perturbation_key)
        if prior.perturbation_targets != "learned" and not is_all:
            message = (
                f'perturbation_targets needs environments="all", but environments is '
                f"{environments!r}, which reads no perturbed cells."
            )
            raise ValueError(message)
        targets = read_targets(prior.perturbation_targets, read, names)
        panel = _Panel(adata, columns, names, read, targets)
        graph, stored, frequency = _from_cells(panel, n_graphs, options, as_rng(rng), n_jobs)
        if is_all:
            stored["left_out"] = left_out_table(all_environments.left_out)
        elif stored["edges"]["oriented_by"].eq(OPEN).any() and all_environments.perturbations():
            logger.info(
                'The cells of %d perturbations were not read: method="boss", environments="all" '
                "also learns from perturbed cells, and orients more edges.",
                len(all_environments.perturbations()),
            )
        stored |= _adata.origin_of_cells(adata, roles, columns, only_controls=not is_all)
        params |= {"n_runs": n_runs, "environments": environments, "n_graphs": n_graphs}
        params |= {**roles.stored(), "rng": _adata.seed_of(rng)}
    if roles.gene_symbols:
        params["gene_symbols"] = roles.gene_symbols
    stored |= {"genes": strings(names), "n_edges": graph.n_edges, "params": params}
    varp = {key_added: _adata.to_all_genes(graph.to_matrix(), columns, adata.n_vars)}
    if frequency is not None:
        stored["frequency_key"] = f"{key_added}_frequency"
        every_gene = _adata.to_all_genes(frequency, columns, adata.n_vars)
        varp[stored["frequency_key"]] = every_gene
    logger.info("Graph of %d genes with %d edges (%s).", len(names), graph.n_edges, method)
    earlier = adata.uns.get(key_added)
    stale = earlier.get("frequency_key") if hasattr(earlier, "get") else None
    written = _adata.write_results(adata, uns={key_added: stored}, varp=varp, copy=copy)
    target = adata if written is None else written
    # Frequencies of a graph that is overwritten are deleted with it.
    if isinstance(stale, str) and stale not in varp and stale in target.varp:
        del target.varp[stale]
    return written


class _Panel(NamedTuple):
    """The cells that are read, and the genes whose graph is learned."""

    adata: ad.AnnData
    columns: NDArray[np.int64]  # of the genes, (n_genes,)
    genes: list[str]  # their names
    environments: Environments  # of the cells
    targets: Mapping[str, Sequence[str]]  # genes on which perturbations are known to act, by name


def _check_together(
    method: str, environments: str, dag: Any, n_graphs: int, chosen: _SearchOptions
) -> None:
    """Raise if arguments of :func:`learn_dag` contradict each other."""
    kind, message = searches().get(method), ""
    if (method == "given") != (dag is not None):
        message = 'method="given" needs dag, and dag needs method="given": give both or neither.'
    elif environments == "all" and not (kind and kind.context):
        message = (
            f'environments="all" needs method={names_that(lambda s: s.context)}, but method is '
            f"{method!r}, which assumes that all cells come from one environment."
        )
    elif method == "given" and (n_graphs > 1 or chosen.prior is not None):
        name = "n_graphs" if n_graphs > 1 else "prior"
        message = f'{name} applies only to learned graphs: leave it out with method="given".'
    if message:
        raise ValueError(message)


def _from_cells(
    panel: _Panel, n_graphs: int, options: SearchOptions, rng: np.random.Generator, n_jobs: int
) -> tuple[Dag, dict[str, Any], sp.csr_array | None]:
    """Return the graph of the cells, what is stored of it, and frequencies of edges, if any."""
    adata, columns, genes, environments, known_targets = panel
    context = context_nodes(environments, genes, known_targets)
    folds = folds_of(environments.perturbations())
    # All cells, and the cells without each fold, in one pass.
    coding = coding_without(environments, [[], *folds])
    (screen,) = read_screens(adata, columns, [coding], layer=environments.roles.layer)
    ((_, moments),) = without_sets(environments, screen, [[]])
    joint = Joint.of(moments, len(genes), context)
    held_out = HeldOut(environments, options, known_targets, deepcopy(rng), {})
    logger.info("%s.", describe(environments))
    log_explained(joint, context)
    is_control = environments.is_control
    kind_of_cells = "control cells" if is_control.all() else "cells"
    _require_enough(
        joint.moments.subset(np.arange(len(genes))), genes, options.method, kind_of_cells
    )
    with progress(options.n_runs, options.method.upper()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        best = search(joint, genes, options, rng, "among the cells", n_jobs=n_jobs, progress=show)
    edges = oriented_by(best.dag, best.context_edges, options.prior)
    stored = {
        "order": strings(genes[i] for i in best.order),
        "n_control_cells": int(moments.n[is_control].sum()),
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
        # Cells are resampled within environments, and guides as a whole.
        seeds = rng.integers(0, 2**64, n_graphs, dtype=np.uint64)
        streams = rng.spawn(n_graphs)  # one per resample, whichever worker takes it
        screens = resampled_screens(adata, columns, environments, seeds)
        graphs, of_context = resampled_graphs(screens, streams, genes, context, from_there, n_jobs)
        of_context = of_context[joint.present]
        frequency = sp.csr_array(sum(graphs[1:], start=graphs[0]) / n_graphs)
        frequencies = frequency.toarray()
        stored["edges"]["frequency"] = np.array([frequencies[x, y] for x, y, _ in edges])
        stored["edges"]["adjacency"] = np.array(
            [frequencies[x, y] + frequencies[y, x] for x, y, _ in edges]
        )
        stored["graphs"] = pack(graphs_record(graphs))
    if folds:
        dags = graphs_without(best.dag, held_out, screen, genes, folds, n_jobs=n_jobs)
        record = graphs_record([dag.to_matrix() for dag in dags])
        present = _adata.fingerprint(adata, environments.roles, columns)
        stored["held_out"] = pack(HeldOutRecord(folds, record, present))
    if joint.names:
        stored["direct_targets"] = target_table(joint.names, genes, best.context_edges, of_context)
    by = [how for _, _, how in edges]
    logger.info(
        "%d edges are oriented by interventions; %d remain unoriented (see the table 'edges').",
        by.count(INTERVENTIONS),
        by.count(OPEN),
    )
    return best.dag, stored, frequency


def _require_enough(cells: Moments, genes: list[str], method: str, kind_of_cells: str) -> None:
    require_varying(cells, genes, kind_of_cells)
    if are_few(cells.n, len(genes)) and cells.n > 3:
        hint = ' GSP then finds few edges: use method="boss".' if method == "gsp" else ""
        message = (
            f"Only {cells.n} {kind_of_cells} for {len(genes)} genes: correlations are shrunk, as "
            f"if 5 cells of independent genes had been added, and weak edges are missed. Use fewer "
            f"genes (genes=[...]) or at least {len(genes) + 2} {kind_of_cells}.{hint}"
        )
        warn(message)
