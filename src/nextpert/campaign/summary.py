"""What a campaign has come to, round by round."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from nextpert._adata import list_names
from nextpert._adata.html import card
from nextpert.campaign.history import names_of

if TYPE_CHECKING:
    from nextpert.campaign.state import State

SHARES = (
    "measured_distance",
    "predicted_distance",
    "probability_best",
    "expected_gap",
    "good_enough",
)


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
            }
        )
    return pd.DataFrame(rows).set_index("round")


def in_words(state: State, target: str) -> str:
    """Return a line or two about a campaign."""
    last = state.standings.iloc[-1]
    best = (
        f"Best so far {_best(state)}. None is nearer by more than a tenth of the control's "
        f"distance with probability {last['good_enough']:.2f}"
    )
    return (
        f"Campaign towards {target}: {state.round} plates proposed, {len(state.pending)} "
        f"perturbations pending, {len(state.failed)} failed, {last['n_cells']} cells. {best}"
    )


def as_html(state: State, control: str, target: str) -> str:
    """Return the same, and the table, for a notebook."""
    last = state.standings.iloc[-1]
    facts = {
        "Best so far": _best(state),
        "Good enough": (
            f"None is nearer by more than a tenth of the control's distance with probability "
            f"{last['good_enough']:.2f}"
        ),
        "Plates": f"{state.round} proposed, {last['n_cells']} cells so far",
        "Pending": list_names(state.pending),
        "Failed": list_names(state.failed),
    }
    table = summary_table(state, control)
    shown = table.to_html(float_format="{:.2g}".format, na_rep="", border=0)
    return card(f"Campaign towards {target}", facts, shown)


def _best(state: State) -> str:
    """Return the best known perturbation and how far it is predicted to stay, if that is known."""
    last = state.standings.iloc[-1]
    share = float(last["predicted_distance"])
    if math.isnan(share):
        return f"{last['best']} (the control's distance to the target is 0)"
    return f"{last['best']}, predicted at {share:.2f} of the control's distance"
