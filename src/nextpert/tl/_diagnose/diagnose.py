"""``tl.diagnose``: which parts of a fit are reliable on this screen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata import environments
from nextpert._adata.arguments import WORKERS, checked
from nextpert._adata.effects import CLEAR_SIGN
from nextpert._adata.nested import undeclared_guides, warn_undeclared
from nextpert._adata.table import is_table
from nextpert.core._checks import as_rng
from nextpert.core.model.predictors.graph import Graph
from nextpert.tl._diagnose import judged
from nextpert.tl._diagnose import quantities as q
from nextpert.tl._diagnose import verdict as verdicts
from nextpert.tl._diagnose.controls import guide_of, judge_controls
from nextpert.tl._diagnose.halves import Folds, read_halves
from nextpert.tl._diagnose.judged import read_sides
from nextpert.tl._diagnose.model import read_refit
from nextpert.tl._diagnose.unseen import judge_unseen
from nextpert.tl._learn_dag.graphs import read_held_out
from nextpert.tl._perturbation_effects.candidates import panel_effects, read_wanted

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
    r"""Test which parts of a fit are reliable on this screen.

    Run it after every fit, before a decision rests on it. Each part is scored on cells, guides,
    batches or perturbations that it was not fitted to, and compared with a baseline that needs no
    model. :doc:`/model/diagnosis` describes each part and its rule.

    - *cells*: how many perturbations differ from the controls, and from one another.
    - *negative controls*: control cells that take the place of perturbations, whose effects are 0:
      how many of these are significant, and whether standard errors are too small.
    - *positive controls*: the change of target genes, in the direction that the fit expects.
    - *shrinkage*: effects learned from one half of the guides (or cells), scored on the means of
      the other half, beside the cells' means and "no effect".
    - *unseen perturbations*: predictions for perturbations without cells, after graph and fit were
      learned again without them, and the largest correlation that is possible (the *ceiling*).
    - *graph*: its weight among the predictors, and the error of the others without it.
    - *guides* and *batches*, if they are declared: effects learned without one, scored on it. A
      column that nests in the labels as guides do is tested, and named with the call to declare it.

    Of more than 150 perturbations, 150 drawn at random are judged by the fits to parts of the
    cells; all are tested for differences. A table of effects (:func:`nextpert.pp.effect_table`) is
    split by its standard errors, and judged given these.

    Parameters
    ----------
    adata
        Cells x genes, or a table of effects, after :func:`fit_dag_blr` with three perturbations or
        more.
    posterior_key
        Its ``key_added``.
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
        ``None``, or the copy. Writes ``uns["diagnosis"]`` with:

        - ``verdict`` (text): what to trust, in sentences.
        - ``level`` (text): ``"trust"``, ``"care"`` or ``"do not trust"``.
        - ``parts`` (table): one row per ``part``: ``level``, ``verdict``.
        - ``summary`` (table): one row per ``quantity`` of a ``part``: ``value``,
          ``standard_error`` (over perturbations), ``n``, ``rule``, whether it ``passed``
          (``"yes"``, ``"no"`` or empty), ``meaning``.
        - ``predictors`` (table): one row per predictor (``predictor``), all together last:
          ``weight`` in the fit; ``error_to_no_effect`` (squared error on left-out perturbations
          relative to that of "no effect", sampling error subtracted from both; genes in units of
          their standard deviation; each predictor with the weight that it gets alone, without their
          fold) and its standard error ``error_to_no_effect_se``.
        - ``unseen_mean``, ``unseen_sd``, ``unseen_lower``, ``unseen_upper`` (arrays,
          ``(n_perturbations, n_genes)``): predictions of every perturbation without its fold, as
          :func:`perturbation_effects` writes them, with 90% intervals; NaN without a prediction.
        - ``genes`` (array, ``(n_genes,)``): the genes of these.
        - ``perturbations`` (table): one row each: ``perturbation``, ``target_genes``,
          ``n_cells``; ``squared_distance`` from the controls, unbiased (squared log-normalised
          expression), ``q_value`` and ``is_significant``; against the mean of the others
          ``q_value_from_others`` and ``is_distinct`` (significant by both);
          ``weakest_target`` with its change ``target_gene_change`` (log-normalised expression),
          ``target_gene_z`` (in standard errors), its effect as :func:`perturbation_effects` states
          it (``target_gene_mean``, ``target_gene_lower``, ``target_gene_upper``), the expected
          direction ``target_gene_expected`` (1 or -1) and ``target_gene_found`` (``"yes"``: local
          false sign rate below 0.05 in the expected direction, ``"opposite direction"``, ``"no"``,
          or empty without a target on the panel);
          ``split_by`` (``"guides"``, ``"cells"`` or ``"table"``, how its halves were made; empty
          if it is not among the 150 that fits to parts of the cells are judged by);
          ``reliability`` (correlation of the halves, extrapolated to all cells);
          ``error_half`` of shrunken effects, ``error_half_raw_means``, ``error_half_no_effect``
          (squared error on the other half, sums over genes, sampling error and the variance between
          declared guides subtracted, squared units of expression); of left-out perturbations
          ``error_unseen``, ``error_unseen_no_effect``, the correlation ``r_all`` and that of each
          predictor, ``ceiling_r`` (the correlation that a perfect predictor would
          have with the observed effects on other genes: the root of their reliability between
          the halves, or what the predictors reached, if that is more) and
          ``ceiling`` (``"predicted by the mean perturbation"``, ``"predicted by other
          predictors"``, ``"room for improvement"``, ``"not measurable"``, or empty without a
          prediction); values that were not computed are NaN.
        - ``coverage_by_size`` (table): the coverage of 90% intervals of effects learned from one
          half, by what a user sees of an effect: its distance from 0 in standard deviations of its
          posterior, ``size_from`` to ``size_to``; ``n`` effects (both ways), ``coverage`` and its
          ``standard_error`` over perturbations.
        - ``negative_controls`` (table): one row per group of control cells in the place of a
          perturbation: ``name`` of the guide or batch, ``n_cells``, ``n_false`` (significant
          effects), ``coverage`` of 0 by 90% intervals.
        - ``null_z`` (array, ``(n_groups, n_genes)``): their z-scores.
        - ``cells``, ``fit`` (texts): the fingerprint of the fit's cells, and the digest of the fit.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If there is no fit, it has fewer than three perturbations, there are fewer than four control
        cells, or a value is NaN or infinite.
        Nothing is written on error.

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
    fit = _adata.posterior_from(adata, posterior_key, compare=False)
    roles = _adata.fitted_roles(adata, fit.params)
    folds = Folds.of(fit, posterior_key, generator)
    dag_key = str(fit.params["dag_key"])
    held_out = read_held_out(adata, dag_key, roles, len(fit.genes), folds.names)
    undeclared = undeclared_guides(adata, fit.columns, folds.names, roles)
    halves = read_halves(
        adata, fit.columns, folds.names, roles, generator, held_out=held_out, folds=folds,
        undeclared=None if undeclared is None else undeclared.column,
        checksum=_adata.checksum_of_cells(adata, fit),
    )  # fmt: skip
    _adata.warn_of_changed_cells(adata, fit, posterior_key, halves.cells.checksum)
    refit = read_refit(adata, fit, folds, halves.cells, held_out, n_jobs=n_jobs)
    cells = halves.pool(halves.whole, by_guide=halves.declared)
    environments.require_varying(cells.control, fit.genes)
    sides = read_sides(refit, halves, cells.guide_variance)
    unseen = judge_unseen(refit, halves, cells, sides)
    on_halves, by_size = judged.judge_halves(refit, sides)
    shown = cells
    if undeclared is not None:  # cells that share a level are no replicates
        alike = ~halves.by_guides & (np.arange(halves.n_groups) == 0)
        shown = halves.pool(halves.whole, by_guide=True, spread=undeclared.variance, alike=alike)
    left_out = {
        q.GUIDES: judged.judge_guides(refit, halves, cells.guide_variance),
        q.BATCHES: judged.judge_batches(refit, halves),
    }
    nulls = judge_controls(refit, halves, undeclared)
    effects = panel_effects(fit, read_wanted(None, fit))
    if fit.is_exact:  # with shifts learned
        effects = refit.effects(refit.learned(cells))
    how = np.where(halves.by_guides[1:], "guides", "table" if halves.of_table else "cells")
    table = q.perturbation_table(
        refit, shown, on_halves, unseen, how.tolist(), effects, nulls.width_of_tests.factor
    )
    others = ~judged.measured(refit, cells).own()
    is_called = effects.lfsr[others] < CLEAR_SIGN
    known = nulls.numbers(float(is_called.mean()) if len(is_called) else 0.0)
    known[q.GRAPH_PART, "weight"] = (
        unseen.weights[Graph.name], unseen.graph_spread, int(table["error_unseen"].count())
    )  # fmt: skip
    scores = q.scores_by_part(table, on_halves, unseen, left_out)
    rows = q.quantities(scores, known, undeclared)
    n_judged = len(refit.sample)
    parts = verdicts.judge(
        rows, unseen.weights, nulls, undeclared, n_judged,
        by_condition=roles.condition_key is not None,
    )  # fmt: skip
    level, verdict = verdicts.overall(parts, n_judged, len(refit.names))
    judged_parts, summary = verdicts.part_table(parts), q.summary_table(rows)
    if halves.of_table:
        verdict = verdicts.of_table(verdict)
        for each, column in ((judged_parts, "verdict"), (summary, "meaning")):
            each[column] = _adata.strings(map(verdicts.of_table, each[column]))
    stored: dict[str, Any] = {
        "verdict": verdict,
        "level": level,
        "parts": judged_parts,
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
            "guide_key": guide_of(fit),
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    warn_undeclared(undeclared)
    logger.info("%s", verdict)
    return written
