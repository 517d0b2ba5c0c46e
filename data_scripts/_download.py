"""Downloads that resume, are checked, and get their name only once they are complete.

Beside the file, ``NAME.part`` holds what has come so far, as the server stores it, and
``NAME.part.etag`` the ETag of the file it is a part of. ``.NAME.lock`` keeps a second process from
writing to the same part. Signed links are credentials: messages show host and path alone.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import logging
import os
import re
import shutil
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from nextpert._files import alone

logger = logging.getLogger("fetch")
logging.getLogger("urllib3").setLevel(logging.INFO)  # its debug messages hold whole addresses

_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_LONGEST_WAIT = 120.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)
# Of the links of the portal (and of Google's storage behind it) that are too old, or spent.
_EXPIRED = (400, 401, 403, 410)
_LOOPBACK = ("127.0.0.1", "localhost")
_GZIP = b"\x1f\x8b"
_sleep = time.sleep


class DownloadError(Exception):
    """A download that cannot go on; the message says why and what to do."""


@dataclass
class PassingError(Exception):
    """A fault that may be gone after a while."""

    reason: str
    wait: float | None = None  # seconds the server asks for


def part_of(target: Path, ending: str = ".part") -> Path:
    """Return where a download is kept until it is complete, or a file beside it."""
    return target.with_name(target.name + ending)


def size_of(path: Path) -> int:
    """Return the size of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def has_md5(path: Path, md5: str) -> bool:
    """Whether the content of a file has a checksum."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest() == md5


def download(url: str, target: Path, *, md5: str | None = None, tries: int = 6) -> None:
    """Download a file, going on where an earlier run stopped.

    The length is checked, and the MD5 if it is given or the server tells it. Temporary errors are
    tried again until ``tries`` of them have come in a row without a new byte in between, after
    1, 2, 4, ... seconds or as long as the server asks for.

    Raises
    ------
    DownloadError
        If the file cannot be had, or is not the one expected; there is no file ``target`` then.
        If another process is downloading it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    taken = f"{target.name} is being downloaded by another process: wait until it has ended."
    bar = tqdm(desc=target.name, unit="B", unit_scale=True, disable=None)
    with alone(target, DownloadError(taken)), bar:
        md5 = _fetch_with_retries(url, target, md5, tries, bar)
        part = part_of(target)
        if md5 is not None and not has_md5(part, md5):
            raise _discarded(target, "has another MD5 checksum than the file expected")
        complete = _decoded(part, target)
        with complete.open("rb+") as handle:
            os.fsync(handle.fileno())  # so that the name never stands for bytes not yet on the disk
        complete.replace(target)
        _discard(target)
    by = "length" if md5 is None else "MD5 checksum"
    logger.info("%s: %d bytes, complete by its %s", target.name, size_of(target), by)


def _fetch_with_retries(
    url: str, target: Path, md5: str | None, tries: int, bar: Any
) -> str | None:
    failures, farthest = 0, size_of(part_of(target))
    while True:
        try:
            return _fetch(url, target, md5, bar)
        except PassingError as error:
            reached = size_of(part_of(target))
            failures = 1 if reached > farthest else failures + 1
            farthest = max(farthest, reached)
            if failures >= tries:
                message = (
                    f"{target.name}: {error.reason}; given up after {failures} tries. The same "
                    f"command goes on later from byte {reached}."
                )
                raise DownloadError(message) from None
            wait = min(2.0 ** (failures - 1) if error.wait is None else error.wait, _LONGEST_WAIT)
            logger.warning("%s: %s; trying again in %.0f s", target.name, error.reason, wait)
            _sleep(wait)


def _fetch(url: str, target: Path, md5: str | None, bar: Any) -> str | None:
    """Bring the part file to its full length; return the MD5 it must have, if that is known."""
    part, note = part_of(target), part_of(target, ".part.etag")
    etag = note.read_text(encoding="utf-8") if note.exists() else ""
    # Without an ETag only a checksum can tell whether the file is still the same.
    there = size_of(part) if etag or md5 else 0
    # Of a file with a known checksum we want the bytes it is the checksum of.
    headers = {"Accept-Encoding": "identity" if md5 else "gzip"}
    if there:
        headers["Range"] = f"bytes={there}-"
        if etag:
            headers["If-Range"] = etag  # else the server sends the new file from its beginning
    with get(url, target.name, headers) as answer:
        length = answer.headers.get("Content-Length", "")
        if answer.status_code != 200:
            place = re.fullmatch(r"bytes (.*)/(\d+)", answer.headers.get("Content-Range", ""))
            span, length = place.groups() if place else ("", "")
            if answer.status_code == 416 and length == str(there):
                return md5
            is_other = etag and answer.headers.get("ETag") not in (etag, None)
            if is_other or not span.startswith(f"{there}-"):
                part.unlink()
                raise PassingError(f"{target.name} has changed since the download began", 0.0)
        elif not (length or md5 or "Transfer-Encoding" in answer.headers):
            message = f"{target.name}: the server tells no length, so that a cut would go unseen."
            raise DownloadError(message)
        note.write_text(answer.headers.get("ETag", ""), encoding="utf-8")
        start = 0 if answer.status_code == 200 else there
        bar.reset(int(length) if length else None)
        bar.update(start)
        with part.open("ab" if start else "wb") as out:
            try:
                for chunk in answer.raw.stream(_CHUNK, decode_content=False):
                    out.write(chunk)
                    bar.update(len(chunk))
            except HTTPError as error:
                reason = f"cut off after {out.tell()} of {length or 'unknown'} bytes"
                raise PassingError(f"{reason} ({type(error).__name__})") from None
        if length and size_of(part) != int(length):
            raise PassingError(f"cut off after {size_of(part)} of {length} bytes")
    given = re.search(r"md5=([\w+/]+=*)", answer.headers.get("x-goog-hash", ""))
    return base64.b64decode(given[1]).hex() if given and md5 is None else md5


def _decoded(part: Path, target: Path) -> Path:
    """Undo the compression that the portal stores a plain file with; return the plain one."""
    with part.open("rb") as stored:
        if stored.read(2) != _GZIP:
            return part
    plain = part_of(target, ".plain.part")
    try:
        with gzip.open(part) as packed, plain.open("wb") as out:
            start = packed.read(2)
            if target.suffix == ".gz" and start != _GZIP:
                return part  # it was uploaded as gzip, and is to stay so
            out.write(start)
            shutil.copyfileobj(packed, out, _CHUNK)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise _discarded(target, "came corrupted") from None
    return plain


def _discarded(target: Path, fault: str) -> DownloadError:
    _discard(target)
    message = (
        f"{target.name} {fault} and was discarded: run the command again. If that does not help, "
        f"the file has changed at its origin."
    )
    return DownloadError(message)


def _discard(target: Path) -> None:
    for ending in (".part", ".part.etag", ".plain.part"):
        part_of(target, ending).unlink(missing_ok=True)


def get(url: str, name: str, headers: dict[str, str]) -> requests.Response:
    """Open the address of a file; errors show its host and path only.

    Raises
    ------
    PassingError
        If trying again may help.
    DownloadError
        If it cannot.
    """
    where = redacted(check_url(url, name))
    try:
        answer = requests.get(
            url, headers={"User-Agent": "nextpert"} | headers, stream=True, timeout=_TIMEOUT,
            hooks={"response": _check_redirect},
        )  # fmt: skip
    except (requests.RequestException, HTTPError) as error:  # their texts hold the address
        raise PassingError(f"{where} cannot be reached ({type(error).__name__})") from None
    code = answer.status_code
    if code in (200, 206, 416):
        return answer
    answer.close()
    if code in _PASSING:
        seconds = answer.headers.get("Retry-After", "")
        wait = float(seconds) if seconds.isdigit() else None
        raise PassingError(f"{where} answers with status {code}", wait)
    remedy = "check that it is still there."
    if urlsplit(url).query and code in _EXPIRED:
        remedy = (
            "the link has expired, or is not for you. The portal's links hold for a day: ask the "
            "portal for a new configuration file and run the same command with it; what is "
            "downloaded so far is kept."
        )
    message = f"{name} is refused by {where} (status {code}): {remedy}"
    raise DownloadError(message)


def _check_redirect(answer: requests.Response, **_: Any) -> None:
    if answer.is_redirect:
        place = urljoin(answer.url, answer.headers["Location"])
        check_url(place, f"what {redacted(answer.url)} redirects to")


def redacted(url: str) -> str:
    """Return host and path of an address: neither user, password, query nor fragment."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] + parts.path


def check_url(url: str, what: str) -> str:
    """Return the address if it is https, or http to this very machine; else raise."""
    sound = url.isascii() and url.isprintable() and not re.search(r"[\s\\]", url)
    try:
        parts = urlsplit(url)
        sound &= bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        message = f"The address of {what} cannot be used: get it anew from where it came from."
        raise DownloadError(message)
    if parts.scheme != "https" and (parts.scheme, parts.hostname) not in [
        ("http", host) for host in _LOOPBACK
    ]:
        message = f"The address of {what} is {parts.scheme or 'no'}, not https: refused."
        raise DownloadError(message)
    return url
