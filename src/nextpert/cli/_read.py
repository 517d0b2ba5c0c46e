"""Reading what the command is given: the screen, targets, and tables in csv files."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from nextpert import Target


def read_screen(path: Path, option: str = "") -> AnnData:
    """Return the screen in an h5ad or zarr, or raise a ValueError that names the file."""
    import anndata as ad

    from nextpert._adata import require_sound_matrices

    require_screen(path, option)
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
            matrix.sum_duplicates()  # counts are told, and their logarithms taken, of the sums
    if not adata.var_names.is_unique:
        message = f"Gene names in {str(path)!r} are not unique: make them unique first."
        raise ValueError(message)
    return adata


def read_table(path: Path, option: str) -> pd.DataFrame:
    """Return a table of shifts: rows are perturbations, columns are genes, empty is zero."""
    what = (
        "table of shifts (a header of genes, then a row for every perturbation: its name and "
        "numbers)"
    )
    with _named(path, option, what):
        return _csv(path, index_col=0).fillna(0.0).astype(float)


def read_network(path: Path, option: str) -> pd.DataFrame:
    """Return a network of arcs as :func:`nextpert.tl.learn_dag` takes it."""
    with _named(path, option, "csv file with a header"):
        table = _csv(path)
    absent = [column for column in ("source", "target") if column not in table.columns]
    if absent:
        message = f"{option}: {str(path)!r} has no column {' and no column '.join(absent)}."
        raise ValueError(message)
    return table


def read_pairs(path: Path, option: str) -> list[tuple[str, str]]:
    """Return the rows of a csv file with a header and two columns."""
    with _named(path, option, "csv file with a header and two columns"):
        table = _csv(path, dtype=str, keep_default_na=False)
    if table.shape[1] != 2:
        message = f"{option}: {str(path)!r} must have two columns, but has {table.shape[1]}."
        raise ValueError(message)
    return [(str(a), str(b)) for a, b in table.itertuples(index=False)]


@contextmanager
def _named(path: Path, option: str, what: str) -> Iterator[None]:
    """Say of a file that is absent, or is not what it should be, which it is."""
    require_file(path, option)
    try:
        yield
    except ValueError as error:  # those of pandas' parser and of text that is none are such, too
        message = f"{option}: {str(path)!r} is no {what}."
        raise ValueError(message) from error


def _csv(path: Path, **options: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(path, **options)


def read_numbers(path: Path, option: str) -> dict[str, float]:
    """Return the rows of a csv file with a header and the columns name, number."""
    return by_name(read_pairs(path, option), option)


def read_target(path: Path, option: str) -> Target:
    """Return what a TOML file wants: its keys are the fields of :class:`nextpert.Target`."""
    import tomllib

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


def require_screen(path: Path, option: str = "") -> None:
    """Raise unless there is such a file, or folder for a zarr; say which lie beside it."""
    if path.suffix == ".zarr" and path.is_dir():
        return
    beside: list[str] = []
    if not path.is_file() and path.parent.is_dir():
        beside = sorted(f.name for f in path.parent.iterdir() if f.suffix in (".h5ad", ".zarr"))
    require_file(path, option, f" The folder holds {', '.join(beside[:10])}." if beside else "")


def require_file(path: Path, option: str = "", near: str = "") -> None:
    """Raise unless there is such a file; ``near`` ends the message."""
    if not path.is_file():
        what = f"{option}: there" if option else "There"
        message = f"{what} is no file {str(path)!r}.{near}"
        if path.is_dir():  # an empty name is that of the working folder
            before = f"{option}: " if option else ""
            message = f"{before}{str(path)!r} is a folder, not a file.{near}"
        raise FileNotFoundError(message)


def by_name(pairs: list[tuple[str, str]], option: str) -> dict[str, float]:
    """Return a number for every name, or raise where one is named twice or has none."""
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"{option} names {', '.join(twice)} more than once: give every gene one number."
        raise ValueError(message)
    return {name: _number(text, f"{option} {name}") for name, text in pairs}


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        message = f"{what}: {text!r} is not a number."
        raise ValueError(message)
    return value
