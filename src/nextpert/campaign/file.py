"""The file of a campaign: written whole or not at all, by one process at a time, with a digest."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad

from nextpert import _files
from nextpert._files import followed, is_sealed, root_attributes, write_adata, writing_to
from nextpert.campaign.state import now

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FORMAT = 4
WAIT = 60.0  # seconds for the lock of another process
_STAMP = "nextpert_campaign"


class Stamp(NamedTuple):
    """What a file says of itself: how often it was saved, when, and a name that no other has."""

    revision: int
    saved: str
    name: str


@contextmanager
def alone(path: Path, *, needed: bool = True) -> Iterator[None]:
    """Hold the lock of a file; it is let go of with the process, however that ends.

    Who only reads does not need it: in the folder of a group it may be the lock of another user.
    """
    message = (
        f"{str(path)!r} is being saved or loaded by another process: wait until it is done, "
        f"and do this again."
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(_files.alone(path, ValueError(message), wait=WAIT))
        except OSError:  # no right to write here
            if needed:
                raise
        yield


def write_campaign(adata: ad.AnnData, path: Path, known: Sequence[Stamp]) -> Stamp:
    """Write a campaign, if the file is not there, or is one of those that are ``known``.

    Returns its stamp. A link is followed; an error leaves the file as it was, and no other.
    """
    _require_ending(path)
    with writing_to(path) as target, alone(target):
        _recover(target)
        if target.exists():
            _require_known(target, known)
        revision = 1 + max((stamp.revision for stamp in known), default=0)
        stamp = Stamp(revision, now(), secrets.token_hex(16))
        text = json.dumps({"format": FORMAT, **stamp._asdict()})
        part = _beside(target, "part")
        _remove(part)  # of a process that was killed
        try:
            write_adata(adata, part, {_STAMP: text}, sealed=True)
            _put(part, target)
        except BaseException:
            _remove(part)
            _recover(target)
            raise
    return stamp


def read_campaign(path: Path) -> tuple[ad.AnnData, Stamp]:
    """Return what a file holds, and its stamp; raise unless it is a whole campaign."""
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
        stamp = _read_stamp(path)
        try:
            adata = ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)
        except Exception as error:
            raise _damaged(path, "it cannot be read") from error
    return adata, stamp


def _read_stamp(path: Path) -> Stamp:
    """Return the stamp of a file that holds what was written."""
    # A damaged file may raise anything in the libraries that read it.
    try:
        sealed = is_sealed(path)
        attributes = {} if sealed is False else root_attributes(path)
        stamp = dict(json.loads(str(attributes.get(_STAMP, "{}"))))
    except PermissionError as error:
        message = f"{str(path)!r} may not be read by this user: ask its owner for the right to."
        raise PermissionError(message) from error
    except Exception as error:
        raise _damaged(path, "it is cut or garbled") from error
    if sealed is not False and not stamp:
        message = f"{str(path)!r} holds no campaign: name a file that Campaign.save wrote."
        raise ValueError(message)
    if stamp and (stamp.pop("format", None) != FORMAT or set(stamp) != set(Stamp._fields)):
        message = (
            f"{str(path)!r} is the campaign of another version of nextpert: open it with that one."
        )
        raise ValueError(message)
    if not sealed:
        raise _damaged(path, "what it holds is not what was written")
    return Stamp(**stamp)


def _require_known(path: Path, known: Sequence[Stamp]) -> None:
    stamp = _read_stamp(path)
    if stamp.name in {each.name for each in known}:
        return
    ours = "and this one was never there"
    if known:
        ours = f"and this one comes from revision {known[-1].revision} of {known[-1].saved}"
    message = (
        f"{str(path)!r} holds a campaign of {stamp.saved} (revision {stamp.revision}), {ours}: "
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


def _put(part: Path, path: Path) -> None:
    """Move a finished file to its place: one step, or of folders two that can be undone."""
    before = _beside(path, "before")
    if path.is_dir():
        os.replace(path, before)
    os.replace(part, path)
    _remove(before)


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
