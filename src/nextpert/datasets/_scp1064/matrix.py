"""Read a table of genes x cells a line at a time, converting only the fields that are not zero.

Every byte of every line is looked at, by numpy; most fields are zeros, ``0`` or ``0.0``, and
fall away before any number is read.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Values = NDArray[np.float64]

LARGEST = math.log1p(1e6) + 1e-6  # all of a cell's reads on one gene
_READ = 1 << 20  # bytes decompressed at a time
_LONGEST_HEADER = 1 << 27
_LONGEST_FIELD = 64
_COMMA, _POINT, _ZERO = b",.0"
_NUMBER = re.compile(rb"\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?")
_WIDEST = 20  # bytes of a field that numpy reads; longer ones are left to Python
_EXACT, _EXACT_DIGITS = 2**53, 18  # up to here a float64, and an int64, hold any whole number
_POWERS = np.array([10.0**k for k in range(_EXACT_DIGITS + 1)])  # exact, too
# Numbers below ten have one more decimal than those above, below one two more. One printed with
# fewer than that ends in zeros.
_FEWER = 2
# Values may have gone through float32, and been printed with its digits or more.
_SINGLE, _SINGLE_DECIMALS = 2.0**-24, 8


@dataclass(frozen=True)
class Line:
    """What one line of the table holds beside zeros.

    Parameters
    ----------
    gene, number
        Its name, and its number in the file, the header being line 1.
    cells, data, counts
        Row of the result, value and restored count of every entry that is wanted.
    off
        Field and value of the first entry whose count is no whole number, or ``None``.
    """

    gene: str
    number: int
    cells: NDArray[np.int32]
    data: Values
    counts: NDArray[np.int32]
    off: tuple[int, float] | None


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
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._line = 1
        self._raw = path.open("rb")
        self._thread = ThreadPoolExecutor(1)
        try:
            is_gzip = self._raw.read(2) == b"\x1f\x8b"
            self._raw.seek(0)
            if path.suffix == ".gz" and not is_gzip:
                raise self.error("it is no gzip file, for all its name")
            opened: Any = gzip.GzipFile(fileobj=self._raw) if is_gzip else self._raw
            self._file = io.BufferedReader(opened, _READ)
            self.cells = self._read_header()
        except BaseException:
            self.close()
            raise
        self.totals, self.slack = np.zeros((2, len(self.cells)))

    def __enter__(self) -> MatrixReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._thread.shutdown()
        self._raw.close()

    @property
    def position(self) -> int:
        """Bytes of the file read so far, compressed ones where it is gzipped."""
        return self._raw.tell()

    def lines(
        self, rows: NDArray[np.int32], umi: Values, *, counts: bool, limit: float = LARGEST
    ) -> Iterator[Line]:
        """Yield the lines after the header.

        ``rows`` is the result's row of every cell of the header, -1 to leave it out; ``umi`` its
        UMI count. Counts are restored with ``counts``; values above ``limit`` are an error.
        """
        most = 0  # decimals that are printed, as far as has been seen
        limit = min(limit, sys.float_info.max)
        longest = (len(self.cells) + 16) * _LONGEST_FIELD
        # The next line is decompressed while that at hand is parsed.
        coming = self._thread.submit(self._file.readline, longest)
        while line := self._read(coming):
            coming = self._thread.submit(self._file.readline, longest)
            if len(line) == longest and not line.endswith(b"\n"):
                what = "is far longer than the header: are line ends missing?"
                raise self.error(what, line=self._line + 1)
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            name, start = self._name(line)
            fields, values, decimals = self._numbers(line, start, limit)
            most = max(most, int(decimals.max(initial=0)))
            with np.errstate(over="ignore", invalid="ignore"):  # values above any limit
                # How far rounding, when printed or before that, may have moved exp(value) - 1.
                digits = np.clip(decimals, max(most - _FEWER, 0), 22)
                half, grown = 0.5 / 10.0**digits, np.exp(values)
                unsure = grown * half * (1 + half)
                unsure += np.where(digits <= _SINGLE_DECIMALS, grown * values * _SINGLE, 0)
                self.totals[fields] += grown - 1
                self.slack[fields] += unsure
                kept = rows[fields] >= 0
                fields, values, grown, unsure = (
                    fields[kept],
                    values[kept],
                    grown[kept],
                    unsure[kept],
                )
                scale = umi[fields] * 1e-6
                count = (grown - 1) * scale
                whole = np.rint(count)
                unsure = (unsure + 2 * grown * values * _SINGLE) * scale
                wrong = np.abs(count - whole) > unsure + 1e-9
                if counts:
                    wrong |= unsure >= 0.5
            i = int(wrong.argmax()) if wrong.any() else None
            off = None if i is None else (int(fields[i]), float(values[i]))
            self._line += 1
            # Of damaged values the count may be any number: it is not read where one is off.
            restored = np.where(wrong, 0, whole) if counts else whole[:0]
            yield Line(name, self._line, rows[fields], values, restored.astype(np.int32), off)
        if self._line == 1:
            raise self.error("it holds no line beside the header")

    def _read(self, coming: Any) -> bytes:
        """Return the bytes that come; raise where the file cannot be decompressed."""
        try:
            return coming.result()
        except EOFError as error:
            message = "it is truncated: the gzip stream ends early"
            raise self.error(message) from error
        except (OSError, zlib.error) as error:
            raise self.error(f"its gzip stream is corrupted ({error})") from error

    def _name(self, line: bytes) -> tuple[str, int]:
        """Return the gene's name and where the values begin."""
        quoted = line.startswith(b'"')
        end = line.find(b'"', 1) + 1 if quoted else line.find(b",")
        raw = line[1 : end - 1] if quoted else line[:end]
        if (end <= 0 and raw) or line[end : end + 1] != b"," or b'"' in raw:
            what = "does not begin with a gene's name and a comma"
            raise self.error(what, line=self._line + 1)
        try:
            name = raw.decode()
        except UnicodeDecodeError as error:
            what = "begins with a name that is not UTF-8 text"
            raise self.error(what, line=self._line + 1) from error
        if not name or not name.isprintable():
            raise self.error(f"begins with {name!r}, which is no gene's name", line=self._line + 1)
        return name, end + 1

    def _numbers(
        self, line: bytes, start: int, limit: float
    ) -> tuple[NDArray[np.int64], Values, NDArray[np.int64]]:
        """Return fields that are not zero, their values, and how many decimals each has.

        Numbers are the nearest float64 to what is printed, as Python's ``float`` gives.
        """
        text = np.frombuffer(line + bytes(_WIDEST), np.uint8)  # all read beyond the end is 0
        ends = np.append(np.flatnonzero(text[start : len(line)] == _COMMA) + start, len(line))
        starts = np.append(start, ends[:-1] + 1)
        size = ends - starts
        is_zero = (size == 1) & (text[starts] == _ZERO)
        short = np.flatnonzero(size == 3)
        spelled = text[starts[short, None] + np.arange(3)] == (_ZERO, _POINT, _ZERO)
        is_zero[short] = spelled.all(axis=1)
        fields = np.flatnonzero(~is_zero)
        starts, size, n_fields = starts[fields], size[fields], len(size)
        # Digits and at most one point, read a place at a time for all fields.
        mantissa, n_digits, n_points, decimals = np.zeros((4, len(fields)), np.int64)
        for k in range(min(int(size.max(initial=0)), _WIDEST)):
            letter = text[starts + k]
            inside = size > k
            digit = letter - np.uint8(_ZERO)  # above 9 for whatever is no digit
            is_digit, is_point = inside & (digit <= 9), inside & (letter == _POINT)
            mantissa = np.where(is_digit, 10 * mantissa + digit, mantissa)
            n_digits += is_digit
            decimals += is_digit & (n_points > 0)
            n_points += is_point
        # The quotient of two exact float64 is the nearest to the number.
        usual = (n_digits + n_points == size) & (n_points <= 1) & (n_digits > 0)
        usual &= (n_digits <= _EXACT_DIGITS) & (mantissa <= _EXACT)
        values = mantissa / _POWERS[np.where(usual, decimals, 0)]
        if not usual.all() or values.max(initial=0.0) > limit:
            for i in np.flatnonzero(~usual | (values > limit)).tolist():
                token = line[starts[i] : starts[i] + size[i]]
                values[i], decimals[i] = self._number(token, int(fields[i]), limit)
        if n_fields != len(self.cells):
            n = len(self.cells)
            what = f"holds more values than the {n} cells of the header"
            if n_fields < n:
                what = f"holds {n_fields} values, fewer than the {n} cells of the header"
            raise self.error(what, line=self._line + 1)
        kept = values > 0  # zeros of another spelling
        return fields[kept], values[kept], decimals[kept]

    def _number(self, text: bytes, field: int, limit: float) -> tuple[float, int]:
        """Return value and decimals of a field, or raise where it is none or above ``limit``."""
        is_number = _NUMBER.fullmatch(text) is not None
        if is_number and float(text) <= limit:
            mantissa, _, exponent = text.lower().partition(b"e")
            return float(text), len(mantissa.partition(b".")[2]) - int(exponent or 0)
        n = len(self.cells)
        shown = text[:30].decode("utf-8", "replace") + ("..." if len(text) > 30 else "")
        where = f"for cell {self.cells[field]!r}" if field < n else f"as value {field + 1}"
        reason = "which is no number"
        if is_number:
            reason = f"above {limit:.4f} = ln(1 + 1e6): these are not ln(1 + TPM)"
        elif text.startswith(b"-"):
            reason = "which is negative or no number"
        what = f"holds {shown!r} {where}, {reason}" if text else f"holds nothing {where}"
        raise self.error(what, line=self._line + 1)

    def _read_header(self) -> list[str]:
        text = self._read(self._thread.submit(self._file.readline, _LONGEST_HEADER + 1))
        if len(text) > _LONGEST_HEADER:
            raise self.error("is longer than 128 MB: this is no table of genes x cells", line=1)
        try:
            fields = next(csv.reader([text.decode("utf-8-sig").rstrip("\r\n")], strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise self.error(f"is no line of names ({error})", line=1) from error
        names = fields[1:]
        if not names or fields[0].upper() not in ("GENE", ""):
            raise self.error("does not begin with GENE and names of cells", line=1)
        if all(names) and len(set(names)) == len(names) and "".join(names).isprintable():
            return names
        first: dict[str, int] = {}
        for j, name in enumerate(names):
            if not name or not name.isprintable():
                raise self.error(f"holds {name!r} as name of cell {j + 1}", line=1)
            if first.setdefault(name, j) != j:
                what = f"names cell {name!r} twice, as cells {first[name] + 1} and {j + 1}"
                raise self.error(what, line=1)
        raise AssertionError  # one of the names is none, or stands there twice

    def error(self, what: str, *, line: int | None = None) -> ValueError:
        """Return an error about this file, at a line or after all lines read."""
        where = f"line {line} " if line is not None else f"after line {self._line}: "
        return ValueError(f"{self.path.name!r}, {where}{what}.")
