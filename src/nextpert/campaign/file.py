"""The file of a campaign: written whole or not at all, by one process at a time, with a digest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import h5py  # type: ignore[import-untyped]
import numpy as np

from nextpert import _files
from nextpert._files import followed, write_hdf5, write_zarr, writing_to
from nextpert.campaign.state import now

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


WAIT = 60.0  # seconds


@contextmanager
def alone(path: Path, *, needed: bool = True) -> Iterator[None]:
    """Hold the lock of a file; it is let go of with the process, however that ends.

    Who only reads does not need it: in the folder of a group it may be the lock of another user.

    Raises
    ------
    ValueError
        If another process holds it for longer than a file takes.
    """
    if not os.access(path.parent, os.W_OK):  # nobody can write here
        yield
        return
    message = (
        f"{str(path)!r} is being saved or loaded by another process: wait until it is done, "
        f"and do this again."
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(_files.alone(path, ValueError(message), wait=WAIT))
        except PermissionError:
            if needed:
                raise
        yield


@contextmanager
def opened(path: Any, mode: str) -> Iterator[Any]:
    """Yield the root group of a file, an h5ad or a zarr, or of a store of zarr."""
    if getattr(path, "suffix", ".zarr") == ".zarr":
        import zarr

        yield zarr.open_group(path, mode="r" if mode == "r" else "r+", use_consolidated=False)
    else:
        with h5py.File(path, mode) as file:
            yield file


def attributes(group: Any) -> dict[str, Any]:
    """Return the attributes of a group or array, arrays as lists."""
    return {str(name): _plain(value) for name, value in dict(group.attrs).items()}


def contents_digest(group: Any, *leave_out: str) -> str:
    """Return a digest of all groups, arrays and attributes but some of the root's."""
    text = hashlib.sha256()
    _add(text, group, "", set(leave_out))
    return text.hexdigest()


def _add(text: Any, node: Any, where: str, leave_out: set[str]) -> None:
    told = sorted((k, repr(v)) for k, v in attributes(node).items() if k not in leave_out)
    text.update(f"{where}\0{told}\0".encode())
    if hasattr(node, "keys"):
        for name in sorted(node.keys()):
            _add(text, node[name], f"{where}/{name}", set())
        return
    text.update(f"{node.dtype}{node.shape}\0".encode())
    values = np.asarray(node[...] if node.shape else node[()])
    if values.dtype.kind in "biufc":
        text.update(np.ascontiguousarray(values).tobytes())
    else:
        text.update("\0".join(map(str, values.ravel().tolist())).encode())


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


FORMAT = 3
_STAMP = "nextpert_campaign"


class Stamp(NamedTuple):
    """What a file says of itself: how often it was saved, when, and a digest of all it holds."""

    revision: int
    saved: str
    digest: str


def write_campaign(adata: ad.AnnData, path: Path, known: Sequence[Stamp]) -> Stamp:
    """Write a campaign, if the file is not there, or is one of those that are ``known``.

    Returns its stamp. A link is followed; an error leaves the file as it was, and no other.

    Raises
    ------
    ValueError
        If the file holds anything else, or is being written to.
    """
    _require_ending(path)
    with writing_to(path) as target, alone(target):
        path = target
        _recover(path)
        if path.exists():
            _require_known(path, known)
        revision = 1 + max((stamp.revision for stamp in known), default=0)
        part = _beside(path, "part")
        _remove(part)  # of a process that was killed
        try:
            stamp = _write(adata, part, revision)
            _put(part, path)
        except BaseException:
            _remove(part)
            _recover(path)
            raise
    return stamp


def read_campaign(path: Path) -> tuple[ad.AnnData, Stamp]:
    """Return what a file holds, and its stamp.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is no campaign, of another version, cut, or damaged anywhere.
    """
    _require_ending(path)
    path = followed(path)
    if not path.exists() and not _beside(path, "before").exists():
        message = f"There is no campaign {str(path)!r}: save one there first."
        raise FileNotFoundError(message)
    if path.is_dir() and path.suffix != ".zarr":
        message = f"{str(path)!r} is a folder: name the file of a campaign."
        raise ValueError(message)
    with alone(path, needed=False):
        _recover(path)
        stamp = _read_stamp(path, whole=True)
        try:
            adata = ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)
        except Exception as error:
            raise _damaged(path, "it cannot be read") from error
    return adata, stamp


def _read_stamp(path: Path, *, whole: bool) -> Stamp:
    """Return the stamp of a file; ``whole`` compares it with what the file holds."""
    found = digest = None
    is_zarr = path.suffix == ".zarr"
    # A damaged file may raise anything in the libraries that read it.
    try:
        sealed = True if is_zarr else _files.is_sealed(path)
        if sealed is not False:
            with opened(path, "r") as group:
                found = attributes(group).get(_STAMP)
                if is_zarr and whole and found is not None:
                    digest = contents_digest(group, _STAMP)
    except PermissionError as error:
        message = f"{str(path)!r} may not be read by this user: ask its owner for the right to."
        raise PermissionError(message) from error
    except Exception as error:
        raise _damaged(path, "it is cut or garbled") from error
    if sealed is False:
        raise _damaged(path, "what it holds is not what was written")
    try:
        told = {} if found is None else dict(json.loads(str(found)))
    except (ValueError, TypeError) as error:
        raise _damaged(path, "its stamp is garbled") from error
    if not told:
        message = f"{str(path)!r} holds no campaign: name a file that Campaign.save wrote."
        raise ValueError(message)
    if told.pop("format", None) != FORMAT or set(told) != set(Stamp._fields):
        message = (
            f"{str(path)!r} is the campaign of another version of nextpert: open it with that one."
        )
        raise ValueError(message)
    stamp = Stamp(**told)
    if sealed is None or digest not in (None, stamp.digest):
        raise _damaged(path, "what it holds is not what was written")
    return stamp


def _require_known(path: Path, known: Sequence[Stamp]) -> None:
    there = _read_stamp(path, whole=False)
    if there.digest in {stamp.digest for stamp in known}:
        return
    ours = "and this one was never there"
    if known:
        ours = f"and this one comes from revision {known[-1].revision} of {known[-1].saved}"
    message = (
        f"{str(path)!r} holds a campaign of {there.saved} (revision {there.revision}), {ours}: "
        f"it is not overwritten. Load it again with Campaign.load and repeat your steps since "
        f"then, or save elsewhere."
    )
    raise ValueError(message)


def _damaged(path: Path, how: str) -> ValueError:
    return ValueError(f"The campaign {str(path)!r} is damaged ({how}): take it from a copy.")


def _require_ending(path: Path) -> None:
    if path.suffix not in (".h5ad", ".zarr"):
        message = f"A campaign is one file that ends in .h5ad or .zarr, but path is {str(path)!r}."
        raise ValueError(message)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.stem}.{what}{path.suffix}")


def _write(adata: ad.AnnData, part: Path, revision: int) -> Stamp:
    adata.strings_to_categoricals()
    if part.suffix == ".zarr":
        return write_zarr(part, partial(_fill_zarr, adata=adata, revision=revision))
    return write_hdf5(part, partial(_fill_hdf5, adata=adata, revision=revision), sealed=True)


def _fill_hdf5(file: Any, adata: ad.AnnData, revision: int) -> Stamp:
    ad.io.write_elem(file, "/", adata, dataset_kwargs={"compression": "gzip"})
    return _stamped(file, revision)


def _fill_zarr(store: Any, adata: ad.AnnData, revision: int) -> Stamp:
    with warnings.catch_warnings():  # either version of zarr does
        warnings.filterwarnings("ignore", message="Writing zarr v2")
        adata.write_zarr(store)
    with opened(store, "a") as group:
        return _stamped(group, revision)


def _stamped(group: Any, revision: int) -> Stamp:
    stamp = Stamp(revision, now(), contents_digest(group, _STAMP))
    group.attrs[_STAMP] = json.dumps({"format": FORMAT, **stamp._asdict()})
    return stamp


def _put(part: Path, path: Path) -> None:
    """Move a finished file to its place: one step, or of folders two that can be undone."""
    if path.is_dir():
        before = _beside(path, "before")
        os.replace(path, before)
        os.replace(part, path)
        _remove(before)
    else:
        os.replace(part, path)


def _recover(path: Path) -> None:
    """Undo what a process that was stopped between the two steps left."""
    before = _beside(path, "before")
    if not path.exists() and before.exists():
        os.replace(before, path)
    _remove(before)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
