"""The steps of a campaign: each takes a state and gives the next, so that nothing is by halves."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata, tl
from nextpert.campaign import history as _history
from nextpert.campaign.candidates import naming_of, plate_options
from nextpert.campaign.goal import lined_up
from nextpert.campaign.model import set_up, standing
from nextpert.campaign.observe import (
    digest,
    first_cells,
    labels_and_cells,
    panel_of,
    roles_of,
    with_new_cells,
)
from nextpert.campaign.options import kept_value
from nextpert.campaign.scale import require_same_scale
from nextpert.campaign.state import State, add_standing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad

    from nextpert._adata import Naming

    Options = dict[str, dict[str, Any]]

logger = logging.getLogger(__name__)


def started(adata: ad.AnnData, target: Any, options: Options) -> tuple[ad.AnnData, State]:
    """Return the cells of a new campaign, fitted, and its state."""
    wanted = kept_value(target, "target")
    roles = roles_of(adata, options)
    cells = first_cells(adata, target, roles)
    set_up(cells, roles, options)
    counts = labels_and_cells(cells, roles)
    found = standing(cells, lined_up(wanted, cells, sum(counts.values())), options["plan"])
    history = _history.add_rows(
        _history.empty(), 0, "started", list(counts), n_cells=list(counts.values()),
        options={"cells": digest(cells, roles, panel_of(cells))},
    )  # fmt: skip
    return cells, State(wanted, options, history, add_standing(None, 0, found), {}, {})


def proposed(
    cells: ad.AnnData,
    state: State,
    n_perturbations: int,
    n_cells: int,
    aim: str,
    rng: int | np.random.Generator | None,
) -> State:
    """Plan a plate and return the state in which it is under way."""
    seed, this_round = _seed(rng), state.round + 1
    options = plate_options(cells, state.options["plan"], state.pending, state.failed)
    wanted = lined_up(state.target, cells, state.n_start)
    tl.plan_screen(
        cells, wanted, n_perturbations=n_perturbations, n_cells=n_cells, aim=aim,
        rng=np.random.default_rng([seed, this_round]), **options,
    )  # fmt: skip
    plate = cells.uns["plan"]["plate"]
    wells = plate[plate["aim"] != "control"]
    said = {"n_perturbations": int(n_perturbations), "n_cells": int(n_cells), "aim": aim}
    history = _history.add_rows(
        state.history, this_round, "proposed", list(wells["perturbation"]),
        n_cells=wells["n_cells"].to_numpy(), why=wells["why"].to_numpy(), seed=str(seed),
        options=said, **{name: wells[name].to_numpy() for name in _history.NUMBERS},
    )  # fmt: skip
    under_way = dict(zip(wells["perturbation"], wells["n_cells"].astype(int), strict=True))
    return replace(state, history=history, pending=state.pending | under_way)


def observed(
    before: ad.AnnData, state: State, cells: ad.AnnData, batch: str | None, *, check_scale: bool
) -> tuple[ad.AnnData, State]:
    """Return the cells with new ones among them, fitted, and the state."""
    roles, panel = roles_of(before, state.options), panel_of(before)
    earlier = state.history[state.history["action"] == "observed"]
    joined, new, roles = with_new_cells(
        before, cells, roles, panel, batch, 1 + earlier["options"].nunique()
    )
    seen = digest(new, roles, panel)
    _require_unseen(state, seen)
    if check_scale:
        require_same_scale(joined, before.n_obs, roles, panel)
    set_up(joined, roles, state.options)
    wanted = lined_up(state.target, joined, state.n_start)
    found = standing(joined, wanted, state.options["plan"])
    naming, n_cells = naming_of(joined), labels_and_cells(new, roles)
    names = naming.spelled(n_cells, labels_and_cells(joined, roles))
    planned = {naming.key(name) for name in state.history["perturbation"]}
    unplanned = [name for name in names if naming.key(name) not in planned]
    if unplanned:
        logger.info("Observed, though never proposed: %s.", _adata.list_names(sorted(unplanned)))
    history = _history.add_rows(
        state.history, state.round, "observed", names, n_cells=list(n_cells.values()),
        why="" if batch is None else f"batch {batch}", options={"cells": seen},
    )  # fmt: skip
    return joined, State(
        state.target, state.options, history,
        add_standing(state.standings, state.round, found),
        _unobserved(state.pending, names, naming), _unobserved(state.failed, names, naming),
    )  # fmt: skip


def marked_pending(state: State, names: Sequence[str], n_cells: int) -> State:
    """Return the state in which perturbations are under way."""
    history = _history.add_rows(state.history, state.round, "pending", names, n_cells=n_cells)
    pending = state.pending | dict.fromkeys(names, n_cells)
    return replace(state, history=history, pending=pending, failed=_without(state.failed, names))


def marked_failed(state: State, names: Sequence[str], reason: str) -> State:
    """Return the state in which perturbations have failed."""
    history = _history.add_rows(state.history, state.round, "failed", names, why=reason)
    failed = state.failed | dict.fromkeys(names, reason)
    return replace(state, history=history, failed=failed, pending=_without(state.pending, names))


def retried(state: State, names: Sequence[str]) -> State:
    """Return the state in which perturbations that failed may be proposed again.

    Raises
    ------
    ValueError
        If one did not fail.
    """
    others = [name for name in names if name not in state.failed]
    if others:
        message = (
            f"Did not fail: {_adata.list_names(others)}.{_adata.closest(others, state.failed)} "
            f"Those that did: {_adata.list_names(state.failed) or 'none'}."
        )
        raise ValueError(message)
    history = _history.add_rows(state.history, state.round, "retried", names)
    return replace(state, history=history, failed=_without(state.failed, names))


def _unobserved(marked: Mapping[str, Any], names: list[str], naming: Naming) -> dict[str, Any]:
    """Return what was marked and is not among ``names``, which may be spelled otherwise."""
    observed = {naming.key(name) for name in names}
    return {name: said for name, said in marked.items() if naming.key(name) not in observed}


def _without(kept: Mapping[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in kept.items() if name not in names}


def _require_unseen(state: State, seen: str) -> None:
    values = seen.split()[-1]  # labels may be spelled otherwise
    same = state.history[state.history["options"].str.contains(values, regex=False)]
    if len(same):
        first = same.iloc[0]
        message = (
            f"These cells were observed before ({first['when']}, round {first['round']}): counted "
            f"twice they would seem surer than they are."
        )
        raise ValueError(message)


def _seed(rng: int | np.random.Generator | None) -> int:
    """Return the seed that is written down, by which a plate can be made again."""
    if rng is None:
        return secrets.randbits(63)
    return int(rng.integers(2**63)) if isinstance(rng, np.random.Generator) else int(rng)
