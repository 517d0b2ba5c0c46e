"""``tl.diagnose``: which parts of a fit are worth trusting on this screen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from nextpert import _adata
from nextpert._adata import environments
from nextpert.core._checks import as_rng
from nextpert.tl._diagnose import judged, tables
from nextpert.tl._diagnose import quantities as q
from nextpert.tl._diagnose import verdict as verdicts
from nextpert.tl._diagnose.halves import read_halves
from nextpert.tl._diagnose.model import read_model

if TYPE_CHECKING:
    import anndata as ad
    import numpy as np

logger = logging.getLogger(__name__)


def diagnose(
    adata: ad.AnnData,
    *,
    posterior_key: str = "dag_blr",
    n_jobs: int = 1,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "diagnosis",
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Say which parts of a fit to trust on this screen, before cells are spent on a ranking.

    Each part is judged by what it says of cells, guides, batches or perturbations that it has not
    seen, beside what needs no model:

    - *cells*: how many perturbations differ from the controls, and from one another.
    - *shrinkage*: effects learned from one half of the cells of every perturbation and guide,
      scored on the means of the other half, beside the cells' means and "no effect". Of guides
      only sampling is judged here.
    - *unseen perturbations*: what the experts (graph, coexpression, the mean perturbation, members
      together, another screen) expect of perturbations that were left out of them and of their
      weights, as in :func:`fit_dag_blr`. A graph that :func:`learn_dag` learned with
      ``environments="all"`` is learned anew without them, in five folds.
    - *graph*: its weight among the experts, and what the others do without it. An empty graph
      expects no effect on other genes.
    - *guides*, where ``guide_key`` was told: effects learned without one guide of every
      perturbation and half of those of the controls, on that guide. *Batches*, where ``batch_key``
      was: effects learned without a batch, on it.

    Shifts are judged as learned, also where the fit took them as exact, and the graph as a single
    one. Cells are read once, and once more where the graph is learned anew.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`fit_dag_blr` with three perturbations or more.
    posterior_key
        Its ``key_added``.
    n_jobs
        Number of threads for the searches; the result does not depend on it.
    rng
        Seed or generator, which splits the cells.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Writes ``uns["diagnosis"]`` with:

        - ``verdict``, in words, and ``level``: ``"trust"``, ``"care"`` or ``"do not trust"``.
        - ``parts``: a table, one row a ``part``: ``level``, ``verdict``.
        - ``summary``: a table, one row a ``quantity`` of a ``part``: ``value``,
          ``standard_error`` (over perturbations), ``n``, ``rule``, whether it ``passed``
          (``"yes"``, ``"no"`` or empty), ``meaning``.
        - ``experts``: a table, one row an ``expert``, the last one all together: ``weight``,
          ``error_to_nothing`` (squared error on left-out perturbations over that of "no effect",
          sampling error taken out of both; genes in units of their standard deviation), ``r``.
        - ``perturbations``: a table, one row each: ``perturbation``, ``target_genes``,
          ``n_cells``; ``squared_distance`` from the controls without bias (squared log-normalised
          expression), ``q_value`` and ``is_clear``; against the mean of the others
          ``q_value_from_others`` and ``is_distinct`` (clear, and unlike the others);
          ``weakest_target`` with its change ``own_change`` (log-normalised expression), ``own_z``
          (in standard errors);
          ``reliability`` (correlation of the halves, stepped up to all cells);
          ``error_half`` of shrunken effects, ``error_half_cells``, ``error_half_no_graph`` (on an
          empty graph), ``error_half_alone`` (without experts, too), ``error_half_nothing``
          (squared error on the other half, sums over genes, sampling error
          taken out, squared units of expression), ``coverage_half``; of left-out perturbations
          ``error_unseen``, ``error_unseen_nothing``, ``r_all`` and that of each expert,
          ``coverage_unseen`` and, of effects of 3 standard errors or more alone,
          ``coverage_unseen_clear``; with guides or batches ``error_guides``,
          ``error_guides_nothing``, ``coverage_guides`` and the same of ``batches``. Coverage is
          that of 90 % intervals; NaN stands for what was not judged.
        - ``cells``, the fingerprint of the fit's cells; ``params``.

    Raises
    ------
    ValueError
        If there is no fit, it has fewer than three perturbations, or a value is NaN or infinite.
        Nothing is written then.

    Notes
    -----
    The rules. *Clear* is what differs by 2 standard errors; of perturbations, at a false discovery
    rate of 5 %.

    - Cells: *trust* with three or more perturbations that differ from the controls and from the
      mean of the others; *do not trust* with none.
    - Shrinkage: *do not trust* where the squared error is no smaller than that of "no effect", or
      90 % intervals hold less than half; *trust* where it is clearly smaller and at most 1.1 of
      that of the cells' means, and intervals hold 70 %.
    - Unseen perturbations: *do not trust* where the error is more than 0.95 of that of "no effect"
      or of the mean perturbation, or below it by less than a standard error; *trust* where it is
      clearly below both, at most 0.8 of that of "no effect", and intervals hold 70 %.
    - Graph: *do not trust* where its weight is below 0.05 or the other experts do as well without
      it; *trust* where they do at least 5 % better with it, it is clearly better than "no effect"
      alone, and it adds no more than a tenth of the error of the cells' means to that of measured
      effects.
    - Guides, batches: as shrinkage, against "no effect".

    All together it is *do not trust* where cells or shrinkage are, *trust* where all parts are,
    else *care*: what to use is said part by part.

    Standard errors over perturbations take them as independent, although they share the controls.
    The half that is scored on has been seen by the graph's arcs where these were learned from all
    cells.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=12, n_control=1000, expected_degree=4)
    >>> npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.diagnose(adata)
    >>> adata.uns["diagnosis"]["level"]
    'trust'
    """
    _adata.check_arguments(locals())
    _adata.check_key(key_added)
    _adata.check_writable(adata, copy=copy)
    generator = as_rng(rng)
    fit = _adata.posterior_from(adata, posterior_key)
    roles = _adata.fitted_roles(adata, fit.params)
    model = read_model(adata, fit, posterior_key, roles, n_jobs=n_jobs)
    halves = read_halves(adata, fit.columns, model.names, roles, generator)
    cells = halves.pool(halves.whole, by_guide=True)
    environments.require_varying(cells.control, fit.genes)
    unseen = judged.judge_unseen(model, cells, *model.start(cells))
    weights = unseen.stack.left_out
    on_halves = judged.judge_halves(model, halves, weights)
    table = tables.perturbation_table(model, cells, on_halves, unseen)
    rows = [
        *q.cells_rows(table),
        *q.halves_rows(on_halves, table["is_distinct"].to_numpy(bool)),
        *q.unseen_rows(unseen),
        *q.graph_rows(unseen, on_halves, fit.averaged.graph_weight),
    ]
    guides = judged.judge_guides(model, halves, weights, cells.guide_variance)
    if guides is not None:
        rows += [q.spread_row(cells.guide_variance, cells.n_guides)]
        rows += q.left_out_rows(q.GUIDES, guides, "guide")
        tables.with_left_out(table, "guides", guides)
    batches = judged.judge_batches(model, halves, weights)
    if batches is not None:
        rows += q.left_out_rows(q.BATCHES, batches, "batch")
        tables.with_left_out(table, "batches", batches)
    experts = q.expert_table(unseen)
    parts = verdicts.judge(rows, experts)
    level, verdict = verdicts.overall(parts)
    stored: dict[str, Any] = {
        "verdict": verdict,
        "level": level,
        "parts": verdicts.part_table(parts),
        "summary": q.summary_table(rows),
        "experts": experts,
        "perturbations": table,
        "cells": fit.cells,
        "params": {"posterior_key": posterior_key, "rng": _adata.seed_of(rng)},
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", verdict)
    return written
