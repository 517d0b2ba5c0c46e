"""``tl.fit_dag_blr``: the posterior over the weights of the graph."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import WORKERS, above, checked, one_of, options
from nextpert._adata.labels import left_out_table
from nextpert._adata.presets import PRESETS
from nextpert._adata.progress import reported
from nextpert._adata.table import is_table, lacks_replicates
from nextpert._adata.undeclared_batches import undeclared_batches, warn_undeclared_batches
from nextpert._adata.undeclared_guides import undeclared_guides, warn_undeclared
from nextpert.core import DagBlr
from nextpert.core._codec import digest_of, pack
from nextpert.core.causal.weights import fit_weights
from nextpert.core.fit.learn import Graphs, Model, Spec, folds_of
from nextpert.study import environments
from nextpert.study.record import record_of
from nextpert.study.searches import graphs_without
from nextpert.study.shifts import KINDS
from nextpert.tl._cells import fit_environments, read_cells
from nextpert.tl._read_graphs import read_held_out

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray


logger = logging.getLogger(__name__)


@options(
    prior_scale=(one_of("evidence"), above(0)),
    prior_units=one_of("noise", "data", "evidence"),
    noise_var=(one_of("controls"), above(0)),
    intercept=one_of("centred"),
)
@dataclass(frozen=True)
class _PriorOptions:
    """``prior_options``: each is documented there."""

    prior_scale: str | float = "evidence"
    prior_units: str | None = None
    noise_var: str | float | Mapping[str, float] | pd.Series | None = None
    intercept: bool | str = True


@checked(
    preset=one_of(*PRESETS),
    shift=one_of(*KINDS),
    shift_sd=(one_of("learned"), one_of(0)),
    prior_options=_PriorOptions,
    n_jobs=WORKERS,
)
def fit_dag_blr(
    adata: ad.AnnData,
    *,
    dag_key: str = "dag",
    perturbations: Sequence[str] | None = None,
    shift: str | pd.DataFrame | Mapping[str, Mapping[str, float]] = "knockout",
    shift_sd: str | float = "learned",
    features: ad.AnnData | pd.DataFrame | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    prior_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    n_jobs: int | None = None,
    key_added: str = "dag_blr",
    copy: bool = False,
) -> ad.AnnData | None:
    """Fit the effects of perturbations and the weights of the graph to the cells (DAG-BLR).

    Effects, diagnosis, rankings and plans are computed from this fit. By default, a hierarchical
    model estimates effects from the cells of the perturbations (:doc:`/model/mathematics`,
    equations 13 to 24), and the weights of the graph are learned from cells centred on the mean of
    their environment. With ``shift_sd=0`` the fit is the exact model of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0, Definition 2 and Lemma 1), in which all shifts are known.
    Combinations are labels such as ``"MYC+STK3"``, in any order. Columns and layer are those of
    :func:`nextpert.pp.setup_screen`; with ``condition_key``, there are effects per condition.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory or backed.
    dag_key
        Graph in ``adata.varp`` (row = parent), from :func:`learn_dag` or put there by hand.
    perturbations
        Labels to use; ``None`` uses all labels, ``[]`` only the controls.
    shift
        The expected shift of target genes: ``"knockout"`` (default), minus their control mean, or
        ``"activation"``, plus one unit, times an efficacy learned from the screen. Or a table in
        units of the data: a DataFrame (perturbations x genes), or nested mappings.
    shift_sd
        ``"learned"`` (default), or ``0`` to take shifts as exact. Labels without a target on the
        panel are then left out.
    features
        Side information to predict perturbations without cells (:doc:`/guides/side_information`):
        a table of numbers, one row per perturbation or gene; an edge list with the columns
        ``source``, ``target``, ``weight``; a mapping of gene-set names to genes; an AnnData of
        the effects in another screen; or the path of a file with one of these. A warning names
        effects of the same cells, which would count twice.
    prior_options
        Rarely changed options for the weights, a mapping with some of:

        - ``"prior_scale"``: ``"evidence"`` (default) learns it; in the paper it is 1.
        - ``"prior_units"``: ``"noise"`` (unaffected by the scale of a gene), ``"data"`` (the paper)
          or ``"evidence"`` (the default if the scale is learned), which chooses between the two.
        - ``"noise_var"``: known noise variance in squared units, a number or one per gene; or
          ``"controls"``, the mean expected after the control cells (the paper's warm-up).
        - ``"intercept"`` (``True``): ``"centred"`` takes the control mean as exact, as the paper's
          centred data, for known shifts and ``"noise_var"``; ``False`` only for centred data.
    preset
        ``"zhang2023"``: ``shift_sd=0`` and ``prior_options`` of the paper
        (:doc:`/guides/the_paper`). Other arguments must not contradict it.
    n_jobs
        Number of workers; the result does not depend on it. ``None`` (default) uses all processors
        above 150,000 effects, or the Dask cluster set in joblib (:doc:`/guides/many_machines`).
    key_added, copy
        Name of the results, and whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. Fields written (:doc:`/model/stored_results`):

        - ``varp["dag_blr_mean"]`` (sparse, ``(n_vars, n_vars)``): mean weights, row = parent.

        Fields of ``uns["dag_blr"]``:

        - ``environments`` (table): perturbations used, with targets, shifts, cells and q-values.
        - ``left_out`` (table): labels not used, and why.
        - ``efficacy`` (mapping): unless exact, its ``mean`` (1 is a full knockout) and ``sd``.
        - ``predictors`` (mapping): unless exact, names and ``weights`` of the predictors.

    Raises
    ------
    ValueError
        If the graph, labels or controls are absent, the graph has a cycle or does not match the
        genes, values are not finite or not log-normalised, or (unless ``shift_sd=0``) a gene is
        constant in the controls.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.learn_dag(adata, method="boss", environments="all")
    >>> npt.tl.fit_dag_blr(adata)
    >>> len(npt.get.fitted_perturbations(adata))  # a table of their cells, guides and targets
    14
    """
    # Read: roles, side information, the graph and the labels of the cells.
    roles = _adata.read_roles(adata)
    if features is not None:
        features = _adata.load_features(features)
        _adata.require_other_cells(adata, features)
    chosen = _PriorOptions(**prior_options or {})
    if chosen.intercept == "centred" and (shift_sd != 0 or chosen.noise_var is None):
        message = (
            "prior_options={'intercept': 'centred'} takes known shifts and known noise variances: "
            "give shift_sd=0 and 'noise_var' (such as 'controls'), or leave it out."
        )
        raise ValueError(message)
    exact = shift_sd == 0
    genes, columns, dag = _adata.read_graph(adata, dag_key, roles.gene_symbols)
    graphs = _adata.read_graphs(adata, dag_key, genes, dag)
    symbols = roles.gene_symbols or _adata.symbols_of(adata.uns.get(dag_key))
    perturbations = None if perturbations is None else _adata.in_order(perturbations)
    labels = _adata.read_perturbations(adata, roles, named=perturbations)
    plan = environments.plan_environments(
        labels,
        genes,
        measured=_adata.measured_genes(adata, symbols),
        perturbations=perturbations,
        shift=shift,
        include_all=not exact,
    )
    used = np.flatnonzero(labels.groups([roles.control, *plan.names]) >= 0)
    _adata.check_scale(adata, columns, used, roles)
    # All cells in one pass: those of the fit, and of graphs without some perturbations.
    present = _adata.fingerprint(adata, roles, columns)
    by_fold = [] if exact else folds_of(plan.names)
    held_out = None
    if by_fold:
        held_out = read_held_out(adata, dag_key, roles, genes, columns, plan.names, present)
    unknown = [] if held_out is None else held_out.unknown(by_fold)
    if unknown:
        logger.info(
            "adata.uns[%r] has no graphs without folds of these perturbations and cells (another "
            "version wrote it, or labels, roles or cells differ): they are learned now. Run "
            "tl.learn_dag again to store them.",
            dag_key,
        )
    screen_environments = fit_environments(
        adata, replace(roles, guide_key=None) if exact else roles, plan.names
    )
    read_once = read_cells(
        adata,
        columns,
        screen_environments,
        plan.names,
        searches=held_out.environments if held_out is not None and unknown else None,
        sets=unknown,
    )
    guided = roles.guide_key is not None and not exact
    if guided:
        screen_environments.say_without_guide()
    cells = read_once.fit_cells(plan.names, guided=guided)
    if not exact:  # the exact model estimates no effect in units of a gene's deviation
        environments.require_varying(cells.control, genes)
    undeclared, batches = None, None
    if plan.names and not exact:
        undeclared = undeclared_guides(adata, columns, plan.names, roles)
        batches = undeclared_batches(adata, columns, plan.names, roles)
    searches = read_once.searches
    del read_once  # frees memory: for large screens it does not fit beside the posterior

    # Compute: what is known before the cells, the graphs, and the model.
    noise_var: Any = chosen.noise_var
    if isinstance(noise_var, (Mapping, pd.Series)):
        noise_var = _noise_variances(noise_var, genes)
    on = partial(
        DagBlr,
        intercept=bool(chosen.intercept),
        prior_scale=chosen.prior_scale,
        prior_units=chosen.prior_units,
    )
    if isinstance(noise_var, str):
        noise_var = noise_of_controls(adata, columns, replace(roles, guide_key=None), on(dag))
    spec = Spec(
        genes,
        plan,
        partial(on, noise_var=noise_var),
        screen_environments.naming_on(genes),
        None if features is None else _adata.read_features(features, genes, labels),
        exact,
        chosen.intercept == "centred",
    )
    # For every fold, a graph learned without it; a graph that was given, or was learned from the
    # controls alone, was learned without all of them.
    every_graph = Graphs(
        dag,
        graphs,
        lambda folds: graphs_without(dag, held_out, searches, genes, folds, n_jobs=n_jobs),
    )
    with reported("Sampling effects") as progress:
        model = Model.fit(spec, cells, every_graph, progress, n_jobs)

    # Report what a user has to know about the cells and the result.
    environments.warn_other_layer(roles.layer, adata.uns.get(dag_key))
    environments.report(plan, screen_environments.confounded(plan.names) if roles.batch_key else [])
    if undeclared is not None:
        warn_undeclared(undeclared)
    if cells.spread is not None:
        environments.warn_assumed_guides(cells.spread, str(roles.guide_key))
    if batches is not None:
        warn_undeclared_batches(batches)
    if spec.features is not None and model.weighted is not None:
        _adata.warn_own_effects(features, spec.features, model.weighted.measured, genes)
    if exact:
        environments.warn_hardly_expressed(model.expected.used, cells.control, genes)
    _log(model, is_table=is_table(adata))

    # Write: the fit and its digest, and the mean of the weights over all genes.
    params: dict[str, Any] = {
        "dag_key": dag_key,
        **roles.stored(),
        "shift": plan.shift if isinstance(plan.shift, str) else "table",
        "shift_sd": 0.0 if exact else "learned",
        "separator": roles.separator,
        "prior_scale": chosen.prior_scale,
        "prior_units": model.posterior.prior_units,
        "intercept": chosen.intercept,
    }
    if symbols:
        params["gene_symbols"] = symbols
    if _adata.panel_of(adata.uns.get(dag_key)) is not None:  # one that a user wrote has no record
        params["graph_record"] = True
    if is_table(adata) and lacks_replicates(adata):
        params["lacks_replicates"] = True
    n_cells = {name: labels.n_cells(name) for name, _ in plan.left_out}
    record = record_of(
        model,
        params,
        left_out=left_out_table(n_cells, [why for _, why in plan.left_out]),
        cells=dict(zip(("roles", "values"), present.split(), strict=True)),
    )
    mean = _adata.to_all_genes(model.posterior.mean().T, columns, adata.n_vars)
    stored = pack(record)
    stored["digest"] = digest_of({name: stored[name] for name in stored if name != "cells"})
    return _adata.write_results(
        adata, uns={key_added: stored}, varp={f"{key_added}_mean": mean}, copy=copy
    )


def _log(model: Model, *, is_table: bool) -> None:
    """Log what was fitted, and the efficacy."""
    efficacy, of_targets = model.expected.efficacy, ""
    if efficacy is not None:
        n = efficacy.n_measured
        efficacy_in_words = (
            f"from {n} target genes" if n else "assumed, because no target gene was measured"
        )
        of_targets = f" Efficacy {efficacy.mean:.2f} ± {efficacy.sd:.2f} ({efficacy_in_words})."
    n_cells = model.cells.pooled.n_cells[1:]
    logger.info(
        "Fitted %d edge weights to %s of %d perturbations%s.%s",
        model.posterior.dag.n_edges,
        "the effects"
        if is_table
        else f"{model.cells.control.n} control cells and {n_cells.sum()} cells",
        len(n_cells),
        " (exact shifts)" if model.spec.exact else "",
        of_targets,
    )


def noise_of_controls(
    adata: ad.AnnData, columns: NDArray[np.int64], roles: _adata.Roles, blr: DagBlr
) -> NDArray[np.float64]:
    """Return the noise variances expected after the control cells alone, shape ``(n_genes,)``.

    ``blr`` has the graph and the prior, before any cells.
    """
    read = read_cells(adata, columns, fit_environments(adata, roles, []), [])
    pooled = read.fit_cells([], guided=False).pooled
    unscaled = replace(pooled, variance_ratio=np.ones_like(pooled.variance_ratio))
    return fit_weights(blr, unscaled, np.zeros((0, blr.n_nodes))).noise_var


def _noise_variances(
    noise_var: Mapping[str, float] | pd.Series, genes: Sequence[str]
) -> NDArray[np.float64]:
    by_gene = {str(gene): float(value) for gene, value in noise_var.items()}
    absent = [gene for gene in genes if gene not in by_gene]
    if absent:
        message = (
            f"noise_var has no value for {_adata.list_names(absent)}: give a value for every gene "
            f"of the panel, or None to infer all noise variances."
        )
        raise ValueError(message)
    return np.array([by_gene[gene] for gene in genes])
