"""What a campaign has come to, round by round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata import list_names
from nextpert._adata.html import card
from nextpert.campaign.history import names_of
from nextpert.core.plan.stopping import AT_TARGET, GO_ON, NO_DIFFERENCE, STOP

if TYPE_CHECKING:
    from nextpert.campaign.state import State

SHARES = (
    "measured_distance",
    "predicted_distance",
    "probability_best",
    "expected_gain",
    "good_enough",
)
_ADVICE = {
    STOP: "A further plate is not worthwhile",
    GO_ON: "A further plate is worthwhile",
    NO_DIFFERENCE: "No perturbation can be distinguished from the others",
    AT_TARGET: "The control cannot be distinguished from the target",
}


def summary_table(state: State, control: str) -> pd.DataFrame:
    """Return one row a round; 0 is what the campaign started from."""
    rows = []
    for this_round in range(state.round + 1):
        at = state.history[state.history["round"] == this_round]
        so_far = state.standings[state.standings["round"] <= this_round].iloc[-1]
        observed = at[at["action"].isin(["started", "observed"])]
        rows.append(
            {
                "round": this_round,
                "proposed": ", ".join(names_of(state.history, this_round, "proposed")),
                "n_observed": len(set(observed["perturbation"]) - {control}),
                "n_cells": int(observed["n_cells"].sum()),
                "failed": ", ".join(names_of(state.history, this_round, "failed")),
                "best": str(so_far["best"]),
                **{name: float(so_far[name]) for name in SHARES},
                "advice": str(so_far["advice"]),
            }
        )
    return pd.DataFrame(rows).set_index("round")


def in_words(state: State, target: str) -> str:
    """Return a line or two about a campaign."""
    last = state.standings.iloc[-1]
    said = [f"Best so far: {_best(last)}", _enough(last), _ADVICE.get(str(last["advice"]), "")]
    return (
        f"Campaign towards {target}: {state.round} plates proposed, {len(state.pending)} "
        f"perturbations pending, {len(state.failed)} failed, {last['n_cells']} cells. "
        f"{'. '.join(part for part in said if part)}"
    )


def _best(last: pd.Series) -> str:
    if not np.isfinite(last["predicted_distance"]):
        return f"{last['best']} (the control's distance is not above 0: no share can be stated)"
    return (
        f"{last['best']}, predicted at {last['predicted_distance']:.2f} of the control's distance"
    )


def _enough(last: pd.Series) -> str:
    if not np.isfinite(last["good_enough"]):
        return ""
    return (
        f"With probability {last['good_enough']:.2f}, none is closer by more than a tenth of the "
        f"control's distance"
    )


def as_html(state: State, control: str, target: str) -> str:
    """Return the same, and the table, for a notebook."""
    last = state.standings.iloc[-1]
    facts = {
        "Best so far": _best(last),
        "Good enough": _enough(last) or "not known",
        "Advice": _ADVICE.get(str(last["advice"]), "none yet"),
        "Plates": f"{state.round} proposed, {last['n_cells']} cells so far",
        "Pending": list_names(state.pending),
        "Failed": list_names(state.failed),
    }
    table = summary_table(state, control)
    shown = table.to_html(float_format="{:.2g}".format, na_rep="", border=0)
    return card(f"Campaign towards {target}", facts, shown)
