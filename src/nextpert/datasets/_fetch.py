"""Fetch files of a public data set, or take them from a folder, checked by their SHA-256."""

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
    """A file at a fixed address whose content is known by its SHA-256 checksum."""

    name: str
    url: str
    sha256: str


def sha256_of(path: Path) -> str:
    """Return the SHA-256 checksum of a file as hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def from_folder(file: RemoteFile, folder: str | os.PathLike[str], *, verify: bool) -> Path:
    """Return the path of ``file`` inside ``folder`` once its content is the expected one."""
    path = Path(folder) / file.name
    if not path.is_file():
        message = (
            f"The folder {str(folder)!r} holds no file {file.name!r}: download it from {file.url} "
            "into that folder, or leave out `folder` to have it fetched."
        )
        raise FileNotFoundError(message)
    if verify and sha256_of(path) != file.sha256:
        message = (
            f"{str(path)!r} is not the file expected (its SHA-256 differs; a truncated download?): "
            f"download it anew from {file.url}, or pass `verify=False` if it is another on purpose."
        )
        raise ValueError(message)
    return path


def fetch(file: RemoteFile, cache: str | os.PathLike[str] | None) -> Path:
    """Return the path of ``file`` in the cache, downloading it if it is not there yet.

    The download goes to a temporary file and moves into place only if its checksum agrees, so
    the cache never holds half a file.
    """
    import pooch

    where = Path(cache) if cache is not None else Path(pooch.os_cache("nextpert"))
    path = where / file.name
    if path.is_file() and sha256_of(path) == file.sha256:
        return path
    logger.info("Downloading %s from %s", file.name, file.url)
    try:
        found = pooch.retrieve(
            file.url, known_hash=f"sha256:{file.sha256}", fname=file.name, path=where
        )
    except ValueError as error:
        message = (
            f"The download of {file.name!r} from {file.url} is corrupted or has changed (its "
            "SHA-256 differs), and was discarded: try again, or download it by hand and pass "
            "`folder`."
        )
        raise ValueError(message) from error
    except OSError as error:  # requests' own errors are OSErrors too
        message = (
            f"{file.name!r} could not be downloaded from {file.url} ({type(error).__name__}): "
            "check the connection, or download it by hand and pass `folder`."
        )
        raise ConnectionError(message) from error
    return Path(found)
