"""Stream a table of genes x cells: line by line to sparse entries, in bounded memory."""

from __future__ import annotations

import csv
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.datasets._scp1064 import kernel
from nextpert.datasets._scp1064.source import ByteSource, DamagedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_CHUNK = 1 << 20  # bytes parsed at a time
_PAD = 8  # the parser looks at eight bytes at once
_LONGEST_HEADER = 1 << 27
_LONGEST_FIELD = 64
_FIRST = 1 << 16
_NUMBER = re.compile(rb"\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?")
LARGEST = math.log1p(1e6) + 1e-6  # all of a cell's reads on one gene


@dataclass(frozen=True)
class Off:
    """Where an entry stands whose count is no whole number: line, field and entry, all from 0."""

    line: int
    field: int
    entry: int


@dataclass(frozen=True)
class Entries:
    """What some lines of the table hold beside zeros.

    Parameters
    ----------
    genes
        Name of every line.
    first_line
        Line number of the first of them, the header being line 1.
    ends
        Where the entries of each line end, shape ``(n_lines,)``.
    cells, data, counts
        Row of the result, value and restored count of every entry; ``counts`` may be empty.
    off
        The first entry whose count is no whole number, or ``None``.
    """

    genes: list[str]
    first_line: int
    ends: NDArray[np.int64]
    cells: NDArray[np.int32]
    data: NDArray[np.float64]
    counts: NDArray[np.int32]
    off: Off | None


class MatrixReader:
    """Reads one file; errors name it and the line.

    Parameters
    ----------
    path
        File of genes x cells, gzipped or not.

    Attributes
    ----------
    cells
        Names in the header.
    totals, slack
        Sum of ``exp(x) - 1`` of every cell, and how far rounding may have moved it.
    report
        Called with the bytes of the file read so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report: Callable[[int], object] = lambda n: None
        self._line = 1
        try:
            self._source = ByteSource(path)
        except DamagedFile as error:
            raise self.error(str(error)) from error
        self._buffer = np.empty(2 * _CHUNK, dtype=np.uint8)
        self._start = self._filled = 0  # what of the buffer is at hand
        # The next bytes are decompressed while those at hand are parsed.
        self._ahead = bytearray(_CHUNK)
        self._thread = ThreadPoolExecutor(1)
        self._next = self._thread.submit(self._source.read_into, memoryview(self._ahead))
        try:
            self.cells = self._read_header()
        except BaseException:
            self.close()
            raise
        self.totals = np.zeros(len(self.cells))
        self.slack = np.zeros(len(self.cells))

    def __enter__(self) -> MatrixReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._thread.shutdown()
        self._source.close()

    def entries(
        self,
        rows: NDArray[np.int32],
        umi: NDArray[np.float64],
        *,
        counts: bool,
        limit: float = LARGEST,
    ) -> Iterator[Entries]:
        """Yield the table's entries a few lines at a time, to the end of the file.

        ``rows`` is the result's row of every cell of the header, -1 to leave it out; ``umi`` its
        UMI count. Arrays of a yielded object are overwritten by the next.
        """
        state = np.zeros(kernel.N_STATE, dtype=np.int64)
        state[kernel.ZERO_LENGTH] = 2
        room = _Room.of(len(self._buffer), counts=counts)
        limit = min(limit, sys.float_info.max)
        while (stop := self._fill_lines()) > 0:
            if len(self._buffer) > room.for_bytes:
                room = _Room.of(len(self._buffer), counts=counts)
            if self._line == 1:  # see how many digits are printed, then begin anew
                self._parse(state, rows, umi, limit, room, self._first_lines(stop))
                self.totals[:], self.slack[:] = 0, 0
            self._parse(state, rows, umi, limit, room, stop)
            yield self._collect(state, room)
            self._line += int(state[kernel.LINE])
            self._start = stop
        if self._line == 1:
            raise self.error("it holds no line beside the header")

    def _parse(
        self,
        state: NDArray[np.int64],
        rows: NDArray[np.int32],
        umi: NDArray[np.float64],
        limit: float,
        room: _Room,
        stop: int,
    ) -> None:
        """Run the compiled parser over the lines before ``stop``; raise where it stumbles."""
        state[[kernel.POSITION, kernel.STOP]] = self._start, stop
        state[[kernel.LINE, kernel.N_ENTRIES, kernel.FIELD, kernel.OFF_FIELD]] = 0, 0, -1, -1
        from_python = -1.0
        while True:
            status = kernel.parse_rows(
                self._buffer, state, rows, umi, limit, from_python, room.names, room.ends,
                room.cells, room.values, room.counts, self.totals, self.slack,
            )  # fmt: skip
            if status == kernel.DONE:
                return
            text = self._field_at(int(state[kernel.POSITION]))
            if status != kernel.TO_PYTHON or not _NUMBER.fullmatch(text):
                raise self._complain(status, text, state, limit)
            from_python = float(text)

    def _complain(
        self, status: int, text: bytes, state: NDArray[np.int64], limit: float
    ) -> ValueError:
        self._line += int(state[kernel.LINE])
        field = int(state[kernel.FIELD])
        n = len(self.cells)
        if status == kernel.BAD_NAME:
            what = "does not begin with a gene's name and a comma"
        elif status == kernel.TOO_FEW:
            what = f"holds {field} values, fewer than the {n} cells of the header"
        elif status == kernel.TOO_MANY:
            what = f"holds more values than the {n} cells of the header"
        else:
            shown = text[:30].decode("utf-8", "replace") + ("..." if len(text) > 30 else "")
            where = f"for cell {self.cells[field]!r}" if field < n else f"as value {field + 1}"
            reason = "which is no number"
            if status == kernel.TOO_LARGE:
                reason = f"above {limit:.4f} = ln(1 + 1e6): these are not ln(1 + TPM)"
            elif text.startswith(b"-"):
                reason = "which is negative or no number"
            what = f"holds {shown!r} {where}, {reason}" if text else f"holds nothing {where}"
        return self.error(what, line=self._line + 1)

    def _collect(self, state: NDArray[np.int64], room: _Room) -> Entries:
        n_lines, n = int(state[kernel.LINE]), int(state[kernel.N_ENTRIES])
        names = [
            self._gene_name(self._buffer[start:stop].tobytes(), self._line + 1 + i)
            for i, (start, stop) in enumerate(room.names[:n_lines].tolist())
        ]
        off = None
        if state[kernel.OFF_FIELD] >= 0:
            where = (kernel.OFF_LINE, kernel.OFF_FIELD, kernel.OFF_ENTRY)
            off = Off(*(int(state[k]) for k in where))
        return Entries(
            names, self._line + 1, room.ends[:n_lines], room.cells[:n], room.values[:n],
            room.counts[:n], off,
        )  # fmt: skip

    def _gene_name(self, raw: bytes, line: int) -> str:
        try:
            name = raw.decode()
        except UnicodeDecodeError as error:
            raise self.error("begins with a name that is not UTF-8 text", line=line) from error
        if name.startswith('"'):
            name = name[1:-1]
        if not name or '"' in name or not name.isprintable():
            raise self.error(f"begins with {name!r}, which is no gene's name", line=line)
        return name

    def _read_header(self) -> list[str]:
        end = -1
        while end < 0 and self._fill():
            end = self._find(b"\n", self._start, self._filled)
            if self._filled > _LONGEST_HEADER:
                raise self.error("is longer than 128 MB: this is no table of genes x cells", line=1)
        text = self._buffer[: end if end >= 0 else self._filled].tobytes()
        self._start = end + 1 if end >= 0 else self._filled
        try:
            fields = next(csv.reader([text.decode("utf-8-sig").rstrip("\r\n")], strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise self.error(f"is no line of names ({error})", line=1) from error
        names = fields[1:]
        if not names or fields[0].upper() not in ("GENE", ""):
            raise self.error("does not begin with GENE and names of cells", line=1)
        if all(names) and len(set(names)) == len(names) and "".join(names).isprintable():
            return names
        raise self._bad_name(names)

    def _bad_name(self, names: list[str]) -> ValueError:
        """Return an error about the first of some names that is none, or stands there twice."""
        first: dict[str, int] = {}
        for j, name in enumerate(names):
            if not name or not name.isprintable():
                return self.error(f"holds {name!r} as name of cell {j + 1}", line=1)
            if first.setdefault(name, j) != j:
                what = f"names cell {name!r} twice, as cells {first[name] + 1} and {j + 1}"
                return self.error(what, line=1)
        return self.error("holds no names of cells", line=1)

    def _fill_lines(self) -> int:
        """Read on until the buffer holds a whole line; return where the last one ends, or 0."""
        while True:
            n_new = self._fill()
            end = self._find(b"\n", self._filled - n_new, self._filled, last=True)
            if end < 0 and self._line == 1:  # what was read with the header
                end = self._find(b"\n", self._start, self._filled, last=True)
            if end >= 0:
                return end + 1
            if self._filled - self._start > (len(self.cells) + 16) * _LONGEST_FIELD:
                what = "is far longer than the header: are line ends missing?"
                raise self.error(what, line=self._line + 1)
            if not n_new:
                if self._filled == self._start:
                    return 0
                self._buffer[self._filled] = ord("\n")  # the last line may lack its end
                self._filled += 1
                return self._filled

    def _first_lines(self, stop: int) -> int:
        """Return where the first lines of the buffer end, some tens of kilobytes."""
        end = self._find(b"\n", min(self._start + _FIRST, stop - 1), stop)
        return end + 1 if end >= 0 else stop

    def _fill(self) -> int:
        """Read on, into a larger buffer if this one is full; return the number of new bytes."""
        held = self._filled - self._start
        if held + _CHUNK + _PAD > len(self._buffer):
            larger = np.empty(2 * len(self._buffer), dtype=np.uint8)
            larger[:held] = self._buffer[self._start : self._filled]
            self._buffer = larger
        elif self._start:
            self._buffer[:held] = self._buffer[self._start : self._filled].copy()
        self._start, self._filled = 0, held
        try:
            n = self._next.result()
        except DamagedFile as error:
            raise self.error(str(error)) from error
        self._buffer[held : held + n] = np.frombuffer(self._ahead, np.uint8, n)
        self._filled += n
        self.report(self._source.position)
        self._next = self._thread.submit(self._source.read_into, memoryview(self._ahead))
        return n

    def _find(self, what: bytes, start: int, stop: int, *, last: bool = False) -> int:
        """Return where a byte stands first, or last, in a part of the buffer, or -1."""
        step = 1 << 16
        starts = range(start, stop, step)
        for first in reversed(starts) if last else starts:
            part = self._buffer[first : min(first + step, stop)].tobytes()
            found = part.rfind(what) if last else part.find(what)
            if found >= 0:
                return first + found
        return -1

    def _field_at(self, position: int) -> bytes:
        tail = self._buffer[position : position + 4096].tobytes()
        return re.split(rb"[,\n]", tail, maxsplit=1)[0].rstrip(b"\r")

    def error(self, what: str, *, line: int | None = None) -> ValueError:
        """Return an error about this file, at a line or after all lines read."""
        where = f"line {line} " if line is not None else f"after line {self._line}: "
        return ValueError(f"{self.path.name!r}, {where}{what}.")


@dataclass(frozen=True)
class _Room:
    """Arrays for what a buffer of lines may hold at most."""

    for_bytes: int
    names: NDArray[np.int64]
    ends: NDArray[np.int64]
    cells: NDArray[np.int32]
    values: NDArray[np.float64]
    counts: NDArray[np.int32]

    @classmethod
    def of(cls, n_bytes: int, *, counts: bool) -> _Room:
        n_lines, n = n_bytes // 4 + 1, n_bytes // 2 + 1  # "g,1\n" and "1,"
        return cls(
            n_bytes, np.empty((n_lines, 2), np.int64), np.empty(n_lines, np.int64),
            np.empty(n, np.int32), np.empty(n), np.empty(n if counts else 0, np.int32),
        )  # fmt: skip
