"""The files of a run: examined before anything is computed, written all or none.

A path that exists is replaced with ``--overwrite`` alone, a screen only if the command wrote it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert import __version__
from nextpert._files import (
    as_csv,
    errors_about,
    followed,
    hidden_folder,
    root_attributes,
    write_adata,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from anndata import AnnData

    Writers = Mapping[Path, Callable[[Path], Any]]

SCREENS = (".h5ad", ".zarr")
# Attribute of the root of an h5ad or zarr that the command wrote. No other writer copies it, so
# a file that was changed since is no longer one of these.
_MARK = "nextpert"


def require_ending(path: Path, option: str, *kinds: str) -> Path:
    """Return the path, or raise unless it ends as one of some kinds of files."""
    if path.suffix not in kinds:
        message = f"{option} must end in {' or '.join(kinds)}, but is {str(path)!r}."
        raise ValueError(message)
    return path


def require_free(writers: Writers, source: Path | None, *, overwrite: bool) -> None:
    """Raise unless all files can be written.

    Raises
    ------
    ValueError
        If a file is the one that is read, exists and may not be replaced, or cannot be written.
    """
    for path in writers:
        with errors_about(path):
            target = followed(path)
            exists, place = path.exists(), _existing(target.parent)
        if source is not None and source.exists() and target == source.resolve():
            message = f"{str(path)!r} is the screen itself, which is kept: name another with --out."
            raise ValueError(message)
        if exists and not overwrite:
            message = f"{str(path)!r} exists: replace it with --overwrite, or name another."
            raise ValueError(message)
        if exists and not _may_be_replaced(path):
            message = (
                f"{str(path)!r} exists and was not written by this command, so --overwrite does "
                "not replace it: name another, or move it away."
            )
            raise ValueError(message)
        with errors_about(path), hidden_folder(place):
            pass


def _may_be_replaced(path: Path) -> bool:
    """Whether a path is a file that is no screen, or a screen that the command wrote."""
    if not (path.is_dir() if path.suffix == ".zarr" else path.is_file()):  # or a pipe
        return False
    if path.suffix not in SCREENS:
        return True
    with suppress(Exception):  # what is damaged, or of another format, may raise anything
        return _MARK in root_attributes(path)
    return False


def write_all(writers: Writers, source: Path | None, *, overwrite: bool) -> None:
    """Write files to hidden folders beside their places, then move them all there at once.

    A link is followed. Whether paths exist is examined again, as a run may take hours.
    """
    with ExitStack() as stack:
        ready: dict[Path, Path] = {}
        for path, write in writers.items():
            target = followed(path)
            new = stack.enter_context(hidden_folder(_existing(target.parent)))
            ready[target] = new / path.name
            with errors_about(path):
                write(ready[target])
        require_free(writers, source, overwrite=overwrite)
        _move(ready)


def _move(ready: Mapping[Path, Path]) -> None:
    """Move files to their places; an error or a signal brings back what was there before."""
    with ExitStack() as undo:
        for path, temporary in ready.items():
            place, old = _existing(path.parent), temporary.with_name(f"old_{path.name}")
            with errors_about(path):
                if place != path.parent:  # all folders below are made here
                    undo.callback(shutil.rmtree, place / path.relative_to(place).parts[0], True)
                    path.parent.mkdir(parents=True)
                if path.exists():
                    undo.callback(_put_back, old, path)
                    os.replace(path, old)
                undo.callback(_put_back, path, temporary)
                os.replace(temporary, path)
        undo.pop_all()


def _put_back(moved: Path, path: Path) -> None:
    """Undo a move, if it has happened."""
    if not path.exists():
        os.replace(moved, path)


def write_screen(adata: AnnData, path: Path) -> None:
    """Write the screen, and mark it as written by the command."""
    write_adata(adata, path, {_MARK: __version__})


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as csv, or as parquet where the name ends so."""
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        path.write_text(as_csv(table), encoding="utf-8", newline="")


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
