"""The steps of a campaign: each takes a state, learns and fits, and returns the next state."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

from nextpert import _adata, pp, tl
from nextpert._adata.join import joined_cells, kept_cells, require_genes
from nextpert._adata.labels import column_of, usual_controls
from nextpert._adata.roles import Roles, read_roles
from nextpert._adata.table import is_table
from nextpert.campaign.candidates import (
    fit_of,
    plate_options,
    require_same_scale,
    standing_options,
    with_batches,
)
from nextpert.campaign.state import (
    LEARN,
    NUMBERS,
    State,
    add_rows,
    add_standing,
    kept_value,
    lined_up,
)
from nextpert.pp._screen import BOOKS
from nextpert.study.advice import NO_PERTURBATION
from nextpert.study.ranking import nothing_of, share_of
from nextpert.study.target import columns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from nextpert.core.fit.naming import Naming

    Options = dict[str, dict[str, Any]]

logger = logging.getLogger(__name__)

_NEXT = "_next_plan"  # in uns, while the standing of a round is computed


def set_up(cells: ad.AnnData, roles: Roles, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Learn the graph and fit the posterior."""
    declared: Any = {name: value or None for name, value in vars(roles).items() if name != "values"}
    pp.setup_screen(cells, **declared, check_scale=roles.checks_scale)
    tl.learn_dag(cells, **options["learn"])
    tl.fit_dag_blr(cells, **options["fit"])


def standing(
    cells: ad.AnnData,
    target: Any,
    plan: Mapping[str, Any],
    failed: Iterable[str] = (),
    last_plan: Any = None,
) -> dict[str, Any]:
    """Return how near the best known perturbation is to the target, and the expected gain.

    These are the columns of :meth:`Campaign.summarize`, and ``n_cells``, the cells of the fit. The
    gain is that of a round of the size of the last plan, which is not one of these cells.
    """
    options, limits = standing_options(cells, target, plan, failed)
    size = {} if last_plan is None else last_plan["params"]
    limits |= {name: size[name] for name in ("n_perturbations", "n_cells") if name in size}
    tl.plan_screen(cells, target, key_added=_NEXT, **limits)
    stored = cells.uns.pop(_NEXT)["advice"]
    # The advice compares all measured perturbations, so that they are ranked as well.
    options["candidates"] = list(dict.fromkeys([*options["candidates"], *stored["candidates"]]))
    tl.design_interventions(cells, target, acquisition="probability", **options)
    cells.uns["design"]["advice"] = stored
    fit, ranking, advice = (
        cells.uns["dag_blr"],
        cells.uns["design"]["ranking"],
        cells.uns["design"]["advice"],
    )
    n_cells = int(fit["n_control_cells"] + fit["environments"]["n_cells"].sum())
    # With controls alone, no perturbation is known.
    if not len(fit["environments"]):
        return {
            "best": NO_PERTURBATION,
            "relative_measured_distance": 1.0,
            "relative_distance": 1.0,
            "probability_best": 0.0,
            "expected_gain": np.nan,
            "good_enough": np.nan,
            "advice": "",
            "n_cells": n_cells,
        }
    control = nothing_of(ranking)
    best = str(advice["best_known"])
    is_none = best == NO_PERTURBATION
    row = control if is_none else ranking[ranking["perturbation"] == best].iloc[0]
    measured = share_of(row["measured_distance"], float(control["measured_distance"]))
    return {
        "best": best,
        "relative_measured_distance": float(measured),
        "relative_distance": float(row["relative_distance"]),
        "probability_best": 0.0 if is_none else float(row["probability_best"]),
        "expected_gain": float(advice["relative_gain"]),
        "good_enough": float(advice["good_enough"]),
        "advice": str(advice["kind"]),
        "n_cells": n_cells,
    }


def first_cells(adata: ad.AnnData, target: Any, roles: Roles) -> ad.AnnData:
    """Return a copy of the parts of the starting cells that a campaign needs."""
    _adata.require_layer(adata, roles.layer)
    _adata.require_control(_adata.read_labels(adata, roles.perturbation_key), roles.control)
    columns = roles.columns
    for column in columns_of(target):
        if column not in columns:
            _adata.read_labels(adata, column, argument="target")
            columns = [*columns, column]
    out = kept_cells(adata, columns, roles.layer, numbers=roles.covariates)
    if BOOKS in adata.uns:  # from which tl.plan_loading reads the share of cells that is kept
        out.uns[BOOKS] = _adata.eager(adata.uns[BOOKS])
    return out


def with_new_cells(
    before: ad.AnnData,
    cells: ad.AnnData,
    roles: Roles,
    panel: Sequence[str],
    batch: str | None,
    this_time: int,
) -> tuple[ad.AnnData, ad.AnnData, Roles]:
    """Return all cells, the new cells alone, and the new roles; raise if a part is absent."""
    if is_table(before) != is_table(cells):
        message = (
            "A campaign cannot contain both cells and tables of effects: give all data in the same "
            "form."
        )
        raise ValueError(message)
    genes = require_genes(cells, panel, [str(gene) for gene in before.var_names])
    _adata.require_layer(cells, roles.layer)
    for name in set(roles.columns) - set(roles.batch_key):
        column_of(cells, name, "the new cells need it, because it has a role in this campaign")
    values = cells.obs[roles.perturbation_key]
    if values.dtype.kind == "f" and (values.dropna() % 1 != 0).any():
        message = (
            f"obs[{roles.perturbation_key!r}] of the new cells holds numbers such as "
            f"{values.dropna().iloc[0]:.3g}: give the label of the perturbation of every cell."
        )
        raise ValueError(message)
    columns = [str(name) for name in before.obs.columns if name in cells.obs.columns]
    new = kept_cells(cells, columns, roles.layer, numbers=roles.covariates, genes=genes)
    n_cells = labels_and_cells(new, roles)
    if not n_cells:
        message = f"No new cell has a label in obs[{roles.perturbation_key!r}]: label the cells."
        raise ValueError(message)
    if wrong := usual_controls(n_cells.keys() - labels_and_cells(before, roles).keys()):
        message = (
            f"{n_cells[wrong[0]]:,} of the new cells are labelled {wrong[0]!r}, a usual label of "
            f"controls, but the controls of this campaign are labelled {roles.control!r}: rename "
            f"the label."
        )
        raise ValueError(message)
    before = before.copy()
    before.obs, new.obs, roles = with_batches(before, new.obs, roles, batch, this_time)
    joined = joined_cells(before, new, roles.layer, f"-{this_time}")
    if BOOKS in before.uns:
        joined.uns[BOOKS] = before.uns[BOOKS]
    return joined, new, roles


def labels_and_cells(adata: ad.AnnData, roles: Roles) -> dict[str, int]:
    """Return the number of cells of every perturbation."""
    labels = _adata.read_perturbations(adata, roles)
    return {name: labels.n_cells(name) for name in labels.names}


def panel_of(adata: ad.AnnData) -> list[str]:
    """Return the genes of the graph by their names in ``adata.var_names``."""
    stored = adata.uns["dag"]
    symbols = _adata.symbols_of(stored)
    _, columns = _adata.resolve_panel(adata, stored["genes"], gene_symbols=symbols)
    return [str(adata.var_names[i]) for i in columns]


def digest(adata: ad.AnnData, naming: Naming, roles: Roles, panel: Sequence[str]) -> str:
    """Return a fingerprint of labelled cells, by which the same cells are recognised.

    It does not depend on the order of members in labels of combinations.
    """
    key = roles.perturbation_key
    labels = adata.obs[key].astype(object)
    canonical = labels.map(lambda x: naming.separator.join(naming.key(str(x))), na_action="ignore")
    parts = {"var": adata.var, "uns": adata.uns, "layers": adata.layers}
    # Values are not copied.
    adata = ad.AnnData(adata.X, adata.obs.assign(**{key: canonical}), **parts)
    _, columns = _adata.resolve_panel(adata, list(panel), gene_symbols="")
    labelled = Roles(roles.perturbation_key, layer=roles.layer)  # batches do not count
    return _adata.fingerprint(adata, labelled, columns).partition(":")[0]


def started(adata: ad.AnnData, target: Any, options: Options) -> tuple[ad.AnnData, State]:
    """Return the cells of a new campaign, fitted, and its state."""
    target = kept_value(target, "target")
    roles = read_roles(adata)
    cells = first_cells(adata, target, roles)
    if is_table(cells) and options["learn"] == LEARN:  # the default needs cells
        options = options | {"learn": kept_value({"method": "given", "dag": []}, "options")}
    set_up(cells, roles, options)
    counts = labels_and_cells(cells, roles)
    best = standing(cells, lined_up(target, cells, sum(counts.values())), options["plan"])
    history = add_rows(
        None,
        0,
        "started",
        list(counts),
        n_cells=list(counts.values()),
        options={"cells": digest(cells, fit_of(cells).naming, roles, panel_of(cells))},
    )
    return cells, State(target, options, history, add_standing(None, 0, best), {}, {})


def proposed(
    cells: ad.AnnData,
    state: State,
    n_perturbations: int,
    n_cells: int,
    strategy: str,
    rng: int | np.random.Generator | None,
) -> State:
    """Plan the next round, and return the state in which its perturbations are in progress."""
    # The seed is recorded, so that the round can be reproduced.
    this_round = state.round + 1
    seed = rng
    if seed is None:
        seed = secrets.randbits(63)
    elif isinstance(seed, np.random.Generator):
        seed = int(seed.integers(2**63))
    options = plate_options(cells, state.target, state.options["plan"], state.pending, state.failed)
    size = {"n_perturbations": int(n_perturbations), "n_cells": int(n_cells), "strategy": strategy}
    options |= size | {"rng": np.random.default_rng([int(seed), this_round])}
    tl.plan_screen(cells, lined_up(state.target, cells, state.n_start), **options)
    plate = cells.uns["plan"]["plate"]
    wells = plate[plate["strategy"] != "control"]
    shown = wells[["n_cells", "why", *NUMBERS]].to_dict("list")
    history = add_rows(
        state.history,
        this_round,
        "proposed",
        list(wells["perturbation"]),
        seed=str(seed),
        options=size,
        **shown,
    )
    planned = dict(zip(wells["perturbation"], wells["n_cells"].astype(int), strict=True))
    return replace(state, history=history, pending=state.pending | planned)


def observed(
    before: ad.AnnData, state: State, cells: ad.AnnData, batch: str | None, *, check_scale: bool
) -> tuple[ad.AnnData, State]:
    """Return all cells including the new ones, fitted, and the state."""
    roles = read_roles(before)
    panel = panel_of(before)
    earlier = state.history[state.history["action"] == "observed"]
    joined, new, roles = with_new_cells(
        before, cells, roles, panel, batch, 1 + earlier["options"].nunique()
    )
    fingerprint = digest(new, fit_of(before).naming, roles, panel)
    _require_unseen(state, fingerprint)
    if is_table(joined):
        # The effects in every table are differences of natural logarithms.
        pass
    elif check_scale:
        require_same_scale(joined, before.n_obs, roles, panel)
    else:
        roles = replace(roles, values={"checked": False})
    set_up(joined, roles, state.options)
    naming = fit_of(joined).naming
    n_cells = labels_and_cells(new, roles)
    names = naming.spelled(n_cells, labels_and_cells(joined, roles))
    failed, pending = (without(x, names, naming.key) for x in (state.failed, state.pending))
    target = lined_up(state.target, joined, state.n_start)
    best = standing(joined, target, state.options["plan"], failed, before.uns.get("plan"))
    planned = {naming.key(name) for name in state.history["perturbation"]}
    unplanned = [name for name in names if naming.key(name) not in planned]
    if unplanned:
        logger.info("Observed without a proposal: %s.", _adata.list_names(sorted(unplanned)))
    history = add_rows(
        state.history,
        state.round,
        "observed",
        names,
        n_cells=list(n_cells.values()),
        why="" if batch is None else f"batch {batch}",
        options={"cells": fingerprint},
    )
    standings = add_standing(state.standings, state.round, best)
    return joined, replace(
        state, history=history, standings=standings, pending=pending, failed=failed
    )


def marked(state: State, action: str, names: Sequence[str], **columns: Any) -> State:
    """Return the state with an event for perturbations, which are no longer pending or failed."""
    history = add_rows(state.history, state.round, action, names, **columns)
    return replace(
        state,
        history=history,
        pending=without(state.pending, names),
        failed=without(state.failed, names),
    )


def without(
    entries: Mapping[str, Any], names: Sequence[str], key: Callable[[str], Any] = str
) -> dict[str, Any]:
    """Return the entries of other perturbations; ``key`` is the same for all spellings of one."""
    keys = {key(name) for name in names}
    return {name: value for name, value in entries.items() if key(name) not in keys}


def _require_unseen(state: State, fingerprint: str) -> None:
    # Only values are compared, because labels may be spelled differently.
    values = fingerprint.split()[-1]
    repeats = state.history[state.history["options"].str.contains(values, regex=False)]
    if len(repeats):
        first = repeats.iloc[0]
        message = (
            f"These cells were observed before ({first['when']}, round {first['round']}): give "
            f"only new cells."
        )
        raise ValueError(message)
