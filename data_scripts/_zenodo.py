"""The scPerturb collection on Zenodo: link, size and checksum of a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from _http import DownloadError, PassingError, check_url, get

RECORD = "https://zenodo.org/api/records/10044268"
FILE = "FrangiehIzar2021_RNA.h5ad"
_MOST = 20_000_000  # bytes


@dataclass(frozen=True)
class Stored:
    """A file of a record."""

    url: str
    name: str
    size: int
    md5: str


def look_up(name: str = FILE) -> Stored:
    """Return where a file of the record is, and what it must be.

    Raises
    ------
    DownloadError
        If the record cannot be read or does not hold the file.
    PassingError
        If the server is out of reach for now.
    """
    try:
        with get(RECORD, "the record", {"Accept": "application/json"}) as answer:
            found = json.loads(answer.read(_MOST))
    except (OSError, EOFError) as error:
        raise PassingError(f"the record was cut short ({type(error).__name__})") from None
    except ValueError:
        raise DownloadError(_message("is no JSON", name)) from None
    entries = found.get("files") if isinstance(found, dict) else None
    if isinstance(entries, dict):  # as of the record's own list of files
        entries = list((entries.get("entries") or {}).values())
    for entry in entries or []:
        if isinstance(entry, dict) and entry.get("key") == name:
            return _stored(entry, name)
    raise DownloadError(_message("does not list it", name))


def _stored(entry: dict[str, Any], name: str) -> Stored:
    links = entry.get("links") or {}
    kind, _, digits = str(entry.get("checksum")).partition(":")
    url, size = links.get("content") or links.get("self"), entry.get("size")
    if kind != "md5" or len(digits) != 32 or not isinstance(size, int) or not isinstance(url, str):
        raise DownloadError(_message("gives no link, size or MD5 of it", name))
    return Stored(check_url(url, name), name, size, digits.lower())


def _message(fault: str, name: str) -> str:
    return (
        f"Zenodo's record of {name} {fault}: download it by hand from zenodo.org/records/10044268."
    )
