"""``tl.fit_dag_blr``: the posterior over the weights of the graph."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata import effects as _shifts
from nextpert._adata import environments
from nextpert._adata.arguments import above, checked, one_of, options
from nextpert._adata.labels import left_out_table
from nextpert._adata.members import Naming
from nextpert._adata.nested import undeclared_guides, warn_undeclared
from nextpert._adata.posterior import fingerprint_weights
from nextpert._adata.roles import declared, role_texts
from nextpert._adata.table import is_table
from nextpert.core import DagBlr
from nextpert.core._codec import digest_of, pack
from nextpert.tl._fit_dag_blr.cells import fit_environments, read_cells
from nextpert.tl._fit_dag_blr.model import (
    Graphs,
    Model,
    Spec,
    folds_of,
)
from nextpert.tl._learn_dag.graphs import fold_streams, graphs_without, read_held_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert.core import Dag

logger = logging.getLogger(__name__)


@options(
    prior_scale=(one_of("evidence"), above(0)), prior_units=one_of("noise", "data", "evidence"),
    noise_var=above(0),
)  # fmt: skip
@dataclass(frozen=True)
class _PriorOptions:
    """``prior_options``: each is documented there."""

    prior_scale: str | float = "evidence"
    prior_units: str | None = None
    noise_var: float | Mapping[str, float] | pd.Series | None = None
    intercept: bool = True


@checked(
    shift=one_of(*_shifts.KINDS), shift_sd=(one_of("learned"), one_of(0)),
    prior_options=_PriorOptions,
)  # fmt: skip
def fit_dag_blr(
    adata: ad.AnnData,
    *,
    dag_key: str = "dag",
    gene_symbols: str | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    guide_key: str | None = None,
    perturbations: Sequence[str] | None = None,
    shift: str | pd.DataFrame | Mapping[str, Mapping[str, float]] = "knockout",
    shift_sd: str | float = "learned",
    features: ad.AnnData | pd.DataFrame | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    prior_options: Mapping[str, Any] | None = None,
    layer: str | None = None,
    key_added: str = "dag_blr",
    copy: bool = False,
) -> ad.AnnData | None:
    """Fit the posterior over the weights of a graph to control and perturbed cells (DAG-BLR).

    Every gene is modelled as ``x_i = c_i + sum_k B_ik x_k + a_i + noise`` over its parents ``k``,
    with a normal-inverse-gamma prior (Zhang et al. 2023, doi:10.1038/s42256-023-00719-0,
    Definition 2 and Lemma 1). With ``shift_sd=0`` the shift ``a`` of every perturbation is taken as
    exact, as in the paper. By default it is not known: a knockdown may be partial or hit other
    genes, and the graph may miss edges. The weights ``B`` are then those of cells less the mean of
    their own environment, whatever the shifts. A perturbation whose target is not measured (a
    weakly expressed gene, an enhancer, a drug) is fitted like any other. Cells are read once.

    A combination (``"MYC+STK3"``, the same as ``"STK3+MYC"``: cells of both are pooled under the
    label of the first cell, and the log reports it) is expected to have the sum of its members'
    effects, times a factor. This factor, the departures of each member in combinations, and the
    residual variance of combinations are learned from the combinations of the screen, each
    predicted from the others and from its members alone. The effect of a member without cells of
    its own is estimated from the combinations that contain it.

    The effects of perturbations with cells are estimated by one hierarchical model
    (:doc:`/model/mathematics`, equations 13 to 23), sampled by Gibbs sampling with a fixed seed.
    The effect of a perturbation is the sum of a program that perturbations share, a part along the
    coexpression of genes, and a sparse part of its own, the scale of which is uncertain. The model
    includes the sampling error of the controls and the variance of the response of cells, some of
    which respond more than others. What is expected beforehand is the change of target genes, by
    the efficacy of the screen; what follows from it on the graph, times the weight of the graph,
    which is learned from the other perturbations; and what the members of a combination clearly do.
    The other predictors have no influence on these effects: they are used to predict perturbations
    without cells. :func:`perturbation_effects`, :func:`design_interventions`, :func:`plan_screen`
    and :func:`diagnose` all use the draws of this model.

    With ``condition_key`` (:func:`nextpert.pp.setup_screen`), each condition, such as a cell line,
    has a fit of its own cells and controls besides. The cells of other conditions count there as
    far as their effects are probably the same, for every perturbation and gene (equation 24).
    :func:`perturbation_effects` returns the effects in a ``condition``. Without one, and in
    rankings and plans, effects are those of the cells of all conditions, which are compared within
    conditions. The graph, the other predictors and replays see conditions as batches.

    If :func:`learn_dag` stored bootstrap graphs (``n_graphs``), the same cells are also fitted on
    each of them, with the same prior, and :func:`design_interventions` uses all of these fits. The
    graphs have equal weights: on simulated screens, weights by evidence lowered the coverage of 90%
    intervals (``python -m benchmarks.ensemble_calibration``).

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory or backed.
    dag_key
        Graph in ``adata.varp`` (row = parent), from :func:`learn_dag` or put there by hand.
    gene_symbols
        Column of ``adata.var`` with the gene names that labels use, if ``adata.var_names`` are
        others (such as Ensembl ids). ``None`` (default): the column that the graph was learned
        with.
    perturbation_key
        Column of ``adata.obs`` with the label of every cell. ``None`` (default): the column
        declared by :func:`nextpert.pp.setup_screen`, or ``"perturbation"``.
    control
        Label of the control cells. ``None`` (default): the declared label, or ``"control"``.
    guide_key
        Column with the guide (or replicate, donor, clone) of every cell. ``None`` (default): the
        declared column, if any. The variance between guides is learned from the guides of the
        controls (of the perturbations, if the controls have fewer than three), and limits the
        weight of each guide. If no column is declared but one nests in the perturbation labels
        (each level belongs to one label, and at least half of the labels have two levels of five
        cells or more), a warning names it and gives the variance between its levels.
    perturbations
        Labels to use; ``None`` (default) uses every label but ``control``, ``[]`` the controls
        alone.
    shift
        The expected shift. ``"knockout"`` (default) is minus the control mean of every target
        gene, ``"activation"`` is plus one unit; both are multiplied by an efficacy that is learned
        from the screen. Or a table of shifts in units of the data, as a DataFrame (perturbations x
        genes) or ``{perturbation: {gene: shift}}``. Perturbations without a row, or without a
        measured target, have an expected shift of 0.
    shift_sd
        ``"learned"`` (default) learns the effects of perturbations from their cells. ``0`` takes
        the expected shifts as exact, as the paper does. Labels that name a gene outside the panel,
        or have no row in the table, are then left out, with a warning, and listed in ``.uns``.
    features
        Side information about perturbations, measured or not (:doc:`/guides/side_information`).
        Perturbations with similar features are expected to have similar effects, as far as this
        predicts left-out perturbations of the screen, and better than permuted rows do; the weight
        is learned. Rows are named as labels, or as the genes that labels target. One of:

        - a table of numbers, a row per perturbation or gene (DataFrame, or a mapping of names to
          vectors), such as an embedding; columns are standardised, NaN stands for unknown;
        - an edge list: a DataFrame with the columns ``source``, ``target`` and, if edges have one,
          ``weight``; by these names it is distinguished from a table of numbers;
        - gene sets: a mapping of names to lists of genes;
        - effects in another screen (cell line, condition, study): an AnnData of perturbations x
          genes, effects in ``X``, NaN where unknown, or as :func:`perturbation_effects` returns
          them, from whose layers the standard errors follow.
          They also predict the same perturbations here, and perturbations that the other screen
          lacks by its mean, with a weight of their own. Standard errors in ``layers["se"]`` shrink
          them towards that mean. If they are given, that weight is at least 0.25, and no
          ``condition_key`` is declared, the other screen also tells of perturbations with cells, as
          another condition does (equation 24); all other side information is about perturbations
          without;
        - the path of a file with one of these: ``.gmt``, ``.csv``, ``.tsv``, ``.h5ad``, ``.zarr``;
        - a mapping of names to several of these (one AnnData at most), which count alike.
    prior_options
        Rarely needed options of the prior of the weights, as of :class:`nextpert.core.DagBlr`, a
        mapping with some of:

        - ``"prior_scale"``: ``"evidence"`` (default) learns the scale of the prior of the weights;
          a number fixes it (1 in the paper).
        - ``"prior_units"``: ``"noise"`` measures weights in units of the noise of child and parent,
          so that the posterior does not depend on the scale of a gene; ``"data"`` measures them in
          units of the data, as the paper does; ``"evidence"`` chooses the one with the higher
          evidence. By default ``"evidence"`` if the scale is learned, else ``"data"``.
        - ``"noise_var"``: known noise variances, one number or one per gene, in squared units of
          the data; by default they are inferred.
        - ``"intercept"`` (``True``): whether genes have an intercept. Turn it off only for data
          centred on the controls.
    layer
        Layer to read; ``None`` reads ``adata.X``.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Fields written:

        - ``varp["dag_blr_mean"]`` (sparse, ``(n_vars, n_vars)``): posterior mean of the weights,
          row = parent as in the graph: entry ``[k, i]`` is the change of gene ``i`` per unit of
          gene ``k``, so the transpose of ``B``.

        Fields of ``uns["dag_blr"]``:

        - ``posterior`` (mapping): the complete posterior over the weights; see
          :meth:`nextpert.core.DagBlr.to_dict`.
        - ``genes`` (names, ``(n_genes,)``): the panel.
        - ``control_mean`` (array, ``(n_genes,)``): mean of the control cells.
        - ``n_control_cells`` (number): control cells read.
        - ``environments`` (table): one row per perturbation used: ``perturbation``,
          ``target_genes``, ``shift`` and its source, ``n_cells``; ``q_value`` and
          ``q_value_from_others``, of the tests of :func:`diagnose` that its cells differ from the
          controls, and from the mean of the others.
        - ``targets`` (mapping): the target genes of all perturbations, ``names``, one list after
          the other, and ``offsets``.
        - ``shifts`` (sparse, ``(n_environments, n_genes)``): the expected shifts.
        - ``left_out`` (table): the labels that were not used: ``perturbation``, ``n_cells``,
          ``reason``.
        - ``log_evidence`` (number): of the weights of the graph.
        - ``cells`` (mapping): fingerprints by which later calls notice changes, of the columns with
          a role (``roles``) and the ``values`` of cells, in any order; and the roles ``declared``.
        - ``digest`` (text): of all that the fit has found; results computed from it keep it as
          ``fit``.
        - ``means`` (mapping): unless shifts are exact, of every perturbation the number of cells
          that count, ``n``, their ``mean``, and their variance over that of all cells, ``ratio``.
        - ``guide_variance`` (number): unless shifts are exact, the variance between guides,
          relative to the noise variance.
        - ``efficacy`` (mapping): unless shifts are exact, its ``mean``, its ``sd`` for a new
          perturbation, ``spread`` and ``n_measured``.
        - ``hierarchical`` (mapping): unless shifts are exact, draws of the hierarchical model (up
          to 200, fewer of large screens): ``effects`` of perturbations with cells (``unit``, the
          standard deviation of every gene within cells; the ``expected`` effects; ``precision`` of
          the cells' means and ``place``, the index of the prior variance of an own part in every
          draw, in units of ``unit``; and ``cells``, from which the means of effects in a draw
          follow: the ``change`` of the cells' means, less ``expected``, the scores of their
          ``noise`` along the factors, their ``response``, and ``own_share``, the share of a change
          that is an own part where its variance is known; in several conditions these means
          themselves, ``centre``); ``control``, the mean of the controls, shape ``(n_draws,
          n_genes)``;
          ``program`` and the ``scores`` of perturbations on it; the ``factors`` of coexpression,
          shape ``(n_genes, n_factors)``, and the scores ``along`` them; the ``weights`` of prior
          variances (``program``, ``factors``, ``scales``, ``tails``); ``squares``, the summed
          squares of the differences to the controls; and with ``condition_key`` ``conditions``,
          ``"0"``, ``"1"`` and so on: ``name``, ``effects`` and ``control`` as above, ``n_cells``
          of each perturbation, and ``change``, the differences of its means to the controls'.
          Tables of perturbations x genes with more than 10 million numbers are in single precision.
        - ``predictors`` (mapping): unless shifts are exact, the names of the ``predictors``, their
          ``weights``, ``scales``, what the variances of effects of perturbations without cells are
          multiplied by (rows: without and with features; columns: what perturbations share, and own
          parts), and, with combinations, ``interactions`` (``strength``, 1 if effects are additive,
          and ``strength_sd``; ``member_sd`` and ``rest_sd`` in units of ``scale``, the size of
          single effects; ``n_combinations``).
        - ``screen`` (mapping): unless shifts are exact, the moments of the cells that the weights
          of the predictors were learned from.
        - ``features`` (mapping): if given, ``perturbations``; ``rows`` of components (all of up to
          1,000 perturbations of the screen, of more the largest, 316 of 10,000), whose products
          with those of the screen's perturbations are similarities; and the ``effects`` in another
          screen on the panel, its mean where unknown.
        - ``ensemble`` (mapping): with bootstrap graphs, the posterior on each of them, ``"0"``,
          ``"1"`` and so on, as ``posterior``.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If the graph or the column of labels is absent, a graph has a cycle or belongs to
        another gene panel, ``features`` are effects of these same cells, there are no control
        cells, a gene is constant among them, a label is unknown, a value is NaN or infinite, or the
        values cannot be log-normalised (unless the screen was set up with ``check_scale=False``).
        Nothing is written on error.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd, nextpert as npt
    >>> rng = np.random.default_rng(2)
    >>> a = 2 + rng.normal(size=600) - 2 * np.repeat([0, 1], 300)
    >>> x = np.column_stack([a, 1 + 0.5 * a + rng.normal(size=600)])
    >>> obs = pd.DataFrame({"perturbation": ["control"] * 300 + ["A"] * 300})
    >>> adata = ad.AnnData(x, obs.set_index(obs.index.astype(str)), pd.DataFrame(index=["A", "B"]))
    >>> npt.tl.learn_dag(adata, method="given", dag=[("A", "B")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> round(float(adata.varp["dag_blr_mean"][0, 1]), 1)
    0.5
    """
    # Read: roles, side information, the graph and the labels that its cells have.
    roles = _adata.read_roles(
        adata, perturbation_key=perturbation_key, control=control, layer=layer,
        guide_key=guide_key, gene_symbols=gene_symbols,
    )  # fmt: skip
    if features is not None:
        features = _adata.load_features(features)
        _adata.require_other_cells(adata, features)
    chosen = _PriorOptions(**prior_options or {})
    exact = shift_sd == 0
    genes, columns, dag = _adata.read_graph(adata, dag_key, roles.gene_symbols)
    graphs = _adata.read_graphs(adata, dag_key, genes, dag)
    symbols = roles.gene_symbols or _adata.symbols_of(adata.uns.get(dag_key))
    perturbations = None if perturbations is None else _adata.in_order(perturbations)
    labels = _adata.read_perturbations(adata, roles, named=perturbations)
    _adata.require_control(labels, roles.control)
    plan = environments.plan_environments(
        labels,
        genes,
        measured=_adata.measured_genes(adata, symbols),
        perturbations=perturbations,
        shift=shift,
        every=not exact,
    )
    used = np.flatnonzero(labels.groups([roles.control, *plan.names]) >= 0)
    _adata.check_scale(adata, columns, used, roles)
    # All cells in one pass: those of the fit, of graphs without some perturbations, a checksum.
    by_fold = [] if exact else folds_of(plan.names)
    held_out = read_held_out(adata, dag_key, roles, len(genes), plan.names) if by_fold else None
    found = fit_environments(adata, replace(roles, guide_key=None) if exact else roles, plan.names)
    weights = fingerprint_weights(adata, roles, len(columns))
    read_once = read_cells(
        adata, columns, found, plan.names,
        searches=None if held_out is None else held_out.environments, sets=by_fold,
        checksum=weights,
    )  # fmt: skip
    guided = roles.guide_key is not None and not exact
    if guided:
        found.say_without_guide()
    cells = read_once.fit_cells(plan.names, guided=guided)
    environments.require_varying(cells.control, genes)
    # Compute: what is asked of the model, and the model.
    noise_var: Any = chosen.noise_var
    if isinstance(noise_var, (Mapping, pd.Series)):
        noise_var = _noise_variances(noise_var, genes)
    asked = Spec(
        genes, plan,
        partial(
            DagBlr, noise_var=noise_var, intercept=chosen.intercept,
            prior_scale=chosen.prior_scale, prior_units=chosen.prior_units,
        ),
        Naming(frozenset(genes), roles.separator, roles.control),
        None if features is None else _adata.read_features(features, genes, labels), exact,
    )  # fmt: skip
    undeclared = None
    if plan.names and not exact:
        undeclared = undeclared_guides(adata, columns, plan.names, roles)

    searches, checksum = read_once.searches, read_once.checksum
    del read_once  # of large screens there is no room for it beside the fit

    def without(folds: Sequence[Sequence[str]]) -> Sequence[Dag]:
        if held_out is None:  # a graph that is given, or was learned from the controls alone
            return [dag] * len(folds)
        streams = fold_streams(len(folds))
        return graphs_without(dag, held_out, searches, genes, folds, streams)

    model = Model.fit(asked, cells, Graphs(dag, graphs, without))
    params: dict[str, Any] = {
        "dag_key": dag_key,
        **roles.stored(),
        "shift": plan.shift if isinstance(plan.shift, str) else "table",
        "shift_sd": 0.0 if asked.exact else "learned",
        "separator": roles.separator,
        "prior_scale": chosen.prior_scale,
        "prior_units": model.posterior.prior_units,
        "intercept": chosen.intercept,
    }
    if symbols:
        params["gene_symbols"] = symbols
    record = model.record(
        params,
        left_out=left_out_table(
            {name: labels.n_cells(name) for name, _ in plan.left_out},
            [reason for _, reason in plan.left_out],
        ),
        cells={
            "roles": weights.roles,
            "values": f"{checksum:016x}",
            "declared": json.dumps(role_texts(declared(adata))),
        },
    )
    # Report what a user has to know of the cells and the result.
    environments.warn_other_layer(roles.layer, adata.uns.get(dag_key))
    environments.report(plan, found.confounded(plan.names) if roles.batch_key else [])
    if undeclared is not None:
        warn_undeclared(undeclared)
    if exact:
        environments.warn_hardly_expressed(model.expected.used, cells.control, genes)
    if model.weighted is not None:
        learned = model.weighted.weights
        shares = zip(learned.names, learned.weights, strict=True)
        logger.info(
            "Weights of predictors of perturbations without cells: %s (left-out error %.2f "
            "relative to no effect).",
            ", ".join(f"{name} {weight:.2f}" for name, weight in shares), learned.error,
        )  # fmt: skip
    efficacy, of_targets = model.expected.efficacy, ""
    if efficacy is not None:
        n = efficacy.n_measured
        known = f"from {n} own genes" if n else "a guess: none seen"
        of_targets = f" Efficacy {efficacy.mean:.2f} +- {efficacy.sd:.2f} ({known})."
    logger.info(
        "Fitted %d weights to %s of %d perturbations%s.%s",
        dag.n_edges,
        "the effects" if is_table(adata) else
        f"{cells.control.n} control cells and {record.n_cells.sum()} cells",
        len(plan.names), " (exact shifts)" if exact else "",
        of_targets,
    )  # fmt: skip
    # Write: the fit and its digest, and the mean of the weights over all genes.
    mean = _adata.to_all_genes(model.posterior.mean().T, columns, adata.n_vars)
    stored = pack(record)
    stored["digest"] = digest_of({name: stored[name] for name in stored if name != "cells"})
    return _adata.write_results(
        adata, uns={key_added: stored}, varp={f"{key_added}_mean": mean}, copy=copy
    )


def _noise_variances(
    noise_var: Mapping[str, float] | pd.Series, genes: Sequence[str]
) -> NDArray[np.float64]:
    known = {str(gene): float(value) for gene, value in noise_var.items()}
    absent = [gene for gene in genes if gene not in known]
    if absent:
        message = (
            f"noise_var has no value for {_adata.list_names(absent)}: give one for every gene "
            f"of the panel, or None to infer all of them."
        )
        raise ValueError(message)
    return np.array([known[gene] for gene in genes])
