"""The results that a report can show, and the verdict on them: what to do, how reliable it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nextpert._adata import changes_of_fit, changes_since, closest, eager, list_names, read_stored
from nextpert._report.tables import number
from nextpert.core._text import percent
from nextpert.core.design.stopping import MEASURE, ORDER
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.study.advice import AS_ASSUMED, chosen_of, name_of, orders_cells
from nextpert.study.controls import weak_guides

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    Stored = dict[str, Any]
    Results = Mapping[str, Stored]
    Keys = Mapping[str, str]


class Kind(NamedTuple):
    """A kind of result: its title, the function that writes it, and a part unique to it."""

    title: str
    function: str
    part: str


FIT = "dag_blr"  # no section of its own, but the other results were computed from it
# By their default keys, in the order of the page.
KINDS = {
    "plan": Kind("Next round", "tl.plan_screen", "plate"),
    "design": Kind("Ranking", "tl.design_interventions", "ranking"),
    "target_distances": Kind("Measured distances", "tl.target_distances", "n_target_cells"),
    "perturbation_effects": Kind("Effects", "tl.perturbation_effects", "lfsr"),
    "dag": Kind("Graph", "tl.learn_dag", "n_edges"),
    "plan_cells": Kind("Number of cells", "tl.plan_cells", "screens"),
    "replay": Kind("Replay", "tl.replay_design", "overall"),
    "diagnosis": Kind("Diagnostics", "tl.diagnose", "parts"),
}
# These have no section of their own: loading is part of the plan.
SOURCES = {
    **KINDS,
    "loading": Kind("Loading", "tl.plan_loading", "steps"),
    FIT: Kind("Fit", "tl.fit_dag_blr", "posterior"),
}

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
    "care": "Use these results with care.",
    UNKNOWN: "The reliability of these results was not checked: run tl.diagnose.",
}
_PARTS = {"trust": "Reliable", "care": "with care", "do not trust": "not reliable"}
# Parts of a diagnosis in plain words.
_PLAIN = {
    "cells": "differences from controls",
    "negative controls": "calibration on control cells",
    "positive controls": "changes of target genes",
    "shrinkage": "effects of measured perturbations",
    "unseen perturbations": "predictions of perturbations without cells",
    "guides": "agreement of guides",
    "batches": "agreement of batches",
}
_UNSEEN = {
    "trust": " Such predictions were accurate on this screen.",
    "care": " Use such predictions with care on this screen.",
    "do not trust": (
        " On this screen, such predictions were inaccurate: do not rely on the ranks of these "
        "perturbations."
    ),
}


def keys_of(keys: Keys | None) -> dict[str, str]:
    """Return the key in ``.uns`` of every kind of result.

    Examples
    --------
    >>> from nextpert._report.results import keys_of
    >>> keys_of({"plan": "second_plate"})["plan"]
    'second_plate'
    """
    named = {str(name): str(key) for name, key in (keys or {}).items()}
    unknown = [name for name in named if name not in SOURCES]
    if unknown:
        message = (
            f"keys has unknown names: {list_names(unknown)}.{closest(unknown, SOURCES)} The names "
            f"are {list_names(SOURCES)}."
        )
        raise ValueError(message)
    return {name: named.get(name, name) for name in SOURCES}


def read_all(adata: AnnData, keys: Keys, named: Keys) -> dict[str, Stored]:
    """Return every result in ``adata`` by its usual key; those that are ``named`` must exist."""
    results: dict[str, Stored] = {}
    for name, (_, function, part) in SOURCES.items():
        stored = adata.uns.get(keys[name])
        if hasattr(stored, "keys") and ("contents" in stored or part in stored):
            result = eager(read_stored(adata, keys[name], function))
            if part in result:
                results[name] = result
        if name in named and name not in results:
            message = (
                f"keys names {keys[name]!r} for {name}, but adata.uns has no such result: run "
                f"{function} first."
            )
            raise ValueError(message)
    if not set(results) & set(KINDS):
        message = (
            "adata.uns has no result to report: run tl.learn_dag, tl.fit_dag_blr and "
            "tl.plan_screen first."
        )
        raise ValueError(message)
    return results


def absent(results: Results) -> list[tuple[str, str]]:
    """Return title and function of the results that were not computed."""
    return [(kind.title, kind.function) for name, kind in KINDS.items() if name not in results]


class Verdict(NamedTuple):
    """What to do next, how reliable it is, notes, and a warning if the screen has changed."""

    level: str
    next: str
    trust: str
    notes: list[str]
    changes: str = ""


def verdict_of(results: Results, changes: str = "") -> Verdict:
    """Return the verdict on all results together; ``changes`` are those of the screen."""
    if "diagnosis" not in results:
        return Verdict(UNKNOWN, _next(results), _START[UNKNOWN], _notes(results), changes)
    level = str(results["diagnosis"]["level"])
    parts = results["diagnosis"]["parts"]
    by_level = parts["part"].astype(str).groupby(parts["level"].astype(str), sort=False)
    trusted = []
    for trust_level in _PARTS:
        if trust_level in by_level.groups:
            names = (_PLAIN.get(x, f"the {x}") for x in by_level.get_group(trust_level))
            trusted.append(f"{_PARTS[trust_level]}: {', '.join(names)}")
    # What not to trust is in the first sentence of the diagnosis.
    start = _START.get(level) or str(results["diagnosis"]["verdict"]).splitlines()[0]
    parts_in_words = "; ".join(trusted)
    trust = f"{start} {parts_in_words[:1].upper()}{parts_in_words[1:]}."
    return Verdict(level, _next(results), trust, _notes(results), changes)


def _next(results: Results) -> str:
    advice = advice_of(results)
    sentences = [str(advice["words"])] if advice else []
    if orders_plan(results):
        plan = results["plan"]
        n_cells, n_controls = (number(plan["summary"][x]) for x in ("n_cells", "n_controls"))
        names = list_names(chosen_of(plan)["perturbation"].astype(str), limit=8)
        sentences.append(
            f"The plan tests {names} with {n_cells} cells, including {n_controls} control cells. "
            f"{contains_best(plan)}."
        )
    if not sentences and "perturbation_effects" in results:
        is_clear = (results["perturbation_effects"]["lfsr"] < SIGNIFICANCE).any(axis=1)
        n = f"{int(is_clear.sum())} of {len(is_clear)}"
        sentences.append(f"{n} perturbations have a significant effect.")
    if "plan" not in results and advice.get("kind", ORDER) in (MEASURE, ORDER):
        sentences.append("To plan the next round, run tl.plan_screen.")
    return " ".join(sentences)


def advice_of(results: Results) -> Mapping[str, Any]:
    """Return the advice of the plan, or of another result that has one; empty if there is none."""
    names = ("plan", "plan_cells", "design")
    return next((results[x]["advice"] for x in names if "advice" in results.get(x, {})), {})


def orders_plan(results: Results) -> bool:
    """Whether there is a plan that follows the advice, and this is to profile cells."""
    return "plan" in results and orders_cells(results["plan"])


def contains_best(plan: Mapping[str, Any]) -> str:
    """Return a sentence on the probability that a plan contains the nearest candidate."""
    summary = plan["summary"]
    params = plan["params"]
    return (
        f"With probability {percent(summary['probability_contains_best'])}"
        f"{AS_ASSUMED * int(summary['if_effects_add_up'])}, the nearest of "
        f"{number(params['n_candidates'])} candidates to {name_of(params['target'])} is one of "
        f"these"
    )


def _notes(results: Results) -> list[str]:
    notes = _unseen(results)
    if weak := weak_guides(results.get("diagnosis", {})):
        notes.append(
            f"Guides that hardly change their target gene: {list_names(weak)}. If they do not "
            f"work, drop their cells, and fit again before you order."
        )
    targets = {str(results[x]["params"]["target"]) for x in ("plan", "design") if x in results}
    if len(targets) > 1:
        notes.append("The next round and the ranking have different targets: see both sections.")
    return notes


def _unseen(results: Results) -> list[str]:
    """Report how many effects are only predicted, and how accurate predictions were."""
    if "plan" not in results:
        return []
    chosen = chosen_of(results["plan"])
    fit = results.get("dag_blr")
    names = chosen.loc[chosen["n_cells_seen"] == 0, "perturbation"].astype(str).tolist()
    if fit and (separator := str(fit["params"].get("separator", ""))):
        # The check on unseen single perturbations does not apply to pairs of measured members.
        measured = set(fit["environments"]["perturbation"].astype(str))
        names = [x for x in names if separator not in x or set(x.split(separator)) - measured]
    if not names:
        return []
    note = f"{len(names)} of {len(chosen)} perturbations to test next have no cells yet; their"
    level = ""
    if "diagnosis" in results:
        parts = results["diagnosis"]["parts"].astype(str).set_index("part")["level"]
        level = parts.get("unseen perturbations", "")
    return [f"{note} effects are predicted.{_UNSEEN.get(level, '')}"]


def changes_of(adata: AnnData, results: Results) -> str:
    """Return a warning that names the results of other cells, roles or fits, or an empty text."""
    names: dict[str, list[str]] = {}
    for name, kind in SOURCES.items():
        if name == FIT or name not in results:
            continue
        if changed := changes_since(adata, results[name]):
            names.setdefault(changed, []).append(f"the {kind.title.lower()}")
    if FIT in results and not names and (changed := changes_of_fit(adata, results[FIT])):
        names[changed] = ["the fit"]
    if not names:
        return ""
    parts = "; ".join(f"{list_names(titles, limit=9)} ({why})" for why, titles in names.items())
    return (
        f"These results do not belong to the present screen: {parts}. Fit and compute them again "
        f"before you order."
    )
