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
from nextpert._adata import effects as _shifts
from nextpert._adata import environments
from nextpert._adata.arguments import above, checked, one_of, options
from nextpert._adata.members import Naming
from nextpert._adata.nested import undeclared_guides, warn_undeclared
from nextpert._adata.posterior import as_fingerprint, fingerprint_weights
from nextpert.core import DagBlr
from nextpert.core._codec import pack
from nextpert.tl._fit_dag_blr.cells import fit_environments, read_cells
from nextpert.tl._fit_dag_blr.model import (
    EXACT,
    SPECS,
    Graphs,
    Model,
    Spec,
    averaging_in_words,
    efficacy_in_words,
    folds_of,
    stack_in_words,
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
    shift=one_of(*_shifts.KINDS), shift_sd=(one_of("learned"), one_of(0)), spec=one_of(*SPECS),
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
    spec: str = "full",
    prior_effects: ad.AnnData | None = None,
    prior_options: Mapping[str, Any] | None = None,
    layer: str | None = None,
    key_added: str = "dag_blr",
    copy: bool = False,
) -> ad.AnnData | None:
    """Fit the posterior over the weights of a graph to control and perturbed cells (DAG-BLR).

    Every gene is modelled as ``x_i = c_i + sum_k B_ik x_k + a_i + noise`` over its parents ``k``,
    with a normal-inverse-gamma prior (Zhang et al. 2023, doi:10.1038/s42256-023-00719-0,
    Definition 2 and Lemma 1). The shift ``a`` of a perturbation is not taken as known: a knockdown
    may be partial, hit other genes, or the graph miss arcs. What it is expected to be is the mean
    of a prior, and how far perturbations of this screen depart from that is learned, by adaptive
    shrinkage (Stephens 2017, doi:10.1093/biostatistics/kxw041). So a perturbation whose target is
    not measured (a weakly expressed gene, an enhancer, a drug) takes part like any other, and
    where cells are many they have the last word. Cells are read once.

    A combination (``"MYC+STK3"``, the same as ``"STK3+MYC"``: cells of both are taken as one, under
    the label of the first cell, and the log says so) is expected to do what its members do
    together. How far effects
    add up, what each member does otherwise in company, and how large a combination's own rest is,
    are learned from the screen's combinations, each predicted from the others and the members
    alone. Members without cells of their own are told of by the combinations they are in.

    Graph and experts have to earn their weight in measured effects too. These are averaged over
    models with and without each, weighted by Stein's unbiased estimate of their squared error
    (Stein 1981, doi:10.1214/aos/1176345632) as far as it can tell them apart, and alike where it
    cannot. So a wrong graph or expectation does little harm where there are cells;
    :func:`perturbation_effects`, :func:`design_interventions` and :func:`diagnose` take the same
    average.

    Where :func:`learn_dag` left the graphs of resamples (``n_graphs``), the same cells are fitted
    on each of them too, with the same prior. :func:`design_interventions` takes them up. They count
    alike: weighted by evidence, 90 % intervals held the truth less often on simulated screens
    (``python -m benchmarks.ensemble_calibration``).

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory or backed.
    dag_key
        Graph in ``adata.varp`` (row = parent), from :func:`learn_dag` or put there by hand.
    gene_symbols
        Column of ``adata.var`` with the names of genes that labels use, where ``adata.var_names``
        holds others (Ensembl ids); ``None`` (default) takes them as the graph does.
    perturbation_key
        Column of ``adata.obs`` with the label of every cell; ``None`` stands for what
        :func:`nextpert.pp.setup_screen` was told, or ``"perturbation"``.
    control
        Label of the unperturbed cells; ``None`` as above, or ``"control"``.
    guide_key
        Column with the guide (or replicate, donor, clone) of every cell; ``None`` as above. How
        far guides scatter beyond sampling is learned from those of the controls (of perturbations,
        if the controls have fewer than three), and no guide counts for more cells than that
        allows. If no column is declared but one nests in the
        perturbation labels (each level belongs to one label, and at least half of the labels have
        two levels of five cells or more), a warning names it and says how far its levels scatter.
    perturbations
        Labels to use; ``None`` (default) uses every label but ``control``, ``[]`` the controls
        alone.
    shift
        What shift is expected: ``"knockout"`` (default) minus the control mean of every target
        gene, ``"activation"`` one unit up, both times an efficacy that the screen's own genes
        show; or a table of your own, as a DataFrame (perturbations x genes) or
        ``{perturbation: {gene: shift}}``, in units of the data. Perturbations without a row, or
        without a measured target, are expected to shift nothing.
    shift_sd
        ``"learned"`` (default) learns from the screen how far shifts are to be believed. ``0``
        takes them as exact, as the paper does; labels that name a gene outside the panel, or
        without a row of the table, are left out then, with a warning, and listed in ``.uns``.
    spec
        How much is modelled. ``"full"`` (default): shifts that are learned, predictors of
        perturbations without cells, interactions of combinations, and the average over models.
        ``"shifts"``: learned shifts on the graph alone, at a third of the time, as
        :func:`replay_design` fits after every plate unless told otherwise. ``"exact"``: as with
        ``shift_sd=0``.
    prior_effects
        Effects of the same perturbations in another cell line, condition or study: perturbations
        x genes, effects in ``X`` (as :func:`perturbation_effects` returns them), genes and
        perturbations by name. How far they are believed is learned.
    prior_options
        Rarely needed options of the prior of the weights, as of :class:`nextpert.core.DagBlr`, a
        mapping with some of:

        - ``"prior_scale"``: ``"evidence"`` (default) learns the scale of the prior of the weights;
          a number fixes it (1 in the paper).
        - ``"prior_units"``: ``"noise"`` takes weights in units of the noise of child and parent, so
          that the posterior does not hang on how a gene is scaled; ``"data"`` takes them as they
          are, as the paper does; ``"evidence"`` whichever of the two explains the cells better. By
          default ``"evidence"`` where the scale is learned, else ``"data"``.
        - ``"noise_var"``: known noise variances, one number or one a gene, in squared units of the
          data; by default they are inferred.
        - ``"intercept"`` (``True``): whether genes have an intercept. Turn it off only for data
          centred by the controls.
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Fields written:

        - ``varp["dag_blr_mean"]``: posterior mean of the weights, CSR ``(n_vars, n_vars)``,
          row = parent as in the graph: entry ``[k, i]`` is the change of gene ``i`` a unit of
          gene ``k``, so the transpose of ``B``.
        - ``uns["dag_blr"]``: ``posterior`` (all of it, ragged, see
          :meth:`nextpert.core.DagBlr.to_dict`); ``genes``; ``control_mean``, shape
          ``(n_genes,)``; ``n_control_cells``; ``cells``, a fingerprint of their labels and
          values, so that a change is noticed later; ``environments`` (a table: perturbation, target
          genes, shift, its source, cells), their ``targets`` (``names``, one list after the
          other, and ``offsets``) and ``shifts``, CSR ``(n_environments, n_genes)``; ``left_out`` (a
          table: label, cells, reason); ``log_evidence`` (a lower bound where shifts are learned);
          ``params``. With shifts learned: ``shift_prior``, what was expected of every
          perturbation and the mean of its cells; ``guide_variance``, over the noise variance;
          ``efficacy`` (``mean``, ``sd`` of that of a new perturbation, ``spread``,
          ``n_measured``); ``averaging``, the models that measured effects are averaged over:
          their names (``models``), ``weights`` of sum 1, the ``mixtures`` of prior variances of
          each, ``own``, the variances of shifts where no expert is asked, and ``no_graph``, the
          posterior without arcs; ``stack``, the weights of the experts and, with combinations,
          ``interactions`` (``strength``, 1 where effects add up, and ``strength_sd``;
          ``member_sd`` and ``rest_sd`` in units of ``scale``, the size of single effects;
          ``n_combinations``), with ``screen``, the moments of the cells it was learned from, and
          ``prior_effects``, those of another screen if given. With graphs of resamples
          ``ensemble``, the posteriors on them, ``"0"``, ``"1"`` and so on, as ``posterior``.

    Raises
    ------
    ValueError
        If the graph or the column of labels is absent, a graph has a cycle or belongs to
        another gene panel, there are no control cells, a gene is constant among them, a label
        is unknown, the values cannot be log-normalised, unless the screen was set up with
        ``check_scale=False``, or a value is NaN or infinite. Nothing is written then.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd, nextpert as npt
    >>> rng = np.random.default_rng(0)
    >>> a = 2 + rng.normal(size=600) - 2 * np.repeat([0, 1], 300)
    >>> x = np.column_stack([a, 1 + 0.5 * a + rng.normal(size=600)])
    >>> obs = pd.DataFrame({"perturbation": ["control"] * 300 + ["A"] * 300})
    >>> adata = ad.AnnData(x, obs.set_index(obs.index.astype(str)), pd.DataFrame(index=["A", "B"]))
    >>> npt.tl.learn_dag(adata, method="given", dag=[("A", "B")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> round(float(adata.varp["dag_blr_mean"][0, 1]), 1)
    0.5
    """
    roles = _adata.read_roles(
        adata, perturbation_key=perturbation_key, control=control, layer=layer,
        guide_key=guide_key,
    )  # fmt: skip
    chosen = _PriorOptions(**prior_options or {})
    exact = shift_sd == 0 or spec == EXACT
    genes, columns, dag = _adata.read_graph(adata, dag_key, gene_symbols)
    graphs = _adata.read_graphs(adata, dag_key, genes, dag)
    symbols = gene_symbols or _adata.symbols_of(adata.uns.get(dag_key))
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
    read = np.flatnonzero(labels.groups([roles.control, *plan.names]) >= 0)
    _adata.check_scale(adata, columns, read, roles)
    by_fold = [] if exact else folds_of(plan.names)
    held_out = read_held_out(adata, dag_key, roles, len(genes), plan.names) if by_fold else None
    spelled = _adata.read_labels(adata, roles.perturbation_key)
    read_once = read_cells(
        adata, columns,
        fit_environments(adata, replace(roles, guide_key=None) if exact else roles, plan.names),
        plan.names, searches=None if held_out is None else held_out.environments, sets=by_fold,
        checksum=fingerprint_weights(spelled, len(columns)),
    )  # fmt: skip
    guided = roles.guide_key is not None and not exact
    cells = read_once.fit_cells(plan.names, guided=guided)
    environments.require_varying(cells.control, genes)
    asked = Spec(
        genes, plan,
        partial(
            DagBlr, noise_var=_noise_variances(chosen.noise_var, genes),
            intercept=chosen.intercept, prior_scale=chosen.prior_scale,
            prior_units=chosen.prior_units,
        ),
        Naming(frozenset(genes), roles.separator, roles.control),
        _adata.read_effects(prior_effects, genes, labels), EXACT if exact else spec,
    )  # fmt: skip
    exact = exact or not plan.names
    undeclared = None if exact else undeclared_guides(adata, columns, plan.names, roles)

    def without(folds: Sequence[Sequence[str]]) -> Sequence[Dag]:
        streams = fold_streams(len(folds))
        return graphs_without(dag, held_out, read_once.searches, genes, folds, streams)

    model = Model.fit(asked, cells, Graphs(dag, graphs, without))
    params: dict[str, Any] = {
        "dag_key": dag_key,
        **roles.stored(),
        "shift": plan.kind,
        "shift_sd": 0.0 if asked.exact else "learned",
        "spec": asked.name,
        "separator": roles.separator,
        "prior_scale": chosen.prior_scale,
        "prior_units": model.found.posterior.prior_units,
        "intercept": chosen.intercept,
    }
    if symbols is not None:
        params["gene_symbols"] = symbols
    record = model.record(
        params,
        left_out=environments.left_out_of(plan, labels),
        cells=as_fingerprint(spelled, read_once.checksum),
    )
    environments.warn_other_layer(roles.layer, adata.uns.get(dag_key))
    environments.warn_left_out(plan)
    environments.say_unmeasured(plan)
    warn_undeclared(undeclared)
    if exact:
        environments.warn_hardly_expressed(model.expected.used, cells.control, genes)
    if model.stack is not None:
        logger.info("%s", stack_in_words(model.stack.stack))
    if model.average is not None:
        logger.info("%s", averaging_in_words(model.average))
    mean = _adata.to_all_genes(model.found.posterior.mean().T, columns, adata.n_vars)
    efficacy = model.expected.efficacy
    logger.info(
        "Fitted %d weights to %d control cells and %d cells of %d perturbations (spec %s).%s",
        dag.n_edges, cells.control.n, cells.n_cells.sum(), len(plan.names), asked.name,
        "" if efficacy is None else efficacy_in_words(efficacy),
    )  # fmt: skip
    return _adata.write_results(
        adata, uns={key_added: pack(record)}, varp={f"{key_added}_mean": mean}, copy=copy
    )


def _noise_variances(
    noise_var: float | Mapping[str, float] | pd.Series | None, genes: Sequence[str]
) -> float | NDArray[np.float64] | None:
    if not isinstance(noise_var, (Mapping, pd.Series)):
        return noise_var
    known = {str(gene): float(value) for gene, value in noise_var.items()}
    absent = [gene for gene in genes if gene not in known]
    if absent:
        message = (
            f"noise_var has no value for {_adata.list_names(absent)}: give one for every gene "
            f"of the panel, or None to infer all of them."
        )
        raise ValueError(message)
    return np.array([known[gene] for gene in genes])
