"""Batches and scale of new cells, and the candidates of a campaign, in progress or failed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.scale import read_scale
from nextpert._adata.screen import coding, read_environments, read_screens
from nextpert.core._text import percent
from nextpert.study.plate import N_SAMPLES
from nextpert.study.pool import can_be_candidate, excluder
from nextpert.study.target import as_target, listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Roles
    from nextpert._adata.scale import Scale
    from nextpert.core import ScreenMoments
    from nextpert.core.fit.fitted import FittedPosterior


logger = logging.getLogger(__name__)

COLUMN = "campaign_batch"  # used if the first cells have no column of batches
START, SAME = "start", "same"
_MIN_CONTROLS_OF_BATCH = 20
_MAX_SD_RATIO = 2.0  # largest ratio of the standard deviations of controls
_MAX_SD_RATIO_OF_CELLS = 3.0  # of all cells: a perturbation may change the genes that vary most
_MIN_CONTROLS = 20  # control cells from which only controls are compared
# Share of values that are logarithms of multiples of one count: at least 0.8 on four real screens
# after log1p, at most 0.3 after other transformations.
_LOGARITHMS, _NO_LOGARITHMS = 0.6, 0.4
_ZEROS, _NEGATIVE = 0.05, 0.01  # shares of values from which zeros and values below 0 are no chance
_CENTRED = 0.25  # share of values below 0 that centring alone explains, as of signals above 0
_MAX_TOTAL_RATIO = 1.5  # largest ratio of the total of controls (replicates of four screens: 1.17)


def with_batches(
    before: ad.AnnData, new: pd.DataFrame, roles: Roles, batch: str | None, this_time: int
) -> tuple[pd.DataFrame, pd.DataFrame, Roles]:
    """Return ``obs`` of the cells so far and of the new cells, with batches, and the new roles.

    ``new`` has those columns of the new cells that have a role; ``this_time`` is the number of
    times that cells were observed, this time included.
    """
    old = before.obs.copy()
    keys = list(roles.batch_key)
    are_there = bool(keys) and set(keys) <= set(new.columns)
    if not keys:
        if batch == SAME:
            return old, new, roles
        keys = [COLUMN]
        roles = replace(roles, batch_key=(COLUMN,))
        old[COLUMN] = START
    if batch is not None or not are_there:
        if len(keys) > 1:
            message = (
                f"Batches are defined by the columns {_adata.list_names(keys)}: give these columns "
                f"in the new cells, and leave out batch."
            )
            raise ValueError(message)
        new = new.assign(**{keys[0]: _named(old[keys[0]], batch, this_time)})
    _require_controls(old, new, keys, roles, batch)
    return old, new, roles


def _named(batches: pd.Series, batch: str | None, this_time: int) -> str:
    if batch is None:
        return f"observed {this_time}"
    names = sorted(set(batches.dropna()))
    if batch == SAME and len(names) > 1:
        message = (
            f"batch='same' is ambiguous, because it could be any of {_adata.list_names(names)}: "
            f"name the batch."
        )
        raise ValueError(message)
    return str(names[0]) if batch == SAME else batch


def _require_controls(
    old: pd.DataFrame, new: pd.DataFrame, keys: list[str], roles: Roles, requested: str | None
) -> None:
    """Raise if a new batch has no controls to align it by.

    Warn if there are few, or if the column of batches gives the name of an earlier batch.
    """
    label, control = roles.perturbation_key, roles.control
    earlier, added = (
        set(obs.loc[obs[label].notna(), keys].itertuples(index=False, name=None))
        for obs in (old, new)
    )
    if requested is None and added <= earlier:
        logger.warning(
            "The batches of the new cells (%s) are known: their cells count as cells of these "
            "batches. If they were processed separately, change their obs[%r], or pass batch.",
            _adata.list_names(sorted(", ".join(map(str, values)) for values in added)),
            keys[0],
        )
    controls = new[new[label] == control].value_counts(keys)
    for batch in sorted(added - earlier):
        name = ", ".join(map(str, batch))
        n = int(controls.get(batch, 0))
        if not n:
            message = (
                f"The new batch {name!r} has no control cells ({label} == {control!r}): add them, "
                f"or pass batch='same' if its cells were processed together with earlier cells."
            )
            raise ValueError(message)
        if n < _MIN_CONTROLS_OF_BATCH:
            logger.warning(
                "The new batch %r is aligned by only %d control cells: its effect on every gene is "
                "as uncertain as their mean.",
                name,
                n,
            )


def fit_of(cells: ad.AnnData) -> FittedPosterior:
    """Return the fit of a campaign; warn if its cells have changed since."""
    return _adata.posterior_from(cells)


def plate_options(
    cells: ad.AnnData,
    target: Any,
    plan: Mapping[str, Any],
    pending: Mapping[str, int],
    failed: Iterable[str],
) -> dict[str, Any]:
    """Return the options of the next round, without perturbations in progress or failed."""
    fit = fit_of(cells)
    options = dict(plan)
    naming = fit.naming
    names = _names(fit, plan, target)
    target_key = _own(fit, target)
    extra = [x for x in pending if naming.key(x) != target_key]
    options["candidates"] = names = list(dict.fromkeys(naming.spelled([*names, *extra])))
    candidate_keys, unavailable = (
        {naming.key(x) for x in labels} for labels in (names, (*pending, *failed))
    )
    options["pending"] = {
        x: n for x, n in pending.items() if naming.key(x) in candidate_keys
    } or None
    members = {member for key in candidate_keys for member in key}
    constraints = plan.get("constraints") or {}
    never = [
        *(constraints.get("exclude") or ()),
        *(x for x in failed if members >= {*naming.key(x)}),
    ]
    always = [x for x in constraints.get("include") or () if naming.key(x) not in unavailable]
    options["constraints"] = {
        **constraints,
        "exclude": list(dict.fromkeys(never)) or None,
        "include": always or None,
    }
    return options


def standing_options(
    cells: ad.AnnData, target: Any, plan: Mapping[str, Any], failed: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of ranking and of the plan, with the same candidates as a round.

    Failed perturbations that have cells stay, because they were measured.
    """
    fit = fit_of(cells)
    measured = {fit.naming.key(name) for name in fit.names}
    is_excluded = excluder((plan.get("constraints") or {}).get("exclude") or [], fit)
    has_failed = excluder(failed, fit)
    possible = [
        name
        for name in _names(fit, plan, target)
        if fit.naming.key(name) in measured or not has_failed(name)
    ]
    names = [name for name in possible if not is_excluded(name)]
    if not names:
        message = "No candidate is left: all are in exclude or failed. Give other candidates."
        raise ValueError(message)
    excluded = (plan.get("constraints") or {}).get("exclude") or None
    stopping = {"stopping": plan.get("stopping")}
    limits = {"candidates": possible, "constraints": {"exclude": excluded}}
    return {"candidates": names, "n_samples": N_SAMPLES, **stopping}, {**limits, **stopping}


def known_names(
    cells: ad.AnnData, names: list[str], marked: Iterable[str], plan: Mapping[str, Any]
) -> list[str]:
    """Return names, each once, as spelled in the data, in ``marked`` names or in the plan.

    Raise if a name is not a perturbation that can be in a plan.
    """
    fit = fit_of(cells)
    naming = fit.naming
    spellings = [*fit.names, *marked, *_names(fit, plan)]
    if naming.control in names:
        message = (
            f"{naming.control!r} is the label of the controls, which are in every round: name only "
            f"perturbations."
        )
        raise ValueError(message)
    all_names = {*spellings, *fit.genes}
    keys = {naming.key(name) for name in all_names}
    unknown = [x for x in names if naming.key(x) not in keys and not can_be_candidate(x, fit)]
    if unknown:
        message = (
            f"These names are neither perturbations nor genes of the panel: "
            f"{_adata.list_names(unknown)}. Check their spelling."
        )
        raise ValueError(message + _adata.closest(unknown, all_names))
    return list(dict.fromkeys(naming.spelled(names, spellings)))


def _own(fit: FittedPosterior, target: Any) -> tuple[str, ...]:
    """Return the key of the perturbation that defines the target; empty if none does."""
    states = listed(as_target(target).state)
    state: Any = states[0] if len(states) == 1 else None
    if isinstance(state, tuple) and str(state[0]) == str(fit.params["perturbation_key"]):
        state = str(state[1])
    return fit.naming.key(state) if isinstance(state, str) else ()


def _names(fit: FittedPosterior, plan: Mapping[str, Any], target: Any = None) -> list[str]:
    """Return the candidates, without the target's own perturbation unless the plan names it."""
    planned = plan.get("candidates")
    if planned is None or isinstance(planned, str):
        target_key = () if target is None else _own(fit, target)
        names = dict.fromkeys(fit.names if planned is None else [*fit.names, *fit.genes])
        return [name for name in names if fit.naming.key(name) != target_key]
    return list(dict.fromkeys(map(str, planned)))


def require_same_scale(joined: ad.AnnData, n_old: int, roles: Roles, panel: Sequence[str]) -> None:
    """Raise if the cells after the first ``n_old`` are on another scale than the first.

    A batch effect that is added to a gene is learned from controls, but a factor is not. Standard
    deviations within perturbations and batches are therefore compared. In four real screens,
    replicates differ by a factor of at most 1.1, and cells thinned to a third of their counts by
    1.6. Cells without a logarithm, or scaled to 10,000 counts, differ by factors of 2.1 to 45. The
    totals of scaled counts are compared too, because another target sum changes deviations less.
    """
    environments = read_environments(joined, roles)
    is_new, labelled = np.arange(joined.n_obs) >= n_old, environments.codes >= 0
    _, columns = _adata.resolve_panel(joined, list(panel), gene_symbols="")
    genes = np.arange(joined.n_vars)  # kinds of values are clearer on all genes
    scale = read_scale(joined, genes, np.flatnonzero(is_new & labelled), roles.layer)
    if roles.checks_scale and scale.fault:
        raise _other_scale(f"contain {scale.kind}")
    earlier = read_scale(joined, genes, np.flatnonzero(~is_new & labelled), roles.layer)
    if differs := _unlike(earlier, scale):
        raise _other_scale(differs)
    by = {"environment": environments.codes, "new": np.where(labelled, is_new, -1)}
    (cells,) = read_screens(joined, columns, [coding(by)], layer=roles.layer)
    screen = cells.moments()
    is_new = cells.columns["new"] > 0
    is_control = environments.is_control[cells.columns["environment"]]
    used = is_control
    group = "controls"
    max_ratio = _MAX_SD_RATIO
    if min(screen.n[is_control & (is_new == x)].sum() for x in (False, True)) < _MIN_CONTROLS:
        used = np.ones_like(is_control)
        group = "cells"
        max_ratio = _MAX_SD_RATIO_OF_CELLS
    old, new = (_spread(screen, used & (is_new == x)) for x in (False, True))
    if min(old, new) > 0 and not 1 / max_ratio <= new / old <= max_ratio:
        raise _other_scale(
            f"are on another scale: the standard deviation of their {group} is {new / old:.3g} "
            f"times that of the campaign's"
        )
    if used is is_control:
        control = labelled & environments.is_control[environments.codes]
        parts = [np.flatnonzero(control[:n_old]), n_old + np.flatnonzero(control[n_old:])]
        old, new = (read_scale(joined, columns, rows, roles.layer).total for rows in parts)
        if max(new / old, old / new) > _MAX_TOTAL_RATIO:
            raise _other_scale(
                f"are on another scale: the total of the scaled counts of their controls, over the "
                f"panel, is {new / old:.3g} times that of the campaign's ({new:,.0f}, not "
                f"{old:,.0f})"
            )


def _unlike(old: Scale, new: Scale) -> str:
    """Return how the kinds of two scales differ, naming both, or an empty string.

    Values that are logarithms of counts in only one of the two, that are below 0 in only one, or 0
    in only one (as after centring) were not transformed alike. If neither is of counts, a quarter
    of the values of one must be below 0.
    """
    is_log = [scale.multiples >= _LOGARITHMS for scale in (old, new)]
    is_other = [scale.multiples < _NO_LOGARITHMS for scale in (old, new)]
    from_counts = [a or scale.zeros >= _ZEROS for a, scale in zip(is_log, (old, new), strict=True)]
    words = ["", ""]
    for k, (one, other) in enumerate(((old, new), (new, old))):
        is_centred = one.negative > (_NEGATIVE if from_counts[1 - k] else _CENTRED)
        if is_centred and not other.negative:
            words = ["values of at least 0"] * 2
            words[k] = "values below 0 (centred values, z-scores or residuals)"
        elif not from_counts[1 - k]:
            continue
        elif other.zeros >= _ZEROS and one.zeros < _ZEROS / 20:
            words = [f"{percent(other.zeros)} zeros"] * 2
            words[k] = "no zeros (a constant was added or subtracted)"
        elif is_log[1 - k] and is_other[k]:
            words = ["log1p of normalised counts"] * 2
            words[k] = "other values (another base of the logarithm, square roots or residuals)"
        else:
            continue
        return f"contain {words[1]}, but those of the campaign {words[0]}"
    return ""


def _other_scale(how: str) -> ValueError:
    return ValueError(
        f"The new cells {how}. Normalise all cells alike (logarithm, target_sum), or pass "
        f"check_scale=False if the scales are meant to differ."
    )


def _spread(screen: ScreenMoments, groups: NDArray[np.bool_]) -> float:
    """Return the standard deviation of cells within their groups, over all genes."""
    freedom = int(screen.n[groups].sum()) - int(groups.sum())
    return float(np.sqrt(screen.squares[groups].sum() / freedom)) if freedom > 0 else 0.0
