"""The files of a run: examined before anything is computed, written all or none.

A path that exists is replaced with ``--overwrite`` alone, a screen only if the command wrote it.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert import __version__
from nextpert._files import as_csv, errors_about, followed, root_attributes, write_adata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd
    from anndata import AnnData

    Writers = Mapping[Path, Callable[[Path], Any]]

SCREENS = (".h5ad", ".zarr")
_LOCK = ".lock"  # in the hidden folder of a run
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
        with errors_about(path):
            _remove_left_over(place)
            with _hidden_folder(place):
                pass


@contextmanager
def _hidden_folder(place: Path) -> Iterator[Path]:
    """Yield a new folder, locked as long as this process lives, and remove it."""
    from filelock import FileLock

    hidden = tempfile.TemporaryDirectory(prefix=".nextpert_", dir=place)
    with hidden as name, FileLock(Path(name) / _LOCK):
        yield Path(name)


def _remove_left_over(place: Path) -> None:
    """Remove the hidden folders of runs that were killed, whose locks are free."""
    from filelock import FileLock, Timeout

    for lock in place.glob(f".nextpert_*/{_LOCK}"):
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent, ignore_errors=True)


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
            new = stack.enter_context(_hidden_folder(_existing(target.parent)))
            ready[target] = new / path.name
            with errors_about(path):
                write(ready[target])
        require_free(writers, source, overwrite=overwrite)
        with _undisturbed():
            _move(ready)


def _move(ready: Mapping[Path, Path]) -> None:
    """Move files to their places; an error brings back what was there before."""
    with ExitStack() as undo:
        for path, temporary in ready.items():
            place = _existing(path.parent)
            if place != path.parent:  # all folders below are made here
                undo.callback(shutil.rmtree, place / path.relative_to(place).parts[0], True)
                path.parent.mkdir(parents=True)
            old = temporary.with_name(f"old_{path.name}")
            with errors_about(path):
                if path.exists():
                    os.replace(path, old)
                    undo.callback(os.replace, old, path)
                os.replace(temporary, path)
                undo.callback(os.replace, path, temporary)
        undo.pop_all()


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


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off signals that end the process, so that files are moved all or none."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
