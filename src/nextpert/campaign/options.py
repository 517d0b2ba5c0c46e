"""Options of the calls that a campaign makes: checked early, and kept in its file."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, KeysView, Mapping, ValuesView
from numbers import Integral, Real
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata, tl
from nextpert._adata.arguments import check_arguments
from nextpert._adata.target import Target, parts_of

# What the campaign says itself, or `pp.setup_screen` does.
_ROLES = {"perturbation_key", "control", "guide_key", "layer"}
_OWN = {"adata", "target", "key_added", "copy", "dag_key", "posterior_key", "show_progress"}
_OF_A_PLATE = {"n_perturbations", "n_cells", "aim", "pending", "rng"}
_LISTS = (list, tuple, set, frozenset, Iterator, KeysView, ValuesView, pd.Index)
_LEARN = {"method": "boss", "environments": "all"}


def checked_options(
    learn: Mapping[str, Any] | None, fit: Mapping[str, Any] | None, plan: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Return the options of learning, fitting and planning, as they come back from a file.

    Raises
    ------
    ValueError
        If an option is unknown (close matches are given), or said elsewhere.
    TypeError
        If one is of a kind that no file keeps.
    """
    calls: dict[str, tuple[Callable[..., Any], Mapping[str, Any] | None]] = {
        "learn": (tl.learn_dag, learn), "fit": (tl.fit_dag_blr, fit), "plan": (tl.plan_screen, plan)
    }  # fmt: skip
    out = {}
    for name, (function, given) in calls.items():
        known = set(inspect.signature(function).parameters) - _ROLES - _OWN - {"checkpoint"}
        known -= _OF_A_PLATE if name == "plan" else set()
        unknown = sorted(set(given or {}) - known)
        if unknown:
            message = (
                f"{name} holds {_adata.list_names(unknown)}, which a campaign does not take: it "
                f"takes {_adata.list_names(sorted(known), 30)}.{_adata.closest(unknown, known)}"
            )
            raise ValueError(message)
        check_arguments(function, given or {})
        out[name] = dict(given or {})
    if "method" not in out["learn"]:
        out["learn"] = _LEARN | out["learn"]
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
    >>> from_stored(to_stored({"target": ("batch", "a"), "must": {"MYC"}}, "options"))
    {'target': ('batch', 'a'), 'must': ['MYC']}
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
    message = f"{what} is of type {type(value).__name__}, which a campaign's file cannot keep."
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
