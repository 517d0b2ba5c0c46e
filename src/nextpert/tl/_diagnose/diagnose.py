"""``tl.diagnose``: which parts of a fit are reliable on this screen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata.arguments import WORKERS, checked
from nextpert._adata.effects import CLEAR_SIGN
from nextpert._adata.nested import warn_undeclared
from nextpert._adata.table import is_table
from nextpert.core._checks import as_rng
from nextpert.core.model.predictors.graph import Graph
from nextpert.tl._diagnose import judged
from nextpert.tl._diagnose import quantities as q
from nextpert.tl._diagnose import verdict as verdicts
from nextpert.tl._diagnose.controls import judge_controls
from nextpert.tl._diagnose.judged import read_sides
from nextpert.tl._diagnose.model import read_refit
from nextpert.tl._diagnose.unseen import judge_unseen
from nextpert.tl._perturbation_effects import panel_effects, read_wanted

if TYPE_CHECKING:
    import anndata as ad

logger = logging.getLogger(__name__)

PREDICTED = ("mean", "sd", "lower", "upper")  # of perturbations without their fold


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

    Run it after every fit, before a decision depends on it. Each part is scored on cells, guides,
    batches or perturbations that it was not fitted to, and compared with a baseline that needs no
    model. :doc:`/model/diagnosis` describes each part and its rule; plot it with
    :func:`nextpert.pl.diagnose`.

    - *cells*: how many perturbations differ from the controls, and from one another.
    - *negative controls*: how many effects of control cells, which are 0, are significant.
    - *positive controls*: whether target genes change in the expected direction.
    - *shrinkage*: effects from one half of the cells, scored on the other half.
    - *unseen perturbations*: predictions for perturbations whose cells were left out.
    - *graph*: its weight among the predictors, and their error without it.
    - *guides* and *batches*, if declared: effects learned without one, scored on it.

    Parameters
    ----------
    adata
        Cells x genes, or a table of effects (:func:`nextpert.pp.effect_table`), after
        :func:`fit_dag_blr` with three perturbations or more. Of more than 150, a sample of 150 is
        used for the parts that fit again.
    posterior_key
        The ``key_added`` of the fit.
    n_jobs
        Number of threads of the searches; the result does not depend on it.
    rng
        Seed or generator, which splits the cells.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. :doc:`/model/stored_results` lists all columns. Writes
        ``uns["diagnosis"]`` with:

        - ``verdict`` (text): which parts to trust, in sentences.
        - ``level`` (text): ``"trust"``, ``"care"`` or ``"do not trust"``.
        - ``parts`` (table): ``level`` and ``verdict`` of each ``part``.
        - ``summary`` (table): each ``quantity`` of a ``part``: ``value``, ``standard_error``,
          ``n``, ``rule``, ``passed`` and ``meaning``.
        - ``predictors`` (table): ``weight`` and left-out error of each predictor.
        - ``perturbations`` (table): of each, q-values, the change of its target genes, and errors
          and coverage on the cells left out.
        - ``coverage_by_size`` (table): coverage of 90% intervals by the size of the effect.
        - ``negative_controls`` (table): each group of controls in the place of a perturbation.
        - ``null_z`` (array, ``(n_groups, n_genes)``): the z-scores of these groups.
        - ``unseen_mean``, ``unseen_sd``, ``unseen_lower``, ``unseen_upper`` (arrays,
          ``(n_perturbations, n_genes)``): predictions without the cells of the perturbation.

    Raises
    ------
    ValueError
        If there is no fit, it has fewer than three perturbations, there are fewer than four control
        cells, or a value is not finite. Nothing is written then.

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
    generator = as_rng(rng, "halves of a table" if is_table(adata) else "")
    fit = _adata.posterior_from(adata, posterior_key)
    refit, halves, undeclared = read_refit(adata, fit, posterior_key, generator, n_jobs=n_jobs)
    cells = halves.pool(halves.whole, by_guide=halves.declared)
    sides = read_sides(refit, halves, cells.guide_variance)
    unseen = judge_unseen(refit, halves, cells, sides)
    on_halves, by_size = judged.judge_halves(refit, sides)
    shown = cells
    if undeclared is not None:  # cells that share a level are no replicates
        alike = ~halves.by_guides & (np.arange(halves.n_groups) == 0)
        shown = halves.pool(halves.whole, by_guide=True, spread=undeclared.variance, alike=alike)
    effects = panel_effects(fit, read_wanted(None, fit))
    if fit.is_exact:  # with shifts learned
        effects = refit.effects(refit.learned(cells))
    others = ~judged.measured(refit, cells).own()
    called = float((effects.lfsr[others] < CLEAR_SIGN).mean()) if others.any() else 0.0
    nulls = judge_controls(refit, halves, undeclared, called)
    split_by = np.where(halves.by_guides[1:], "guides", "table" if halves.of_table else "cells")
    table = q.perturbation_table(refit, shown, on_halves, unseen, split_by, effects, nulls.factor)
    left_out = judged.judge_left_out(refit, halves, cells.guide_variance)
    weight = unseen.weights[Graph.name], unseen.graph_spread, int(table["error_unseen"].count())
    known = {**nulls.numbers, (q.GRAPH_PART, "weight"): weight}
    rows = q.quantities(table, on_halves, unseen, left_out, known, undeclared)
    level, verdict, parts = verdicts.judge(
        rows, unseen.weights, nulls, undeclared, len(refit.sample), len(refit.names),
        by_condition=bool(halves.line_names),
    )  # fmt: skip
    summary = q.summary_table(rows)
    if halves.of_table:
        verdict = verdicts.of_table(verdict)
        for each, column in ((parts, "verdict"), (summary, "meaning")):
            each[column] = _adata.strings(map(verdicts.of_table, each[column]))
    stored: dict[str, Any] = {
        "verdict": verdict,
        "level": level,
        "parts": parts,
        "summary": summary,
        "predictors": q.predictor_table(unseen),
        "perturbations": table,
        "coverage_by_size": by_size,
        "negative_controls": nulls.table,
        "null_z": nulls.z,
        **{f"unseen_{name}": getattr(unseen.effects, name) for name in PREDICTED},
        "genes": _adata.strings(fit.genes),
        **fit.origin,
        "params": {
            "posterior_key": posterior_key,
            "guide_key": str(fit.params.get("guide_key") or ""),
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    warn_undeclared(undeclared)
    logger.info("%s", verdict)
    return written
