"""Reading the input of a command: screens, and options in the form that the functions take."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nextpert._adata.arguments import check_arguments, in_mappings, options_of
from nextpert.cli._options import TargetState, flag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from anndata import AnnData

    from nextpert import Target

Pairs = list[tuple[str, str]]
_TARGETS = list(vars(TargetState()))
_PRIOR = ("before", "required", "forbidden")
# Words that stand for many names, and options that take one name or a list.
_WORDS = {("genes", "all"), ("panel", "zhang2023")}
_ONE = {"control", "batch_key"}


def arguments_of(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a function for the options of a command, or raise ValueError."""
    parameters = inspect.signature(function).parameters
    accepted = {*parameters}.union(*(cls.__annotations__ for cls in options_of(function).values()))
    names = [name for name in options if name in accepted and name not in _TARGETS]
    out = {name: value_of(name, options[name]) for name in names}
    if "prior" in accepted:
        prior = {name: value_of(name, options[name]) for name in _PRIOR if name in options}
        out |= {"prior": prior} if prior else {}
    if "target" in accepted:
        is_needed = parameters["target"].default is inspect.Parameter.empty
        out |= {"target": target_of(options)} if is_needed or {*_TARGETS} & {*options} else {}
    out = in_mappings(function, out)
    check_arguments(function, out)
    return out


def value_of(name: str, value: Any) -> Any:
    """Return the value of an option as the functions take it; an error names the option."""
    try:
        if isinstance(value, tuple) and name != "target_group":
            value = [name for word in value for name in _names(word)]
            if len(value) == 1 and (name in _ONE or (name, value[0]) in _WORDS):
                return value[0]
        return _READERS[name](value) if name in _READERS else value
    except (OSError, TypeError, ValueError) as error:
        shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
        message = f"{flag_of(name)} {shown}: {error}"
        raise ValueError(message) from error


def target_of(options: Mapping[str, Any]) -> Any:
    """Return the target state as :func:`nextpert.tl.design_interventions` takes it."""
    named = [name for name in _TARGETS if name in options]
    if len(named) != 1:
        are = ", ".join(map(flag_of, named)) if named else "none"
        message = f"Give exactly one target state, such as --target NAME; given: {are}."
        raise ValueError(message)
    return value_of(named[0], options[named[0]])


def read_screen(path: Path) -> AnnData:
    """Return the screen in an h5ad or zarr, or raise a ValueError that names the file."""
    import anndata as ad

    if not path.exists():
        message = f"There is no file {str(path)!r}: check the path."
        raise FileNotFoundError(message)
    try:
        return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)
    except MemoryError:
        raise
    except Exception as error:  # h5py and anndata raise many kinds for a file of another format
        message = (
            f"{str(path)!r} cannot be read as h5ad or zarr ({type(error).__name__}): pass a "
            f"complete file of one of these formats."
        )
        raise ValueError(message) from error


def read_target(path: Path | str) -> Target:
    """Return the target in a TOML file: its keys are the fields of :class:`nextpert.Target`."""
    from nextpert import Target
    from nextpert.study.target import STATES

    content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    return Target(**content | {name: _states(content[name]) for name in STATES if name in content})


def _states(state: Any) -> Any:
    """Return a state: two words are column and value of a group, other lists are of states."""
    if not isinstance(state, list):
        return state
    if len(state) == 2 and not any(isinstance(part, list | dict) for part in state):
        return tuple(map(str, state))
    return [
        part[0] if isinstance(part, list) and len(part) == 1 else _states(part) for part in state
    ]


def _names(word: str) -> list[str]:
    """Return a name, or for ``@FILE`` those in the file, one per line."""
    if not word.startswith("@"):
        return [word]
    return [*filter(None, map(str.strip, Path(word[1:]).read_text("utf-8").splitlines()))]


def _shifts(word: str) -> Any:
    """Return a table of shifts, perturbations x genes, for a csv file; empty cells are zero."""
    if not word.endswith(".csv"):
        return word
    return pd.read_csv(word, index_col=0).fillna(0.0).astype(float)


def _pairs(source: str | Path | Iterable[str]) -> Pairs:
    """Return the rows of a csv file with two columns, or the pairs in words like ``MYC=1.5``."""
    if not isinstance(source, str | Path):
        pairs = [(name, text) for name, _, text in (word.rpartition("=") for word in source)]
        if not all(name for name, _ in pairs):
            message = "each must be NAME=VALUE"
            raise ValueError(message)
        return pairs
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    if table.shape[1] != 2:
        message = f"the file must have two columns, but has {table.shape[1]}"
        raise ValueError(message)
    return [*table.itertuples(index=False, name=None)]


def _numbers(
    source: str | Path | Iterable[str], kind: Callable[[str], float] = float
) -> dict[str, float]:
    """Return a number for every name of a csv file or of words."""
    pairs = _pairs(source)
    numbers = {name: kind(text) for name, text in pairs}
    if len(numbers) < len(pairs):
        message = "a name is given more than once: give each once"
        raise ValueError(message)
    return numbers


def _costs(words: list[str]) -> dict[str, Any]:
    """Return the numbers in words like ``budget=5000``; a csv file gives one per perturbation."""
    costs: dict[str, Any] = {}
    for name, text in _pairs(words):
        if name in costs:
            message = f"{name} is given more than once: give one number, or one file"
            raise ValueError(message)
        costs[name] = _numbers(Path(text)) if text.endswith(".csv") else float(text)
    return costs


def _candidates(words: list[str]) -> Any:
    if words == ["fitted"]:
        return None
    if len(words) == 1 and (words[0] == "genes" or words[0].endswith(".csv")):
        return _shifts(words[0])
    return words


_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("before", "required", "forbidden", "dag"), _pairs),
    "target_mean": _numbers,
    "candidates": _candidates,
    "costs": _costs,
    "pending": lambda words: _numbers(words, int) if "=" in "".join(words) else words,
    "shift": _shifts,
    "panel": lambda words: read_target(words[0]) if words[0].endswith(".toml") else words,
    "target_groups": lambda words: words[0] if len(words) == 1 else tuple(words),
    "target_file": lambda path: read_target(path) if path.suffix == ".toml" else _numbers(path),
}
