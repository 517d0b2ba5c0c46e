"""The file of a campaign: written completely or not at all, by one process, with a digest."""

from __future__ import annotations

import io
import json
import secrets
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import h5py

from nextpert import _files
from nextpert.campaign.state import now

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORMAT = 5
WAIT = 60.0  # seconds for the lock of another process
_STAMP = "nextpert_campaign"


class Stamp(NamedTuple):
    """The identity of a file: how often it was saved, when, and a unique name."""

    revision: int
    saved: str
    name: str


def write_campaign(adata: ad.AnnData, path: Path, stamps: Sequence[Stamp]) -> Stamp:
    """Write a campaign if the file does not exist or has one of the ``stamps``.

    Returns the new stamp. A link is followed. After an error the file is unchanged, and there is no
    other file.
    """
    _require_ending(path)
    message = f"Another process is saving {str(path)!r}: wait until it is done, and save again."
    with (
        _files.writing_to(path) as target,
        _files.alone(target, ValueError(message), wait=WAIT),
        _files.whole_file(target) as part,
    ):
        if target.exists():
            _require_known(target, stamps)
        revision = 1 + max((stamp.revision for stamp in stamps), default=0)
        stamp = Stamp(revision, now(), secrets.token_hex(16))
        text = json.dumps({"format": FORMAT, **stamp._asdict()})
        _files.write_adata(adata, part, {_STAMP: text}, sealed=True)
    return stamp


def read_campaign(path: Path) -> tuple[ad.AnnData, Stamp]:
    """Return the content of a file and its stamp; raise unless it is a complete campaign."""
    _require_ending(path)
    if not path.is_file():
        message = f"There is no campaign {str(path)!r}: name a file that Campaign.save wrote."
        raise FileNotFoundError(message)
    with _opened(path) as file:
        stamp = _stamp_of(file, path)
        try:
            adata = ad.io.read_elem(file["/"])
        except Exception as error:  # h5py and anndata raise many kinds
            raise _foreign(path, error) from error
    if not isinstance(adata, ad.AnnData):
        raise _foreign(path, type(adata).__name__)
    return adata, stamp


def _opened(path: Path) -> h5py.File:
    """Return the open file of a campaign; raise if the digest of its bytes is wrong."""
    content = path.read_bytes()
    if not _files.is_sealed(content):
        message = (
            f"{str(path)!r} is not a campaign that Campaign.save wrote, or is damaged: use another "
            f"file."
        )
        raise ValueError(message)
    try:
        return h5py.File(io.BytesIO(content), "r")
    except OSError as error:
        raise _foreign(path, error) from error


def _foreign(path: Path, content: object) -> ValueError:
    """Return the error about a file with a valid digest that Campaign.save did not write."""
    return ValueError(
        f"{str(path)!r} has the digest of a campaign, but not its content ({content}): use a file "
        f"that Campaign.save wrote."
    )


def _stamp_of(file: h5py.File, path: Path) -> Stamp:
    try:
        stamp = dict(json.loads(file.attrs[_STAMP]))
        is_other = stamp.pop("format") != FORMAT
        parsed = Stamp(0, "", "") if is_other else Stamp(**stamp)
        if not is_other and not isinstance(parsed.revision, int):
            message = "its revision is not a number"
            raise TypeError(message)
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise _foreign(path, error) from error
    if is_other:
        message = (
            f"{str(path)!r} was saved by another version of nextpert: open it with that version."
        )
        raise ValueError(message)
    return parsed


def _require_known(path: Path, stamps: Sequence[Stamp]) -> None:
    with _opened(path) as file:
        stamp = _stamp_of(file, path)
    if stamp.name in {earlier.name for earlier in stamps}:
        return
    ours = "this campaign has never been saved or loaded"
    if stamps:
        last = stamps[-1]
        ours = f"this campaign is based on revision {last.revision}, saved at {last.saved}"
    message = (
        f"{str(path)!r} contains a campaign saved at {stamp.saved} (revision {stamp.revision}), "
        f"but {ours}. The file was not overwritten. Open the saved campaign with Campaign.load, or "
        f"save this campaign under another path."
    )
    raise ValueError(message)


def _require_ending(path: Path) -> None:
    if path.suffix != ".h5ad":
        message = f"path must end in .h5ad, but is {str(path)!r}: give another name."
        raise ValueError(message)
