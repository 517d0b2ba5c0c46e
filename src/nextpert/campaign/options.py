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
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

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


class _Level(NamedTuple):
    """Standard deviation of the cells within their groups, and their mean, over all genes."""

    sd: float
    mean: float


def require_same_scale(joined: ad.AnnData, n_old: int, roles: Roles, panel: Sequence[str]) -> None:
    """Raise if the cells after the first ``n_old`` are on another scale than these.

    Raises
    ------
    ValueError
        If they are. The message states how, and that ``check_scale=False`` accepts them.
    """
    screen, is_new, is_control = _read(joined, n_old, roles, panel)
    counts = [looks_like_counts(_moments(screen, is_new == side)) for side in (False, True)]
    if counts[0] != counts[1]:
        what = (
            "are whole numbers, such as counts, but the campaign's cells are not: log-normalise "
            "them in the same way"
            if counts[1]
            else "are not whole numbers, but the campaign's cells are: give them on the same scale"
        )
        raise ValueError(_refused(what))
    n_controls = [screen.n[is_control & (is_new == side)].sum() for side in (False, True)]
    alone = min(n_controls) >= _ENOUGH
    used = is_control if alone else np.ones_like(is_control)
    old, new = (_level(screen, used & (is_new == side)) for side in (False, True))
    most = _FACTOR if alone else _FACTOR_PERTURBED
    who = "controls" if alone else "cells"
    if new.sd > 0 and old.sd > 0 and not 1 / most <= new.sd / old.sd <= most:
        what = (
            f"are on another scale: the standard deviation of their {who} is "
            f"{new.sd / old.sd:.3g} times that of the campaign's. Normalise all alike (logarithm, "
            f"target_sum)"
        )
        raise ValueError(_refused(what))
    if old.mean > _CENTRED * old.sd and not 1 / _FACTOR_MEAN <= new.mean / old.mean <= _FACTOR_MEAN:
        what = (
            f"are on another scale: the mean of their {who} is {new.mean / old.mean:.3g} times "
            f"that of the campaign's. Normalise all alike"
        )
        raise ValueError(_refused(what))


def _refused(what: str) -> str:
    return f"The new cells {what}, or pass check_scale=False if they are meant to differ."


def _read(
    joined: ad.AnnData, n_old: int, roles: Roles, panel: Sequence[str]
) -> tuple[ScreenMoments, Groups, Groups]:
    """Return the moments of environments, the new cells apart, and which are new and controls."""
    environments = read_environments(joined, roles)
    is_new = np.arange(joined.n_obs) >= n_old
    labelled = environments.codes >= 0
    by = {"environment": environments.codes, "new": np.where(labelled, is_new, -1)}
    _, columns = _adata.resolve_panel(joined, list(panel), gene_symbols="")
    ((screen,), _) = read_screens(joined, columns, [coding(by)], layer=roles.layer)
    is_control = environments.perturbation[screen.columns["environment"]] == roles.control
    return screen.moments(), screen.columns["new"] > 0, np.asarray(is_control, bool)


def _moments(screen: ScreenMoments, which: Groups) -> Moments:
    """Return the moments of the cells of some groups; of their scatter the diagonal alone."""
    n, total = int(screen.n[which].sum()), screen.n[which] @ screen.mean[which]
    mean = total / max(n, 1)
    squares = (screen.squares + screen.n[:, None] * (screen.mean - mean) ** 2)[which].sum(axis=0)
    return Moments(n, mean, np.diag(squares))


def _level(screen: ScreenMoments, which: Groups) -> _Level:
    freedom = int(screen.n[which].sum()) - int(which.sum())
    variance = screen.squares[which].sum() / freedom if freedom > 0 else 0.0
    return _Level(float(np.sqrt(variance)), float(_moments(screen, which).mean.sum()))


# What the campaign says itself, or `pp.setup_screen` does.
_ROLES = {"perturbation_key", "control", "guide_key", "layer"}
_OWN = {"adata", "target", "key_added", "copy", "dag_key", "posterior_key"}
_OF_A_PLATE = {"n_perturbations", "n_cells", "strategy", "pending", "rng"}
_LISTS = (list, tuple, set, frozenset, Iterator, KeysView, ValuesView, pd.Index)
LEARN = {"method": "boss", "environments": "all"}


def checked_options(
    learn: Mapping[str, Any] | None, fit: Mapping[str, Any] | None, plan: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Return the options of learning, fitting and planning, as they come back from a file.

    Raises
    ------
    ValueError
        If an option is unknown (close matches are suggested), or said elsewhere.
    TypeError
        If one is of a kind that no file keeps.
    """
    calls: dict[str, tuple[Callable[..., Any], Mapping[str, Any] | None]] = {
        "learn": (tl.learn_dag, learn), "fit": (tl.fit_dag_blr, fit), "plan": (tl.plan_screen, plan)
    }  # fmt: skip
    out = {}
    for name, (function, given) in calls.items():
        known = set(inspect.signature(function).parameters) - _ROLES - _OWN
        known -= _OF_A_PLATE if name == "plan" else set()
        unknown = sorted(set(given or {}) - known)
        if unknown:
            message = (
                f"{name} holds {_adata.list_names(unknown)}, which a campaign does not accept: it "
                f"accepts {_adata.list_names(sorted(known), 30)}."
            )
            hint = where_now(function, unknown[0]) or _adata.closest(unknown, known)
            raise ValueError(message + hint)
        check_arguments(function, given or {})
        out[name] = dict(given or {})
        if out[name].get("features") is not None:  # of a file, what it holds now
            out[name]["features"] = _adata.load_features(out[name]["features"])
    if "method" not in out["learn"]:
        out["learn"] = LEARN | out["learn"]
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
    return _decode(json.loads(str(stored["json"])), dict(stored.get("tables", {})))


def _encode(value: Any, what: str, tables: dict[str, Any]) -> Any:
    if value is None or isinstance(value, (str, bool, np.bool_)):
        return bool(value) if isinstance(value, np.bool_) else value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    for kind, (sort, pack, _) in _TABLES.items():
        if isinstance(value, sort):
            tables[str(len(tables))] = pack(value)
            return {kind: str(len(tables) - 1)}
    if isinstance(value, Target):
        return {"target": _encode(parts_of(value), what, tables)}
    if isinstance(value, Mapping):
        pairs = [[_key(name, what), _encode(part, f"{what}[{name!r}]", tables)]
                 for name, part in value.items()]  # fmt: skip
        return {"mapping": pairs}
    if isinstance(value, _LISTS):
        parts = [_encode(part, what, tables) for part in _adata.in_order(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    message = (
        f"{what} is of type {type(value).__name__}, which cannot be saved in a campaign's file."
    )
    raise TypeError(message)


def _key(name: Any, what: str) -> str:
    if not isinstance(name, str):
        message = f"{what} must have strings as names, but holds {name!r}."
        raise TypeError(message)
    return name


def _decode(coded: Any, tables: Mapping[str, Any]) -> Any:
    if isinstance(coded, list):
        return [_decode(part, tables) for part in coded]
    if not isinstance(coded, dict):
        return coded
    ((kind, content),) = coded.items()
    if kind == "mapping":
        return {name: _decode(part, tables) for name, part in content}
    if kind == "tuple":
        return tuple(_decode(part, tables) for part in content)
    if kind == "target":
        return Target(**_decode(content, tables))
    return _TABLES[kind][2](tables[content])


def _text_index(table: pd.DataFrame) -> pd.DataFrame:
    out = table.copy()
    out.index, out.columns = out.index.astype(str), out.columns.astype(str)
    return out


_TABLES: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "table": (pd.DataFrame, _text_index, _text_index),
    "series": (pd.Series, lambda s: _text_index(s.to_frame("value")), lambda t: t["value"]),
    "sparse": ((sp.spmatrix, sp.sparray), _adata.as_stored_csr, _adata.as_stored_csr),
    "array": (np.ndarray, np.array, np.array),
    "anndata": (ad.AnnData, lambda a: a.to_memory() if a.isbacked else a.copy(), ad.AnnData.copy),
}
