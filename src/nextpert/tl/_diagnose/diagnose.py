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
from nextpert.tl._diagnose import judged
from nextpert.tl._diagnose import quantities as q
from nextpert.tl._diagnose import verdict as verdicts
from nextpert.tl._diagnose.controls import guide_of, judge_controls
from nextpert.tl._diagnose.halves import Folds, read_halves
from nextpert.tl._diagnose.judged import read_sides
from nextpert.tl._diagnose.model import read_refit
from nextpert.tl._diagnose.unseen import judge_unseen
from nextpert.tl._learn_dag.graphs import read_held_out

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

    Each part is scored on cells, guides, batches or perturbations that it was not fitted to, and
    compared with a baseline that needs no model:

    - *cells*: how many perturbations differ from the controls, and from one another.
    - *negative controls*: control cells that take the place of perturbations, whose effects are 0.
      In four folds, each control guide in turn is a perturbation of its own, while the other guides
      stay controls, and the model is fitted to all perturbations as users fit it. The part states
      how many effects of controls are significant, and how wide the null is: the standard deviation
      of the z-scores (differences of means over their standard errors), from their median
      (Efron 2004, doi:10.1198/016214504000000089). If it is significantly above 1, standard errors
      are too small, and the tests of *cells* and target genes multiply them by it. Where the
      controls have fewer than two guides of 20 cells, the controls of each batch take the place of
      guides, or else half of the control cells. That is the weaker proof: it shows no variance
      between guides.
      If most perturbations have cells in one batch only, control guides (or halves) are taken
      batch by batch, as the error of the controls of a batch is shared by its perturbations.
    - *positive controls*: the change of target genes, in the direction that the fit expects.
    - *shrinkage*: effects learned from one half of the screen, scored on the means of the other
      half, and compared with the cells' means and with "no effect". Cells that share a guide are
      not independent replicates. Therefore, if a perturbation (or the controls) has two or more
      guides with enough cells, the halves are made of guides, else of cells, which tests for
      sampling error alone. ``split_by`` states which was done.
    - *unseen perturbations*: the predictions of :func:`perturbation_effects` for candidates without
      cells. In five folds of the perturbations, the graph (if :func:`learn_dag` learned it with
      ``environments="all"``) and the fit are learned again without any cell of the fold, with the
      same options and seed, and the labels of the fold are predicted as candidates. The change of
      their target genes is predicted as well, from the efficacy of the other perturbations. So the
      predictions that are scored are those that users get. A perturbation with a target outside the
      panel cannot be a candidate, and is not scored, unless by its members, by features, or because
      fewer than half of the perturbations have a target on the panel. What a better predictor could
      gain is limited by what of the effects can be reproduced (the *ceiling*); it is stated for
      each perturbation.
    - *graph*: its weight among the predictors, and the error of the other predictors without it. An
      empty graph predicts no effect on other genes. Effects of perturbations with cells
      depend on the graph by its weight alone.
    - *guides*, if ``guide_key`` is declared: effects learned without one guide of every
      perturbation and half of those of the controls, scored on that guide. If it is not declared,
      but a column of ``adata.obs`` nests in the perturbation labels (each level belongs to one
      label, and at least half of the labels have two levels of five cells or more): the variance
      between its levels. A warning then names the column and the call that declares it. Halves are
      split by it, and the tests of *cells* include its variance; the fit itself is scored as it is,
      without guides.
    - *batches*, if ``batch_key`` is declared: effects learned without a batch, scored on it. If
      they do not predict it, perturbations may act differently in each: the verdict names
      ``condition_key`` of :func:`nextpert.pp.setup_screen`. If that is declared, the effects
      that are judged are those of the cells of all conditions.

    A table of effects (:func:`nextpert.pp.effect_table`) has no cells to split. It is split by its
    standard errors: with ``z`` standard normal, an effect ``b`` of the standard error ``s`` becomes
    ``b + s z`` and ``b - s z``, which are independent with the variance ``2 s^2`` each (Leiner et
    al. 2023, doi:10.1080/01621459.2023.2270748; equation 31), the mean of the controls alike. All
    parts but *negative controls* and *guides* are then judged as for cells. This is a judgement
    given the standard errors. If they are too small, both halves contain what is left of the
    noise, and all parts look better than they are. A table cannot show this, except by its
    batches, if it has any: they are replicates. *Negative controls* therefore are at best *care*,
    and *do not trust* if z-scores are large in nearly all perturbations. Standard errors within a
    batch do not include the variation between clones and batches: without a perturbation in two
    batches, no part has the level *trust*. The tests of *cells*
    allow for correlated errors of genes, which are learned from the perturbations. The halves do so
    if the table brings the correlation of genes. Else, of two genes whose errors are correlated,
    half of one and the other half of the other stay dependent, and on a screen of strongly
    correlated genes *shrinkage* looks better than it is.

    Effects of halves, guides and batches are those of :func:`fit_dag_blr` with the same options on
    the other cells, but on the graph of all cells. Shifts are learned, even if those of the fit are
    exact. The graph is a single one. With a table of shifts, labels left out are predicted as
    knockouts, because the table has no row for them. Cells are read once, once per fold, once more
    if the graph is learned again, and up to 20,000 of them again if a column nests in the labels.

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
          fold) and its standard error ``error_to_no_effect_se``; ``r`` and ``r_se``.
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
          it (``target_gene_mean``, ``target_gene_lower``, ``target_gene_upper``,
          ``target_gene_lfsr``), the expected direction ``target_gene_expected`` (1 or -1) and
          ``target_gene_found`` (``"yes"``: local false sign rate below 0.05 in the expected
          direction, ``"opposite direction"``, ``"no"``, or empty without a target on the panel);
          ``split_by`` (``"guides"``, ``"cells"`` or ``"table"``, how its halves were made);
          ``reliability`` (correlation of the halves, extrapolated to all cells);
          ``error_half`` of shrunken effects, ``error_half_raw_means``, ``error_half_no_graph`` (on
          an empty graph; equal to ``error_half`` where the graph has no weight),
          ``error_half_no_effect`` (squared error on the other half, sums over genes, sampling error
          and the variance between declared guides subtracted, squared units of expression),
          ``coverage_half`` and, of large effects alone, ``coverage_half_large``; of left-out
          perturbations ``error_unseen``, ``error_unseen_no_effect``, ``r_all`` and that of each
          predictor, ``coverage_unseen`` and ``coverage_unseen_large``, ``error_unseen_mean`` of
          the mean perturbation alone, ``ceiling_r`` (the correlation that a perfect predictor would
          have with the observed effects on other genes: the root of their reliability between
          the halves, or what the predictors reached, if that is more) and
          ``ceiling`` (``"predicted by the mean perturbation"``, ``"predicted by other
          predictors"``, ``"room for improvement"``, ``"not measurable"``, or empty without a
          prediction); with guides or batches
          ``error_guides``, ``error_guides_no_effect``, ``coverage_guides``,
          ``coverage_guides_large`` and the same of ``batches``. Coverage is that of 90% intervals;
          values that were not computed are NaN.
        - ``coverage_by_size`` (table): the coverage of 90% intervals of effects learned from one
          half, by what a user sees of an effect: its distance from 0 in standard deviations of its
          posterior, ``size_from`` to ``size_to``; ``n`` effects (both ways), ``coverage`` and its
          ``standard_error`` over perturbations.
        - ``negative_controls`` (table): one row per group of control cells in the place of a
          perturbation: ``name`` of the guide or batch, ``n_cells``, ``n_false`` (significant
          effects), ``coverage`` of 0 by 90% intervals, ``width`` of its z-scores.
        - ``null_z`` (array, ``(n_groups, n_genes)``): these z-scores.
        - ``cells``, ``fit`` (texts): the fingerprint of the fit's cells, and the digest of the fit.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If there is no fit, it has fewer than three perturbations, there are fewer than four control
        cells, or a value is NaN or infinite.
        Nothing is written on error.

    Notes
    -----
    The rules are as follows. A difference is *significant* if it is 2 standard errors or more; of
    perturbations, at a false discovery rate of 5%. A ratio or a coverage without a standard error
    passes no rule: the level is then not *trust*, and the verdict states that the quantity could
    not be judged.

    - Cells: *trust* if three or more perturbations differ from the controls and from the mean of
      the others; *do not trust* if none does.
    - Negative controls: *do not trust* if significantly more than a tenth of the effects of control
      cells, or of the significant effects of the screen by this share, are false (by the lower end
      of the 95% interval; a tenth is twice what the threshold of 0.05 states), or the width of the
      null is significantly above 1.2; *trust* if it is not significantly above 1, and 90% intervals
      cover 0 in 85% of the effects or more. With fewer than 40 control cells, or a table, nothing
      is judged, and the level is *care*. Of a table it is *do not trust* if three quarters of the
      perturbations have z-scores of a width above 1.5: standard errors look too small, and no part
      has the level *trust* then; on four real screens this width was 0.8 to 1.3.
    - Positive controls: *trust* if half of the target genes or more are found, and none has a
      significant change in the opposite direction; *do not trust* if as many change in the opposite
      direction, or none of three or more is found.
    - Ceiling: an effect is *not measurable* if the perturbation does not differ from the controls
      or ``ceiling_r`` is below 0.5; else it is *predicted* if the correlation of the predicted and
      the observed effect is at least 0.8 of ``ceiling_r``.
    - Shrinkage: *do not trust* if the squared error is no smaller than that of "no effect", or 90%
      intervals cover less than half of all or of the large effects; *trust* if the error is
      significantly smaller and at most 1.1 times that of the cells' means, and intervals cover 70%
      of all and of the large effects.
    - Unseen perturbations: *do not trust* if the error is more than 0.95 of that of "no effect" or
      of the mean perturbation, or below it by less than a standard error, or intervals cover less
      than half of the large effects; *trust* if the error is significantly below both, at most 0.8
      of that of "no effect", and intervals cover 70% of all and of the large effects.
    - Graph: *do not trust* if its weight is below 0.05 or the other predictors are as accurate
      without it; *trust* if they are at least 5% more accurate with it, it is significantly better
      than "no effect" alone, and it increases the error of measured effects by at most a tenth of
      the error of the cells' means.
    - Guides, batches: as shrinkage, compared with "no effect". An undeclared column that nests in
      the labels: *do not trust* if its levels differ significantly (5% level), *trust* if they do
      not. Batches are at worst *care* if ``condition_key`` is declared.

    The overall level is *do not trust* if cells, negative controls or shrinkage have that level,
    *trust* if all parts have, else *care*.

    *Large* effects are those of 3 standard errors or more in the cells that they are learned from.
    If they were selected by the cells that are scored, they would be large by chance, and their
    coverage low even for a calibrated model. A calibrated posterior covers 90% of any effects
    selected by the cells it was learned from; one that shrinks strong effects too much does not.
    Predictions of unseen perturbations use none of their cells, so large effects are selected by
    one half of the cells and scored on the other. With fewer than five no rule applies.

    The means that are scored have sampling error and, with declared guides, the variance between
    guides that the fit has learned; both are added to the intervals. Without declared guides the
    fit assumes that guides do not differ, and halves split by an undeclared column show the
    consequences.

    Intervals of distances are not tested here. With few cells they cover less than 90% on real
    screens (:func:`design_interventions`).

    Standard errors over perturbations assume independence, although perturbations share the
    controls. If the graph was learned from all cells, these include the half that is scored.

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
    folds = Folds.of(fit, posterior_key)
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
    effects = refit.effects_of_all(cells)
    table = verdicts.perturbation_table(
        refit, shown, on_halves, unseen, halves.split_by, left_out, effects,
        nulls.width_of_tests.factor,
    )  # fmt: skip
    others = ~judged.measured(refit, cells).own()
    rows = q.quantities(
        table, on_halves, unseen, left_out, halves, cells, nulls,
        float((effects.lfsr[others] < CLEAR_SIGN).mean()) if others.any() else 0.0, undeclared,
    )  # fmt: skip
    predictors = q.predictor_table(unseen)
    parts = verdicts.judge(
        rows, predictors, nulls, undeclared, by_condition=roles.condition_key is not None
    )
    level, verdict = verdicts.overall(parts)
    judged_parts, summary = verdicts.part_table(parts), q.summary_table(rows)
    if halves.of_table:
        verdict = q.of_table(verdict)
        for each, column in ((judged_parts, "verdict"), (summary, "meaning")):
            each[column] = _adata.strings(map(q.of_table, each[column]))
    stored: dict[str, Any] = {
        "verdict": verdict,
        "level": level,
        "parts": judged_parts,
        "summary": summary,
        "predictors": predictors,
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
