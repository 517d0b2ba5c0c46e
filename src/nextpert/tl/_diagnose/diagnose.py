"""``tl.diagnose``: whether the model is worth trusting on this screen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata import environments
from nextpert._adata import shifts as _shifts
from nextpert._adata.eager import eager
from nextpert.core import Dag, DagBlr
from nextpert.core._checks import as_rng, require_count
from nextpert.core.posterior.add_screen import add_screen
from nextpert.tl._diagnose import genes as by_gene
from nextpert.tl._diagnose import held_out as scores
from nextpert.tl._diagnose import tables
from nextpert.tl._diagnose import verdict as verdicts
from nextpert.tl._diagnose.folds import read_folds
from nextpert.tl._learn_dag.held_out import has_seen_perturbed, held_out_dags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad
    import pandas as pd

logger = logging.getLogger(__name__)


def diagnose(
    adata: ad.AnnData,
    *,
    dag_key: str = "dag",
    perturbation_key: str | None = None,
    control: str | None = None,
    perturbations: Sequence[str] | None = None,
    shift: str | pd.DataFrame | Mapping[str, Mapping[str, float]] = "knockout",
    separator: str = "+",
    prior_scale: str | float = "evidence",
    intercept: bool = True,
    layer: str | None = None,
    n_samples: int = 400,
    n_random: int = 100,
    n_folds: int = 10,
    n_jobs: int = 1,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "diagnosis",
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Say whether the model is worth trusting on a screen, before cells are spent on it.

    Each perturbation is predicted by a posterior that has seen the controls and all *other*
    perturbations, as :func:`fit_dag_blr` would fit it (Zhang et al. 2023,
    doi:10.1038/s42256-023-00719-0, Definition 2): the effect :math:`(I - B)^{-1} a` and the mean
    :math:`(I - B)^{-1} (c + a)`. Predictions are compared with what the held-out cells did, and
    with three that need no model: nothing changes; the mean change over the other perturbations;
    and coexpression, every gene regressed on the targets over the control cells, times the targets'
    shifts. They are also compared with those of an empty graph (no arcs), fitted to the same cells
    with the same shifts, which says what the graph adds. The scatter within perturbations is
    pooled, as in :func:`fit_dag_blr`, over those of the other ``n_folds - 1`` folds, so that
    nothing of a perturbation's own cells is in its prediction and no matrix is kept of each.
    Cells are read twice; a chunk of a lazy matrix once for each fold that has cells in it.

    A graph that :func:`learn_dag` learned with ``environments="all"`` has seen the perturbations.
    It is then learned anew, with the same options, once for each fold, without any cell of the
    fold, and each perturbation is predicted by the graph that has not seen it. What was known
    before (``prior``, ``targets_first``, how much a network is believed) stays. Each cell is read
    once more for that.

    Graphs of resamples (``n_graphs`` of :func:`learn_dag`) that have not seen the perturbations
    are all used, as by :func:`fit_dag_blr`: predictions are means over them, and intervals hold
    draws from each. Those that have seen them are not: the graph of a fold is a single one.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory or backed.
    dag_key
        Graph in ``adata.varp`` (row = parent), from :func:`learn_dag` or put there by hand.
    perturbation_key
        Column of ``adata.obs`` with the label of every cell; ``None`` stands for what
        :func:`nextpert.pp.setup_screen` was told, or ``"perturbation"``.
    control
        Label of the unperturbed cells; ``None`` as above, or ``"control"``.
    perturbations
        Labels to use; ``None`` (default) uses every label but ``control``. Labels that name a
        gene outside the panel are left out, with a warning.
    shift
        ``"knockout"`` (default), ``"activation"`` or a table, as in :func:`fit_dag_blr`; taken
        as exact.
    separator
        What joins the targets of a label, as in ``"MYC+STK3"``.
    prior_scale
        ``"evidence"`` (default) learns the scale of the prior of the weights; a number fixes it.
    intercept
        Whether genes have an intercept. Turn it off only for data centred by the controls.
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    n_samples
        Number of posterior draws for the intervals, at least 100.
    n_random
        Number of random graphs, at least 20.
    n_folds
        Number of folds of perturbations, no more than there are perturbations. The scatter
        within the perturbations of a fold is left out together and so is, where the graph was
        learned from perturbed cells, the fold from one search.
    n_jobs
        Number of threads for the searches; the result does not depend on it.
    rng
        Seed or generator.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Writes ``uns["diagnosis"]`` with:

        - ``verdict``, in words, and ``level``: ``"trust"``, ``"care"`` or ``"do not trust"``.
        - ``summary``: a table, one row a ``quantity``: ``value``, ``standard_error`` (over
          perturbations), ``n``, ``rule``, whether it ``passed`` (``"yes"``, ``"no"`` or empty),
          ``meaning``.
        - ``perturbations``: a table, one row each: ``perturbation``, ``target_genes``,
          ``n_cells``; ``weakest_target`` with its change ``own_change`` (log-normalised
          expression), ``own_z`` (in standard errors) and ``is_strong``; then, over the genes that
          are no targets, ``r`` (correlation of predicted effect and observed change),
          ``r_with_target`` (over all genes), ``r_coexpression`` (of coexpression),
          ``sign_accuracy`` among the ``n_changed`` genes that changed by 3 standard errors, the
          mean squared error of the predicted mean ``error``, of the baselines
          (``error_nothing``, ``error_mean``, ``error_coexpression``, ``error_empty``) and of a
          perfect prediction (``error_noise``), squared units of expression; what is gained on two
          (``gain_on_nothing``, ``gain_on_mean``, with ``_se`` over genes); ``coverage_50`` and
          ``coverage_90``; and, with its mean as the target, the rank correlation over the other
          perturbations of predicted and true squared distance to it (``distance_rank``, that
          of the empty graph ``distance_rank_empty``).
        - ``genes``: a table, one row a gene: ``gene``, ``control_mean``, ``n_parents``,
          ``r_parents`` (regressed on its parents in control cells, correlated within perturbed
          ones), ``r_random_mean`` and ``r_random_sd`` (random graphs with as many parents),
          ``residual_skewness`` and ``share_of_zeros`` in control cells.
        - ``calibration``: a table: ``level`` of the intervals, ``coverage`` over the judged
          perturbations, its ``standard_error``.
        - ``observed_change``, ``predicted_effect``, shape ``(n_perturbations, n_genes)``;
          ``panel`` (the genes); ``left_out``; ``n_control_cells``; ``params``.

    Raises
    ------
    ValueError
        If the graph or the column of labels is absent, the graph has a cycle or belongs to
        another gene panel, there are no control cells, fewer than two perturbations can be used,
        a gene is constant among the controls, a label is unknown, an option is out of range, or a
        value is NaN or infinite. Nothing is written then.

    Notes
    -----
    The rules. A perturbation is strong if each of its target genes changes by at least 3 standard
    errors; with three or more strong ones, they alone are judged. *Clear* is what differs by 2
    standard errors. The verdict is *do not trust* if fewer than three are strong, the mean ``r``
    is not clearly above 0, the squared error is, by the geometric mean of the ratios, no smaller
    than that of a baseline without a model, 90 % intervals hold less than half of the held-out
    means, or *the graph adds nothing*: neither is the squared error clearly below that of the
    empty graph and at most 0.9 of it, nor does ``distance_rank`` clearly gain, by at least 0.05.
    It is *trust* if besides the mean ``r`` is at least 0.5, all four ratios of squared errors
    are at most 0.8 and clearly below 1, ``distance_rank`` clearly gains on the empty graph's, the
    graph's ``r_parents`` is above that of all but 5 % of random graphs, and 90 % intervals hold
    at least 70 % of the held-out means. Between them it is *care*. Where a baseline without a
    model has less squared error than the model, the verdict names the best of them.

    A graph learned on the same control cells is not held out from these, and standard errors over
    perturbations take them as independent, although they share the controls. ``r`` uses the
    effect alone, since predicted and observed means share the noise of the control mean.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=12, n_control=1000, expected_degree=4)
    >>> npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    >>> npt.tl.diagnose(adata)
    >>> adata.uns["diagnosis"]["level"]
    'trust'
    """
    _adata.check_arguments(locals())
    _adata.check_key(key_added)
    _adata.check_writable(adata, copy=copy)
    roles = _adata.read_roles(
        adata, perturbation_key=perturbation_key, control=control, layer=layer
    )
    perturbation_key, control, layer = roles.perturbation_key, roles.control, roles.layer
    _shifts.check_shift(shift)
    n_samples = require_count(n_samples, "n_samples", least=100)
    n_random = require_count(n_random, "n_random", least=20)
    generator = as_rng(rng)
    genes, columns, dag = _adata.read_graph(adata, dag_key)
    labels = _adata.read_labels(adata, perturbation_key)
    _adata.require_control(labels, control)
    plan = environments.plan_environments(
        labels,
        genes,
        measured=_adata.measured_genes(adata, _adata.symbols_of(adata.uns.get(dag_key))),
        perturbations=perturbations,
        shift=shift,
        separator=separator,
        control=control,
    )
    _require_two(plan)
    controls = labels.groups([control])
    batches = _adata.read_batches(adata, columns, roles)
    (cells,) = _adata.group_moments(adata, columns, controls, 1, roles, batches=batches)
    folds = read_folds(adata, columns, labels, plan.names, roles, batches, n_folds=n_folds)
    perturbed = folds.whole
    environments.require_varying(cells, genes)
    used = environments.shift_environments(plan, shift, genes, cells)
    stored_graph = eager(adata.uns.get(dag_key))
    graphs = [_adata.read_graphs(adata, dag_key, genes, dag) or [dag]]
    if has_seen_perturbed(stored_graph):
        unseen = held_out_dags(
            adata, columns, genes, stored_graph, roles,
            [[plan.names[k] for k in fold] for fold in folds.members], rng=generator, n_jobs=n_jobs,
        )  # fmt: skip
        graphs = [[graph] for graph in unseen]
    (start, empty), *starts = (
        [DagBlr(g, intercept=intercept, prior_scale=prior_scale).update(cells) for g in some]
        for some in ([dag, Dag.from_edges(dag.n_nodes, [])], *graphs)
    )
    if len(starts) == 1:
        starts *= len(folds.members)
    held_out = scores.predict_held_out(
        starts, folds, empty, cells, used, genes, n_samples=n_samples, rng=generator
    )
    whole = add_screen(start, perturbed, used.shifts)
    r = by_gene.parents_against_random(dag, cells, perturbed, n_random=n_random, rng=generator)
    shape = by_gene.residual_shape(
        adata, columns, np.flatnonzero(controls == 0), whole, layer, batches
    )
    gene_table = by_gene.gene_table(genes, dag, r, *shape, cells.mean)
    table = tables.perturbation_table(held_out, used, genes, perturbed.n.tolist())
    quantities = verdicts.summarise(table, gene_table, r)
    level, verdict = verdicts.judge(quantities, table)
    stored: dict[str, Any] = {
        "verdict": verdict,
        "level": level,
        "summary": verdicts.summary_table(quantities),
        "perturbations": table,
        "genes": gene_table,
        "calibration": tables.calibration_table(held_out, verdicts.which_judged(table)),
        "observed_change": held_out.observed,
        "predicted_effect": held_out.effect,
        "panel": _adata.strings(genes),
        "left_out": environments.left_out_table(plan, labels),
        "n_control_cells": cells.n,
        "params": {
            "dag_key": dag_key,
            **roles.stored(),
            "shift": shift if isinstance(shift, str) else "table",
            "separator": separator,
            "prior_scale": prior_scale,
            "intercept": bool(intercept),
            "n_samples": n_samples,
            "n_random": n_random,
            "n_folds": len(folds.members),
            "n_graphs": len(starts[0]),
        },
    }
    environments.warn_values(cells, layer, stored_graph)
    environments.warn_left_out(plan)
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", verdict)
    return written


def _require_two(plan: environments.Plan) -> None:
    if len(plan.names) < 2:
        why = _adata.list_names(f"{name} ({reason})" for name, reason in plan.left_out)
        message = (
            f"Only {len(plan.names)} perturbations can be used, but at least 2 are needed to "
            f"predict one from the others. Left out: {why or 'none'}.{plan.hint}"
        )
        raise ValueError(message)
