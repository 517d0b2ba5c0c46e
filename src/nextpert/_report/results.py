"""The results that a report can show, read from the slots of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nextpert._adata import closest, eager, list_names, read_stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    Stored = dict[str, Any]
    Results = Mapping[str, Stored]
    Keys = Mapping[str, str]


class Kind(NamedTuple):
    """A kind of result: what it is called, what writes it, and a part that no other kind has."""

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
    "cpca": Kind("Densities", "tl.cpca", "eigenvalues"),
    "plan_cells": Kind("Number of cells", "tl.plan_cells", "curves"),
    "replay": Kind("Replay", "tl.replay_design", "overall"),
    "diagnosis": Kind("Diagnostics", "tl.diagnose", "parts"),
}
# These have no section of their own: loading is part of the plan.
SOURCES = {
    **KINDS,
    "loading": Kind("Loading", "tl.plan_loading", "cost"),
    FIT: Kind("Fit", "tl.fit_dag_blr", "posterior"),
}


def keys_of(given: Keys | None) -> dict[str, str]:
    """Return the key in ``.uns`` of every kind of result.

    Examples
    --------
    >>> from nextpert._report.results import keys_of
    >>> keys_of({"plan": "second_plate"})["plan"]
    'second_plate'
    """
    named = {str(name): str(key) for name, key in (given or {}).items()}
    unknown = [name for name in named if name not in SOURCES]
    if unknown:
        message = (
            f"keys has unknown names: {list_names(unknown)}.{closest(unknown, SOURCES)} "
            f"Choose from {list_names(SOURCES, limit=len(SOURCES))}."
        )
        raise ValueError(message)
    return {name: named.get(name, name) for name in SOURCES}


def read_all(adata: AnnData, keys: Keys, named: Keys) -> dict[str, Stored]:
    """Return every result that is there, by its usual key; those that are ``named`` have to be."""
    results: dict[str, Stored] = {}
    for name, (_, function, part) in SOURCES.items():
        stored = adata.uns.get(keys[name])
        if hasattr(stored, "keys") and ("contents" in stored or part in stored):
            result = eager(read_stored(adata, keys[name], function))
            if part in result:
                results[name] = result
        if name in named and name not in results:
            message = (
                f"keys names {keys[name]!r} for {name}, but adata.uns has no result of {function} "
                f"there: name its key_added, run {function} first, or leave it out."
            )
            raise ValueError(message)
    if not set(results) & set(KINDS):
        message = (
            "adata.uns has no result to report: run tl.perturbation_effects, "
            "tl.design_interventions or tl.plan_screen first."
        )
        raise ValueError(message)
    return results


def absent(results: Results) -> list[tuple[str, str]]:
    """Return title and function of the results that are not there."""
    return [(kind.title, kind.function) for name, kind in KINDS.items() if name not in results]
