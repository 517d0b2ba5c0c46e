"""What to do next and how reliable it is, in a few sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nextpert._adata import list_names
from nextpert._adata.effects import CLEAR_SIGN
from nextpert._adata.roles import role_texts
from nextpert._report.tables import count
from nextpert.core._shown import percent
from nextpert.core.design.stopping import ORDER
from nextpert.tl._advice import ADDS_UP, name_of

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
    advice = advice_of(found)
    said = [str(advice["words"])] if advice else []
    if orders_plan(found):
        said.append(_plate(found["plan"]))
    if not said and "perturbation_effects" in found:
        stored = found["perturbation_effects"]
        n = int((stored["lfsr"] < CLEAR_SIGN).any(axis=1).sum())
        n_all = len(stored["perturbations"])
        said.append(f"{n} of {n_all} perturbations have a significant effect.")
    if "plan" not in found and advice.get("kind", ORDER) == ORDER:
        said.append("To plan the next round, run tl.plan_screen.")
    return " ".join(said)


def advice_of(found: Found) -> Mapping[str, Any]:
    """Return the advice of the plan, or of what else has one; empty where there is none."""
    kinds = ("plan", "plan_cells", "design")
    return next((found[name]["advice"] for name in kinds if "advice" in found.get(name, {})), {})


def orders_plan(found: Found) -> bool:
    """Whether there is a plan, and the advice is to order it."""
    if "plan" not in found:
        return False
    return advice_of(found).get("kind", ORDER) == ORDER


def _plate(plan: Mapping[str, Any]) -> str:
    table, summary = plan["plate"], plan["summary"]
    names = (
        table.loc[table["strategy"].astype(str) != "control", "perturbation"].astype(str).tolist()
    )
    controls = int(summary["n_controls"])
    beside = f", {count(controls)} of them controls" if controls else ""
    return (
        f"The plan has {list_names(names, limit=8)} in {count(summary['n_cells'])} cells{beside}; "
        f"{contains_best(plan)}."
    )


def contains_best(plan: Mapping[str, Any]) -> str:
    """Return how probably a plan contains the nearest candidate."""
    summary, params = plan["summary"], plan["params"]
    return (
        f"with probability {percent(summary['probability_contains_best'])}"
        f"{ADDS_UP * int(summary['if_effects_add_up'])}, the nearest of "
        f"{count(params['n_candidates'])} candidates to {name_of(params['target'])} is among them"
    )


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
    notes = _undeclared(found) + _unseen(found)
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
    fit = found.get("dag_blr", {})
    separator, measured = str(fit.get("params", {}).get("separator", "")), set()
    if separator:
        measured = set(fit["environments"]["perturbation"].astype(str))
    # Of pairs of measured members the check on unseen singles says nothing.
    n = sum(
        not (separator and separator in name and measured.issuperset(name.split(separator)))
        for name in chosen.loc[chosen["n_cells_seen"] == 0, "perturbation"].astype(str)
    )
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
