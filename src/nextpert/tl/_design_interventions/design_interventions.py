"""``tl.design_interventions``: which perturbation to test next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata, core
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert._adata.presets import PRESETS
from nextpert.core.design.stopping import AT_TARGET, NO_DIFFERENCE
from nextpert.core.fit.candidates import as_asked
from nextpert.tl._advice import logger as of_advice
from nextpert.tl._design_interventions.candidates import admit, read_all
from nextpert.tl._design_interventions.target import measured_goal, read_target
from nextpert.tl._plan_screen.next_round import StoppingRule, advise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.distances import RankedDistance
    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.study.target import Target, Vector
    from nextpert.tl._design_interventions.candidates import Admission
    from nextpert.tl._design_interventions.target import PanelTarget

logger = logging.getLogger(__name__)

FLAT = 0.01  # if variance reductions differ by less, candidates are ranked by distance


@checked(
    acquisition=one_of(lambda: ("auto", *core.acquisitions())), candidates=one_of("genes"),
    n_samples=at_least(2), stopping=StoppingRule, preset=one_of(*PRESETS),
)  # fmt: skip
def design_interventions(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target,
    *,
    acquisition: str = "auto",
    candidates: str | Iterable[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    n_cells: int = 100,
    noise_aware: bool = True,
    preset: str | None = None,
    stopping: Mapping[str, Any] | None = None,
    posterior_key: str = "dag_blr",
    n_samples: int = 400,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "design",
    copy: bool = False,
) -> ad.AnnData | None:
    """Rank the perturbations to test next so that cells reach a target state.

    Use :func:`plan_screen` to choose several perturbations at once. Tested and untested candidates
    are ranked by the probability of being the nearest to the target state, from draws of the joint
    posterior; after an exact fit (``shift_sd=0``) by the causal integrated variance (CIV) of Zhang
    et al. 2023 (doi:10.1038/s42256-023-00719-0), which favours perturbations that reduce
    uncertainty. See :doc:`/guides/read_a_ranking`.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`fit_dag_blr`.
    target
        The target state: a label (the estimated state of that perturbation); a pair
        ``(obs key, value)``; a mapping gene -> mean, log-normalised (only these genes count); a
        vector of means over the panel; or a :class:`nextpert.Target` for signatures, bounds or
        weights.
    acquisition
        ``"auto"`` (default): with exact shifts ``"civ"``, or ``"remaining_variance"`` unless the
        target is a single state; otherwise ``"probability"``. Or:

        - to reach the target, ``"probability"``, ``"ei"`` (expected improvement), ``"thompson"``
          (nearest in one posterior draw) or ``"greedy"`` (smallest expected distance);
        - to reduce uncertainty, ``"remaining_variance"`` (of distances); or ``"random"``;
        - with exact shifts, also ``"civ"``, the criterion of the paper in closed form
          (:doc:`/guides/read_a_ranking` compares the two), ``"civ_ow"`` (output-weighted),
          ``"cv"``, ``"maxv"``, ``"mi"``, ``"target_mean_variance"`` and ``"ucb"``;
        - the name of your own acquisition (:doc:`/developer/acquisition`).
    candidates
        ``None`` (default): the perturbations of the fit. ``"genes"``: these and every gene of the
        panel. Or a list of labels, also untested combinations such as ``"MYC+STK3"``; or a table of
        shifts as in :func:`fit_dag_blr`. The perturbation that defines the target, and combinations
        that contain it, are candidates only if a list or table names them.
    n_cells
        Cells of the next perturbation, for ``"civ"`` and others that look ahead.
    noise_aware
        With exact shifts: whether the look-ahead uses the scatter of these cells. If not, as in
        the paper, small differences in the acquisition also count in the ranking.
    preset
        ``"zhang2023"``: ``"civ"``, ``n_cells=10``, ``noise_aware=False``; do not contradict it.
    stopping, posterior_key
        When to stop, for the advice, as in :func:`plan_screen`; and the posterior in ``adata.uns``.
    n_samples
        Posterior draws; with 400, standard errors of probabilities are at most 0.025.
    rng
        Seed or generator. A seed is combined with the number of the round.
    key_added, copy
        Name of the results, and whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. :doc:`/model/stored_results` lists all columns.
        Writes ``uns["design"]`` with:

        - ``ranking`` (table): candidates, best first, and the control last: ``perturbation``,
          ``probability_best``, ``predicted_distance`` (squared units), its 90% interval, and
          ``relative_distance`` (divided by that of the control).
        - ``advice`` (mapping): what to do next, as in :func:`plan_cells`.
        - ``not_ranked`` (table): candidates that were left out, and why.
        - ``trace`` (table): the choice of this round and of all earlier ones.

    Raises
    ------
    ValueError
        If there is no posterior, a name is unknown, or there are no candidates. Nothing is written
        on error.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.learn_dag(adata, method="boss", environments="all")
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.design_interventions(adata, "UBR5")  # which is nearest to the state of UBR5?
    >>> npt.get.ranking_df(adata)[["perturbation", "probability_best"]].head(2).round(2)
      perturbation  probability_best
    0        DSCC1              0.83
    1          MYC              0.12
    """
    fit = _adata.posterior_from(adata, posterior_key)
    trace = _read_trace(adata, key_added, fit.genes)
    requested = read_target(adata, target, fit)
    pool, whole, bound, is_asked = read_all(candidates, fit, requested)
    requested = bound.rows(np.flatnonzero(is_asked))
    this_round = 1
    # A call on the same cells repeats the last round.
    if trace is not None and len(trace):
        before = str(_adata.eager(adata.uns[key_added]).get("cells", ""))
        same = bool(fit.fingerprint) and _adata.same_cells(before, fit.fingerprint)
        this_round = int(trace["round"].max()) + (not same)
    # A seed is combined with the number of the round, so that rounds differ.
    seeds = rng if rng is None or isinstance(rng, np.random.Generator) else [rng, this_round]
    asked = as_asked(
        fit, pool, requested.goal, requested.targets, n_cells=n_cells, noise_aware=noise_aware,
        n_samples=n_samples, rng=np.random.default_rng(seeds),
    )  # fmt: skip
    admission = admit(asked, pool, fit, requested)
    if acquisition == "auto":  # that of the paper where the model is the paper's
        of_exact = "civ" if requested.goal.is_plain else "remaining_variance"
        acquisition = of_exact if fit.is_exact else "probability"
    values, reduction = core.find_acquisition(acquisition).of_candidates(asked)
    # The uncertainty that their cells are expected to resolve, if the acquisition computes it.
    removed = np.full(len(values), np.nan) if reduction is None else reduction
    distance = asked.distances
    # The paper ranks by CIV in all cases.
    flat = is_flat(removed) and (noise_aware or not fit.is_exact)
    ranking, order = ranking_table(
        pool, values, removed, distance, admission, requested, fit, flat=flat
    )
    floor = measured_goal(requested, fit).floor
    best = ranking.iloc[0]
    row = {
        "round": this_round,
        "chosen": str(best["perturbation"]),
        "acquisition": acquisition,
        "value": float(best["acquisition"]),
        "target": requested.name,
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
                "perturbation": _adata.strings(requested.not_ranked),
                "why": _adata.strings(requested.not_ranked.values()),
            }
        ),
        "trace": _extend_trace(trace, row),
        "targets": _adata.stored_lists(pool.interventions.targets[i] for i in order),
        "shifts": sp.csr_array(pool.interventions.shifts[order]),
        "advice": advise(adata, fit, whole, bound, is_asked, rule=StoppingRule(**stopping or {})),
        "floor": float(np.atleast_1d(floor)[-1]),
        "target_mean": requested.mean,
        "genes": _adata.strings(fit.genes),
        **fit.origin,
        "params": {
            "acquisition": acquisition,
            "n_graphs": fit.n_graphs,
            "target": requested.name,
            "distance": requested.distance,
            "genes_left_out": requested.genes_in_words,
            "candidates": _word(candidates, "fitted"),
            "n_cells": n_cells,
            "noise_aware": int(noise_aware),
            "n_samples": int(n_samples),
            "posterior_key": posterior_key,
            "perturbation_key": str(fit.params["perturbation_key"]),
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    advice = stored["advice"]
    # In these cases the ranking is not reliable.
    severe = advice["kind"] in (AT_TARGET, NO_DIFFERENCE)
    of_advice.log(logging.WARNING if severe else logging.INFO, "%s", advice["words"])
    logger.info(
        "Round %d, target %s: %s ranks first of %d candidates by %s.",
        this_round, requested.name, row["chosen"], int(admission.admitted.sum()), acquisition,
    )  # fmt: skip
    if flat:
        logger.warning(
            "The candidates differ by less than 1%% in variance reduction (%d cells of each are "
            "expected to resolve %.2g to %.2g%% of the remaining uncertainty, by %s), so they are "
            "ranked by state_distance.",
            n_cells, 100 * removed.min(), 100 * removed.max(), acquisition,
        )  # fmt: skip
    return written


def _word(option: Any, default: str) -> str:
    if option is None:
        return default
    if isinstance(option, str):
        return option
    return "table" if hasattr(option, "items") else "list"


def ranking_table(
    pool: CandidateSet,
    values: Vector,
    removed: Vector,
    distance: RankedDistance,
    admission: Admission,
    target: PanelTarget,
    fit: FittedPosterior,
    *,
    flat: bool,
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the ranking, best first, and the positions of its rows in the pool.

    The last row, beyond those of the pool, is the control; columns that do not apply to it are NaN.

    ``values`` and ``removed`` are the acquisition and the variance reduction of each candidate, and
    ``flat`` says to rank by distance because they distinguish none.
    """
    median, centre = distance.median, np.maximum(distance.centre, 0.0)
    # Ties are ordered by the distance of the expected state, which finds a state more often than
    # the mean distance does, and so are all candidates if the acquisition distinguishes none.
    order = np.lexsort((values, centre[:-1]) if flat else (centre[:-1], values))
    # The control comes last in distances.
    rows = [*order, -1]

    def column(of_candidates: ArrayLike, of_control: Any = np.nan) -> Any:
        return np.append(of_candidates, of_control)[rows]

    given = pool.interventions
    seen = np.append(fit.n_cells, 0)[fit.rows_of(given.names)]
    table = pd.DataFrame(
        {
            "rank": np.append(np.arange(1, len(rows)), 0),
            "perturbation": _adata.strings(column(given.names, str(fit.params["control"]))),
            "target_genes": _adata.strings(column([*map(", ".join, given.targets)], "")),
            "genes_left_out": target.left_out_of(rows),
            "shift": _adata.strings(column(given.readable(fit.genes), "")),
            "shift_source": _adata.strings(column(given.sources, "none")),
            "acquisition": column(values),
            "variance_reduction": column(removed),
            "state_distance": centre[rows],
            "predicted_distance": median[rows],
            "predicted_low": distance.low[rows],
            "predicted_high": distance.high[rows],
            "mean_distance": np.maximum(distance.mean, 0.0)[rows],
            "relative_distance": share_of(median[rows], median[-1]),
            "probability_best": column(distance.nearest[:-1]),
            "probability_better": column(distance.nearer[:-1]),
            "measured_distance": _measured(pool, target, fit)[rows],
            "n_cells_seen": column(seen, fit.n_control_cells),
            **{name: column[rows] for name, column in admission.columns.items()},
            "is_control": column(np.zeros(len(order), bool), True),
        },
        index=pd.Index(np.arange(len(rows))),
    )
    first = ["rank", "perturbation", "predicted_distance"]
    last = ["relative_distance", "probability_best", "n_cells_seen"]
    # The main columns are at both ends, because print leaves out the middle.
    middle = [name for name in table if name not in first + last]
    return table[first + middle + last], order


def candidates_of(ranking: pd.DataFrame) -> pd.DataFrame:
    """Return the ranking without the row of the control, which is not a candidate."""
    return ranking[~ranking["is_control"].to_numpy(dtype=bool)]


def nothing_of(ranking: pd.DataFrame) -> pd.Series:
    """Return the row of the control."""
    return ranking[ranking["is_control"].to_numpy(dtype=bool)].iloc[0]


def _measured(pool: CandidateSet, target: PanelTarget, fit: FittedPosterior) -> Vector:
    """Return squared distances of the cells' means, sampling error subtracted; NaN without cells.

    The shape is ``(n_candidates + 1,)``, with the control cells last.
    """
    goal, has_cells = measured_goal(target, fit), np.append(pool.measured, True)
    mean = np.tile(fit.control_mean, (len(has_cells), 1))
    if fit.means is not None:
        mean[:-1][pool.measured] = fit.means.mean[pool.place[pool.measured]]
    apart = goal.distance(mean) - goal.floor
    if fit.expectation is not None:
        screen = fit.expectation.seen.moments
        place = 1 + np.append(fit.rows_of(pool.interventions.names), -1)  # the controls are first
        for i in np.flatnonzero(has_cells):
            apart[i] -= np.sum(goal.rows([i]).excess(screen.mean_variance(place[i])))
    return np.where(has_cells, np.maximum(apart, 0.0), np.nan)


def share_of(distance: Vector, nothing: float) -> Vector:
    """Return distances relative to that of the control; NaN if the control's is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.tl._design_interventions.design_interventions import share_of
    >>> share_of(np.array([1.0, 3.0]), 2.0).tolist(), share_of(np.array([1.0, 3.0]), -0.1).tolist()
    ([0.5, 1.5], [nan, nan])
    """
    return np.asarray(distance / nothing if nothing > 0 else np.full_like(distance, np.nan))


def is_flat(removed: Vector) -> bool:
    """Whether the variance reductions of the candidates differ by less than 1%."""
    return len(removed) > 1 and bool(np.ptp(removed) < FLAT)


def _read_trace(adata: ad.AnnData, key: str, genes: list[str]) -> pd.DataFrame | None:
    """Return the trace of earlier rounds, or ``None`` if there are none.

    Raises
    ------
    ValueError
        If ``adata.uns[key]`` is not a design, or a design on another gene panel.
    """
    if key not in adata.uns:
        return None
    stored = _adata.read_stored(adata, key, "tl.design_interventions with another key_added")
    if "trace" not in stored or {str(gene) for gene in stored["genes"]} != set(genes):
        message = (
            f"adata.uns[{key!r}] is not a design on this gene panel: choose another key_added, or "
            f"delete that entry."
        )
        raise ValueError(message)
    trace: pd.DataFrame = stored["trace"]
    return trace


def _extend_trace(trace: pd.DataFrame | None, row: dict[str, Any]) -> pd.DataFrame:
    """Return the trace with one more row, last; it replaces a row of the same call."""
    rows = [] if trace is None else trace[list(row)].to_dict("records")
    asked = ("round", "target", "acquisition")
    rows = [earlier for earlier in rows if any(earlier[name] != row[name] for name in asked)]
    table = pd.DataFrame([*rows, row], index=pd.Index(np.arange(len(rows) + 1)))
    for name, value in row.items():
        if isinstance(value, str):
            table[name] = _adata.strings(table[name])
    return table
