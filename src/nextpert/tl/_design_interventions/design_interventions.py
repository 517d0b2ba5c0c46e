"""``tl.design_interventions``: which perturbation to try next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata, core
from nextpert._adata import effects as _shifts
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert.core._shown import percent
from nextpert.tl._advice import advise, log_advice
from nextpert.tl._design_interventions import tables
from nextpert.tl._design_interventions.candidates import as_asked, read_candidates
from nextpert.tl._design_interventions.combinations import admit
from nextpert.tl._design_interventions.own_genes import on_other_genes, without_own_genes
from nextpert.tl._design_interventions.target import read_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import anndata as ad

    from nextpert._adata.target import Target, Vector
    from nextpert.core.design.candidates import Candidates


logger = logging.getLogger(__name__)


@checked(
    acquisition=one_of(lambda: ("auto", *core.acquisitions())), candidates=one_of("genes"),
    shift=one_of(*_shifts.KINDS), n_samples=at_least(2),
)  # fmt: skip
def design_interventions(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target,
    *,
    acquisition: str = "auto",
    candidates: str | Iterable[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    target_is_candidate: bool = False,
    shift: str | pd.DataFrame | Mapping[str, Mapping[str, float]] | None = None,
    n_cells: int = 100,
    noise_aware: bool = True,
    posterior_key: str = "dag_blr",
    perturbation_key: str | None = None,
    n_samples: int = 400,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "design",
    copy: bool = False,
) -> ad.AnnData | None:
    """Rank the perturbations to test next so that cells reach a target state.

    The default acquisition depends on the fit. After ``fit_dag_blr(shift_sd=0)``, the exact model
    of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0), it is the paper's: CIV, the causal
    integrated variance, which reduces uncertainty. It is the variance of the distance of every
    candidate to the optimum that is expected to remain after ``n_cells`` more cells of this
    candidate, averaged over the candidates (eqs. 12 and 13), so its first candidate may lead away
    from the target. Where shifts are uncertain (the default fit), the default acquisition is the
    probability of being the nearest of all candidates, by joint draws of their states and of the
    controls from the hierarchical model of :func:`fit_dag_blr`, and CIV is the variance of the
    distances in these draws that remains (:doc:`/model/mathematics`, equation 33). A
    target that is a perturbation of the fit is part of the same draws, and is estimated like the
    candidates; the mean of other cells is taken as it is, with its sampling error. Ties, such as
    candidates that are nearest in no draw, are ordered by the distance of the expected state.

    Besides the acquisition, the ranking has the predicted distance of each candidate to the target,
    which combines its cells with what the model expects of it. Candidates with and without cells
    are ranked together.

    Distances and probabilities of candidates with cells depend on the graph only through what it
    predicts of their effects, times the weight it has earned on the other perturbations. It also
    enters the expected effects of candidates without cells, and, with exact shifts or for
    candidates given as a table of shifts, everything. If the fit has bootstrap graphs
    (``learn_dag(n_graphs=...)``), they have equal weights in all of these. ``"cv"``, ``"civ_ow"``,
    ``"maxv"``, ``"mi"``, ``"ucb"`` and ``"target_mean_variance"`` need exact shifts; all but the
    first two use ``varp["dag"]`` alone.

    With 10 to 50 cells per perturbation, 90% intervals of distances to the strongest perturbations
    of the screen cover 74 to 86% on Papalexi and 79 to 99% on TAP-seq, of distances to states given
    as numbers 84 to 91% and 89 to 94%, and where little happens 86 to 100%. The candidate of the
    largest ``probability_best`` is the nearest about as often as stated on Papalexi (0.49, 0.70,
    0.86: right in 0.63, 0.76 and 0.89 of the cases) and TAP-seq (0.23, 0.37: 0.17, 0.39), but not
    on Norman (0.48, 0.69, 0.88: 0.50, 0.43, 0.64).

    Towards the state that a perturbation itself produces, given by held-out cells, that
    perturbation ranks first by ``state_distance`` in 68, 82 and 92% of the cases on Papalexi, 56,
    73 and 85% on TAP-seq and 52, 69 and 74% on Norman, with 10, 25 and 50 cells; by
    ``probability_best`` in 53, 80 and 89% on Papalexi and 61, 83 and 95% on TAP-seq; by
    ``predicted_distance`` in 40, 59 and 79%, and 51, 76 and 93%. The model does not know that such
    a target is the state of a candidate, so that probabilities below 0.8 are then too small.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`fit_dag_blr`.
    target
        The target state: a perturbation label (its state by the fit); a group, as a tuple
        ``(obs key, value)``; a mapping gene -> target mean, log-normalised expression, in which
        unlisted genes of the panel keep their control mean; or a NumPy vector of target means, as
        mu* of the paper, one per gene in the order of ``uns["dag_blr"]["genes"]``. Or a
        :class:`nextpert.Target`: a signature, bounds, several states, states to avoid, weights of
        genes, distances in units of noise or by direction. Acquisitions on draws (``"ei"``,
        ``"probability"``, ``"thompson"``, ``"greedy"``, ``"civ"``) use its distance exactly; those
        of exact shifts the point of the target nearest to the control, with equal weights of genes.
    acquisition
        ``"auto"`` (default): ``"civ"`` on an exact fit (``shift_sd=0``), otherwise
        ``"probability"``; ``params`` and ``trace`` name the one used. To reach the target:
        ``"probability"`` (of being the nearest), ``"ei"`` (expected improvement on the nearest
        measured candidate), ``"thompson"`` (nearest under one draw), ``"greedy"`` (expected
        distance). To reduce uncertainty: ``"civ"``. Or ``"random"``. On exact shifts
        (``shift_sd=0``, or candidates given as a table) also ``"civ_ow"`` (output-weighted CIV),
        ``"cv"`` (causal variance), ``"maxv"`` (largest variance), ``"mi"`` (mutual information),
        ``"target_mean_variance"`` (variance of the predicted mean), ``"ucb"`` (an upper confidence
        bound of the gap to the ideal shift), or the name of an acquisition of your own
        (:doc:`/developer/acquisition`).
    candidates
        ``None`` (default): every perturbation of the fit. ``"genes"``: those and a knockout of
        every gene of the panel. Or a list of labels, or a table of shifts as in
        :func:`fit_dag_blr`. The labels may include combinations without cells, such as
        ``"MYC+STK3"``, and perturbations that have cells only in combinations. They are predicted
        from the combinations of the screen. Labels of genes outside the panel are predicted by
        ``features`` of :func:`fit_dag_blr`, and, where fewer than half of the perturbations have a
        target on the panel, by the mean perturbation.
    target_is_candidate
        Whether the perturbation whose state is the target may be a candidate. ``False`` (default):
        if the target is a label (as such, as a pair with the column of labels, or as the state of a
        :class:`nextpert.Target`), that perturbation is excluded, because it would always be ranked
        first. If it is among named candidates, the log reports it. Combinations that contain it
        stay. ``True`` keeps it.
    shift
        Shift of the candidates: ``None`` (default) as fitted, or one of the options of
        :func:`fit_dag_blr`. Candidates without a row in a table are modelled as knockouts, with a
        warning. The column ``shift_source`` states which.
    n_cells
        Number of cells of the next perturbation, for acquisitions that reduce uncertainty. Set it
        to what you plan for each.
    noise_aware
        With exact shifts: whether the look-ahead includes the information in the scatter of the
        ``n_cells`` cells (default), or treats them all as equal to their mean, as the paper does.
    posterior_key
        Posterior in ``adata.uns``.
    perturbation_key
        Column of labels in ``adata.obs``; ``None`` (default) takes that of the fit.
    n_samples
        Number of posterior draws for predicted distances and probabilities. With 400 the standard
        error of a probability is at most 0.025.
    rng
        Seed or generator. A seed is combined with the number of the round, so that draws differ
        between rounds and a repeated analysis gives the same results.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Writes ``uns["design"]`` with:

        - ``ranking`` (table): best candidate first (by the acquisition; by ``state_distance`` if
          the variance reductions differ by less than 1%): ``rank``, ``perturbation``,
          ``target_genes``, ``genes_left_out`` (of its distances: the genes that the target's
          perturbation or the candidate targets, by ``own_genes`` of :class:`nextpert.Target`;
          distances are scaled to the control's on the same genes, so that they compare),
          ``shift`` (expected, one value per target gene, log-normalised
          expression), ``shift_source``, ``acquisition`` (lower is better), ``variance_reduction``
          (the fraction of the reducible uncertainty that ``n_cells`` cells are expected to resolve;
          NaN for acquisitions without look-ahead). Then squared distances to the target, in squared
          units of expression (or in those of the target), with the sampling error of a target that
          is a mean of cells subtracted: ``state_distance`` of the expected state;
          ``predicted_distance``, the posterior median, and its 90% interval ``predicted_low`` to
          ``predicted_high`` (:doc:`/model/mathematics`, equation 30); the posterior mean
          ``mean_distance``, which includes the variance of the state, with
          ``predicted_distance_sd``; ``relative_distance``
          (the predicted one divided by that of the control; NaN if that is 0); ``probability_best``
          (of being the nearest); ``probability_better`` (of being nearer than the control);
          ``expected_gap``, the expected difference to the nearest candidate; ``measured_distance``
          of the cells themselves, with their sampling error subtracted (NaN without cells);
          ``data_weight`` (of :func:`perturbation_effects`, mean over genes) and ``n_cells_seen``.
          Of untested combinations ``probability_nearer_than_members`` (than all of them) and
          ``probability_nearer_than_measured`` (than the best measured candidate), NaN of others.
          If one of the two is not above 0.5, a combination is no candidate to find the best, and
          ``probability_best``, that among the others, is 0. ``members_without_effect`` names
          its members that do not differ from the controls (FDR 5%).
          The last row, with the label of the controls and with ``is_control``, is the control, for
          reference. It is no candidate, has rank 0, and NaN in columns that do not apply to it.
        - ``advice`` (mapping): what to do next, as in :func:`plan_cells`.
        - ``not_ranked`` (table): candidates without whose target genes less than half of the
          control's distance is left: ``perturbation`` and ``why``.
        - ``floor`` (number): the squared distance that the sampling error of the mean of the
          target's cells alone causes.
        - ``trace`` (table): this and all earlier rounds: ``round`` (a new round starts when the
          cells or roles of the fit have changed; a call with the same target and acquisition in
          the same round replaces its row), ``chosen``, ``acquisition``, ``value``, ``target``,
          ``predicted_distance`` with its interval, the data used (``n_control_cells``,
          ``n_perturbed_cells``, ``n_perturbations``) and ``n_cells``.
        - ``targets`` (mapping): ``names``, the target genes of one row of the ranking after the
          other, and ``offsets``.
        - ``shifts`` (sparse, ``(n_candidates, n_genes)``): the expected shifts.
        - ``target_mean`` (array, ``(n_genes,)``): the target state.
        - ``genes`` (names, ``(n_genes,)``): its genes.
        - ``cells``, ``fit`` (texts): the fingerprint of the fit's cells, and the digest of the fit.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If there is no posterior or it belongs to another gene panel, the target, a candidate or
        a gene is unknown (close matches are suggested), there are no candidates, or the entry has
        rounds of another panel. Nothing is written on error.

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
    >>> target = npt.Target(state="A", own_genes="include")  # of two genes none is left else
    >>> npt.tl.design_interventions(
    ...     adata, target, candidates="genes", target_is_candidate=True, acquisition="greedy"
    ... )
    >>> adata.uns["design"]["ranking"][["rank", "perturbation", "target_genes"]]
       rank perturbation target_genes
    0     1            A            A
    1     2            B            B
    2     0      control
    """
    fit = _adata.posterior_from(adata, posterior_key, compare=False)
    trace = tables.read_trace(adata, key_added, fit.genes)
    key = str(fit.params["perturbation_key"]) if perturbation_key is None else perturbation_key
    wanted = read_target(adata, target, fit, key, key=posterior_key)
    pool = read_candidates(candidates, shift, fit, wanted, target_is_candidate=target_is_candidate)
    pool, wanted = without_own_genes(pool, wanted, fit)
    this_round = tables.round_of(adata, key_added, trace, fit.fingerprint)
    # A seed is joined with the number of the round, so that rounds differ.
    seeds = rng if rng is None or isinstance(rng, np.random.Generator) else [rng, this_round]
    options = {"n_cells": n_cells, "noise_aware": noise_aware, "n_samples": n_samples}
    generator = np.random.default_rng(seeds)
    asked = as_asked(fit, pool, wanted.goal, wanted.targets, rng=generator, **options)
    admission = admit(asked, pool, fit, wanted)
    if acquisition == "auto":  # that of the paper where the model is the paper's
        acquisition = "civ" if fit.is_exact else "probability"
    values, removed = _valued(acquisition, asked)
    distance = asked.distances
    ranking, order = tables.ranking_table(pool, values, removed, distance, admission, wanted, fit)
    best, elsewhere = ranking.iloc[0], ""
    others = on_other_genes(pool, wanted, fit)
    if others is not None:  # whom leaving out the targets of all candidates would choose
        told = as_asked(fit, pool, others.goal, others.targets, rng=generator, **options)
        told.admit(admission.admitted)
        first = tables.best_first(*_valued(acquisition, told), told.distances)[0]
        elsewhere = pool.interventions.names[int(first)]
        elsewhere = "" if elsewhere == best["perturbation"] else elsewhere
    row = {
        "round": this_round,
        "chosen": str(best["perturbation"]),
        "acquisition": acquisition,
        "value": float(best["acquisition"]),
        "target": wanted.name,
        "predicted_distance": float(best["predicted_distance"]),
        "predicted_low": float(best["predicted_low"]),
        "predicted_high": float(best["predicted_high"]),
        "n_control_cells": fit.n_control_cells,
        "n_perturbed_cells": int(fit.environments["n_cells"].sum()),
        "n_perturbations": len(fit.environments),
        "n_cells": n_cells,
    }
    stored = {
        "ranking": ranking,
        "not_ranked": pd.DataFrame(
            {
                "perturbation": _adata.strings(wanted.not_ranked),
                "why": _adata.strings(wanted.not_ranked.values()),
            }
        ),
        "trace": tables.extend_trace(trace, row),
        "targets": _adata.stored_lists(pool.interventions.targets[i] for i in order),
        "shifts": _adata.as_stored_csr(pool.interventions.shifts[order]),
        "advice": advise(adata, fit, pool, wanted),
        "floor": float(np.atleast_1d(wanted.cells.floor)[-1]),
        "target_mean": wanted.mean,
        "genes": _adata.strings(fit.genes),
        **fit.origin,
        "params": {
            "acquisition": acquisition,
            "n_graphs": fit.n_graphs,
            "target": wanted.name,
            "distance": wanted.distance,
            "genes_left_out": wanted.genes_in_words,
            "first_on_other_genes": elsewhere,
            "candidates": _word(candidates, "fitted"),
            "target_is_candidate": int(target_is_candidate),
            "shift": _word(shift, "fitted"),
            "n_cells": n_cells,
            "noise_aware": int(noise_aware),
            "n_samples": int(n_samples),
            "posterior_key": posterior_key,
            "perturbation_key": key,
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    log_advice(stored["advice"])
    logger.info(
        "Round %d: of %d candidates towards %s, %s is the first by %s%s. It is "
        "the nearest with probability %s; its predicted distance is %.3g (%.3g to %.3g), "
        "the control's %.3g.",
        this_round, int(admission.admitted.sum()), wanted.name, best["perturbation"], acquisition,
        f" (shift of {best['target_genes']}: {best['shift']})" * bool(best["target_genes"]),
        percent(best["probability_best"]),
        best["predicted_distance"], best["predicted_low"], best["predicted_high"],
        tables.nothing_of(ranking)["predicted_distance"],
    )  # fmt: skip
    if elsewhere:
        logger.info(
            "On the genes that neither %s nor any candidate targets, %s would be first.",
            wanted.name, elsewhere,
        )  # fmt: skip
    if tables.is_flat(removed):
        logger.warning(
            "The candidates differ by less than 1%% in variance reduction (%d cells of each are "
            "expected to resolve %.2g to %.2g%% of the remaining uncertainty, by %s), so they are "
            "ranked by state_distance.",
            n_cells, 100 * removed.min(), 100 * removed.max(), acquisition,
        )  # fmt: skip
    return written


def _valued(acquisition: str, asked: Candidates) -> tuple[Vector, Vector]:
    """Return an acquisition of candidates, and what their cells are expected to resolve or NaN."""
    values, removed = core.find_acquisition(acquisition).of_candidates(asked)
    return values, np.full(len(values), np.nan) if removed is None else removed


def _word(option: Any, default: str) -> str:
    if option is None:
        return default
    if isinstance(option, str):
        return option
    return "table" if hasattr(option, "items") else "list"
