"""``tl.plan_screen``: the perturbations of the next round, and how many cells each gets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import checked, one_of, options
from nextpert._adata.labels import parts_of
from nextpert.core import acquisitions
from nextpert.study.advice import chosen_of, is_advised, name_of, orders_cells, warns
from nextpert.study.advice import logger as of_advice
from nextpert.study.constructs import constructs_table
from nextpert.study.next_round import StoppingRule, next_plate
from nextpert.study.plate import ADVISED, N_SAMPLES, STRATEGIES, plate_table, split_cells
from nextpert.study.pool import priced, read_pool
from nextpert.tl._read_plan import guides_of, kinds_of_constructs, stored_null, with_guide_columns
from nextpert.tl._read_target import read_target

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad

    from nextpert.study.target import Target, Vector

logger = logging.getLogger(__name__)


@options(max_combination=one_of(1, 2))
@dataclass(frozen=True)
class _Constraints:
    """``constraints``: each is documented there."""

    include: Iterable[str] | None = None
    exclude: Iterable[str] | None = None
    max_combination: int = 1
    min_cells: int = 20
    costs: Mapping[str, Any] | None = None


@checked(
    strategy=one_of(lambda: (ADVISED, *STRATEGIES, *acquisitions())),
    candidates=one_of("genes"),
    constraints=_Constraints,
    stopping=StoppingRule,
)
def plan_screen(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target,
    *,
    n_perturbations: int = 8,
    n_cells: int = 2000,
    strategy: str = "advised",
    candidates: str | Iterable[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    constraints: Mapping[str, Any] | None = None,
    pending: Iterable[str] | Mapping[str, int] | None = None,
    stopping: Mapping[str, Any] | None = None,
    posterior_key: str = "dag_blr",
    rng: int | np.random.Generator | None = 0,
    key_added: str = "plan",
    copy: bool = False,
) -> ad.AnnData | None:
    """Plan the next experiment: what to order, what to measure again, or that you can stop.

    The plan follows the advice: candidates to order, to measure again or to confirm, with the
    cells of each and controls, within a budget. It is empty if the advice is to stop. Other
    strategies use the whole budget (:doc:`/guides/plan_a_plate`). Run :func:`diagnose` before.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`fit_dag_blr`.
    target
        The target state, as in :func:`design_interventions`.
    n_perturbations
        Maximum number of perturbations in the next round.
    n_cells
        Maximum number of cells. Controls get the square root of the number of perturbations times
        the cells of one perturbation (Dunnett 1955, doi:10.2307/2281208).
    strategy
        ``"advised"`` (default). Others fill the plan: ``"exploit"`` to find the nearest candidate,
        ``"explore"`` to reduce uncertainty (Zhang et al. 2023, doi:10.1038/s42256-023-00719-0),
        ``"both"`` in this order, or an acquisition of :func:`design_interventions`.
    candidates
        Those that can be planned, as in :func:`design_interventions`. The advice compares them with
        all measured perturbations that are not in ``"exclude"``.
    constraints
        Limits of the lab, a mapping with some of:

        - ``"include"``: candidates that the plan has to contain.
        - ``"exclude"``: labels, or genes that no candidate may target.
        - ``"max_combination"`` (1): 2 adds the 200 pairs that are expected nearest.
        - ``"min_cells"`` (20): minimum per perturbation; fewer are planned if cells do not suffice.
        - ``"costs"``: ``{"budget": ..., "perturbation": ..., "cell": ...}``; gain per cost chooses.
    pending
        Labels in progress, or labels -> cells: counted as if measured, and not chosen.
    stopping
        When to stop, a mapping with some of:

        - ``"tolerance"`` (0.1): smallest difference that matters, over the control's distance.
        - ``"min_gain"`` (0.02): smallest expected gain that is worth a round, relative to it, too.
        - ``"stop_probability"`` (0.95): that no candidate is closer by more than the tolerance.
    posterior_key
        Posterior in ``adata.uns``.
    rng
        Seed or generator.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        The copy if ``copy=True``. Writes ``uns["plan"]`` (:doc:`/model/stored_results`) with:

        - ``plate`` (table): perturbations in the order chosen, then the controls, with
          ``n_cells``, ``n_guides``, ``why``, ``is_advised`` and ``probability_best``.
        - ``constructs`` (table): guides to use, to clone or to design.
        - ``summary`` (mapping): properties of the plan, such as ``probability_contains_best``.
        - ``advice`` (mapping): what to do next, as in :func:`plan_cells`.

    Raises
    ------
    ValueError
        If a name is unknown, constraints contradict each other, or ``n_cells`` is too small.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.learn_dag(adata, method="boss", environments="all")
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_screen(adata, "UBR5", n_perturbations=2, n_cells=2000, strategy="exploit")
    >>> adata.uns["plan"]["advice"]["kind"]
    'measure more cells of these first'
    >>> npt.get.plan_df(adata)[["perturbation", "n_cells", "n_cells_seen"]]
      perturbation  n_cells  n_cells_seen
    0        DSCC1      586           537
    1          MYC      586           841
    2      control      828          7760
    """
    limits_of_lab, rule = _Constraints(**constraints or {}), StoppingRule(**stopping or {})
    fit = _adata.posterior_from(adata, posterior_key)
    requested = read_target(adata, target, fit)
    plate_size = split_cells(n_cells, n_perturbations, limits_of_lab.min_cells)
    pool = read_pool(
        candidates,
        fit,
        requested,
        include=limits_of_lab.include,
        exclude=limits_of_lab.exclude,
        pending=pending,
        pairs=limits_of_lab.max_combination > 1,
        cells_each=plate_size.cells_each,
    )
    if limits_of_lab.costs is not None:
        pool = priced(pool, limits_of_lab.costs, fit.naming, limits_of_lab.min_cells)
    existing, usual = guides_of(adata, fit)
    null = stored_null(adata, fit)
    if existing and null.weak:  # these are not ordered
        existing = {
            name: [guide for guide in guides if null.weak.isdisjoint(parts_of(guide))]
            for name, guides in existing.items()
        }
    plan = next_plate(
        fit,
        pool,
        plate_size,
        null=null,
        strategy=strategy,
        n_guides=usual,
        rule=rule,
        rng=rng,
    )
    chosen, ranking = plan.chosen, plan.choice.ranking
    names, requested = ranking.pool.candidates.names, ranking.pool.target
    # Where guides vary, new cells come from new guides; otherwise from those of the screen.
    n_new = int(plan.advice["n_new_guides"]) if ranking.draws.noise.shared > 0 else 0
    if strategy != ADVISED or not n_new:
        n_new = usual if ranking.draws.noise.shared > 0 else 0
    n_guides_of = [
        n_new or len((existing or {}).get(names[i], ())) or usual for i in chosen.candidates
    ]
    guides = np.minimum(np.array(n_guides_of, np.int64), chosen.cells)
    plate = plate_table(plan.choice, chosen, guides, fit, plan.advice["perturbations"])
    totals = ("probability_contains_best", "variance_reduction")  # of the whole plan, in each row
    pending_names = [names[i] for i in ranking.pool.pending]
    kinds = kinds_of_constructs(adata, has_guides=existing is not None)
    stored: dict[str, Any] = {
        "plate": plate,
        "constructs": with_guide_columns(
            constructs_table(plate, fit, existing, pending_names, kinds=kinds, are_new=n_new > 0),
            adata,
        ),
        "summary": {
            "n_cells": int(plate["n_cells"].sum()),
            "n_controls": chosen.n_controls if len(plate) else 0,
            **{x: float(plate[x].iloc[-1]) if len(plate) else 0.0 for x in totals},
            "n_not_admitted": int((~plan.admitted).sum()),
            "if_effects_add_up": int(plan.adds_up),
            "is_diagnosed": int(null.tests is not None),
        },
        "advice": plan.advice,
        "pending": pd.DataFrame(
            {
                "perturbation": _adata.strings(pending_names),
                "n_cells": np.array([*ranking.pool.pending.values()], np.float64),
            }
        ),
        "target_mean": requested.mean,
        "genes": _adata.strings(fit.genes),
        **fit.origin,
        "params": {
            "target": requested.name,
            "distance": requested.distance,
            "genes_left_out": requested.genes_in_words,
            "strategy": strategy,
            "n_perturbations": int(n_perturbations),
            "n_cells": int(n_cells),
            "max_combination": limits_of_lab.max_combination,
            "n_candidates": int(plan.admitted.sum()),
            "min_cells": limits_of_lab.min_cells,
            "n_guides": int(guides.max(initial=0)),
            "n_samples": N_SAMPLES,
            "posterior_key": posterior_key,
            "rng": _adata.seed_of(rng),
        },
    }
    if pool.price is not None:
        stored["summary"]["cost"] = float(plate["cost"].sum())
        stored["params"]["budget"] = pool.budget
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    _log_plan(stored, existing is not None)
    return written


def _log_plan(stored: dict[str, Any], has_guides: bool) -> None:
    params, summary, chosen = stored["params"], stored["summary"], chosen_of(stored)
    advice, target, n = stored["advice"], name_of(params["target"]), len(chosen)
    follows = is_advised(stored)
    is_severe = warns(advice) or not follows
    of_advice.log(logging.WARNING if is_severe else logging.INFO, "%s", advice["words"])
    n_explored = int((chosen["strategy"].astype(str) == "explore").sum())
    if params["strategy"] == "exploit" and n_explored:
        logger.warning(
            "%d of %d perturbations %s chosen to reduce uncertainty (strategy 'explore'), because "
            "no other candidate has an expected state nearer to %s than the control.",
            n_explored,
            n,
            "is" if n_explored == 1 else "are",
            target,
        )
    if not n:
        logger.info("The plan is empty.")
        return
    log = logger.info if follows else logger.warning
    is_included = (chosen["strategy"].astype(str) == "include").all()
    head = "Plan" if orders_cells(stored) else "Not advised, but included on request: a plan"
    if not (follows and (orders_cells(stored) or is_included)):
        head = f"Planned by strategy {params['strategy']!r}, but not advised: a plan"
    log(
        "%s of %d perturbation%s (%d cells, of which %d are controls) towards %s: %s.",
        head,
        n,
        "s" * (n != 1),
        summary["n_cells"],
        summary["n_controls"],
        target,
        _adata.list_names(chosen["perturbation"].astype(str), limit=8),
    )
    if has_guides and not summary["is_diagnosed"]:
        logger.info("Guides were not checked: tl.diagnose finds guides not to order again.")
