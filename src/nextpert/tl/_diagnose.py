"""``tl.diagnose``: which parts of a fit are reliable on this screen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nextpert import _adata
from nextpert._adata.arguments import WORKERS, checked
from nextpert._adata.table import is_table
from nextpert._adata.undeclared_batches import (
    Undeclared,
    shifted_covariates,
    undeclared_batches,
    warn_undeclared_batches,
)
from nextpert._adata.undeclared_guides import warn_undeclared
from nextpert.core._checks import as_rng
from nextpert.core.model.predictors.base import names_of
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.study import quantities as q
from nextpert.study import scores
from nextpert.study import verdict as verdicts
from nextpert.study.controls import judge_controls
from nextpert.study.effects import panel_effects, read_requested
from nextpert.study.record import spec_of
from nextpert.tl._read_halves import read_refit

if TYPE_CHECKING:
    import anndata as ad

    from nextpert.core.fit.fitted import Expectation

logger = logging.getLogger(__name__)


@checked(n_jobs=WORKERS)
def diagnose(
    adata: ad.AnnData,
    *,
    posterior_key: str = "dag_blr",
    n_jobs: int = 1,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "diagnosis",
    copy: bool = False,
) -> ad.AnnData | None:
    """Test which parts of a fit are reliable on this screen.

    Each part is scored on cells, guides, batches or perturbations that it was not fitted to, and
    compared with a baseline that needs no model. :doc:`/model/diagnosis` states the rules;
    :func:`nextpert.pl.diagnose` plots the scores.

    - *cells*: how many perturbations differ from the controls, and from the other perturbations.
    - *negative controls*: how many effects of control cells, which are 0, are significant.
    - *positive controls*: whether target genes change in the expected direction.
    - *shrinkage*: effects from one half of the cells, scored on the other half.
    - *unseen perturbations*: predictions for perturbations whose cells were left out.
    - *graph*: its weight among the predictors, and their error without it.
    - *guides* and *batches*: effects learned without one, scored on it, if they are declared; and
      columns of ``obs`` that look like them but are not declared.

    Parameters
    ----------
    adata
        Cells x genes, or a table of effects (:func:`nextpert.pp.effect_table`), after
        :func:`fit_dag_blr` with learned shifts and four perturbations or more. Refits use a random
        sample of at most 150 perturbations.
    posterior_key
        The ``key_added`` of the fit.
    n_jobs
        Number of workers for searches and refits (:doc:`/guides/many_machines`); the result does
        not depend on it.
    rng
        Seed or generator of the split of the cells and of the sample.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. :doc:`/model/stored_results` lists all columns.
        Writes ``uns["diagnosis"]`` with:

        - ``verdict`` (text): which parts to trust, in sentences.
        - ``level`` (text): ``"trust"``, ``"care"`` or ``"do not trust"``.
        - ``parts`` (table): ``level`` and ``verdict`` of each ``part``.
        - ``summary`` (table): the quantities of each part, with their rules.
        - ``perturbations`` (table): q-values, effects on target genes, errors on held-out cells.
        - ``negative_controls`` (table): groups of controls that were taken as perturbations.
        - ``guides`` (table), if guides are declared: the change of the target gene by each guide
          and by the others.
        - ``null_z`` (array, ``(n_groups, n_genes)``): the z-scores of these groups.

    Raises
    ------
    ValueError
        If there is no fit, the fit is exact or has fewer than four perturbations, there are fewer
        than four control cells, or a value is not finite. Nothing is written on error.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.learn_dag(adata, method="boss", environments="all")
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.diagnose(adata)
    >>> adata.uns["diagnosis"]["level"]
    'care'
    >>> adata.uns["diagnosis"]["parts"][["part", "level"]]
                       part         level
    0                 cells         trust
    1     negative controls         trust
    2     positive controls         trust
    3             shrinkage         trust
    4  unseen perturbations  do not trust
    5                 graph  do not trust
    6                guides          care
    """
    generator = as_rng(rng, "halves of a table" if is_table(adata) else "")
    fit = _adata.posterior_from(adata, posterior_key)
    refit, halves, undeclared = read_refit(adata, fit, posterior_key, generator, n_jobs=n_jobs)
    # Scores of each part: of all cells, of halves, and without perturbations, guides or a batch.
    cells = halves.pool(halves.all_cells, all_groups=True, by_guide=halves.declared)
    sides = scores.read_sides(refit, halves, cells)
    effects = panel_effects(fit, read_requested(None, fit))
    is_not_target = ~scores.measured(spec_of(fit), cells).own()
    called = (
        float((effects.lfsr[is_not_target] < SIGNIFICANCE).mean()) if is_not_target.any() else 0.0
    )
    nulls = judge_controls(refit, halves, undeclared, called)
    roles = _adata.fitted_roles(adata, fit.params)
    batches = undeclared_batches(adata, fit.columns, fit.names, roles)
    if batches is not None:
        nulls = nulls.widened(batches.width)
    tested = cells
    if undeclared is not None:  # cells that share a level are not independent replicates
        equal_guides = ~halves.by_guides & (np.arange(halves.n_groups) == 0)
        tested = halves.pool(
            halves.all_cells,
            all_groups=True,
            by_guide=True,
            spread=undeclared.variance,
            equal_guides=equal_guides,
        )
    by_part = q.part_scores(fit, tested, effects, nulls.factor)
    halved = np.where(halves.by_guides, "guides", "table" if halves.of_table else "cells")
    on_halves = scores.judge_halves(refit, sides)
    by_part[q.SHRINKAGE] = on_halves.assign(split_by=halved[halves.scored[1:]])
    judged = cells.rows(halves.scored)
    _, by_part[q.UNSEEN] = scores.judge_unseen(refit, halves, judged, sides, n_jobs)
    by_part[q.GRAPH_PART] = by_part[q.UNSEEN]
    by_part |= scores.judge_left_out(refit, halves, cells.guide_variance)
    covariates = shifted_covariates(adata, fit.names, roles)
    guides = None
    if halves.declared and not halves.of_table:
        guides = scores.judge_guides(halves, fit, cells.guide_variance)
    # The quantities computed from these, and the verdict on them.
    weights = cast("Expectation", fit.expectation).weights
    on_graph = names_of(lambda kind: "weights" in kind.draws_on)
    of_graph = sum(weights.get(name, 0.0) for name in on_graph)
    weight = of_graph, q.NO_ERROR, int(by_part[q.UNSEEN][scores.WHOLE].count())
    rows = q.quantities(by_part, {q.NEGATIVE: nulls.numbers, q.GRAPH_PART: {"weight": weight}})
    level, verdict, parts = verdicts.judge(
        rows,
        weights,
        nulls,
        halves,
        Undeclared(undeclared, batches, covariates),
        guides,
        scores.not_judged(halves, by_part),
        scores.confounded(fit, cells),
    )
    stored: dict[str, Any] = {
        "verdict": verdict,
        "level": level,
        "parts": parts,
        "summary": q.summary_table(rows),
        "perturbations": q.perturbation_table(by_part),
        "negative_controls": nulls.table,
        **({} if guides is None else {"guides": guides}),
        "null_z": nulls.z,
        **fit.origin,
        "params": {
            "posterior_key": posterior_key,
            "guide_key": str(fit.params.get("guide_key") or ""),
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    warn_undeclared(undeclared)
    warn_undeclared_batches(batches)
    logger.info("%s", verdict)
    return written
