"""The files of a run: looked for before anything is computed, written all or none.

A path that is taken is replaced with ``--overwrite`` alone, and only if the command wrote what is
there: nothing of anybody else's is lost by a wrong name. All commands write through this module.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import tempfile
import warnings
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert._files import as_csv, errors_about, followed, write_hdf5, write_zarr
from nextpert.cli._options import STEPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd
    from anndata import AnnData

# A disk with less room than this is full; a screen is compressed, rarely to a quarter of the file
# it came from.
_PROBE = 2**20
_COMPRESSED = 4
_LOCK = ".lock"  # in the hidden folder of a run
# Attribute of the root of an h5ad or zarr that the command wrote. No other writer copies it, so
# a file that was changed since is no longer one of these.
_MARK = "nextpert"
# Tables bear no mark, but begin as those of steps do, plans of wells and rounds among them.
_FIRST_COLUMNS = {
    *(step.columns for step in STEPS.values()), ("well", "perturbation"), ("round", "chosen"),
}  # fmt: skip
_SIGNS = {
    ".toml": "# nextpert ",
    ".html": '<meta name="generator" content="nextpert ',
    ".png": "Software\0Matplotlib version",
}


def require_screen(path: Path, option: str = "") -> None:
    """Raise unless there is such a file, or folder for a zarr; name those that lie beside it."""
    if path.suffix == ".zarr" and os.path.isdir(path):
        return
    beside: list[str] = []
    if not os.path.isfile(path) and os.path.isdir(path.parent):
        beside = sorted(f.name for f in path.parent.iterdir() if f.suffix in (".h5ad", ".zarr"))
    require_file(path, option, f" The folder holds {', '.join(beside[:10])}." if beside else "")


def require_file(path: Path, option: str = "", near: str = "") -> None:
    """Raise unless there is such a file; ``near`` ends the message."""
    if os.path.isdir(path):  # an empty name is that of the working folder
        message = f"{option and f'{option}: '}{str(path)!r} is a folder, not a file.{near}"
        raise FileNotFoundError(message)
    if not os.path.isfile(path):  # a Path raises an error if the name is too long
        message = f"{f'{option}: there' if option else 'There'} is no file {str(path)!r}.{near}"
        raise FileNotFoundError(message)


def check_outputs(options: Mapping[Path, str], source: Path | None, *, overwrite: bool) -> None:
    """Raise unless all files can be written; ``options`` has the option that names each.

    Raises
    ------
    ValueError
        If a file is the one that is read, stands where a folder is, is taken and may not be
        replaced, cannot be written, or its disk has too little room.
    """
    places = {}
    for path, option in options.items():
        target = followed(path)
        if source is not None and source.exists() and target == source.resolve():
            message = f"{str(path)!r} is the screen itself, which is kept: name another with "
            raise ValueError(f"{message}{option}.")
        place = existing(target.parent)
        taken = path.is_dir() and path.suffix != ".zarr"
        if not place.is_dir() or taken:
            what = f"{path} is a folder" if taken else f"{place} is no folder"
            message = f"Cannot write to {str(path)!r}: {what}. Name another with {option}."
            raise ValueError(message)
        places[place] = path
    _check_taken(options, overwrite)
    needed = _PROBE + (source.stat().st_size // _COMPRESSED if source and source.is_file() else 0)
    for place, path in places.items():
        another = f"make room there, or name another with {options[path]}."
        try:
            _remove_left_over(place)
            with _hidden_folder(place) as folder:
                (folder / "room").write_bytes(bytes(_PROBE))
                free = shutil.disk_usage(folder).free
        except OSError as error:
            message = f"Cannot write to {str(path)!r} ({error.strerror or error}): {another}"
            raise ValueError(message) from error
        if free < needed:
            message = (
                f"Only {free / 1e6:.0f} MB are free at {str(path)!r}, but the results need about "
                f"{needed / 1e6:.0f} MB: {another}"
            )
            raise ValueError(message)


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


def _check_taken(options: Mapping[Path, str], overwrite: bool) -> None:
    """Raise if a path is taken, by what may not be replaced or without leave to."""
    for path, option in options.items():
        if path.exists() and not _is_ours(path):
            message = (
                f"{str(path)!r} is there already and was not written by this command"
                f"{', so that --overwrite does not replace it' if overwrite else ''}: name "
                f"another with {option}, or move it away."
            )
            raise ValueError(message)
        if path.exists() and not overwrite:
            message = (
                f"{str(path)!r} is there already: replace it with --overwrite, or name another "
                f"with {option}."
            )
            raise ValueError(message)


def _is_ours(path: Path) -> bool:
    """Whether a file, or the folder of a zarr, is one that the command wrote."""
    kind = path.suffix
    if path.is_dir() != (kind == ".zarr") or not (path.is_dir() or path.is_file()):
        return False  # a pipe, which keeps waiting who reads it
    # What is damaged, or of another format than its name says, may raise anything.
    with suppress(Exception):
        if kind == ".h5ad":
            import h5py  # type: ignore[import-untyped]

            with h5py.File(path, "r") as file:
                return _MARK in file.attrs
        if kind == ".zarr":
            import zarr

            return _MARK in zarr.open_group(str(path), mode="r").attrs
        if kind == ".parquet":
            import pandas as pd

            return tuple(map(str, pd.read_parquet(path).columns[:2])) in _FIRST_COLUMNS
        with path.open("rb") as file:
            start = file.read(2**12).decode("utf-8", errors="replace")
        if kind == ".csv":
            return tuple(next(csv.reader(start.splitlines()))[:2]) in _FIRST_COLUMNS
        return start.startswith(_SIGNS[kind]) if kind == ".toml" else _SIGNS[kind] in start
    return False


def write_all(
    writers: Mapping[Path, Callable[[Path], Any]], options: Mapping[Path, str], *, overwrite: bool
) -> None:
    """Write files to hidden folders beside their places, then move them all there at once.

    A link is followed. Whether paths are taken is looked at again, as a run may take hours.
    """
    with ExitStack() as stack:
        ready: dict[Path, Path] = {}
        folders: dict[Path, Path] = {}
        for path, write in writers.items():
            target = followed(path)
            place = existing(target.parent)
            if place not in folders:
                folders[place] = stack.enter_context(_hidden_folder(place))
            ready[target] = folders[place] / f"{len(ready)}_{path.name}"
            with errors_about(path):
                write(ready[target])
        _check_taken(options, overwrite)
        with _undisturbed():
            _move(ready)


def _move(ready: Mapping[Path, Path]) -> None:
    """Move files to their places; an error brings back what was there before."""
    made: list[Path] = []
    placed: list[Path] = []
    before: dict[Path, Path] = {}
    try:
        for path, temporary in ready.items():
            parent = path.parent
            place = existing(parent)
            if place != parent:  # all below is ours
                made += [place / parent.relative_to(place).parts[0]]
                parent.mkdir(parents=True)
            if path.exists():
                before[path] = temporary.with_name(f"old_{temporary.name}")
                _keep(path, before[path])
            with errors_about(path):
                os.replace(temporary, path)
            placed.append(path)
    except OSError:
        for path in placed:
            _remove(path)
        for path, old in before.items():
            if old.exists():
                os.replace(old, path)
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _keep(path: Path, old: Path) -> None:
    """Keep what is at a path under another name, too; of a folder there can be one name alone."""
    if path.is_dir():
        os.replace(path, old)
        return
    try:
        os.link(path, old)
    except OSError:  # file systems without links
        shutil.copy2(path, old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def write_screen(adata: AnnData, path: Path) -> None:
    """Write the screen, and mark it as written by the command."""
    adata.strings_to_categoricals()
    if path.suffix == ".zarr":
        write_zarr(path, partial(_fill_zarr, adata))
    else:
        write_hdf5(path, partial(_fill_hdf5, adata))


def _fill_zarr(adata: AnnData, store: Any) -> None:
    import zarr

    from nextpert import __version__

    with warnings.catch_warnings():  # either version of zarr does
        warnings.filterwarnings("ignore", message="Writing zarr v2")
        adata.write_zarr(store)
    zarr.open_group(store, mode="r+").attrs[_MARK] = __version__


def _fill_hdf5(adata: AnnData, file: Any) -> None:
    import anndata as ad

    from nextpert import __version__

    ad.io.write_elem(file, "/", adata, dataset_kwargs={"compression": "gzip"})
    file.attrs[_MARK] = __version__


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as csv, or as parquet where the name ends so."""
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        path.write_text(as_csv(table), encoding="utf-8", newline="")


def write_text(text: str, path: Path) -> None:
    """Write text."""
    path.write_text(text, encoding="utf-8")


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


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
