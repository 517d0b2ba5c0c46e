"""What a campaign runs on its cells: graph, posterior, and how far the best perturbation is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert import pp, tl
from nextpert.campaign.candidates import standing_options
from nextpert.tl._advice import NO_PERTURBATION
from nextpert.tl._design_interventions.tables import nothing_of, share_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import anndata as ad

    from nextpert._adata import Roles


class Standing(NamedTuple):
    """The best known perturbation after a fit; distances as shares of the control's.

    Shares are NaN where the control's distance is not above 0.

    Parameters
    ----------
    best
        The measured perturbation of the smallest predicted distance, or no perturbation.
    measured_distance, predicted_distance
        Squared distance of the mean of its cells, and predicted.
    probability_best
        Probability that it is the nearest of all candidates.
    expected_gain
        How much closer the best known is expected to be after the next plate.
    good_enough
        Probability that no candidate is closer by more than a tenth of the control's distance.
    advice
        Its kind, as of :func:`nextpert.tl.plan_cells`; empty where no perturbation was measured.
    n_cells
        Cells behind the fit.
    """

    best: str
    measured_distance: float
    predicted_distance: float
    probability_best: float
    expected_gain: float
    good_enough: float
    advice: str
    n_cells: int


def set_up(cells: ad.AnnData, roles: Roles, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Learn the graph and fit the posterior."""
    declared: Any = {name: value or None for name, value in vars(roles).items() if name != "values"}
    pp.setup_screen(cells, **declared, check_scale=bool(roles.values.get("checked", True)))
    tl.learn_dag(cells, **options["learn"])
    tl.fit_dag_blr(cells, **options["fit"])


def standing(
    cells: ad.AnnData, target: Any, plan: Mapping[str, Any], failed: Iterable[str] = ()
) -> Standing:
    """Return how near the best known perturbation is, and what is left to gain."""
    options = standing_options(cells, plan, failed)
    tl.design_interventions(cells, target, acquisition="probability", **options)
    ranking = cells.uns["design"]["ranking"]
    fitted = cells.uns["dag_blr"]
    n_cells = int(fitted["n_control_cells"] + fitted["environments"]["n_cells"].sum())
    if not len(fitted["environments"]):  # controls alone: nothing is known of any other
        return Standing(NO_PERTURBATION, 1.0, 1.0, 0.0, np.nan, np.nan, "", n_cells)
    control = nothing_of(ranking)
    left = cells.uns["design"]["advice"]
    best = str(left["best_known"])
    row = control if best == NO_PERTURBATION else ranking[ranking["perturbation"] == best].iloc[0]
    return Standing(
        best,
        float(share_of(row["measured_distance"], float(control["measured_distance"]))),
        float(row["relative_distance"]),
        0.0 if best == NO_PERTURBATION else float(row["probability_best"]),
        float(left["relative_gain"]),
        float(left["good_enough"]),
        str(left["kind"]),
        n_cells,
    )
