"""Candidates of a campaign, those under way, and those that failed; members in any order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from nextpert import _adata
from nextpert.tl._design_interventions.candidates import can_be_candidate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import anndata as ad


def candidate_names(cells: ad.AnnData, given: Any) -> list[str] | None:
    """Return the candidates by name; ``None`` where they are rows of a table of shifts."""
    if isinstance(given, (Mapping, pd.DataFrame)):
        return None
    measured = _measured(cells)
    if given is None:
        return measured
    if isinstance(given, str):
        return list(dict.fromkeys([*measured, *_genes(cells)]))
    return list(dict.fromkeys(str(name) for name in given))


def plate_options(
    cells: ad.AnnData,
    plan: Mapping[str, Any],
    pending: Mapping[str, int],
    failed: Iterable[str],
) -> dict[str, Any]:
    """Return the options of the next plate: nothing twice, nothing that failed."""
    options, naming = dict(plan), naming_of(cells)
    names = _names(cells, plan)
    if candidate_names(cells, plan.get("candidates")) is not None:
        made_up = failed if plan.get("most_combined", 1) > 1 else []  # they would be once more
        more = [*pending, *(name for name in made_up if len(naming.members(name)) > 1)]
        names = list(dict.fromkeys(naming.spelled([*names, *more])))
        options["candidates"] = names
    known = {naming.key(name) for name in names}
    options["pending"] = {n: k for n, k in pending.items() if naming.key(n) in known} or None
    known |= {naming.key(gene) for name in names for gene in _targets(cells, name)}
    never = [*(plan.get("never") or []), *(name for name in failed if naming.key(name) in known)]
    options["never"] = list(dict.fromkeys(never)) or None
    out = {naming.key(name) for name in (*pending, *failed)}
    must = plan.get("must") or []
    options["must"] = [name for name in must if naming.key(name) not in out] or None
    return options


def naming_of(cells: ad.AnnData) -> _adata.Naming:
    """Return which labels name the same perturbation, as the fit reads them."""
    params = cells.uns["dag_blr"]["params"]
    return _adata.Naming(set(_genes(cells)), str(params["separator"]), str(params["control"]))


def as_known(
    cells: ad.AnnData, names: Iterable[str], marked: Iterable[str], plan: Mapping[str, Any]
) -> list[str]:
    """Return names, each once, as the data has them, or those ``marked`` before, or the plan."""
    known = [*_measured(cells), *marked, *_names(cells, plan)]
    return list(dict.fromkeys(naming_of(cells).spelled(names, known)))


def require_known(cells: ad.AnnData, names: Collection[str], plan: Mapping[str, Any]) -> None:
    """Raise if a name is no perturbation that could be on a plate; close matches are given."""
    fit = _adata.posterior_from(cells)
    known, naming = {*_measured(cells), *_genes(cells), *_names(cells, plan)}, naming_of(cells)
    keys = {naming.key(name) for name in known}
    if naming.control in names:
        message = f"{naming.control!r} are the controls, on every plate: name perturbations alone."
        raise ValueError(message)
    unknown = [
        name for name in names if naming.key(name) not in keys and not can_be_candidate(name, fit)
    ]
    if unknown:
        message = (
            f"Neither measured, nor candidates, nor genes of the panel: "
            f"{_adata.list_names(unknown)}.{_adata.closest(unknown, known)}"
        )
        raise ValueError(message)


def _names(cells: ad.AnnData, plan: Mapping[str, Any]) -> list[str]:
    given = plan.get("candidates")
    names = candidate_names(cells, given)
    if names is None:
        rows: Any = given.index if isinstance(given, pd.DataFrame) else given
        return [str(name) for name in rows]
    return names


def _measured(cells: ad.AnnData) -> list[str]:
    return [str(name) for name in cells.uns["dag_blr"]["environments"]["perturbation"]]


def _genes(cells: ad.AnnData) -> list[str]:
    return [str(gene) for gene in cells.uns["dag_blr"]["genes"]]


def _targets(cells: ad.AnnData, name: str) -> list[str]:
    """Return the genes of the panel that a label names; none where a part of it is unknown."""
    naming = naming_of(cells)
    inside, outside = _adata.parse_label(
        name, naming.genes, separator=naming.separator, control=naming.control
    )
    return [] if outside else inside
