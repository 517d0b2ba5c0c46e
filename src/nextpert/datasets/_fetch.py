"""Fetch files of a public data set, checked by their checksum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import os


class RemoteFile(NamedTuple):
    """A file at a fixed address whose content is known by a checksum, ``"sha256:..."``."""

    name: str
    url: str
    checksum: str


def fetch(
    file: RemoteFile,
    cache: str | os.PathLike[str] | None,
    otherwise: str = "download it by hand into the folder that `cache` names",
) -> Path:
    """Return the path of ``file`` in the cache, and download it if it is absent.

    The download goes to a temporary file, which is moved into place only if its checksum agrees, so
    the cache never contains a partial file. ``otherwise`` says what to do if the download fails.
    """
    import pooch

    where = Path(cache) if cache is not None else Path(pooch.os_cache("nextpert"))
    try:
        return Path(pooch.retrieve(file.url, file.checksum, fname=file.name, path=where))
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
