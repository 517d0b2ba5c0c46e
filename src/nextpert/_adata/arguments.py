"""The arguments of all public functions: a name means one thing, and is checked in one place."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NoReturn

import anndata as ad
import numpy as np
import pandas as pd

from nextpert._adata.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

_PATHS = (str, os.PathLike)


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raise where an argument is of another kind than its name says.

    Called first of all by every public function, with its ``locals()``. What depends on the data,
    and the range of numbers, is checked where it is used.

    Parameters
    ----------
    given
        Arguments by name; names that are not known here are not looked at.

    Raises
    ------
    TypeError
        If an argument is of a wrong type.
    ValueError
        If a number is NaN, infinite or too small, or a string is empty.

    Examples
    --------
    >>> from nextpert._adata import check_arguments
    >>> check_arguments({"n_cells": 10, "layer": None})
    >>> check_arguments({"n_cells": "ten"})
    Traceback (most recent call last):
        ...
    TypeError: n_cells must be a whole number of at least 1, but is 'ten'.
    """
    for name, value in given.items():
        if name in CHECKS:
            CHECKS[name](value, name)


def _refuse(name: str, what: str, value: Any, kind: type[Exception] = TypeError) -> NoReturn:
    shown = repr(value)
    if len(shown) > 60 or "\n" in shown:
        shown = f"of type {type(value).__name__}"
    message = f"{name} must be {what}, but is {shown}."
    raise kind(message)


def _annadata(value: Any, name: str) -> None:
    if not isinstance(value, ad.AnnData):
        message = (
            f"{name} must be an AnnData of cells x genes, but is of type {type(value).__name__}: "
            f"read one with anndata.read_h5ad, or build it with anndata.AnnData."
        )
        raise TypeError(message)


def _maybe_annadata(value: Any, name: str) -> None:
    if value is not None and not isinstance(value, ad.AnnData):
        _refuse(name, "an AnnData of perturbations x genes, or None", value)


def _text(value: Any, name: str, *, none: bool = False, empty: bool = False) -> None:
    if none and value is None:
        return
    what = "a string" if empty else "a string that is not empty"
    what += ", or None" if none else ""
    if not isinstance(value, str):
        _refuse(name, what, value)
    if not value and not empty:
        _refuse(name, what, value, ValueError)


def _flag(value: Any, name: str, *, none: bool = False, text: bool = False) -> None:
    if (none and value is None) or (text and isinstance(value, str)):
        return
    if not isinstance(value, (bool, np.bool_)):
        _refuse(name, "True or False" + (", or None" if none else ""), value)


def _whole(value: Any, name: str, *, least: int = 1, none: bool = False) -> None:
    if none and value is None:
        return
    what = f"a whole number of at least {least}" + (", or None" if none else "")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        _refuse(name, what, value)
    if not float(value).is_integer() or value < least:
        _refuse(name, what, value, ValueError)


def _number(
    value: Any, name: str, *, word: str | None = None, none: bool = False, least: float = -math.inf
) -> None:
    if (none and value is None) or (word is not None and value == word):
        return
    what = "a number" if least == -math.inf else f"a number of {least:g} or more"
    what += f", or {word!r}" if word else ""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        _refuse(name, what, value, ValueError if word and isinstance(value, str) else TypeError)
    if not math.isfinite(value) or value < least:
        _refuse(name, f"finite, {what}", value, ValueError)


def _jobs(value: Any, name: str) -> None:
    what = "a number of workers (-1 for all processors), or None"
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        _refuse(name, what, value)
    if value == 0:
        _refuse(name, what, value, ValueError)


def _rng(value: Any, name: str) -> None:
    if value is None or isinstance(value, np.random.Generator):
        return
    what = "a seed (a whole number of 0 or more), a numpy Generator, or None"
    if isinstance(value, bool) or not isinstance(value, Integral):
        _refuse(name, what, value)
    if value < 0:
        _refuse(name, what, value, ValueError)


def _names(value: Any, name: str, *, text: bool = False, table: bool = False) -> None:
    """Check a list of names; iterators are not used up."""
    if value is None or (table and isinstance(value, (Mapping, pd.DataFrame))):
        return
    what = "a list of names" + (", or a table" if table else "")
    if isinstance(value, str):
        if text and value:
            return
        message = f"{name} must be {what}, but is the string {value!r}: use [{value!r}]."
        raise ValueError(message) if text else TypeError(message)
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
        _refuse(name, what, value)
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        bad = [item for item in value if not isinstance(item, (str, Real)) or item != item]
        if bad:
            _refuse(name, f"{what}, with names in it", bad[0])


def _control(value: Any, name: str) -> None:
    what = "a non-empty string, the label of the unperturbed cells"
    if isinstance(value, str) and not value:
        _refuse(name, what, value, ValueError)
    if isinstance(value, Real):
        _refuse(name, what, value)
    _names(value, name, text=True)


def _pairs(value: Any, name: str) -> None:
    if value is None:
        return
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        _refuse(name, "a list of pairs of gene names, such as [('MYC', 'STK3')]", value)


def _tiers(value: Any, name: str) -> None:
    if value is None:
        return
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        _refuse(name, "lists of genes, or a mapping of every gene to its tier", value)
    if isinstance(value, Mapping):
        for gene, tier in value.items():
            _number(tier, f"{name}[{gene!r}]")


def _target(value: Any, name: str) -> None:  # a nextpert.Target checks itself
    if isinstance(value, (Mapping, pd.Series)):
        if len(value) == 0:
            message = f"{name} must name at least one gene and its wanted mean, but is empty."
            raise ValueError(message)
        for gene, mean in value.items():
            if isinstance(mean, bool) or not isinstance(mean, Real):
                _refuse(f"{name}[{gene!r}]", "a number", mean)


def _prior(value: Any, name: str) -> None:
    _mapping(value, name, what="a mapping of what is known to lists, as {'tiers': [...]}")
    for kind, known in (value or {}).items():
        inside = f"{name}[{kind!r}]"
        _tiers(known, inside) if kind == "tiers" else _pairs(known, inside)


def _table(value: Any, name: str) -> None:
    if value is not None and not isinstance(value, pd.DataFrame):
        _refuse(name, "a table (pandas.DataFrame), or None", value)


def _flag_or_names(value: Any, name: str) -> None:
    if not isinstance(value, (bool, np.bool_)):
        _names(value, name)


def _by_gene(value: Any, name: str) -> None:
    if not isinstance(value, (Mapping, pd.Series)):
        _number(value, name, none=True)
        return
    for gene, number in value.items():
        _number(number, f"{name}[{gene!r}]")


def _mapping(
    value: Any, name: str, *, function: bool = False, what: str = "a mapping {name: name}"
) -> None:
    if value is None or isinstance(value, Mapping) or (function and callable(value)):
        return
    _refuse(name, what + (" or a function" if function else ""), value)


def _perturbed(value: Any, name: str) -> None:
    if isinstance(value, Real):
        _whole(value, name, least=0)
    else:
        _names(value, name, text=True)


def _components(value: Any, name: str) -> None:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        _refuse(name, "two numbers of components, such as (1, 2)", value)
    for number in value:
        _whole(number, name)


def _source(value: Any, name: str) -> None:
    if not isinstance(value, ad.AnnData) and (value is None or not isinstance(value, _PATHS)):
        _refuse(name, "the path of the study's folder or h5ad file, or an AnnData", value)


def _path(value: Any, name: str, *, none: bool = True) -> None:
    if none and value is None:
        return
    what = "the path of a file" + (", or None" if none else "")
    if not isinstance(value, _PATHS):
        _refuse(name, what, value)
    if not os.fspath(value):
        _refuse(name, what, value, ValueError)


def _axes(value: Any, name: str) -> None:
    if value is not None and not hasattr(value, "get_figure"):
        _refuse(name, "matplotlib Axes, or None", value)


def _each(check: Callable[[Any, str], None], *names: str) -> dict[str, Callable[[Any, str], None]]:
    return dict.fromkeys(names, check)


_maybe_text = partial(_text, none=True)
_any_names = partial(_names, text=True)


def _targets(value: Any, name: str) -> None:  # names, or any nextpert.Target
    several = isinstance(value, (list, tuple))
    _names([each for each in value if not isinstance(each, Target)] if several else value, name)


CHECKS: dict[str, Callable[[Any, str], None]] = {
    "adata": _annadata,
    "prior_effects": _maybe_annadata,
    **_each(_text, "dag_key", "key", "condition_key", "guides_key", "guide_separator", "method"),
    **_each(_text, "environments", "outside", "normalise", "multiple"),
    **_each(_text, "acquisition", "aim", "spec"),
    **_each(_maybe_text, "perturbation_key", "layer", "depth_key", "guide_key", "posterior_key"),
    **_each(_maybe_text, "replay_key"),
    **_each(_maybe_text, "gene_symbols", "preset", "controls", "prior_units"),
    **_each(_maybe_text, "combinations", "batch", "title", "command"),
    **_each(partial(_text, empty=True), "separator", "reason"),
    **_each(_flag, "copy", "show_progress", "intercept", "noise_aware", "standardize"),
    **_each(_flag, "return_fig", "verify", "counts", "as_anndata", "simulated", "check_scale"),
    "target_is_candidate": _flag,
    "show": partial(_flag, none=True),
    "held_out": partial(_flag, none=True, text=True),
    "protein": partial(_flag, text=True),
    **_each(
        _whole,
        "n_cells",
        "n_perturbations",
        "n_graphs",
        "n_components",
        "n_rounds",
        "n_repeats",
        "n_top",
        "least_cells",
        "plate_format",
        "most_combined",
    ),
    **_each(_whole, "n_graphs", "levels", "max_cells", "n_perturbed", "min_umi"),
    **_each(partial(_whole, least=2), "n_samples", "n_folds", "n_genes", "n_control"),
    **_each(partial(_whole, least=0), "n_random", "n_warmup"),
    **_each(partial(_whole, none=True), "n_runs", "max_guides", "n_guides", "n_replicates"),
    **_each(partial(_whole, none=True), "ncols", "n_cols"),
    **_each(partial(_whole, least=0, none=True), "min_cells", "most_new", "n_controls"),
    **_each(_number, "penalty", "confidence", "level", "min_seen", "expected_degree"),
    **_each(_number, "effect", "power", "tolerance"),
    **_each(partial(_number, least=0), "min_weight", "min_depth", "threshold"),
    "shift_sd": partial(_number, word="learned", least=0),
    "noise_var": _by_gene,
    "target": _target,
    "alpha": partial(_number, word="auto"),
    "prior_scale": partial(_number, word="evidence"),
    "target_sum": partial(_number, word="median", none=True),
    "n_jobs": _jobs,
    "rng": _rng,
    **_each(_names, "perturbations", "criteria", "highlight", "exclude", "control_guides"),
    "targets": _targets,
    **_each(_any_names, "genes", "groups", "panel", "unassigned"),
    "control": _control,
    **_each(_any_names, "subset", "condition"),
    "candidates": partial(_names, text=True, table=True),
    "pending": partial(_names, table=True),
    **_each(_names, "must", "never"),
    **_each(partial(_mapping, what="a mapping of options, or None"), "learn", "fit", "plan"),
    "costs": partial(_mapping, what="a mapping with 'budget', 'perturbation' and 'cell'"),
    "prior": _prior,
    **_each(_flag_or_names, "targets_first", "direct_targets"),
    "prior_network": _table,
    **_each(_mapping, "aliases", "keys"),
    "target_of": partial(_mapping, function=True),
    "perturbed": _perturbed,
    "components": _components,
    "source": _source,
    **_each(_path, "save", "cache", "folder", "backed", "checkpoint"),
    "path": partial(_path, none=False),
    "cells": _annadata,
    "ax": _axes,
}
