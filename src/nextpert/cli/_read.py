"""Reading what a command is given: screens, and options as the functions take them."""

from __future__ import annotations

import tomllib
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert.cli._options import (
    Columns,
    FromTable,
    Labels,
    Prior,
    Ranking,
    Results,
    Run,
    Wanted,
)
from nextpert.cli._output import require_file, require_screen
from nextpert.cli._words import flag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from anndata import AnnData

    from nextpert import Target
    from nextpert.cli._options import Job

Pairs = list[tuple[str, str]]
# Lists of one that are a word for many, and what is taken as a list or one.
_WORDS = {("genes", "all"), ("panel", "zhang2023")}
_ONE = {"control", "batch_key", "covariates"}
_SHIFTS = (
    "table of shifts (a header of genes, then a row for every perturbation: its name and numbers)"
)


def arguments_of(job: Job) -> dict[str, Any]:
    """Return the arguments of the function that a command calls; what is left to it is left out.

    Raises
    ------
    FileNotFoundError
        If a file is absent.
    ValueError
        If a file or a value cannot be read.
    """
    out: dict[str, Any] = {}
    for name, given in job.arguments.items():
        if isinstance(given, Wanted):
            if given.given or job.name != "cells":
                out[name] = target_of(given)
        elif isinstance(given, Prior):
            out[name] = values_of(vars(given)) or None
        elif isinstance(given, Columns | Labels | Ranking):
            out |= values_of(vars(given))
        elif name != "screen" and not isinstance(given, FromTable | Results | Run):
            out |= values_of({name: given})
    return out


def values_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of options as the functions take them, of those that have one."""
    given = {name: value for name, value in options.items() if value is not None}
    return {name: value_of(name, value) for name, value in given.items()}


def value_of(name: str, given: Any) -> Any:
    """Return the value of an option as the functions take it."""
    option = flag_of(name)
    if isinstance(given, tuple):
        given = names_in(given, option)
        if len(given) == 1 and (name in _ONE or (name, given[0]) in _WORDS):
            return given[0]
    return _READERS[name](given, option) if name in _READERS else given


def target_of(wanted: Wanted) -> str | tuple[str, str] | dict[str, float] | Target:
    """Return the target state as :func:`nextpert.tl.design_interventions` takes it."""
    flags = [flag_of(name) for name in wanted.given]
    if len(flags) != 1:
        given = f"{' and '.join(flags)} are not allowed together" if flags else "none is named"
        message = f"Name one target state, such as with --target NAME: {given}."
        raise ValueError(message)
    if wanted.target_mean is not None:
        return _numbers(_pairs(wanted.target_mean, flags[0], "MEAN"), flags[0])
    if wanted.target_file is None:
        return wanted.target or wanted.target_group or ""
    if wanted.target_file.suffix == ".toml":
        return read_target(wanted.target_file, flags[0])
    means = _numbers(_read_pairs(wanted.target_file, flags[0]), flags[0])
    if not means:
        message = f"{flags[0]}: {str(wanted.target_file)!r} names no gene: give it rows."
        raise ValueError(message)
    return means


def names_in(words: Iterable[str], option: str) -> list[str]:
    """Return names, and for ``@FILE`` those in the file, one per line."""
    names: list[str] = []
    for word in words:
        if not word.startswith("@"):
            names.append(word)
            continue
        path = Path(word[1:])
        with _about(path, option, "text with a name a line"):
            lines = path.read_text(encoding="utf-8").splitlines()
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            message = f"{option}: {str(path)!r} is empty: give it a name a line."
            raise ValueError(message)
        names += found
    return names


def read_screen(path: Path, option: str = "") -> AnnData:
    """Return the screen in an h5ad or zarr, or raise a ValueError that names the file."""
    import anndata as ad

    from nextpert._adata import require_sound_matrices

    require_screen(path, option)
    if path.suffix == ".csv":
        message = (
            f"{str(path)!r} is a table: make a screen of it with nextpert effects {path.name}, and "
            f"go on with the file that it writes."
        )
        raise ValueError(message)
    zarr = path.suffix == ".zarr"
    try:
        adata = ad.read_zarr(path) if zarr else ad.read_h5ad(path)
    except MemoryError:
        raise
    except Exception as error:  # h5py and anndata raise many kinds for a file of another format
        what = "zarr" if zarr else "h5ad"
        message = f"{str(path)!r} cannot be read as {what} ({type(error).__name__}): is it whole?"
        raise ValueError(message) from error
    require_sound_matrices(adata)
    for matrix in [adata.X, *adata.layers.values()]:
        if sp.issparse(matrix):
            matrix.sum_duplicates()  # counts, and their logarithms, are those of the sums
    if not adata.var_names.is_unique:
        message = f"Gene names in {str(path)!r} are not unique: make them unique first."
        raise ValueError(message)
    return adata


def read_table(path: Path, said: FromTable) -> AnnData:
    """Return the screen in a csv file of effects, a row per perturbation and gene."""
    from nextpert import pp
    from nextpert._adata import list_names
    from nextpert.pp._steps.outputs import NAMES, source_of

    with _about(path, "", "csv file with a header"):
        table = pd.read_csv(path)
    columns = [str(column) for column in table.columns]
    source = said.source or source_of(columns)
    if source is None:
        message = (
            f"{str(path)!r} has no column of effects that is known. It holds "
            f"{list_names(columns)}: name what wrote it with --source {'|'.join(NAMES)}."
        )
        raise ValueError(message)
    return pp.effect_table(
        table, source=source, n_cells=said.n_cells, n_controls=said.n_controls,
        control_se=said.control_se,
    )  # fmt: skip


def read_target(path: Path, option: str) -> Target:
    """Return the target in a TOML file: its keys are the fields of :class:`nextpert.Target`."""
    from nextpert import Target
    from nextpert._adata import closest

    require_file(path, option)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"{option}: {str(path)!r} is no TOML file: {error}."
        raise ValueError(message) from error
    known = [field.name for field in fields(Target)]
    if unknown := [name for name in given if name not in known]:
        message = (
            f"{option}: {str(path)!r} says {', '.join(unknown)}, which no target has."
            f"{closest(unknown, known)} Choose from {', '.join(known)}."
        )
        raise ValueError(message)
    states = {name: _states(given[name]) for name in ("state", "away_from") if name in given}
    try:
        return Target(**given | states)
    except (TypeError, ValueError) as error:
        message = f"{option}: {str(path)!r} is no target, as {error}"
        raise ValueError(message) from error


def _states(given: Any) -> Any:
    """Return a state: two words are column and value of a group, other lists hold several."""
    if not isinstance(given, list):
        return given
    if len(given) == 2 and not any(isinstance(part, list | dict) for part in given):
        return tuple(map(str, given))
    return [
        part[0] if isinstance(part, list) and len(part) == 1 else _states(part) for part in given
    ]


@contextmanager
def _about(path: Path, option: str, what: str) -> Iterator[None]:
    """Raise an error that names the file, if it is absent or not what it should be."""
    require_file(path, option)
    try:
        yield
    except ValueError as error:  # those of pandas' parser and of text that is none are such, too
        message = f"{option and f'{option}: '}{str(path)!r} is no {what}."
        raise ValueError(message) from error


def _read_shifts(word: str, option: str) -> Any:
    """Return a table of shifts, in which an empty cell is zero, for the name of a csv file."""
    if not word.endswith(".csv"):
        return word
    with _about(Path(word), option, _SHIFTS):
        return pd.read_csv(word, index_col=0).fillna(0.0).astype(float)


def _read_features(path: Path, option: str) -> Any:
    from nextpert._adata import load_features

    if path.suffix in (".h5ad", ".zarr"):
        return read_screen(path, option)
    require_file(path, option)
    return load_features(path, option)


def _read_pairs(path: Path, option: str) -> Pairs:
    """Return the rows of a csv file with a header and two columns."""
    with _about(path, option, "csv file with a header and two columns"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if table.shape[1] != 2:
        message = f"{option}: {str(path)!r} must have two columns, but has {table.shape[1]}."
        raise ValueError(message)
    return [(str(a), str(b)) for a, b in table.itertuples(index=False)]


def _read_targets(word: str, option: str) -> str | dict[str, list[str]]:
    """Return the genes of every perturbation of a csv file; a row without a gene adds none."""
    if not word.endswith(".csv"):
        return word
    genes: dict[str, list[str]] = {}
    for name, gene in _read_pairs(Path(word), option):
        genes.setdefault(name, []).extend([gene] if gene else [])
    return genes


def _pairs(words: Iterable[str], option: str, what: str) -> Pairs:
    """Return name and value of words such as ``MYC=1.5``."""
    pairs = []
    for word in words:
        name, sign, text = word.rpartition("=")
        if not sign or not name:
            message = f"{option} takes NAME={what}, but found {word!r}."
            raise ValueError(message)
        pairs.append((name, text))
    return pairs


def _numbers(pairs: Pairs, option: str) -> dict[str, float]:
    """Return a number for every name, or raise where one is named twice or has none."""
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"{option} names {', '.join(twice)} more than once: give every gene one number."
        raise ValueError(message)
    out = {}
    for name, text in pairs:
        try:
            out[name] = float(text)
        except ValueError:
            out[name] = np.nan
        if not np.isfinite(out[name]):
            message = f"{option} {name}: {text!r} is not a number."
            raise ValueError(message)
    return out


def _candidates(words: list[str], option: str) -> Any:
    if words == ["fitted"]:
        return None
    if len(words) == 1 and (words[0] == "genes" or words[0].endswith(".csv")):
        return _read_shifts(words[0], option)
    return words


def _pending(words: list[str], option: str) -> Any:
    if not any("=" in word for word in words):
        return words
    cells = _numbers(_pairs(words, option, "CELLS"), option)
    return {name: int(n) if n.is_integer() else n for name, n in cells.items()}


def _costs(words: list[str], option: str) -> dict[str, Any]:
    pairs = _pairs(words, option, "COST")
    files = {name: Path(text) for name, text in pairs if text.endswith(".csv")}
    costs: dict[str, Any] = dict(_numbers([pair for pair in pairs if pair[0] not in files], option))
    tables = {name: _numbers(_read_pairs(path, option), option) for name, path in files.items()}
    return costs | tables


_READERS: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("before", "required", "forbidden", "dag"), _read_pairs),
    "aliases": lambda words, option: dict(_pairs(words, option, "GENE")),
    "candidates": _candidates,
    "costs": _costs,
    "held_out": lambda word, option: word if word == "both" else word == "true",
    "keys": lambda words, option: dict(_pairs(words, option, "KEY")),
    "pending": _pending,
    "features": _read_features,
    "perturbation_targets": _read_targets,
    "shift": _read_shifts,
    "targets": lambda words, option: [
        read_target(Path(word), option) if word.endswith(".toml") else word for word in words
    ],
    "tiers": lambda path, option: _numbers(_read_pairs(path, option), option),
}
