"""Fetch files of a public data set, or take them from a folder, checked by their checksum."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file at a fixed address whose content is known by its checksum, SHA-256 or that named."""

    name: str
    url: str
    digits: str
    checksum: str = "sha256"

    def is_at(self, path: Path) -> bool:
        """Whether a file has the content that is expected."""
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, self.checksum).hexdigest() == self.digits


def from_folder(file: RemoteFile, folder: str | os.PathLike[str], *, verify: bool) -> Path:
    """Return the path of ``file`` inside ``folder`` once its content is the expected one."""
    path = Path(folder) / file.name
    if not path.is_file():
        message = (
            f"The folder {str(folder)!r} holds no file {file.name!r}: download it from {file.url} "
            "into that folder, or leave out `folder` to have it fetched."
        )
        raise FileNotFoundError(message)
    if verify and not file.is_at(path):
        message = (
            f"{str(path)!r} is not the file expected (its checksum differs; was the download "
            f"truncated?): download it anew from {file.url}, or pass `verify=False` if it is "
            "another on purpose."
        )
        raise ValueError(message)
    return path


def fetch(
    file: RemoteFile,
    cache: str | os.PathLike[str] | None,
    otherwise: str = "download it by hand and pass `folder`",
) -> Path:
    """Return the path of ``file`` in the cache, downloading it if it is not there yet.

    The download goes to a temporary file and moves into place only if its checksum agrees, so
    the cache never holds half a file. ``otherwise`` says what to do where no download is possible.
    """
    import pooch

    where = Path(cache) if cache is not None else Path(pooch.os_cache("nextpert"))
    path = where / file.name
    if path.is_file() and file.is_at(path):
        return path
    logger.info("Downloading %s from %s", file.name, file.url)
    try:
        found = pooch.retrieve(
            file.url, known_hash=f"{file.checksum}:{file.digits}", fname=file.name, path=where
        )
    except ValueError as error:
        message = (
            f"The download of {file.name!r} from {file.url} is corrupted or has changed (its "
            f"checksum differs), and was discarded: try again, or {otherwise}."
        )
        raise ValueError(message) from error
    except OSError as error:  # requests' own errors are OSErrors too
        message = (
            f"{file.name!r} could not be downloaded from {file.url} ({type(error).__name__}): "
            f"check the connection, or {otherwise}."
        )
        raise ConnectionError(message) from error
    return Path(found)
