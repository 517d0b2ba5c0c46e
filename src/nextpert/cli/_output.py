"""The files of a run: found writable before anything is computed, written all or none."""

from __future__ import annotations

import io
import os
import shutil
import signal
import tempfile
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import pandas as pd
    from anndata import AnnData

# A disk with less room than this is full; a screen is compressed, rarely to a quarter of the file
# it came from.
_PROBE = 2**20
_COMPRESSED = 4


def check_outputs(option: str, paths: Iterable[Path], source: Path | None) -> None:
    """Raise unless all files that an option names can be written; none is left there.

    Raises
    ------
    ValueError
        If a file is the one that is read, stands where a folder is, cannot be written, or its disk
        has too little room.
    """
    places = {}
    for path in paths:
        _check_name(option, path, source)
        places[existing(path.absolute().parent)] = path
    for place, path in places.items():
        _check_room(option, path, place, source)


def _check_name(option: str, path: Path, source: Path | None) -> None:
    if source is not None and source.exists() and path.resolve() == source.resolve():
        message = f"{str(path)!r} is the screen itself, which is kept: name another with {option}."
        raise ValueError(message)
    place = existing(path.absolute().parent)
    taken = path.is_dir() and path.suffix != ".zarr"
    if not place.is_dir() or taken:
        what = f"{path} is a folder" if taken else f"{place} is no folder"
        message = f"Cannot write to {str(path)!r}: {what}. Name another with {option}."
        raise ValueError(message)


def _check_room(option: str, path: Path, place: Path, source: Path | None) -> None:
    needed = _PROBE + (source.stat().st_size // _COMPRESSED if source and source.is_file() else 0)
    try:
        with tempfile.TemporaryDirectory(prefix=".nextpert_", dir=place) as folder:
            (Path(folder) / "room").write_bytes(bytes(_PROBE))
            free = shutil.disk_usage(folder).free
    except OSError as error:
        message = (
            f"Cannot write to {str(path)!r} ({error.strerror or error}): make room there, or name "
            f"another with {option}."
        )
        raise ValueError(message) from error
    if free < needed:
        message = (
            f"Only {free / 1e6:.0f} MB are free at {str(path)!r}, but the results need about "
            f"{needed / 1e6:.0f} MB: make room there, or name another with {option}."
        )
        raise ValueError(message)


def write_all(writers: Mapping[Path, Callable[[Path], Any]]) -> None:
    """Write files to hidden folders beside their places, then move them all there at once."""
    with ExitStack() as stack:
        ready: dict[Path, Path] = {}
        folders: dict[Path, Path] = {}
        for path, write in writers.items():
            place = existing(path.absolute().parent)
            if place not in folders:
                new = tempfile.TemporaryDirectory(prefix=".nextpert_", dir=place)
                folders[place] = Path(stack.enter_context(new))
            ready[path] = folders[place] / f"{len(ready)}_{path.name}"
            write(ready[path])
        with _undisturbed():
            _move(ready)


def _move(ready: Mapping[Path, Path]) -> None:
    made: list[Path] = []
    before: dict[Path, Path] = {}
    try:
        for path, temporary in ready.items():
            parent = path.absolute().parent
            place = existing(parent)
            if place != parent:  # all below is ours
                made += [place / parent.relative_to(place).parts[0]]
                parent.mkdir(parents=True)
            if path.is_dir():  # a zarr that is written anew
                before[path] = temporary.with_name(f"old_{temporary.name}")
                os.replace(path, before[path])
            os.replace(temporary, path)
    except OSError:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        for path, old in before.items():
            if not path.exists():
                os.replace(old, path)
        raise


def write_screen(adata: AnnData, path: Path) -> None:
    """Write the screen; on a full disk HDF5 itself would crash, so it writes to memory first."""
    import anndata as ad
    import h5py  # type: ignore[import-untyped]

    adata.strings_to_categoricals()
    if path.suffix == ".zarr":
        with warnings.catch_warnings():  # either version of zarr does
            warnings.filterwarnings("ignore", message="Writing zarr v2")
            adata.write_zarr(path)
        return
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        ad.io.write_elem(file, "/", adata, dataset_kwargs={"compression": "gzip"})
    path.write_bytes(image.getbuffer())


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as csv, or as parquet where the name ends so."""
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)


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
