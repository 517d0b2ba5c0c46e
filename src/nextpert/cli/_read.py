"""Reading what the command is given: the screen, and tables in csv files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData


def read_screen(path: Path) -> AnnData:
    """Return the screen in an h5ad file, or raise a ValueError that names the file."""
    import anndata as ad

    from nextpert._adata import require_sound_matrices

    require_file(path)
    try:
        adata = ad.read_h5ad(path)
    except MemoryError:
        raise
    except Exception as error:  # h5py and anndata raise many kinds for a file of another format
        message = f"{str(path)!r} cannot be read as h5ad ({type(error).__name__}): is it whole?"
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
    import pandas as pd

    require_file(path, option)
    try:
        return pd.read_csv(path, index_col=0).fillna(0.0).astype(float)
    except (ValueError, pd.errors.ParserError) as error:
        message = (
            f"{option}: {str(path)!r} is no table of shifts (a header of genes, then a row for "
            "every perturbation: its name and numbers)."
        )
        raise ValueError(message) from error


def read_network(path: Path | None, option: str) -> pd.DataFrame | None:
    """Return a network of arcs as :func:`nextpert.tl.learn_dag` takes it."""
    import pandas as pd

    if path is None:
        return None
    require_file(path, option)
    try:
        table = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        message = f"{option}: {str(path)!r} is no csv file with a header."
        raise ValueError(message) from error
    absent = [column for column in ("source", "target") if column not in table.columns]
    if absent:
        message = f"{option}: {str(path)!r} has no column {' and no column '.join(absent)}."
        raise ValueError(message)
    return table


def read_pairs(path: Path | None, option: str) -> list[tuple[str, str]] | None:
    """Return the rows of a csv file with a header and two columns."""
    import pandas as pd

    if path is None:
        return None
    require_file(path, option)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        message = f"{option}: {str(path)!r} is no csv file with a header and two columns."
        raise ValueError(message) from error
    if table.shape[1] != 2:
        message = f"{option}: {str(path)!r} must have two columns, but has {table.shape[1]}."
        raise ValueError(message)
    return [(str(a), str(b)) for a, b in table.itertuples(index=False)]


def read_numbers(path: Path | None, option: str) -> dict[str, float] | None:
    """Return the rows of a csv file with a header and the columns name, number."""
    pairs = read_pairs(path, option)
    return None if pairs is None else _by_name(pairs, option)


def read_target(options: argparse.Namespace) -> str | tuple[str, str] | dict[str, float]:
    """Return the wanted state as :func:`nextpert.tl.design_interventions` takes it."""
    if options.target is not None:
        return str(options.target)
    if options.target_group is not None:
        key, value = options.target_group
        return key, value
    if options.target_file is not None:
        means = read_numbers(options.target_file, "--target-file")
        if not means:
            message = f"--target-file: {str(options.target_file)!r} names no gene: give it rows."
            raise ValueError(message)
        return means
    pairs = []
    for part in options.target_mean:
        gene, sign, value = part.rpartition("=")
        if not sign or not gene:
            message = f"--target-mean takes GENE=MEAN, but found {part!r}."
            raise ValueError(message)
        pairs.append((gene, value))
    return _by_name(pairs, "--target-mean")


def read_shift(word: str | None, option: str) -> Any:
    """Return a shift as the functions take it: a word, or the table of a csv file."""
    from pathlib import Path

    if word is None or not word.endswith(".csv"):
        return word
    return read_table(Path(word), option)


def read_candidates(words: list[str] | None) -> Any:
    """Return candidates as the function takes them."""
    if words is None or words == ["fitted"]:
        return None
    if len(words) == 1 and (words[0] == "genes" or words[0].endswith(".csv")):
        return read_shift(words[0], "--candidates")
    return words


def require_file(path: Path, option: str = "") -> None:
    """Raise unless there is such a file."""
    if not path.is_file():
        what = f"{option}: there" if option else "There"
        message = f"{what} is no file {str(path)!r}."
        raise FileNotFoundError(message)


def _by_name(pairs: list[tuple[str, str]], option: str) -> dict[str, float]:
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
