"""Batches of new cells, and the candidates of a campaign: those under way and those that failed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from nextpert import _adata
from nextpert.tl._design_interventions.candidates import Excluded, can_be_candidate
from nextpert.tl._plan_screen.wells import N_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad

    from nextpert._adata import Roles
    from nextpert.core.fit.fitted import FittedPosterior

logger = logging.getLogger(__name__)

COLUMN = "campaign_batch"  # where the cells of the start have no column of batches
START, SAME = "start", "same"
_FEW_CONTROLS = 20


def with_batches(
    before: ad.AnnData, new: pd.DataFrame, roles: Roles, batch: str | None, this_time: int
) -> tuple[pd.DataFrame, pd.DataFrame, Roles]:
    """Return ``obs`` of the cells so far and of new ones, with batches, and the roles by now.

    ``new`` has the columns of the new cells that have a role, as far as they are there;
    ``this_time`` is how often cells were observed, this time included.
    """
    old = before.obs.copy()
    keys = list(roles.batch_key)
    are_there = bool(keys) and set(keys) <= set(new.columns)
    if not keys:
        if batch == SAME:
            return old, new, roles
        keys, roles = [COLUMN], replace(roles, batch_key=(COLUMN,))
        old[COLUMN] = START
    if batch is not None or not are_there:
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
    names = sorted(set(known.dropna()))
    if batch == SAME and len(names) > 1:
        message = (
            f"batch='same' could be any of the batches {_adata.list_names(names)}: name the one "
            f"that the new cells are of."
        )
        raise ValueError(message)
    return str(names[0]) if batch == SAME else batch


def _require_controls(old: pd.DataFrame, new: pd.DataFrame, keys: list[str], roles: Roles) -> None:
    """Raise if a new batch has no controls to align it by, and warn if it has few."""
    label, control = roles.perturbation_key, roles.control
    known, added = (
        set(obs.loc[obs[label].notna(), keys].itertuples(index=False, name=None))
        for obs in (old, new)
    )
    controls = new[new[label] == control].value_counts(keys)
    for batch in sorted(added - known):
        name, n = ", ".join(map(str, batch)), int(controls.get(batch, 0))
        if not n:
            message = (
                f"The new batch {name!r} has no control cells ({label} == {control!r}) to align it "
                f"by: add them, or pass batch='same' (or the name of a batch) if its cells were "
                f"handled together with earlier ones."
            )
            raise ValueError(message)
        if n < _FEW_CONTROLS:
            logger.warning(
                "The new batch %r is aligned by only %d control cells: its effect on every gene is "
                "as uncertain as their mean.", name, n,
            )  # fmt: skip


def fit_of(cells: ad.AnnData) -> FittedPosterior:
    """Return the fit of a campaign, whose cells nobody has changed since."""
    return _adata.posterior_from(cells)


def plate_options(
    cells: ad.AnnData,
    plan: Mapping[str, Any],
    pending: Mapping[str, int],
    failed: Iterable[str],
) -> dict[str, Any]:
    """Return the options of the next plate: nothing twice, nothing that failed."""
    fit, options = fit_of(cells), dict(plan)
    naming, names = fit.naming, _names(fit, plan)
    if not isinstance(plan.get("candidates"), (Mapping, pd.DataFrame)):
        options["candidates"] = names = list(dict.fromkeys(naming.spelled([*names, *pending])))
    known, out = ({naming.key(x) for x in each} for each in (names, (*pending, *failed)))
    options["pending"] = {x: n for x, n in pending.items() if naming.key(x) in known} or None
    members = {member for key in known for member in key}
    given = plan.get("constraints") or {}
    never = [*(given.get("exclude") or ()), *(x for x in failed if members >= {*naming.key(x)})]
    always = [x for x in given.get("include") or () if naming.key(x) not in out]
    options["constraints"] = {
        **given, "exclude": list(dict.fromkeys(never)) or None, "include": always or None
    }  # fmt: skip
    return options


def standing_options(
    cells: ad.AnnData, plan: Mapping[str, Any], failed: Iterable[str]
) -> dict[str, Any]:
    """Return the options of ranking and stopping: the same candidates as those of a plate.

    Of those that failed, the ones that have cells stay: these were measured.
    """
    fit = fit_of(cells)
    measured = {fit.naming.key(name) for name in fit.names}
    exclude = Excluded.read(map(str, (plan.get("constraints") or {}).get("exclude") or []), fit)
    out = Excluded.read(failed, fit)
    names = [
        name
        for name in _names(fit, plan)
        if not exclude.holds(name, (), fit)
        and (fit.naming.key(name) in measured or not out.holds(name, (), fit))
    ]
    if not names:
        message = "No candidate is left: all are in exclude or failed. Give other candidates."
        raise ValueError(message)
    given = plan.get("candidates")
    candidates: Any = names
    if isinstance(given, pd.DataFrame):
        candidates = given[given.index.astype(str).isin(names)]
    elif isinstance(given, Mapping):
        candidates = {name: row for name, row in given.items() if str(name) in names}
    return {
        "candidates": candidates,
        "target_is_candidate": plan.get("target_is_candidate", False),
        "n_samples": N_SAMPLES,
    }


def known_names(
    cells: ad.AnnData, names: list[str], marked: Iterable[str], plan: Mapping[str, Any]
) -> list[str]:
    """Return names, each once, as the data has them, or those ``marked`` before, or the plan.

    Raise if one is no perturbation that could be on a plate.
    """
    fit = fit_of(cells)
    naming, known = fit.naming, [*fit.names, *marked, *_names(fit, plan)]
    if naming.control in names:
        message = f"{naming.control!r} are the controls, on every plate: name only perturbations."
        raise ValueError(message)
    every = {*known, *fit.genes}
    keys = {naming.key(name) for name in every}
    unknown = [x for x in names if naming.key(x) not in keys and not can_be_candidate(x, fit)]
    if unknown:
        message = (
            f"Neither measured, nor candidates, nor genes of the panel: "
            f"{_adata.list_names(unknown)}.{_adata.closest(unknown, every)}"
        )
        raise ValueError(message)
    return list(dict.fromkeys(naming.spelled(names, known)))


def _names(fit: FittedPosterior, plan: Mapping[str, Any]) -> list[str]:
    """Return the candidates by name, those that are rows of a table of shifts among them."""
    given = plan.get("candidates")
    if given is None:
        return list(fit.names)
    if isinstance(given, str):
        return list(dict.fromkeys([*fit.names, *fit.genes]))
    return list(dict.fromkeys(map(str, given.index if isinstance(given, pd.DataFrame) else given)))
