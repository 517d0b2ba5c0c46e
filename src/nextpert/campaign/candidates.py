"""Batches of new cells, and the candidates of a campaign: those under way and those that failed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from nextpert import _adata
from nextpert.core.fit.naming import Naming
from nextpert.tl._design_interventions.candidates import Excluded, can_be_candidate
from nextpert.tl._plan_screen.wells import N_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import anndata as ad

    from nextpert._adata import Roles


logger = logging.getLogger(__name__)

COLUMN = "campaign_batch"  # where the cells of the start have no column of batches
START, SAME = "start", "same"
_FEW_CONTROLS = 20


def with_batches(
    before: ad.AnnData, new: pd.DataFrame, roles: Roles, batch: str | None, this_time: int
) -> tuple[pd.DataFrame, pd.DataFrame, Roles]:
    """Return ``obs`` of the cells so far and of new ones, with batches, and the roles by now.

    Parameters
    ----------
    before
        The cells so far.
    new
        Columns of the new cells that have a role, as far as they are there.
    roles
        The roles so far.
    batch
        As in :meth:`nextpert.campaign.Campaign.observe`.
    this_time
        How often cells were observed, this time included.

    Raises
    ------
    ValueError
        If a new batch has no control cells, or a batch is not told.
    """
    old = before.obs.copy()
    keys = list(roles.batch_key)
    told = bool(keys) and all(key in new.columns for key in keys)
    if not keys:
        if batch == SAME:
            return old, new, roles
        keys, roles = [COLUMN], replace(roles, batch_key=(COLUMN,))
        old[COLUMN] = START
    if batch is not None or not told:
        if len(keys) > 1:
            message = (
                f"Batches are declared by several columns, {_adata.list_names(keys)}: give the new "
                f"cells these columns of obs, and leave batch out."
            )
            raise ValueError(message)
        new = new.assign(**{keys[0]: _named(old[keys[0]], batch, this_time)})
    _require_controls(old, new, keys, roles)
    return old, new, roles


def _named(known: pd.Series, batch: str | None, this_time: int) -> str:
    if batch is None:
        return f"observed {this_time}"
    if batch != SAME:
        return batch
    names = sorted(set(known.dropna()))
    if len(names) == 1:
        return str(names[0])
    message = (
        f"batch='same' could be any of the batches {_adata.list_names(names)}: name the one "
        f"that the new cells are of."
    )
    raise ValueError(message)


def _require_controls(old: pd.DataFrame, new: pd.DataFrame, keys: list[str], roles: Roles) -> None:
    labels = new[roles.perturbation_key]
    known = set(old[old[roles.perturbation_key].notna()][keys].itertuples(index=False, name=None))
    controls = new[labels == roles.control].value_counts(keys)
    for batch in sorted(set(new[labels.notna()][keys].itertuples(index=False, name=None)) - known):
        name = ", ".join(map(str, batch))
        n = int(controls.get(batch, 0))
        if not n:
            message = (
                f"The new batch {name!r} has no control cells ({roles.perturbation_key} == "
                f"{roles.control!r}) to align it by: add them, or pass batch='same' (or the name "
                f"of a batch) if its cells were handled together with earlier ones."
            )
            raise ValueError(message)
        if n < _FEW_CONTROLS:
            logger.warning(
                "The new batch %r is aligned by only %d control cells: its effect on every gene is "
                "as uncertain as their mean.", name, n,
            )  # fmt: skip


def plate_options(
    cells: ad.AnnData,
    plan: Mapping[str, Any],
    pending: Mapping[str, int],
    failed: Iterable[str],
) -> dict[str, Any]:
    """Return the options of the next plate: nothing twice, nothing that failed."""
    options, naming = dict(plan), naming_of(cells)
    names = _names(cells, plan)
    if not isinstance(plan.get("candidates"), (Mapping, pd.DataFrame)):
        names = list(dict.fromkeys(naming.spelled([*names, *pending])))
        options["candidates"] = names
    known = {naming.key(name) for name in names}
    options["pending"] = {n: k for n, k in pending.items() if naming.key(n) in known} or None
    parts = {part for name in names for part in naming.key(name)}
    asked = dict(plan.get("constraints") or {})
    never = [*(asked.get("exclude") or []), *(x for x in failed if parts.issuperset(naming.key(x)))]
    asked["exclude"] = list(dict.fromkeys(never)) or None
    out = {naming.key(name) for name in (*pending, *failed)}
    must = asked.get("include") or []
    asked["include"] = [name for name in must if naming.key(name) not in out] or None
    options["constraints"] = asked
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
    fit = _adata.posterior_from(cells)
    measured = {fit.naming.key(name) for name in _measured(cells)}
    given_never = (plan.get("constraints") or {}).get("exclude") or []
    never = Excluded.read(map(str, given_never), fit)
    out = Excluded.read(failed, fit)

    given = plan.get("candidates")
    names = [
        name
        for name in _names(cells, plan)
        if not never.holds(name, (), fit)
        and (fit.naming.key(name) in measured or not out.holds(name, (), fit))
    ]
    if not names:
        message = "No candidate is left: all are in exclude or failed. Give other candidates."
        raise ValueError(message)
    candidates: Any = names
    if isinstance(given, pd.DataFrame):
        candidates = given[[str(name) in names for name in given.index]]
    elif isinstance(given, Mapping):
        candidates = {name: row for name, row in given.items() if str(name) in names}
    return {
        "candidates": candidates,
        "target_is_candidate": plan.get("target_is_candidate", False),
        "n_samples": N_SAMPLES,
    }


def naming_of(cells: ad.AnnData) -> Naming:
    """Return which labels name the same perturbation, as the fit reads them."""
    params = cells.uns["dag_blr"]["params"]
    return Naming(set(_genes(cells)), str(params["separator"]), str(params["control"]))


def as_known(
    cells: ad.AnnData, names: Iterable[str], marked: Iterable[str], plan: Mapping[str, Any]
) -> list[str]:
    """Return names, each once, as the data has them, or those ``marked`` before, or the plan."""
    known = [*_measured(cells), *marked, *_names(cells, plan)]
    return list(dict.fromkeys(naming_of(cells).spelled(names, known)))


def require_known(cells: ad.AnnData, names: Collection[str], plan: Mapping[str, Any]) -> None:
    """Raise if a name is no perturbation that could be on a plate; close matches are suggested."""
    fit = _adata.posterior_from(cells)
    known, naming = {*_measured(cells), *_genes(cells), *_names(cells, plan)}, naming_of(cells)
    keys = {naming.key(name) for name in known}
    if naming.control in names:
        message = f"{naming.control!r} are the controls, on every plate: name only perturbations."
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
    """Return the candidates by name, those that are rows of a table of shifts among them."""
    given = plan.get("candidates")
    if given is None:
        return _measured(cells)
    if isinstance(given, str):
        return list(dict.fromkeys([*_measured(cells), *_genes(cells)]))
    rows: Any = given.index if isinstance(given, pd.DataFrame) else given
    return list(dict.fromkeys(map(str, rows)))


def _measured(cells: ad.AnnData) -> list[str]:
    return [str(name) for name in cells.uns["dag_blr"]["environments"]["perturbation"]]


def _genes(cells: ad.AnnData) -> list[str]:
    return [str(gene) for gene in cells.uns["dag_blr"]["genes"]]
