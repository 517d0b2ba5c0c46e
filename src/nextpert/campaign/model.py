"""What a campaign runs on its cells: graph, posterior, and how far the best perturbation is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import pp, tl
from nextpert.campaign.candidates import standing_options
from nextpert.tl._advice import NO_PERTURBATION
from nextpert.tl._design_interventions.tables import nothing_of, share_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import anndata as ad

    from nextpert._adata import Roles


def set_up(cells: ad.AnnData, roles: Roles, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Learn the graph and fit the posterior."""
    declared: Any = {name: value or None for name, value in vars(roles).items() if name != "values"}
    pp.setup_screen(cells, **declared, check_scale=bool(roles.values.get("checked", True)))
    tl.learn_dag(cells, **options["learn"])
    tl.fit_dag_blr(cells, **options["fit"])


def standing(
    cells: ad.AnnData, target: Any, plan: Mapping[str, Any], failed: Iterable[str] = ()
) -> dict[str, Any]:
    """Return how near the best known perturbation is, and what is left to gain.

    As :meth:`Campaign.summarize` has it, with ``n_cells``, the cells behind the fit.
    """
    options = standing_options(cells, plan, failed)
    tl.design_interventions(cells, target, acquisition="probability", **options)
    fit, ranking, advice = (
        cells.uns["dag_blr"], cells.uns["design"]["ranking"], cells.uns["design"]["advice"]
    )  # fmt: skip
    n_cells = int(fit["n_control_cells"] + fit["environments"]["n_cells"].sum())
    if not len(fit["environments"]):  # controls alone: nothing is known of any other
        return {
            "best": NO_PERTURBATION, "measured_distance": 1.0, "predicted_distance": 1.0,
            "probability_best": 0.0, "expected_gain": np.nan, "good_enough": np.nan, "advice": "",
            "n_cells": n_cells,
        }  # fmt: skip
    control, best = nothing_of(ranking), str(advice["best_known"])
    is_none = best == NO_PERTURBATION
    row = control if is_none else ranking[ranking["perturbation"] == best].iloc[0]
    measured = share_of(row["measured_distance"], float(control["measured_distance"]))
    return {
        "best": best,
        "measured_distance": float(measured),
        "predicted_distance": float(row["relative_distance"]),
        "probability_best": 0.0 if is_none else float(row["probability_best"]),
        "expected_gain": float(advice["relative_gain"]),
        "good_enough": float(advice["good_enough"]),
        "advice": str(advice["kind"]),
        "n_cells": n_cells,
    }
