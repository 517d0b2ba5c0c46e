"""``tl.design_interventions``: which perturbation to try next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata, core
from nextpert._adata import effects as _shifts
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert.tl._design_interventions import tables
from nextpert.tl._design_interventions.candidates import as_asked, read_candidates
from nextpert.tl._design_interventions.target import read_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import anndata as ad
    import pandas as pd

    from nextpert._adata.target import Target


logger = logging.getLogger(__name__)


@checked(
    acquisition=one_of(core.acquisitions), candidates=one_of("genes"),
    shift=one_of(*_shifts.KINDS), n_samples=at_least(2),
)  # fmt: skip
def design_interventions(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Target,
    *,
    acquisition: str = "probability",
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
    """Rank the perturbations to try next so that cells reach a wanted state.

    The default acquisition is the probability of being the nearest of all candidates, by draws of
    weights, graphs and shifts; equals, such as those that are the nearest in no draw, follow by
    the distance of the expected state. The acquisition of the paper, to learn most, is CIV, the
    causal integrated variance: how uncertain the distance of every candidate to the optimum would
    stay after ``n_cells`` more cells of this one, averaged over the candidates (Zhang et al. 2023,
    doi:10.1038/s42256-023-00719-0, eqs. 12 and 13), the uncertainty of their shifts included: the
    first may well be one that leads away. Beside the acquisition stands how far the mean that each
    reaches is predicted to stay from the target, with what its cells say and what was expected of
    it. Candidates with cells and without are ranked together.

    Where the fit has the graphs of resamples (``learn_dag(n_graphs=...)``), they count alike, and
    what is not known of the graph is part of all of it. ``"maxv"``, ``"mi"``, ``"ucb"`` and
    ``"target_mean_variance"`` take ``varp["dag"]`` alone; these and ``"cv"`` take shifts as they
    are expected.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`fit_dag_blr`.
    target
        The wanted state: a perturbation label (the mean of its cells); a group, as a tuple
        ``(obs key, value)``; or a mapping gene -> wanted mean, log-normalised expression, in
        which unlisted genes of the panel keep their control mean. Or a :class:`nextpert.Target`:
        a signature, bounds, several states, what to stay away from, weights of genes, distances
        in units of noise or by direction. Acquisitions on draws (``"ei"``, ``"probability"``,
        ``"thompson"``) measure it as it is; CIV by a quadratic that stands in for it near the best
        state expected (see :class:`nextpert.core.UncertainCiv`); ``"greedy"`` by the distance of
        the expected state; the other acquisitions by the nearest point to control, genes alike.
    acquisition
        To reach the target: ``"probability"`` (default, of being the nearest), ``"ei"`` (expected
        improvement on the nearest measured candidate), ``"thompson"`` (nearest under one draw),
        ``"greedy"`` (expected distance to the ideal shift). To learn: ``"civ"``, ``"civ_ow"``
        (output-weighted CIV), ``"cv"`` (causal variance), ``"maxv"`` (largest variance),
        ``"mi"`` (mutual information), ``"target_mean_variance"`` (variance of the reached mean).
        ``"ucb"``, an upper confidence bound of the gap to the ideal shift; or ``"random"``. Or the
        name of one of your own (:doc:`/developer/acquisition`).
    candidates
        ``None`` (default): every perturbation the fit used. ``"genes"``: those and a knockout of
        every gene of the panel. Or a list of labels, or a table of shifts as in
        :func:`fit_dag_blr`. Combinations without cells, such as ``"MYC+STK3"``, may be among the
        labels, and members that have cells in combinations alone: they are expected by what the
        screen's combinations say of how far effects add up and of each member.
    target_is_candidate
        Whether the perturbation whose state is the target may be a candidate. ``False`` (default):
        where the target is a label (as such, as a pair with the column of labels, or as the state
        of a :class:`nextpert.Target`), that perturbation is excluded, because it would be the
        answer to every such question; of named candidates the log says so. Combinations that
        contain it stay. ``True`` keeps it.
    shift
        Shift of the candidates: ``None`` (default) as fitted, or one of the options of
        :func:`fit_dag_blr`. Candidates that a table has no row for are modelled as knockouts,
        with a warning. The column ``shift_source`` says which.
    n_cells
        Number of cells n_cells for the next perturbation, for acquisitions that learn.
    noise_aware
        Whether the look ahead counts what the scatter of the n_cells cells teaches (default), or
        puts them all at their mean, as the paper does.
    posterior_key
        Posterior in ``adata.uns``.
    perturbation_key
        Column of labels in ``adata.obs``; ``None`` (default) takes that of the fit.
    n_samples
        Number of posterior draws for predicted distance and probabilities.
    rng
        Seed or generator. A seed is joined with the number of the round, so that rounds differ
        and a repeated analysis does not.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Writes ``uns["design"]`` with:

        - ``ranking``: a table, best candidate first (by the acquisition; where the shares of
          uncertainty removed differ by less than 1 %, by ``state_distance``): ``rank``,
          ``perturbation``, ``target_genes``, ``shift`` (expected, one value a target gene,
          log-normalised expression), ``shift_source``, ``acquisition`` (lower is better),
          ``variance_reduction`` (the share of what cells may teach that ``n_cells`` cells are
          expected to; NaN for acquisitions that do not look ahead). Then squared distances to the
          target, in squared units of expression (or as the target measures), less what the
          sampling of wanted states' means adds: ``state_distance`` of the expected state;
          ``predicted_distance``, its mean over all that is not known, with
          ``predicted_distance_sd`` and the 90 % interval ``predicted_low`` to
          ``predicted_high``; ``relative_distance`` (over that of doing nothing;
          NaN where that is 0);
          ``probability_best`` (of being the nearest), ``probability_better`` (than doing
          nothing); ``expected_gap``, how much nearer the nearest candidate is expected to be;
          ``measured_distance`` of the cells themselves, less what their sampling adds (NaN
          without cells); ``data_weight`` (of the shift, mean over genes) and
          ``n_cells_seen``.
          The last row, under the label of the controls and with ``is_control``, is doing nothing,
          for reference: no candidate, of rank 0, and NaN where a column has no meaning for it.
        - ``floor``: the squared distance that the sampling of the target's mean makes by itself.
        - ``trace``: a table of this and all earlier rounds: ``round`` (it counts on once the
          cells of the fit have changed; the same question, that is target and acquisition, asked
          again in a round replaces its row), ``chosen``, ``acquisition``, ``value``, ``target``,
          ``predicted_distance`` with its sd, the data used (``n_control_cells``,
          ``n_perturbed_cells``, ``n_perturbations``) and ``n_cells`` n_cells.
        - ``targets`` (``names``, the target genes of one row of the ranking after the other, and
          ``offsets``) and ``shifts``, CSR ``(n_candidates, n_genes)``; ``target_mean``, shape
          ``(n_genes,)``; ``genes``; ``cells``, the fingerprint of the fit's cells; ``params``.

    Raises
    ------
    ValueError
        If there is no posterior or it belongs to another gene panel, the target, a candidate or
        a gene is unknown (close matches are given), there are no candidates, or the entry holds
        the rounds of another panel. Nothing is written then.

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
    >>> npt.tl.design_interventions(
    ...     adata, "A", candidates="genes", target_is_candidate=True, acquisition="greedy"
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
    this_round = tables.round_of(adata, key_added, trace, fit.fingerprint)
    # A seed is joined with the number of the round, so that rounds differ.
    seeds = rng if rng is None or isinstance(rng, np.random.Generator) else [rng, this_round]
    asked = as_asked(
        fit, pool.prior, wanted.goal, n_cells=n_cells, noise_aware=noise_aware,
        n_samples=n_samples, rng=np.random.default_rng(seeds),
    )  # fmt: skip
    values, found = core.find_acquisition(acquisition).of_candidates(asked)
    removed = np.full(len(values), np.nan) if found is None else found
    distance = asked.distances
    ranking, order = tables.ranking_table(
        pool, values, removed, distance, asked.shifts, wanted, fit
    )
    best = ranking.iloc[0]
    row = {
        "round": this_round,
        "chosen": str(best["perturbation"]),
        "acquisition": acquisition,
        "value": float(best["acquisition"]),
        "target": wanted.name,
        "predicted_distance": float(best["predicted_distance"]),
        "predicted_distance_sd": float(best["predicted_distance_sd"]),
        "n_control_cells": fit.n_control_cells,
        "n_perturbed_cells": int(fit.environments["n_cells"].sum()),
        "n_perturbations": len(fit.environments),
        "n_cells": n_cells,
    }
    stored = {
        "ranking": ranking,
        "trace": tables.extend_trace(trace, row),
        "targets": _adata.stored_lists(pool.interventions.targets[i] for i in order),
        "shifts": _adata.as_stored_csr(pool.interventions.shifts[order]),
        "floor": float(distance.floor),
        "target_mean": wanted.mean,
        "genes": _adata.strings(fit.genes),
        "cells": fit.fingerprint,
        "params": {
            "acquisition": acquisition,
            "n_graphs": fit.n_graphs,
            "target": wanted.name,
            "distance": wanted.distance,
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
    farther = tables.farther_in_words(ranking, wanted.name)
    if farther:
        logger.warning("%s", farther)
    share = 100 * best["relative_distance"]
    logger.info(
        "Round %d: of %d candidates towards %s, try %s next by %s (shift of %s: %s). It is "
        "the nearest with probability %.2f; its predicted distance is %.3g ± %.2g%s.",
        this_round, len(order), wanted.name, best["perturbation"], acquisition,
        best["target_genes"], best["shift"], best["probability_best"], best["predicted_distance"],
        best["predicted_distance_sd"],
        f", {share:.0f}% of the control's" if np.isfinite(share) else "",
    )  # fmt: skip
    if tables.is_flat(removed):
        logger.warning(
            "%d cells of any candidate are expected to remove %.2g to %.2g %% of the uncertainty "
            "left (%s): for the model, one is as good as another, and they are ranked by "
            "state_distance.",
            n_cells, 100 * removed.min(), 100 * removed.max(), acquisition,
        )  # fmt: skip
    return written


def _word(option: Any, default: str) -> str:
    if option is None:
        return default
    if isinstance(option, str):
        return option
    return "table" if hasattr(option, "items") else "list"
