"""The arguments of public functions: kinds from the annotations, bounds declared beside them.

:func:`checked` checks every argument once, before a function does anything. Checks that depend on
the data are made where the data are read.
"""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import cache, partial, wraps
from numbers import Real
from typing import Any, NamedTuple, ParamSpec, TypeVar

import anndata as ad
import numpy as np
import pandas as pd

from nextpert._adata.panel import closest
from nextpert._adata.presets import PRESETS, joined
from nextpert._adata.roles import ROLES, Kept
from nextpert._adata.stored import check_writable
from nextpert.core._checks import list_names

_LARGEST = 2**63  # more than a 64-bit integer holds

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

# Roles are declared once, and are not arguments of the calls that use them.
_OF_ROLES = {role: f"Declare it once with npt.pp.setup_screen(adata, {role}=...)" for role in ROLES}


class Bound(NamedTuple):
    """The values that a number or string may take, in words (``"of at least 1"``) and as a test.

    ``is_of_text`` distinguishes bounds of strings from bounds of numbers; ``choices`` returns all
    allowed values if they can be listed.
    """

    words: str
    holds: Callable[[Any], bool]
    is_of_text: bool = False
    choices: Callable[[], Iterable[Any]] = tuple

    def in_words(self, kind: str) -> str:
        """Return the bound in words, after the kind of its values."""
        return f"{kind} {self.words}" if self.words else _OR.join(map(repr, self.choices()))


def at_least(lower: float) -> Bound:
    """Declare numbers of at least ``least``."""
    return Bound(f"of at least {lower:g}", lambda value: lower <= value < _LARGEST)


def above(bound: float) -> Bound:
    """Declare numbers above ``bound``."""
    return Bound(f"above {bound:g}", lambda value: value > bound)


def between(low: float, high: float, *, inclusive: bool = False) -> Bound:
    """Declare numbers between ``low`` and ``high``, both excluded unless ``inclusive``."""
    if inclusive:
        return Bound(f"between {low:g} and {high:g}", lambda value: low <= value <= high)
    return Bound(f"between {low:g} and {high:g}, both excluded", lambda value: low < value < high)


def one_of(*choices: Any) -> Bound:
    """Declare the allowed strings or numbers, or a function that returns the strings."""
    known = choices[0] if callable(choices[0]) else lambda: choices
    return Bound("", lambda value: value in known(), not isinstance(choices[0], int), known)


# HDF5 ends a text at a null character.
ANY_TEXT = Bound("without a null character", lambda value: "\0" not in value, is_of_text=True)
WORKERS = Bound("of workers (-1 for all processors)", lambda value: value != 0)
_OR = " or "
_NOT_EMPTY = Bound("that is not empty", bool, is_of_text=True)
_SEED = Bound("of at least 0 (a seed)", lambda value: value >= 0)


def options(**bounds: Bound | type | tuple[Bound, ...]) -> Callable[[C], C]:
    """Declare a dataclass as the schema of a mapping of options: names, kinds, bounds, defaults.

    :func:`checked` checks the argument against the class; the value stays a mapping.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from nextpert._adata.arguments import between, checked, options
    >>> @options(alpha=between(0, 1))
    ... @dataclass(frozen=True)
    ... class Search:
    ...     alpha: float = 0.001
    >>> @checked(search=Search)
    ... def learn(*, search: Mapping[str, Any] | None = None) -> float:
    ...     return Search(**search or {}).alpha
    >>> learn(search={"alpha": 0.01})
    0.01
    >>> learn(search={"alpa": 0.01})
    Traceback (most recent call last):
        ...
    ValueError: search takes alpha, but holds alpa. Close matches: alpha.
    """

    def decorate(cls: C) -> C:
        # Includes the options of a base class.
        cls.__annotations__ = {field.name: field.type for field in fields(cls)}
        cls.__bounds__ = {**getattr(cls, "__bounds__", {}), **_in_tuples(bounds)}  # type: ignore[attr-defined]
        return cls

    return decorate


def options_of(function: Callable[..., Any]) -> dict[str, type]:
    """Return the class of every mapping of options of a public function, by argument."""
    bounds = getattr(function, "__bounds__", {})
    return {name: b for name, kinds in bounds.items() for b in kinds if isinstance(b, type)}


def in_mappings(function: Callable[..., Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments, with each option moved into the mapping that it belongs to.

    A number in place of a mapping is its first option.

    Examples
    --------
    >>> from nextpert import tl
    >>> from nextpert._adata.arguments import in_mappings
    >>> in_mappings(tl.learn_dag, {"method": "boss", "n_runs": 5})
    {'method': 'boss', 'search_options': {'n_runs': 5}}
    """
    out = dict(flat)
    for argument, cls in options_of(function).items():
        if of_class := {name: out.pop(name) for name in cls.__annotations__ if name in out}:
            value = out.get(argument, {})
            if isinstance(value, Real):
                value = {next(iter(cls.__annotations__)): value}
            out[argument] = {**value, **of_class}
    return out


def where_now(function: Callable[..., Any], name: str) -> str:
    """Return a sentence that says where to give a refused argument; empty if unknown."""
    for argument, cls in options_of(function).items():
        if name in cls.__annotations__:
            return f" Give it as {argument}={{{name!r}: ...}}."
    return f" {_OF_ROLES[name]}." if name in _OF_ROLES else ""


def _public_name(function: Callable[..., Any]) -> str:
    """Return the name by which users call a function, with its sub-package if it has one."""
    room = function.__module__.removeprefix("nextpert.").split(".")[0]
    name = function.__qualname__.removesuffix(".__init__")
    return f"{room}.{name}" if room in ("datasets", "get", "pl", "pp", "tl") else name


def _in_tuples(bounds: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {name: kinds if type(kinds) is tuple else (kinds,) for name, kinds in bounds.items()}


def checked(
    **bounds: Bound | type | tuple[Bound | type, ...],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check the arguments of a public function against its annotations and declared bounds.

    Annotations state the kinds: ``int`` is a whole number (of at least 1, unless a bound is
    declared), ``float`` a finite number, ``str`` a non-empty string, ``Iterable[str]`` a list of
    names, and so on. A bool is not a number. A bound applies to numbers or to strings; a parameter
    that takes both can have one bound of each. Whole numbers and flags are passed on as ``int``
    and ``bool``. The bound of a mapping of options is a class declared by :func:`options`. A
    function with a parameter ``copy`` writes results, so its ``key_added`` must be a valid name of
    a slot, and ``adata`` must be writable.

    Raises
    ------
    TypeError
        If an argument is unknown or not of the declared kind. For the name of a role, the error
        names the call that declares it.
    ValueError
        If a value is out of bounds, NaN, infinite or empty.

    Examples
    --------
    >>> from nextpert._adata.arguments import at_least, checked, one_of
    >>> @checked(n_folds=at_least(2), scale=one_of("auto"))
    ... def fit(n_folds: int, *, scale: float | str = "auto") -> int:
    ...     return n_folds
    >>> fit(3.0)
    3
    >>> fit(1)
    Traceback (most recent call last):
        ...
    ValueError: n_folds must be a whole number of at least 2, but is 1.
    >>> fit(2, scale="aut")
    Traceback (most recent call last):
        ...
    ValueError: scale must be a finite number or 'auto', but is 'aut'. Close matches: auto.
    """
    each = _in_tuples(bounds)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = function.__annotations__
        code = function.__code__
        positional = code.co_varnames[: code.co_argcount]
        writes = "copy" in names

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs.keys() - names.keys():
                message = f"{_public_name(call)} has no argument {name!r}."
                hint = where_now(call, name) or closest([name], [x for x in names if x != "return"])
                raise TypeError(message + hint)
            preset: Any = kwargs.get("preset")
            if isinstance(preset, str):
                settings = PRESETS.get(preset, {}).get(function.__name__, {})
                kwargs = joined(kwargs, settings, preset)  # type: ignore[assignment]
            first = dict(zip(positional, args, strict=False))
            arguments = check_arguments(call, first | kwargs)
            if writes and "adata" in arguments:
                key = arguments.get("key_added", "key")
                returned = arguments.get("copy")
                check_writable(
                    arguments["adata"], key, copy=bool(returned or arguments.get("as_anndata"))
                )
            rest: Any = [*map(arguments.get, first), *args[len(first) :]]
            named: Any = {name: arguments[name] for name in kwargs}
            return function(*rest, **named)

        call.__bounds__ = each  # type: ignore[attr-defined]
        return call

    return decorate


def check_arguments(
    function: Callable[..., Any], arguments: Mapping[str, Any], shown: str = "{}"
) -> dict[str, Any]:
    """Return arguments as :func:`checked` passes them to a function, or raise.

    Names that are not parameters are passed unchanged. ``shown`` is the format in which an error
    shows a name, such as that of an option in a mapping.
    """
    bounds = getattr(function, "__bounds__", {})
    annotations = function.__annotations__
    return {
        name: check_value(value, shown.format(name), annotations[name], *bounds.get(name, ()))
        if name in annotations
        else value
        for name, value in arguments.items()
    }


class Kind(NamedTuple):
    """A kind of value: its name in words, a test, and the conversion of a value.

    ``take`` gets the value, its name and the required kind in words; it returns the value for the
    function, or raises. ``words`` is a function if they may change, as when a search is registered.
    """

    words: str | Callable[[], str]
    is_of: Callable[[Any], bool]
    take: Callable[[Any, str, str], Any] = lambda value, name, needed: value


def check_value(value: Any, name: str, annotation: str, *bounds: Bound | type) -> Any:
    """Return an argument or a part of one if it is of a kind of its annotation; raise otherwise."""
    kinds = kinds_of(annotation, bounds)
    descriptions = [kind.words if isinstance(kind.words, str) else kind.words() for kind in kinds]
    words = list(dict.fromkeys(_OR.join(filter(None, descriptions)).split(_OR)))
    needed = _OR.join(filter(None, [", ".join(words[:-1]), words[-1]]))
    for kind in kinds:
        if kind.is_of(value):
            return kind.take(value, name, needed)
    if not kinds:
        return value
    raise TypeError(_refusal(value, name, needed, _as_list(value, needed)))


def _as_list(value: Any, needed: str) -> str:
    """Return the remedy for a single name in place of a list."""
    return f": use [{value!r}]" if isinstance(value, str) and value and _NAMES in needed else ""


def _refusal(value: Any, name: str, needed: str, hint: str = "", verb: str = "is") -> str:
    shown = reprlib.repr(value) if isinstance(value, (str, Real)) else repr(value)
    if len(shown) > 60 or "\n" in shown:
        shown = f"of type {type(value).__name__}"
    return f"{name} must be {needed}, but {verb} {shown}{hint}."


@cache
def kinds_of(annotation: str, declared: tuple[Bound | type, ...]) -> list[Kind]:
    """Return the kinds of an annotation such as ``int | list[str]``; none for ``Any``."""
    # Splits at bars outside brackets, after the names of modules are removed.
    names = re.split(r" \| (?![^\[]*\])", re.sub(r"(\w+\.)+", "", annotation))
    if "Any" in names:
        return []
    if {"Mapping[str, float]", "Series"} <= set(names):  # the former kind includes a Series
        names.remove("Series")
    of_options = [bound for bound in declared if isinstance(bound, type)]
    bounds = tuple(bound for bound in declared if isinstance(bound, Bound))
    of_numbers = [bound for bound in bounds if not bound.is_of_text]
    of_texts = [bound for bound in bounds if bound.is_of_text]
    if "int" in names and not of_numbers:
        of_numbers = [_SEED if "Generator" in names else at_least(1)]
    out = []
    for name in names:
        kind, _, parts = name.rstrip("]").partition("[")
        if kind in ("int", "float"):
            out.append(_number(kind == "int", *of_numbers))
        elif kind == "str":
            out.append(_text(*of_texts))
        elif kind in ("Sequence", "Iterable") and parts.startswith("str"):
            out.append(_names())
        elif kind == "tuple":
            of_parts = [x if x == "int" else "Any" for x in parts.split(", ")]
            out.append(_pair(of_parts, bounds))
        elif kind == "Mapping" and of_options:
            out.append(_options(*of_options))
        elif name == "Mapping[str, float]":
            out.append(_numbers(bounds))
        else:
            out.append(KINDS[kind])
    return out


def _number(is_whole: bool, bound: Bound | None = None) -> Kind:
    def take(value: Any, name: str, needed: str) -> Any:
        try:
            sound = math.isfinite(value) and (not is_whole or float(value).is_integer())
        except OverflowError:  # a whole number too large for a float
            sound = False
        if not sound or (bound is not None and not bound.holds(value)):
            raise ValueError(_refusal(value, name, needed))
        return int(value) if is_whole else value

    words = "a whole number" if is_whole else "a finite number"
    return Kind(
        words if bound is None else bound.in_words(words),
        lambda value: isinstance(value, Real) and not isinstance(value, (bool, np.bool_)),
        take,
    )


def _text(bound: Bound = _NOT_EMPTY) -> Kind:
    def take(value: str, name: str, needed: str) -> str:
        if not bound.holds(value):
            near = closest([value], bound.choices()) if value else ""
            raise ValueError(_refusal(value, name, needed, _as_list(value, needed)) + near)
        return value

    return Kind(partial(bound.in_words, "a string"), _is(str), take)


def _path(value: Any, name: str, needed: str) -> Any:
    if not os.fspath(value):
        raise ValueError(_refusal(value, name, needed))
    return value


def _is_list(value: Any) -> bool:
    other = (str, bytes, Mapping, pd.DataFrame, ad.AnnData)
    return isinstance(value, Iterable) and not isinstance(value, other)


def _names() -> Kind:
    def take(value: Any, name: str, needed: str) -> Any:
        if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):  # iterators are not read
            for one in value:
                if not isinstance(one, (str, Real)) or one != one:
                    raise TypeError(_refusal(one, name, needed, verb="contains"))
        return value

    return Kind(_NAMES, _is_list, take)


def _pair(of: list[str], bounds: tuple[Bound, ...]) -> Kind:
    def take(value: Any, name: str, needed: str) -> Any:
        return tuple(check_value(x, name, kind, *bounds) for x, kind in zip(value, of, strict=True))

    words = "a pair of whole numbers" if of[0] == "int" else "a pair (column of obs, value)"
    return Kind(words, lambda value: isinstance(value, tuple) and len(value) == len(of), take)


def _numbers(bounds: tuple[Bound, ...]) -> Kind:
    def take(value: Any, name: str, needed: str) -> Any:
        if len(value) == 0:
            raise ValueError(_refusal(value, name, f"{needed} that names at least one gene"))
        for key, number in value.items():
            check_value(number, f"{name}[{key!r}]", "float", *bounds)
        return value

    return Kind("a mapping of names to numbers", _is(Mapping, pd.Series), take)


def _options(cls: type) -> Kind:
    def take(value: Any, name: str, needed: str) -> Any:
        known = list(cls.__annotations__)
        if unknown := [str(key) for key in value if key not in known]:
            message = f"{name} takes {', '.join(known)}, but holds {list_names(unknown)}."
            raise ValueError(message + closest(unknown, known))
        return check_arguments(cls, value, f"{name}[{{!r}}]")

    return Kind("a mapping of options", _is(Mapping), take)


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


_NAMES = "a list of names"
KINDS = {  # other modules add the kinds of their classes, such as Target
    "None": Kind("None", lambda value: value is None),
    "bool": Kind("True or False", _is(bool, np.bool_), lambda value, name, needed: bool(value)),
    "PathLike": Kind("the path of a file or folder", _is(str, os.PathLike), _path),
    "Iterable": Kind("a list", _is_list),
    "Mapping": Kind("a mapping", _is(Mapping)),
    "Series": Kind("a Series", _is(pd.Series)),
    "DataFrame": Kind("a table (pandas.DataFrame)", _is(pd.DataFrame)),
    "AnnData": Kind("an AnnData", _is(ad.AnnData)),
    "Generator": Kind("a numpy Generator", _is(np.random.Generator)),
    "Kept": Kind("", _is(Kept)),
    "Callable": Kind("a function", callable),
    "Axes": Kind("matplotlib Axes", lambda value: hasattr(value, "get_figure")),
}
