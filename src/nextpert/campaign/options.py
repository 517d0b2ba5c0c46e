"""Options of the calls that a campaign makes, and whether new cells are on the scale of the others.

What a batch adds to a gene is learned from its controls; what it multiplies values by is not. So
standard deviations within perturbations and batches are compared, which neither batches nor
perturbations change much. In four real screens replicates differ by a factor of 1.1 at most, and
cells thinned to a third of their counts by 1.6. Cells that are not logged, or scaled to 10,000
counts where the others are scaled to their median, differ by factors of 2.1 to 45.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, KeysView, Mapping, ValuesView
from numbers import Real
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata, tl
from nextpert._adata.arguments import check_arguments, where_now
from nextpert._adata.environments import looks_like_counts
from nextpert._adata.screen import coding, read_environments, read_screens
from nextpert._adata.target import Target, parts_of
from nextpert.core import Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert._adata import Roles
    from nextpert.core import ScreenMoments

    Groups = NDArray[np.bool_]

_FACTOR = 2.0  # of the standard deviation of controls
_FACTOR_PERTURBED = 3.0  # of all cells: a perturbation may change the genes that vary most
_FACTOR_MEAN = 10.0
_ENOUGH = 20  # control cells, to be compared alone
_CENTRED = 0.1  # mean over standard deviation below which values are differences from a mean


def require_same_scale(joined: ad.AnnData, n_old: int, roles: Roles, panel: Sequence[str]) -> None:
    """Raise if the cells after the first ``n_old`` are on another scale than these."""
    environments = read_environments(joined, roles)
    is_new = np.arange(joined.n_obs) >= n_old
    by = {
        "environment": environments.codes,
        "new": np.where(environments.codes >= 0, is_new, -1),
    }
    _, columns = _adata.resolve_panel(joined, list(panel), gene_symbols="")
    (cells,) = read_screens(joined, columns, [coding(by)], layer=roles.layer)
    screen, is_new = cells.moments(), cells.columns["new"] > 0
    is_control = environments.perturbation[cells.columns["environment"]] == roles.control
    whole_old, whole_new = (looks_like_counts(_pooled(screen, is_new == x)) for x in (False, True))
    if whole_old != whole_new:
        which = "are" if whole_new else "are not"
        raise _other_scale(f"{which} whole numbers, such as counts, unlike the campaign's")
    used, who, most = is_control, "controls", _FACTOR
    if min(screen.n[is_control & (is_new == x)].sum() for x in (False, True)) < _ENOUGH:
        used, who, most = np.ones_like(is_control), "cells", _FACTOR_PERTURBED
    old, new = (_level(screen, used & (is_new == x)) for x in (False, True))
    sd = new[0] / old[0] if min(old[0], new[0]) > 0 else 1.0
    mean = new[1] / old[1] if old[1] > _CENTRED * old[0] else 1.0
    for what, ratio, limit in (("standard deviation", sd, most), ("mean", mean, _FACTOR_MEAN)):
        if not 1 / limit <= ratio <= limit:
            raise _other_scale(
                f"are on another scale: the {what} of their {who} is {ratio:.3g} times that of "
                f"the campaign's"
            )


def _other_scale(how: str) -> ValueError:
    return ValueError(
        f"The new cells {how}. Normalise all alike (logarithm, target_sum), or pass "
        f"check_scale=False if they are meant to differ."
    )


def _pooled(screen: ScreenMoments, which: Groups) -> Moments:
    """Return the moments of the cells of some groups; of their scatter the diagonal alone."""
    n, total = int(screen.n[which].sum()), screen.n[which] @ screen.mean[which]
    mean = total / max(n, 1)
    squares = (screen.squares + screen.n[:, None] * (screen.mean - mean) ** 2)[which].sum(axis=0)
    return Moments(n, mean, np.diag(squares))


def _level(screen: ScreenMoments, which: Groups) -> tuple[float, float]:
    """Return the standard deviation of cells within their groups, and their mean, of all genes."""
    freedom = int(screen.n[which].sum()) - int(which.sum())
    variance = screen.squares[which].sum() / freedom if freedom > 0 else 0.0
    return float(np.sqrt(variance)), float(_pooled(screen, which).mean.sum())


# What the campaign says itself, or `pp.setup_screen` does.
_ROLES = {"perturbation_key", "control", "guide_key", "layer"}
_OWN = {"adata", "target", "key_added", "copy", "dag_key", "posterior_key"}
_OF_A_PLATE = {"n_perturbations", "n_cells", "strategy", "pending", "rng"}
_LISTS = (list, tuple, set, frozenset, Iterator, KeysView, ValuesView, pd.Index)
LEARN = {"method": "boss", "environments": "all"}


def checked_options(
    learn: Mapping[str, Any] | None, fit: Mapping[str, Any] | None, plan: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Return the options of learning, fitting and planning, as they come back from a file."""
    out = {"learn": dict(learn or {}), "fit": dict(fit or {}), "plan": dict(plan or {})}
    if "method" not in out["learn"]:
        out["learn"] = LEARN | out["learn"]
    calls: dict[str, Callable[..., Any]]
    calls = {"learn": tl.learn_dag, "fit": tl.fit_dag_blr, "plan": tl.plan_screen}
    for name, function in calls.items():
        known = set(inspect.signature(function).parameters) - _ROLES - _OWN
        known -= _OF_A_PLATE if name == "plan" else set()
        unknown = sorted(set(out[name]) - known)
        if unknown:
            hint = where_now(function, unknown[0]) or _adata.closest(unknown, known)
            message = (
                f"{name} holds {_adata.list_names(unknown)}, which a campaign does not accept: it "
                f"accepts {_adata.list_names(sorted(known), 30)}.{hint}"
            )
            raise ValueError(message)
        check_arguments(function, out[name])
    if out["fit"].get("features") is not None:  # of a file, what it holds now
        out["fit"]["features"] = _adata.load_features(out["fit"]["features"])
    kept: dict[str, dict[str, Any]] = kept_value(out, "options")
    return kept


def kept_value(value: Any, what: str) -> Any:
    """Return a value as it comes back from a file, or say that none keeps it."""
    return from_stored(to_stored(value, what))


def to_stored(value: Any, what: str) -> dict[str, Any]:
    """Return a nested value as JSON, and the tables in it beside.

    Examples
    --------
    >>> from nextpert.campaign.options import from_stored, to_stored
    >>> from_stored(to_stored({"target": ("batch", "a"), "include": {"MYC"}}, "options"))
    {'target': ('batch', 'a'), 'include': ['MYC']}
    """
    tables: dict[str, Any] = {}
    return {"json": json.dumps(_encode(value, what, tables)), "tables": tables}


def from_stored(stored: Mapping[str, Any]) -> Any:
    """Return what :func:`to_stored` was given; sets and iterators as lists."""
    tables = stored.get("tables", {})

    def decode(coded: dict[str, Any]) -> Any:
        for kind, content in coded.items():
            if kind in _TABLES:
                return _TABLES[kind][2](tables[content])
            if kind in _MADE:
                return _MADE[kind](content)
        return coded

    return json.loads(str(stored["json"]), object_hook=decode)


def _encode(value: Any, what: str, tables: dict[str, Any]) -> Any:
    if value is None or isinstance(value, (str, np.generic, Real)):
        return value.item() if isinstance(value, np.generic) else value
    for kind, (sort, pack, _) in _TABLES.items():
        if isinstance(value, sort):
            tables[str(len(tables))] = pack(value)
            return {kind: str(len(tables) - 1)}
    if isinstance(value, Target):
        return {"!target": _encode(parts_of(value), what, tables)}
    if isinstance(value, Mapping):
        if others := [name for name in value if not isinstance(name, str)]:
            message = f"{what} must have strings as names, but holds {others[0]!r}."
            raise TypeError(message)
        return {name: _encode(part, f"{what}[{name!r}]", tables) for name, part in value.items()}
    if isinstance(value, _LISTS):
        parts = [_encode(part, what, tables) for part in _adata.in_order(value)]
        return {"!tuple": parts} if isinstance(value, tuple) else parts
    message = (
        f"{what} is of type {type(value).__name__}, which cannot be saved in a campaign's file."
    )
    raise TypeError(message)


def _text_index(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis(table.index.astype(str)).set_axis(table.columns.astype(str), axis=1)


# Kinds of values that JSON does not have: of tables, how they are kept beside it and read.
_MADE: dict[str, Callable[[Any], Any]] = {
    "!tuple": tuple,
    "!target": lambda parts: Target(**parts),
}
_TABLES: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "!table": (pd.DataFrame, _text_index, _text_index),
    "!series": (pd.Series, lambda s: _text_index(s.to_frame("value")), lambda t: t["value"]),
    "!sparse": ((sp.spmatrix, sp.sparray), _adata.as_stored_csr, _adata.as_stored_csr),
    "!array": (np.ndarray, np.array, np.array),
    "!anndata": (ad.AnnData, lambda a: a.to_memory() if a.isbacked else a.copy(), ad.AnnData.copy),
}
