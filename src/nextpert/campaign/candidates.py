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
from nextpert.core._shown import percent
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
_FEW_CONTROLS = 20
_FACTOR = 2.0  # largest ratio of the standard deviations of controls
_FACTOR_PERTURBED = 3.0  # of all cells: a perturbation may change the genes that vary most
_ENOUGH = 20  # control cells from which only controls are compared
# Share of values that are logarithms of multiples of one count: at least 0.8 on four real screens
# after log1p, at most 0.3 after other transformations.
_LOGARITHMS, _NO_LOGARITHMS = 0.6, 0.4
_ZEROS, _NEGATIVE = 0.05, 0.01  # shares of values from which zeros and values below 0 are no chance
_FACTOR_TOTAL = 1.5  # largest ratio of the total of controls (replicates of four screens: 1.17)


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
        keys, roles = [COLUMN], replace(roles, batch_key=(COLUMN,))
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


def _named(known: pd.Series, batch: str | None, this_time: int) -> str:
    if batch is None:
        return f"observed {this_time}"
    names = sorted(set(known.dropna()))
    if batch == SAME and len(names) > 1:
        message = (
            f"batch='same' is ambiguous, because it could be any of {_adata.list_names(names)}: "
            f"name the batch."
        )
        raise ValueError(message)
    return str(names[0]) if batch == SAME else batch


def _require_controls(
    old: pd.DataFrame, new: pd.DataFrame, keys: list[str], roles: Roles, given: str | None
) -> None:
    """Raise if a new batch has no controls to align it by.

    Warn if there are few, or if the column of batches gives the name of an earlier batch.
    """
    label, control = roles.perturbation_key, roles.control
    known, added = (
        set(obs.loc[obs[label].notna(), keys].itertuples(index=False, name=None))
        for obs in (old, new)
    )
    if given is None and added <= known:
        logger.warning(
            "The batches of the new cells (%s) are known: their cells count as cells of these "
            "batches. If they were processed separately, change their obs[%r], or pass batch.",
            _adata.list_names(sorted(", ".join(map(str, each)) for each in added)), keys[0],
        )  # fmt: skip
    controls = new[new[label] == control].value_counts(keys)
    for batch in sorted(added - known):
        name, n = ", ".join(map(str, batch)), int(controls.get(batch, 0))
        if not n:
            message = (
                f"The new batch {name!r} has no control cells ({label} == {control!r}): add them, "
                f"or pass batch='same' if its cells were processed together with earlier cells."
            )
            raise ValueError(message)
        if n < _FEW_CONTROLS:
            logger.warning(
                "The new batch %r is aligned by only %d control cells: its effect on every gene is "
                "as uncertain as their mean.", name, n,
            )  # fmt: skip


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
    """Return the options of the next plate, without perturbations in progress or failed."""
    fit, options = fit_of(cells), dict(plan)
    naming, names, own = fit.naming, _names(fit, plan, target), _own(fit, target)
    more = [x for x in pending if naming.key(x) != own]
    options["candidates"] = names = list(dict.fromkeys(naming.spelled([*names, *more])))
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
    cells: ad.AnnData, target: Any, plan: Mapping[str, Any], failed: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of ranking and of the plan, with the same candidates as a plate.

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

    Raise if a name is not a perturbation that can be on a plate.
    """
    fit = fit_of(cells)
    naming, known = fit.naming, [*fit.names, *marked, *_names(fit, plan)]
    if naming.control in names:
        message = (
            f"{naming.control!r} is the label of the controls, which are on every plate: name only "
            f"perturbations."
        )
        raise ValueError(message)
    every = {*known, *fit.genes}
    keys = {naming.key(name) for name in every}
    unknown = [x for x in names if naming.key(x) not in keys and not can_be_candidate(x, fit)]
    if unknown:
        message = (
            f"These names are neither perturbations nor genes of the panel: "
            f"{_adata.list_names(unknown)}. Check their spelling."
        )
        raise ValueError(message + _adata.closest(unknown, every))
    return list(dict.fromkeys(naming.spelled(names, known)))


def _own(fit: FittedPosterior, target: Any) -> tuple[str, ...]:
    """Return the key of the perturbation that defines the target; empty if none does."""
    states = listed(as_target(target).state)
    state: Any = states[0] if len(states) == 1 else None
    if isinstance(state, tuple) and str(state[0]) == str(fit.params["perturbation_key"]):
        state = str(state[1])
    return fit.naming.key(state) if isinstance(state, str) else ()


def _names(fit: FittedPosterior, plan: Mapping[str, Any], target: Any = None) -> list[str]:
    """Return the candidates, without the target's own perturbation unless the plan names it."""
    given = plan.get("candidates")
    if given is None or isinstance(given, str):
        own = () if target is None else _own(fit, target)
        every = dict.fromkeys(fit.names if given is None else [*fit.names, *fit.genes])
        return [name for name in every if fit.naming.key(name) != own]
    return list(dict.fromkeys(map(str, given)))


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
    screen, is_new = cells.moments(), cells.columns["new"] > 0
    is_control = environments.is_control[cells.columns["environment"]]
    used, who, most = is_control, "controls", _FACTOR
    if min(screen.n[is_control & (is_new == x)].sum() for x in (False, True)) < _ENOUGH:
        used, who, most = np.ones_like(is_control), "cells", _FACTOR_PERTURBED
    old, new = (_spread(screen, used & (is_new == x)) for x in (False, True))
    if min(old, new) > 0 and not 1 / most <= new / old <= most:
        raise _other_scale(
            f"are on another scale: the standard deviation of their {who} is {new / old:.3g} times "
            f"that of the campaign's"
        )
    if used is is_control:
        control = labelled & environments.is_control[environments.codes]
        parts = [np.flatnonzero(control[:n_old]), n_old + np.flatnonzero(control[n_old:])]
        old, new = (read_scale(joined, columns, rows, roles.layer).total for rows in parts)
        if max(new / old, old / new) > _FACTOR_TOTAL:
            raise _other_scale(
                f"are on another scale: the total of the scaled counts of their controls, over the "
                f"panel, is {new / old:.3g} times that of the campaign's ({new:,.0f}, not "
                f"{old:,.0f})"
            )


def _unlike(old: Scale, new: Scale) -> str:
    """Return how the kinds of two scales differ, naming both, or an empty string.

    Values that are logarithms of counts in only one of the two, that are below 0 in only one, or 0
    in only one (as after centring) were not transformed alike.
    """
    is_log = [each.multiples >= _LOGARITHMS for each in (old, new)]
    is_other = [each.multiples < _NO_LOGARITHMS for each in (old, new)]
    from_counts = [a or each.zeros >= _ZEROS for a, each in zip(is_log, (old, new), strict=True)]
    words = ["", ""]
    for k, (one, other) in enumerate(((old, new), (new, old))):
        if not from_counts[1 - k]:
            continue
        if one.negative > _NEGATIVE and not other.negative:
            words = ["values of at least 0"] * 2
            words[k] = "values below 0 (centred values, z-scores or residuals)"
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


def _spread(screen: ScreenMoments, which: NDArray[np.bool_]) -> float:
    """Return the standard deviation of cells within their groups, over all genes."""
    freedom = int(screen.n[which].sum()) - int(which.sum())
    return float(np.sqrt(screen.squares[which].sum() / freedom)) if freedom > 0 else 0.0
