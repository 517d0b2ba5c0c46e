"""Writing of files completely or not at all, through symbolic links; and of safe csv."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shutil
import tempfile
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from anndata import AnnData

_LOCK, _MADE = ".lock", ".nextpert"  # in a hidden folder
_SEAL = b"nextpert"  # before the digest at the end of an h5ad

# Beginnings of formulas (OWASP, "CSV Injection"), including full-width characters.
_STARTS = r"\s*[=+\-@＝＋－＠]"
_FORMULA = re.compile(rf"[\t\r\n]|{_STARTS}")
_NUMBER = r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?"
_NUMBERS = re.compile(rf"{_NUMBER}(, {_NUMBER})*")
# Names of genes that spreadsheets turn into dates (Ziemann 2016, doi:10.1186/s13059-016-1044-7).
_DATE = re.compile(
    r"(jan|feb|mar|march|marc|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)[-_ /.]?\d{1,4}",
    re.IGNORECASE,
)
# Some spreadsheets also split cells at these, unless they are in quotes.
_PARTED = re.compile(rf"\r|[;\t]{_STARTS}")


@contextmanager
def alone(path: Path, taken_error: Exception, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the hidden lock beside a file; it is released even if the process is killed."""
    from filelock import FileLock, Timeout  # takes 50 ms, which most calls need not wait for

    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=wait)
    try:
        lock.acquire()
    except Timeout:
        raise taken_error from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to; it becomes ``path`` at the end, or vanishes after an error.

    The temporary file is in a hidden folder beside ``path``, so that the move is one step, and has
    the same name, because writers choose the format by its ending.
    """
    with writing_to(path) as target, hidden_folder(target.parent) as folder:
        yield folder / target.name
        os.replace(folder / target.name, target)


@contextmanager
def hidden_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in another, locked as long as this process lives, and remove it.

    The folders of processes that were killed, whose locks are free, are removed too. Folders that
    this function did not make stay, whatever their name.
    """
    from filelock import FileLock, Timeout

    for lock in parent.glob(f".nextpert_*/{_LOCK}"):
        if _is_made_here(lock.parent):
            with suppress(Timeout, OSError), FileLock(lock, timeout=0):
                shutil.rmtree(lock.parent, ignore_errors=True)
    hidden = tempfile.TemporaryDirectory(prefix=".nextpert_", dir=parent)
    with hidden as name, FileLock(Path(name) / _LOCK):
        (Path(name) / _MADE).write_text(_mark(Path(name)), encoding="utf-8")
        yield Path(name)


def _is_made_here(folder: Path) -> bool:
    """Whether :func:`hidden_folder` made a folder: its mark has the folder's name and inode."""
    lock, mark = folder / _LOCK, folder / _MADE
    try:
        is_plain = not any(path.is_symlink() for path in (folder, lock, mark))
        return is_plain and mark.read_text(encoding="utf-8") == _mark(folder)
    except (OSError, UnicodeDecodeError):
        return False


def _mark(folder: Path) -> str:
    return f"temporary folder of nextpert: {folder.name} {folder.stat().st_ino}\n"


def followed(path: str | os.PathLike[str]) -> Path:
    """Return the path to which symbolic links lead, whether or not it exists.

    Replacing a link would leave the file behind it unchanged.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # checked when the file is written
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        message = f"Cannot write to {str(path)!r} ({why}): name another file."
        raise ValueError(message) from error
    return Path(os.path.realpath(path))


def write_adata(
    adata: AnnData, path: Path, attributes: Mapping[str, str], *, sealed: bool = False
) -> None:
    """Write an AnnData as h5ad or zarr, with attributes of its root, first in memory.

    On a full disk, the HDF5 library ends Python with a segmentation fault, whereas plain bytes
    raise an OSError. After an error, zarr's threads continue to write, and recreate a folder that
    was removed. A ``sealed`` h5ad ends with a digest of its bytes (:func:`is_sealed`).
    """
    adata.strings_to_categoricals()
    if path.suffix == ".zarr":
        _write_zarr(adata, path, attributes)
        return
    import anndata as ad
    import h5py

    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        ad.io.write_elem(file, "/", adata, dataset_kwargs={"compression": "gzip"})
        file.attrs.update(attributes)
    with path.open("wb") as out:
        out.write(image.getbuffer())
        if sealed:  # HDF5 does not read beyond its own end
            out.write(_SEAL + hashlib.sha256(image.getbuffer()).digest())
        out.flush()
        os.fsync(out.fileno())


def is_sealed(content: bytes) -> bool:
    """Return whether the bytes of an h5ad end with their digest.

    Damaged files must not be opened, because the HDF5 library loops forever on some of them.
    """
    end = len(_SEAL) + hashlib.sha256().digest_size
    return content.endswith(_SEAL + hashlib.sha256(memoryview(content)[:-end]).digest())


def _write_zarr(adata: AnnData, path: Path, attributes: Mapping[str, str]) -> None:
    import zarr

    contents: dict[str, Any] = {}
    is_new = hasattr(zarr.storage, "LocalStore")  # version 3
    store: Any = zarr.storage.MemoryStore(contents) if is_new else contents
    with warnings.catch_warnings():  # both versions of zarr warn
        warnings.filterwarnings("ignore", message="Writing zarr v2")
        adata.write_zarr(store)
    zarr.open_group(store, mode="r+").attrs.update(attributes)
    for key, content in contents.items():
        file = path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.to_bytes() if is_new else bytes(content))


@contextmanager
def writing_to(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Create the folder of ``path``, and yield where it leads; errors name ``path`` itself."""
    with errors_about(path):
        target = followed(path)
        if target.is_dir() and target.suffix != ".zarr":
            message = f"{str(path)!r} is a folder: name a file in it."
            raise ValueError(message)
        if target.exists() and not (target.is_file() or target.is_dir()):
            message = f"{str(path)!r} is a pipe or device, not a regular file: name another file."
            raise ValueError(message)
        above = next(parent for parent in target.parents if parent.exists())
        if not above.is_dir():
            message = (
                f"Cannot write to {str(path)!r}: {str(above)!r} is not a folder. Name another file."
            )
            raise ValueError(message)
        target.parent.mkdir(parents=True, exist_ok=True)
        yield target


@contextmanager
def errors_about(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise errors of the system as errors about the file to write, whatever file they name."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        message = (
            f"Cannot write to {str(path)!r} ({why}): check permissions and free space, or name "
            f"another file."
        )
        raise type(error)(message) from error


def as_csv(
    table: pd.DataFrame, *, float_format: str | None = None, lineterminator: str = "\n"
) -> str:
    """Return a table as csv, without its index and with the formulas of spreadsheets disabled.

    Spreadsheets execute text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break, so
    such text is prefixed with an apostrophe, as OWASP recommends. So are the names of genes that
    they turn into dates, such as ``SEPT2``. Numbers do not change, even if they are stored as text.

    Parameters
    ----------
    table, float_format, lineterminator
        As for :meth:`pandas.DataFrame.to_csv`.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextpert._files import as_csv
    >>> as_csv(pd.DataFrame({"gene": ["MYC", "=1+1", "-0.5"], "x": [1.0, -2.0, 3.0]})).split()
    ['gene,x', 'MYC,1.0', "'=1+1,-2.0", '-0.5,3.0']
    """
    safe = table.rename(columns=_harmless)
    texts = list(safe.columns)
    for i, dtype in enumerate(table.dtypes):
        if dtype.kind == "O":
            values = [_harmless(value) for value in table.iloc[:, i]]
            safe.isetitem(i, values)
            texts += values
    quoted = any(isinstance(text, str) and _PARTED.search(text) for text in texts)
    quoting: Any = csv.QUOTE_NONNUMERIC if quoted else csv.QUOTE_MINIMAL
    return safe.to_csv(
        index=False, quoting=quoting, float_format=float_format, lineterminator=lineterminator
    )


def write_xlsx(table: pd.DataFrame, path: Path) -> None:
    """Write a table as xlsx, without its index, with all texts as texts.

    In such a file a spreadsheet neither runs a text as a formula nor turns a gene name such as
    ``SEPT2`` into a date.

    Raises
    ------
    ImportError
        If openpyxl is not installed.
    """
    from importlib.util import find_spec

    import pandas as pd

    if find_spec("openpyxl") is None:
        message = (
            "Files that end in .xlsx need openpyxl: pip install 'nextpert[excel]', or write csv."
        )
        raise ImportError(message)
    with pd.ExcelWriter(path, engine="openpyxl") as writer:
        table.to_excel(writer, index=False, sheet_name="nextpert")
        for row in writer.sheets["nextpert"].iter_rows():
            for cell in row:
                if isinstance(cell.value, str):
                    cell.data_type, cell.number_format = "s", "@"


def _harmless(value: Any) -> Any:
    """Return a text with an apostrophe before it if it could be a formula or become a date."""
    if not isinstance(value, str) or _NUMBERS.fullmatch(value):
        return value
    return f"'{value}" if _FORMULA.match(value) or _DATE.fullmatch(value) else value
