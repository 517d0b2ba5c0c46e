"""Bytes of a file, gzipped or not; a damaged file is an error, never a shorter file."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"\x1f\x8b"
_COMPRESSED = 1 << 19  # bytes read at a time


class DamagedFile(Exception):
    """The file cannot be decompressed; the message says why."""


class ByteSource:
    """Reads a file from its beginning; checksum and length of gzip members are verified."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        head = self._file.read(2)
        self._file.seek(0)
        self._is_gzip = head == _MAGIC
        if path.suffix == ".gz" and not self._is_gzip:
            self._file.close()
            message = "it is no gzip file, for all its name"
            raise DamagedFile(message)
        self._inflate = zlib.decompressobj(31)  # 31: gzip, with its checksum
        self._rest = b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def position(self) -> int:
        """Bytes of the file read so far, compressed ones where it is gzipped."""
        return self._file.tell()

    def read_into(self, target: memoryview) -> int:
        """Fill ``target`` as far as the file goes; return the number of bytes."""
        if not self._is_gzip:
            return self._file.readinto(target)
        n = 0
        while n < len(target):
            data = self._decompress(len(target) - n)
            if not data:
                break
            target[n : n + len(data)] = data
            n += len(data)
        return n

    def _decompress(self, most: int) -> bytes:
        """Return up to ``most`` bytes; nothing at the end of the file."""
        while True:
            if self._inflate.eof and not self._next_member():
                return b""
            self._rest = self._rest or self._file.read(_COMPRESSED)
            if not self._rest:
                message = "it is truncated: the gzip stream ends early"
                raise DamagedFile(message)
            try:
                data = self._inflate.decompress(self._rest, most)
            except zlib.error as error:
                message = f"its gzip stream is corrupted ({error})"
                raise DamagedFile(message) from error
            self._rest = self._inflate.unconsumed_tail
            if data:
                return data

    def _next_member(self) -> bool:
        """Go on to the next gzip member; zeros that pad the end of a file are skipped."""
        rest = self._inflate.unused_data or self._file.read(_COMPRESSED)
        while rest and not rest.strip(b"\0"):
            rest = self._file.read(_COMPRESSED)
        if not rest:
            return False
        self._inflate = zlib.decompressobj(31)
        self._rest = rest
        return True
