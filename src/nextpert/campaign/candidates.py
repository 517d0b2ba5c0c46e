"""Candidates of a campaign, those under way, and those that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from nextpert import _adata
from nextpert.tl._design_interventions.candidates import can_be_candidate
from nextpert.tl._design_interventions.excluded import Excluded

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
    options = dict(plan)
    names = _names(cells, plan)
    if candidate_names(cells, plan.get("candidates")) is not None:
        names = list(dict.fromkeys([*names, *pending]))
        options["candidates"] = names
    options["pending"] = {name: n for name, n in pending.items() if name in names} or None
    known = set(names) | {part for name in names for part in _parts(cells, name)}
    never = [
        *(plan.get("never") or []),
        *(name for name in failed if name in known or known.issuperset(_parts(cells, name))),
    ]
    options["never"] = list(dict.fromkeys(never)) or None
    out = {*pending, *failed}
    options["must"] = [name for name in plan.get("must") or [] if name not in out] or None
    return options


def standing_options(
    cells: ad.AnnData, plan: Mapping[str, Any], failed: Iterable[str]
) -> dict[str, Any]:
    """Return the options of ranking and stopping: the same candidates as those of a plate.

    Of those that failed, the ones that have cells stay: these were measured.

    Raises
    ------
    ValueError
        If no candidate is left.
    """
    fit, measured = _adata.posterior_from(cells), set(_measured(cells))
    never = Excluded.read(map(str, plan.get("never") or []), fit)
    out = Excluded.read(failed, fit)

    def stays(name: str) -> bool:
        genes = _targets(cells, name)
        may = name in measured or not out.holds(name, genes, fit)
        return may and not never.holds(name, genes, fit)

    given = plan.get("candidates")
    names = [name for name in _names(cells, plan) if stays(name)]
    if not names:
        message = "No candidate is left: all are in never or failed. Give other candidates."
        raise ValueError(message)
    candidates: Any = names
    if isinstance(given, pd.DataFrame):
        candidates = given[[str(name) in names for name in given.index]]
    elif isinstance(given, Mapping):
        candidates = {name: row for name, row in given.items() if str(name) in names}
    return {
        "candidates": candidates,
        "target_is_candidate": plan.get("target_is_candidate", False),
        "n_samples": plan.get("n_samples", 1000),
    }


def require_known(cells: ad.AnnData, names: Collection[str], plan: Mapping[str, Any]) -> None:
    """Raise if a name is no perturbation that could be on a plate; close matches are given."""
    fit = _adata.posterior_from(cells)
    known = {*_measured(cells), *_genes(cells), *_names(cells, plan)}
    control = str(cells.uns["dag_blr"]["params"]["control"])
    if control in names:
        message = f"{control!r} are the controls, on every plate: name perturbations alone."
        raise ValueError(message)
    unknown = [name for name in names if name not in known and not can_be_candidate(name, fit)]
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
    inside, outside = _parsed(cells, name)
    return [] if outside else inside


def _parts(cells: ad.AnnData, name: str) -> list[str]:
    """Return all that a label combines, genes of the panel or not."""
    inside, outside = _parsed(cells, name)
    return [*inside, *outside]


def _parsed(cells: ad.AnnData, name: str) -> tuple[list[str], list[str]]:
    params = cells.uns["dag_blr"]["params"]
    return _adata.parse_label(
        name, set(_genes(cells)), separator=str(params["separator"]), control=str(params["control"])
    )
