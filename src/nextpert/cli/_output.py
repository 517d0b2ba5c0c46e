"""The folder of results: found writable before anything is computed, filled whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from anndata import AnnData

FIGURES = ("cpca_density.png", "dag.png", "design.png")
TABLES = ("annotated.h5ad", "ranking.csv", "trace.csv")
# A disk with less room than this is full; the annotated screen is compressed, rarely to a quarter
# of the file it came from.
_PROBE = 2**20
_COMPRESSED = 4


def check_out(options: argparse.Namespace) -> None:
    """Raise unless the results can be written to ``--out``; nothing is left there.

    Raises
    ------
    ValueError
        If the folder is a file, cannot be written to, holds a folder by the name of a result, or
        its disk has too little room.
    """
    out: Path = options.out.absolute()
    place = _existing(out)
    taken = [name for name in FIGURES + TABLES if (out / name).is_dir()]
    if not place.is_dir() or taken:
        what = f"{out / taken[0]} is a folder" if taken else f"{place} is no folder"
        message = f"Cannot write to {str(out)!r}: {what}. Name another folder with --out."
        raise ValueError(message)
    needed = _PROBE + (options.file.stat().st_size // _COMPRESSED if options.file else 0)
    try:
        with tempfile.TemporaryDirectory(prefix=".nextpert_", dir=place) as folder:
            (Path(folder) / "room").write_bytes(bytes(_PROBE))
            free = shutil.disk_usage(folder).free
    except OSError as error:
        message = (
            f"Cannot write to {str(out)!r} ({error.strerror or error}): make room there, or name "
            f"another folder with --out."
        )
        raise ValueError(message) from error
    if free < needed:
        message = (
            f"Only {free / 1e6:.0f} MB are free at {str(out)!r}, but the results need about "
            f"{needed / 1e6:.0f} MB: make room there, or name another folder with --out."
        )
        raise ValueError(message)


def write_results(
    adata: AnnData, options: argparse.Namespace, draw: Callable[[Path], None]
) -> list[str]:
    """Write all results to a hidden folder beside the final one, then move them there at once."""
    out: Path = options.out.absolute()
    place = _existing(out)
    with tempfile.TemporaryDirectory(prefix=".nextpert_", dir=place) as temporary:
        folder = Path(temporary)
        if not options.no_figures:
            draw(folder)
        design = adata.uns["design"]
        design["ranking"].to_csv(folder / "ranking.csv", index=False)
        design["trace"].to_csv(folder / "trace.csv", index=False)
        _write_h5ad(adata, folder / "annotated.h5ad")
        names = sorted(path.name for path in folder.iterdir())
        with _undisturbed():
            try:
                out.mkdir(parents=True, exist_ok=True)
                for name in names:
                    os.replace(folder / name, out / name)
            except OSError:
                if out != place:  # all of it is ours
                    shutil.rmtree(place / out.relative_to(place).parts[0], ignore_errors=True)
                raise
    return names


def _write_h5ad(adata: AnnData, path: Path) -> None:
    """Write the screen; on a full disk HDF5 itself would crash, so it writes to memory first."""
    import anndata as ad
    import h5py  # type: ignore[import-untyped]

    adata.strings_to_categoricals()
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        ad.io.write_elem(file, "/", adata, dataset_kwargs={"compression": "gzip"})
    path.write_bytes(image.getbuffer())


def _existing(path: Path) -> Path:
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
