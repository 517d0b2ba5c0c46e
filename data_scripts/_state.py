"""What is known of a file before, while and after it is downloaded."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from _http import DownloadError

if TYPE_CHECKING:
    import http.client
    from pathlib import Path

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Expected(NamedTuple):
    """What is known of a file beforehand."""

    size: int | None = None
    md5: str | None = None


@dataclass(frozen=True)
class State:
    """What the bytes of an unfinished download belong to; there is no link in it."""

    etag: str | None = None
    size: int | None = None
    encoding: str | None = None  # "gzip" where the server stores the file compressed
    md5: str | None = None  # of the bytes as they are stored

    @classmethod
    def read(cls, path: Path) -> State:
        """Return the state an earlier run left, or one that knows nothing."""
        try:
            state = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()
        kinds = {"size": int}
        sound = all(
            value is None or isinstance(value, kinds.get(name, str))
            for name, value in vars(state).items()
        )
        return state if sound else cls()

    def write(self, path: Path) -> None:
        """Leave the state for a later run."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def contradicts(self, other: State) -> bool:
        """Whether the two cannot belong to the same file; what one does not know tells nothing."""
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return any(a is not None and b is not None and a != b for a, b in pairs)

    def completed(self, other: State) -> State:
        """Return the state with what only the other knows."""
        mine = {name: value for name, value in vars(self).items() if value is not None}
        return State(**(vars(other) | mine))


def start_of(answer: http.client.HTTPResponse, asked: int, name: str) -> int:
    """Return the byte at which the body begins: 0 where the server sends the whole file."""
    if answer.status == 200:
        return 0
    match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status != 206 or match is None or int(match[1]) != asked:
        message = (
            f"{name}: the server sends another piece than asked for (status {answer.status}). "
            f"Delete {name}.part and run the command again."
        )
        raise DownloadError(message)
    return asked


def state_of(answer: http.client.HTTPResponse, name: str) -> State:
    """Return what the head of an answer says about the file as it is stored."""
    headers = answer.headers
    encoding = headers.get("Content-Encoding", "").strip().lower() or "identity"
    encoding = "gzip" if encoding == "x-gzip" else encoding
    if encoding not in ("identity", "gzip"):
        message = f"{name} comes in the encoding {encoding!r}, which was not asked for."
        raise DownloadError(message)
    if answer.status == 206:
        match = _RANGE.fullmatch(headers.get("Content-Range", ""))
        length = match[3] if match else ""
    else:
        length = headers.get("Content-Length") or ""
    # Google's storage gives the hash of what it holds, which may be decoded on the way.
    held = headers.get("x-goog-stored-content-encoding", encoding)
    md5 = _google_md5(headers.get_all("x-goog-hash") or []) if held == encoding else None
    return State(headers.get("ETag"), int(length) if length.isdigit() else None, encoding, md5)


def _google_md5(values: list[str]) -> str | None:
    for item in ",".join(values).split(","):
        kind, _, digest = item.strip().partition("=")
        if kind == "md5":
            with contextlib.suppress(binascii.Error):
                return base64.b64decode(digest, validate=True).hex()
    return None
