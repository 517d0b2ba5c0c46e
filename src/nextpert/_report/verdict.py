"""What to do next and how reliable it is, in a few sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert._adata import list_names
from nextpert._adata.effects import CLEAR_SIGN
from nextpert._adata.roles import role_texts
from nextpert._report.tables import count, percent, share
from nextpert.core.design.stopping import GO_ON
from nextpert.tl._design_interventions.tables import candidates_of, farther_in_words
from nextpert.tl._plan_cells.stop import stop_in_words
from nextpert.tl._plan_screen.wells import doubt_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    Found = Mapping[str, dict[str, Any]]

UNKNOWN = "not checked"
# Words and sign of every level of trust, so that colour is not needed to read it.
LEVELS = {
    "trust": ("Trust", "✔"),
    "care": ("Trust with care", "!"),
    "do not trust": ("Do not trust", "✖"),
    UNKNOWN: ("Not checked", "?"),
}
_START = {
    "trust": "The checks on this screen support the model.",
    "care": "Trust this with care.",
    "do not trust": (
        "Do not trust the model on this screen: use the means of measured cells, and choose new "
        "perturbations at random."
    ),
    UNKNOWN: "How reliable these results are was not checked: run tl.diagnose.",
}
_PARTS = {"trust": "Reliable", "care": "with care", "do not trust": "not reliable"}
# Parts of a diagnosis in plain words.
_PLAIN = {
    "cells": "that perturbations differ",
    "negative controls": "calibration on control cells",
    "positive controls": "changes of target genes",
    "shrinkage": "effects of measured perturbations",
    "unseen perturbations": "predictions of perturbations without cells",
    "graph": "the graph",
    "guides": "agreement of guides",
    "batches": "agreement of batches",
}


def name_of(target: Any) -> str:
    """Return a target's name, but not a long list of target means.

    Examples
    --------
    >>> from nextpert._report.verdict import name_of
    >>> name_of("STAT1"), name_of("IRF1=0.2, " * 9)
    ('STAT1', 'the target state')
    """
    return str(target) if len(str(target)) <= 60 else "the target state"


class Verdict(NamedTuple):
    """What to do next, how reliable it is, and notes."""

    level: str
    next: str
    trust: str
    notes: list[str]


def verdict_of(found: Found) -> Verdict:
    """Return the verdict on all results together."""
    level = str(found["diagnosis"]["level"]) if "diagnosis" in found else UNKNOWN
    return Verdict(level, _next(found), _trust(found, level), _notes(found))


def _next(found: Found) -> str:
    stop = _stop(found)
    if "plan" in found:
        return stop + _plate(found["plan"], goes_on=bool(stop))
    if "design" in found:
        return stop + _first(found["design"])
    if stop:
        return stop
    if "perturbation_effects" in found:
        stored = found["perturbation_effects"]
        n = int((stored["lfsr"] < CLEAR_SIGN).any(axis=1).sum())
        return (
            f"{n} of {len(stored['perturbations'])} perturbations have a significant effect. "
            f"To plan the next round, run tl.plan_screen."
        )
    return "To plan the next round, run tl.plan_screen."


def advice_of(found: Found) -> str:
    """Return the advice of ``tl.plan_cells`` on stopping; empty where there is none."""
    stopping = found.get("plan_cells", {}).get("stopping") or {}
    return str(stopping.get("advice", ""))


def _stop(found: Found) -> str:
    if advice_of(found) in ("", GO_ON):
        return ""
    stopping, params = (found["plan_cells"][name] for name in ("stopping", "params"))
    tolerance = float(params["tolerance"])
    return f"{stop_in_words(stopping, name_of(params['target']), tolerance=tolerance)} "


def _plate(plan: Mapping[str, Any], *, goes_on: bool) -> str:
    table, summary = plan["plate"], plan["summary"]
    names = (
        table.loc[table["strategy"].astype(str) != "control", "perturbation"].astype(str).tolist()
    )
    controls = int(summary["n_controls"])
    beside = f", {count(controls)} of them controls" if controls else ""
    start = "If you go on, perturb" if goes_on else "Perturb"
    target = name_of(plan["params"]["target"])
    doubt = doubt_in_words(summary["probability_contains_better"], target)
    return (
        f"{start} {list_names(names, limit=8)} next, in {count(summary['n_cells'])} cells{beside}. "
        f"With probability {percent(summary['probability_contains_best'])}, the nearest of "
        f"{count(plan['params']['n_candidates'])} candidates to "
        f"{target} is among them.{doubt and ' '}{doubt}"
    )


def _first(design: Mapping[str, Any]) -> str:
    target = name_of(design["params"]["target"])
    best = candidates_of(design["ranking"]).iloc[0]
    said = (
        f"Perturb {best['perturbation']} next: of {len(design['ranking']) - 1} candidates it is, "
        f"with probability {percent(best['probability_best'])}, the nearest to {target}"
    )
    if np.isnan(float(best["relative_distance"])):
        return f"{said}."
    nearness = share(best["relative_distance"]).replace("<", "less than")
    return f"{said}, and is predicted at {nearness} of the control's distance."


def _trust(found: Found, level: str) -> str:
    words = _START.get(level, _START[UNKNOWN])
    if "diagnosis" not in found:
        return words
    parts = found["diagnosis"]["parts"]
    said = []
    for each, start in _PARTS.items():
        names = parts.loc[parts["level"].astype(str) == each, "part"].astype(str)
        if len(names):
            said.append(f"{start}: {', '.join(_PLAIN.get(name, name) for name in names)}")
    return f"{words} {'; '.join(said)}."


def _notes(found: Found) -> list[str]:
    notes = _undeclared(found)
    if "design" in found:
        design = found["design"]
        farther = farther_in_words(design["ranking"], name_of(design["params"]["target"]))
        if farther:
            notes.append(farther)
    notes += _unseen(found)
    targets = {
        str(found[name]["params"]["target"])
        for name in ("plan", "design")
        if name in found
    }  # fmt: skip
    if len(targets) > 1:
        notes.append("Next round and ranking have different targets: see both sections.")
    notes += _stale(found)
    return notes


def _undeclared(found: Found) -> list[str]:
    """Report an undeclared column that looks like guides and whose levels differ."""
    if "diagnosis" not in found:
        return []
    parts, summary = (found["diagnosis"][name].astype(str) for name in ("parts", "summary"))
    rows = summary[(summary["part"] == "guides") & (summary["quantity"] == "undeclared_variance")]
    if "no" not in set(rows["passed"]):
        return []
    words = parts.loc[parts["part"] == "guides", "verdict"]
    return [each.removeprefix("Guides: ") for each in words]


def _unseen(found: Found) -> list[str]:
    """Report how many have predictions alone, and how good these were on this screen."""
    if "plan" not in found:
        return []
    table = found["plan"]["plate"]
    chosen = table[table["strategy"].astype(str) != "control"]
    n = int((chosen["n_cells_seen"] == 0).sum())
    if not n:
        return []
    said = f"{n} of {len(chosen)} perturbations to test next have no cells yet: they are predicted."
    if "diagnosis" in found:
        parts = found["diagnosis"]["parts"].set_index("part")["level"].astype(str)
        level = parts.get("unseen perturbations", UNKNOWN)
        said += {
            "trust": " Such predictions were accurate on this screen.",
            "care": " Use such predictions with care on this screen.",
            "do not trust": (
                " On this screen such predictions were not accurate: do not rely on their ranks."
            ),
        }.get(str(level), "")
    return [said]


def _stale(found: Found) -> list[str]:
    """Name the results that were computed from other cells, roles or fits than the present fit."""
    if "dag_blr" not in found:
        return []
    fit = found["dag_blr"]
    called = {
        "plan": "the next round",
        "design": "the ranking",
        "perturbation_effects": "the effects",
        "diagnosis": "the diagnostics",
        "plan_cells": "the number of cells",
    }
    now = str(fit.get("digest", ""))
    old = [
        name
        for key, name in called.items()
        if key in found and now and str(found[key].get("fit") or now) != now
    ]
    if "target_distances" in found:
        roles = [role_texts(each["params"]) for each in (fit, found["target_distances"])]
        if any(roles[0][name] != roles[1][name] for name in ("control", "layer")):
            old.append("the measured distances")
    if not old:
        return []
    what = "other cells or another fit than the present one"
    return [f"Computed from {what}, run again: {', '.join(old)}."]
