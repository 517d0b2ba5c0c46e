"""Downloads that resume, are checked, and appear under their name only once they are whole.

Beside the file, ``NAME.part`` holds what has come so far, as the server stores it, and
``NAME.part.json`` the ETag, length and encoding by which it can be gone on with (no link).
``.NAME.lock`` keeps a second process from writing to the same part.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import logging
import os
import shutil
import time
import zlib
from typing import TYPE_CHECKING, Any

from _http import DownloadError, PassingError, RangeError, get
from _lock import alone
from _state import Expected, State, start_of, state_of
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger("fetch")

_CHUNK = 1 << 20
_SPARE = 100_000_000  # bytes to leave free on the disk
_LONGEST_WAIT = 60.0
_sleep = time.sleep


def part_of(target: Path) -> Path:
    """Return where a download is kept until it is whole."""
    return target.with_name(target.name + ".part")


def note_of(target: Path) -> Path:
    """Return where the state of a download is kept."""
    return target.with_name(target.name + ".part.json")


def size_of(path: Path) -> int:
    """Return the size of a file, 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def download(
    url: str, target: Path, *, expected: Expected | None = None, tries: int = 6, quiet: bool = False
) -> None:
    """Download a file, going on where an earlier run stopped.

    The length is checked, and the MD5 where ``expected`` or the server gives it. Passing faults
    are tried again until ``tries`` of them have come in a row without a new byte in between,
    after 1, 2, 4, ... seconds or as long as the server asks for.

    Raises
    ------
    DownloadError
        If the file cannot be had, or is not the one expected; there is no file ``target`` then.
        If another process is downloading it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target):
        _download(url, target, Expected() if expected is None else expected, tries, quiet=quiet)


def _download(url: str, target: Path, expected: Expected, tries: int, *, quiet: bool) -> None:
    part = part_of(target)
    with tqdm(desc=target.name, unit="B", unit_scale=True, disable=True if quiet else None) as bar:
        retry(
            lambda: _fetch(url, target, expected, bar),
            target.name,
            tries=tries,
            reached=lambda: size_of(part),
        )
    state = State.read(note_of(target))
    by = _check(target, expected, state)
    _publish(_decode(target) if state.encoding == "gzip" else part, target)
    _discard(target)
    logger.info("%s: %d bytes, whole by its %s", target.name, size_of(target), by)


def retry(
    attempt: Callable[[], Any],
    name: str,
    *,
    tries: int = 6,
    reached: Callable[[], int] = lambda: 0,
) -> Any:
    """Return what the attempt returns, made again after passing faults.

    Parameters
    ----------
    attempt
        What to do.
    name
        What it is about, for messages.
    tries
        How many faults in a row end it.
    reached
        Tells how far the attempts have come; farther than ever starts the count anew.
    """
    failures, farthest = 0, reached()
    while True:
        try:
            return attempt()
        except PassingError as error:
            failures = 1 if reached() > farthest else failures + 1
            farthest = max(farthest, reached())
            if failures >= tries:
                here = f" It goes on from byte {reached()}." if reached() else ""
                message = (
                    f"{name}: {error.reason}; given up after {failures} tries. Run the same "
                    f"command again later.{here}"
                )
                raise DownloadError(message) from None
            wait = min(2.0 ** (failures - 1), _LONGEST_WAIT) if error.wait is None else error.wait
            logger.warning("%s: %s; trying again in %.0f s", name, error.reason, wait)
            _sleep(wait)


def _fetch(url: str, target: Path, expected: Expected, bar: Any) -> None:
    """Bring the part file to its full length, or raise."""
    part, note = part_of(target), note_of(target)
    there, state = size_of(part), State.read(note)
    size = state.size if expected.size is None else expected.size
    # Without an ETag only the checksum can tell whether the file is still the same.
    if (state.etag is None and expected.md5 is None) or (size is not None and there > size):
        there = 0
    if there and there == size:
        return
    # Of a file with a known checksum we want the bytes it is the checksum of.
    headers = {"Accept-Encoding": "gzip" if expected.md5 is None else "identity"}
    ask = {"Range": f"bytes={there}-"} if there else {}
    if there and state.etag is not None and not state.etag.startswith("W/"):
        ask["If-Range"] = state.etag
    try:
        answer = get(url, target.name, headers | ask)
    except RangeError:  # what is here is longer than the file that is there now
        there, answer = 0, get(url, target.name, headers)
    with answer:
        start, found = start_of(answer, there, target.name), state_of(answer, target.name)
        if start and found.contradicts(state):
            part.unlink()
            raise PassingError(f"{target.name} has changed since the download began", 0.0)
        if start:
            found = found.completed(state)
        _require(answer, found, expected, target, start)
        found.write(note)
        bar.reset(found.size)
        bar.update(start)
        _append(answer, part, start, bar)
    if found.size is not None and size_of(part) != found.size:
        raise PassingError(f"cut off after {size_of(part)} of {found.size} bytes")


def _require(
    answer: http.client.HTTPResponse, found: State, expected: Expected, target: Path, start: int
) -> None:
    """Raise before the first byte where the download cannot end well."""
    name = target.name
    if expected.size is not None and found.size not in (None, expected.size):
        message = f"{name} has {found.size} bytes on the server, but should have {expected.size}."
        raise DownloadError(message)
    if found.size is None and not answer.chunked and expected.md5 is None:
        message = f"{name}: the server tells no length, so a download cut off would go unseen."
        raise DownloadError(message)
    if found.size is not None:
        need, free = found.size - start + _SPARE, shutil.disk_usage(target.parent).free
        if need > free:
            message = f"{name} needs {need} bytes on the disk, but {free} are free: make room."
            raise DownloadError(message)


def _append(answer: http.client.HTTPResponse, part: Path, start: int, bar: Any) -> None:
    with part.open("r+b" if start else "wb") as out:
        out.seek(start)
        while True:
            fault = None
            try:
                chunk = answer.read(_CHUNK)
            except http.client.IncompleteRead as error:
                chunk, fault = error.partial, "IncompleteRead"
            except (OSError, http.client.HTTPException) as error:
                chunk, fault = b"", type(error).__name__
            out.write(chunk)
            bar.update(len(chunk))
            if fault is not None:
                raise PassingError(f"cut off after {out.tell()} bytes ({fault})")
            if not chunk:
                return


def _check(target: Path, expected: Expected, state: State) -> str:
    """Raise unless the part file is the one expected; return what it was checked by."""
    part, md5 = part_of(target), expected.md5 or state.md5
    fault = None
    if expected.size is not None and size_of(part) != expected.size:
        fault = f"it has {size_of(part)} bytes instead of {expected.size}"
    elif md5 is not None:
        with part.open("rb") as handle:
            if hashlib.file_digest(handle, "md5").hexdigest() != md5:
                fault = "its MD5 checksum differs"
    if fault is not None:
        _discard(target)
        message = (
            f"{target.name} is not the file expected ({fault}); the download was discarded. Run "
            "the command again; if that does not help, the file has changed at its origin."
        )
        raise DownloadError(message)
    return "length" if md5 is None else "MD5 checksum"


def _decode(target: Path) -> Path:
    """Undo the compression that the server stores a plain file with; return the plain one."""
    part, plain = part_of(target), target.with_name(target.name + ".plain.part")
    try:
        with gzip.open(part) as packed, plain.open("wb") as out:
            start = packed.read(2)
            if target.suffix == ".gz" and start != b"\x1f\x8b":
                return part  # it was uploaded as gzip, and is to stay so
            out.write(start)
            shutil.copyfileobj(packed, out, _CHUNK)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        _discard(target)
        message = f"{target.name} came corrupted and was discarded: run the command again."
        raise DownloadError(message) from None
    return plain


def _discard(target: Path) -> None:
    for left in (note_of(target), part_of(target), target.with_name(target.name + ".plain.part")):
        left.unlink(missing_ok=True)


def _publish(whole: Path, target: Path) -> None:
    with whole.open("rb+") as handle:
        os.fsync(handle.fileno())  # so that the name never stands for bytes not yet on the disk
    whole.replace(target)
