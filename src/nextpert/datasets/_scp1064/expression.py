"""Tables of genes x cells, read a gene a line: only the fields that are not zero become numbers.

Every byte is looked at by numpy; what is read is checked against the cells' UMI counts.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import math
import re
import sys
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import closest, list_names
from nextpert._adata.progress import progress
from nextpert._warn import warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from nextpert.datasets._scp1064.rows import Entries, Study, Wanted

    Line = tuple[str, NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]

logger = logging.getLogger(__name__)
LARGEST = math.log1p(1e6) + 1e-6  # all of a cell's reads on one gene
_READ = 1 << 20  # bytes decompressed at a time
_LONGEST_HEADER = 1 << 27
_LONGEST_FIELD = 64
_MARGIN = b"," * 16
_NUMBER = re.compile(rb"\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?")
# Numbers below ten have one more decimal than those above, below one two more. One printed with
# fewer than that ends in zeros.
_FEWER = 2
_EXACT = 2.0**53  # whole numbers below it are exact in float64
_POWERS = 10.0 ** np.arange(17)
# Of 8 digits in 8 bytes, the first in the lowest: the values of the last 0, 1, ... 8.
_LAST = np.array([0x0F0F0F0F0F0F0F0F >> 8 * (8 - n) << 8 * (8 - n) for n in range(9)], np.uint64)
_MOST_DECIMALS = 22  # powers of ten up to here are exact in float64
_HALF = 0.5 / 10.0 ** np.arange(_MOST_DECIMALS + 1)
# Values may have gone through float32, and been printed with its digits or more.
_SINGLE, _SINGLE_DECIMALS = 2.0**-24, 8
# How far sums of TPM may be off where values were float64, and float32, before being printed.
_OFF_DOUBLE, _OFF_SINGLE = 1e-6, 13.9 * 1e6 * _SINGLE
_NO_COUNTS = np.zeros(0, np.int32)


def read_expression(
    files: Sequence[ExpressionFile], study: Study, wanted: Wanted
) -> Iterator[Entries]:
    """Yield the entries of files of genes x cells; files without any cell wanted are left out.

    Names of genes are appended to ``study.genes`` as they come, unless some are wanted.
    """
    # Row of the result of every cell of the study, -1 for those not wanted.
    row = np.where(study.kept, np.cumsum(study.kept) - 1, -1).astype(np.int32)
    umi = study.obs["UMI_count"].to_numpy(dtype=np.float64)
    found = [(file, study.obs.index.get_indexer(pd.Index(file.cells))) for file in files]
    found = [(file, place) for file, place in found if study.kept[place].any()]
    column = {name: j for j, name in enumerate(study.genes)}
    first: dict[str, int] = {}
    size = sum(file.path.stat().st_size for file, _ in found)
    with progress(size, "Expression", unit="B", unit_scale=True) as bar:
        for file, place in found:
            rows = row[place]
            seen: dict[str, int] = {}
            check = _Check(file, umi[place], rows >= 0, wanted)
            for gene, fields, values, decimals in file.lines(bar, limit=check.limit):
                fields, values, counts = check.line(gene, fields, values, decimals)
                if seen.setdefault(gene, file.line) != file.line:
                    what = f"names gene {gene!r}, as line {seen[gene]} does"
                    raise file.error(what, line=file.line)
                if first and gene not in first:
                    raise file.error(f"names gene {gene!r}, which other files lack", line=file.line)
                if wanted.genes is None and not first:
                    column[gene] = len(study.genes)
                    study.genes.append(gene)
                if gene in column:
                    genes = np.full(len(fields), column[gene], np.int32)
                    yield rows[fields], genes, values, counts
            absent = [name for name in first if name not in seen]
            if absent:
                what = f"genes that other files hold are missing: {list_names(absent, limit=3)}"
                raise file.error(what)
            unknown = [name for name in column if name not in seen]
            if unknown:
                message = (
                    f"{file.path.name!r} holds no such genes: {list_names(unknown)}."
                    f"{closest(unknown, seen)} Correct the names or leave these genes out."
                )
                raise ValueError(message)
            check.sums()
            first = first or seen
    study.facts["n_genes_study"] = len(first)


class _Check:
    """Compares the values of a file with the cells' UMI counts, and restores the counts of genes.

    Parameters
    ----------
    file
        The file.
    umi, kept
        UMI count of every cell of the header, and whether it is wanted, shape ``(n_cells,)``.
    wanted
        ``counts`` and ``verify`` are looked at.

    Attributes
    ----------
    totals, slack
        Sum of ``exp(x) - 1`` of every cell, and how far rounding may have moved it.
    """

    def __init__(
        self,
        file: ExpressionFile,
        umi: NDArray[np.float64],
        kept: NDArray[np.bool_],
        wanted: Wanted,
    ) -> None:
        self.file, self.umi, self.kept, self.wanted = file, umi, kept, wanted
        self.limit = LARGEST if wanted.verify else math.inf
        self.totals, self.slack = np.zeros((2, len(umi)))
        self.most = 0  # decimals that are printed, as far as has been seen

    def line(
        self,
        gene: str,
        fields: NDArray[np.int64],
        values: NDArray[np.float64],
        decimals: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]:
        """Return fields, values and counts of a line's entries of cells that are wanted.

        The arguments are what :meth:`ExpressionFile.lines` yields, of shape ``(n_entries,)``.
        """
        self.most = max(self.most, int(decimals.max(initial=0)))
        with np.errstate(over="ignore", invalid="ignore"):  # values above any limit
            # How far rounding, when printed or before that, may have moved exp(value) - 1.
            digits = np.clip(decimals, max(self.most - _FEWER, 0), _MOST_DECIMALS)
            half, grown = _HALF[digits], np.exp(values)
            unsure = grown * half * (1 + half)
            unsure += np.where(digits <= _SINGLE_DECIMALS, grown * values * _SINGLE, 0)
            self.totals[fields] += grown - 1
            self.slack[fields] += unsure
            kept = self.kept[fields]
            fields, values = fields[kept], values[kept]
            grown, unsure = grown[kept], unsure[kept]
            # Of x = ln(1 + 1e6 c / u), the count c = (exp(x) - 1) u / 1e6.
            scale = self.umi[fields] * 1e-6
            count = (grown - 1) * scale
            whole = np.rint(count)
            unsure = (unsure + 2 * grown * values * _SINGLE) * scale
            wrong = np.abs(count - whole) > unsure + 1e-9
        if self.wanted.counts:
            wrong |= unsure >= 0.5
        if (self.wanted.counts or self.wanted.verify) and wrong.any():
            i = int(wrong.argmax())
            what = (
                f"holds {float(values[i])!r} for gene {gene!r} and cell "
                f"{self.file.cells[fields[i]]!r}: with {self.umi[fields[i]]:g} UMI that is a count "
                f"of {count[i]:.6g}, no whole number within the digits printed. Are the metadata "
                "of the same study? "
            )
            what += (
                "Pass `counts=False` to do without counts" if self.wanted.counts else
                "Pass `verify=False` to load the values as they are"
            )  # fmt: skip
            raise self.file.error(what, line=self.file.line)
        return fields, values, whole.astype(np.int32) if self.wanted.counts else _NO_COUNTS

    def sums(self) -> None:
        """Compare every cell's transcripts per million with a million."""
        apart = np.abs(self.totals - 1e6) - self.slack
        # Values that went through float32 are off by more than their digits tell: all cells are.
        bound = _OFF_DOUBLE if np.median(apart) <= _OFF_DOUBLE else _OFF_SINGLE
        wrong = np.flatnonzero(apart > bound)
        name = self.file.path.name
        if not len(wrong):
            logger.info("%s: the values of every cell sum up to a million TPM", name)
            return
        j = int(wrong[np.argmax(np.abs(self.totals[wrong] - 1e6))])
        message = (
            f"{name!r}: the values of {len(wrong)} of {len(self.totals)} cells do not sum up to a "
            f"million transcripts per million (cell {self.file.cells[j]!r}: {self.totals[j]:.2f}): "
            "values are altered, or genes missing."
        )
        if self.wanted.verify:
            message += " Download the file anew, or pass `verify=False` to load it as it is."
            raise ValueError(message)
        warn(message)


class ExpressionFile:
    """A file of genes x cells, gzipped or not; errors name it and the line.

    Attributes
    ----------
    cells
        Names in the header.
    line
        Number of the line read last, the header being line 1.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 1
        with self._open() as (_, file):
            self.cells = self._read_header(file)

    def error(self, what: str, *, line: int | None = None) -> ValueError:
        """Return an error about this file, at a line or after all lines read."""
        where = f"line {line} " if line is not None else f"after line {self.line}: "
        return ValueError(f"{self.path.name!r}, {where}{what}.")

    def lines(self, bar: Any, *, limit: float = LARGEST) -> Iterator[Line]:
        """Yield the name of every line's gene, its fields that are not zero, values and decimals.

        The bar grows by the bytes of the file that are read. Values above ``limit`` are an error.
        """
        before, limit = bar.n, min(limit, sys.float_info.max)
        longest = (len(self.cells) + 16) * _LONGEST_FIELD
        with self._open() as (raw, file):
            self._read_line(file, _LONGEST_HEADER)
            while line := self._read_line(file, longest):
                if len(line) == longest and not line.endswith(b"\n"):
                    what = "is far longer than the header: are line ends missing?"
                    raise self.error(what, line=self.line + 1)
                self.line += 1
                yield self._parse(line.removesuffix(b"\n").removesuffix(b"\r"), limit)
                bar.update(before + raw.tell() - bar.n)
        if self.line == 1:
            raise self.error("it holds no line beside the header")

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        """Open the file, and what is read of it, decompressed."""
        with self.path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if self.path.suffix == ".gz" and not is_gzip:
                raise self.error("it is no gzip file, for all its name")
            opened: Any = gzip.GzipFile(fileobj=raw) if is_gzip else raw
            yield raw, io.BufferedReader(opened, _READ)

    def _read_line(self, file: Any, longest: int) -> bytes:
        try:
            return file.readline(longest)
        except EOFError as error:
            message = "it is truncated: the gzip stream ends early"
            raise self.error(message) from error
        except (OSError, zlib.error) as error:
            raise self.error(f"its gzip stream is corrupted ({error})") from error

    def _read_header(self, file: Any) -> list[str]:
        text = self._read_line(file, _LONGEST_HEADER + 1)
        if len(text) > _LONGEST_HEADER:
            raise self.error("is longer than 128 MB: this is no table of genes x cells", line=1)
        try:
            fields = next(csv.reader([text.decode("utf-8-sig").rstrip("\r\n")], strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise self.error(f"is no line of names ({error})", line=1) from error
        names = fields[1:]
        if not names or fields[0].upper() not in ("GENE", ""):
            raise self.error("does not begin with GENE and names of cells", line=1)
        first: dict[str, int] = {}
        for j, name in enumerate(names):
            if not name or not name.isprintable():
                raise self.error(f"holds {name!r} as name of cell {j + 1}", line=1)
            if first.setdefault(name, j) != j:
                what = f"names cell {name!r} twice, as cells {first[name] + 1} and {j + 1}"
                raise self.error(what, line=1)
        return names

    def _parse(self, line: bytes, limit: float) -> Line:
        """Return a line's gene, and fields, values and decimals of what is not zero."""
        quoted = line.startswith(b'"')
        end = line.find(b'"', 1) + 1 if quoted else line.find(b",")
        raw = line[1 : end - 1] if quoted else line[:end]
        if (end <= 0 and raw) or line[end : end + 1] != b"," or b'"' in raw:
            raise self.error("does not begin with a gene's name and a comma", line=self.line)
        try:
            name = raw.decode()
        except UnicodeDecodeError as error:
            what = "begins with a name that is not UTF-8 text"
            raise self.error(what, line=self.line) from error
        if not name or not name.isprintable():
            raise self.error(f"begins with {name!r}, which is no gene's name", line=self.line)
        # A comma stands before each value; the margins belong to none.
        text = np.frombuffer(_MARGIN + line[end:] + _MARGIN, np.uint8)
        n = len(text) - len(_MARGIN)
        comma, zero, point = (text == letter for letter in b",0.")
        # Whether "0" or "0.0" and another comma, or the end, follow on a byte.
        ends_long = point[2 : n + 2] & zero[3 : n + 3] & comma[4 : n + 4]
        is_zero = zero[1 : n + 1] & (comma[2 : n + 2] | ends_long)
        commas = np.flatnonzero(comma[: n + 1])[len(_MARGIN) :]
        fields = np.flatnonzero(~is_zero[commas[:-1]])
        starts, ends = commas[fields] + 1, commas[fields + 1]
        points = np.append(np.flatnonzero(point), [n, n])
        k = np.searchsorted(points, starts)
        point, second = np.minimum(points[k], ends), points[k + 1]
        # Digits and at most one point, few enough that their whole number is exact in float64, as
        # is the power of ten: the quotient is then the nearest float64, as of Python's float.
        n_before, decimals = point - starts, np.maximum(ends - point - 1, 0)
        usual = (second >= ends) & (n_before + decimals > 0) & (n_before <= 8) & (decimals <= 16)
        windows = np.lib.stride_tricks.sliding_window_view(text, 8)
        power = _POWERS[np.minimum(decimals, 16)]
        number = _digits(windows, point, np.minimum(n_before, 8)) * power
        number += _digits(windows, ends - 8, np.clip(decimals - 8, 0, 8)) * 1e8
        number += _digits(windows, ends, np.minimum(decimals, 8))
        usual &= number < _EXACT
        if line[end:].translate(None, b"0123456789.,"):
            usual[:] = False
        values = number / power
        for i in np.flatnonzero(~usual | (values > limit)).tolist():
            token = text[starts[i] : ends[i]].tobytes()
            values[i], decimals[i] = self._number(token, int(fields[i]), limit)
        n, n_fields = len(self.cells), len(commas) - 1
        if n_fields != n:
            what = f"holds more values than the {n} cells of the header"
            if n_fields < n:
                what = f"holds {n_fields} values, fewer than the {n} cells of the header"
            raise self.error(what, line=self.line)
        kept = values > 0  # zeros of another spelling
        return name, fields[kept], values[kept], decimals[kept]

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
        raise self.error(what, line=self.line)


def _digits(
    windows: NDArray[np.uint8], ends: NDArray[np.int64], n: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the numbers that the last ``n`` of 8 digits before ``ends`` spell.

    ``windows`` holds every 8 bytes of the text, shape ``(n_bytes - 7, 8)``; ``n`` is 0 to 8 of
    every number. All 8 digits are in one word, the first in the lowest byte (Lemire 2021,
    doi:10.1002/spe.2984): neighbours are joined to numbers below 100, these to numbers below
    10,000, and these two to one.
    """
    word: NDArray[Any] = windows[ends - 8].view("<u8").ravel() & _LAST[n]
    word = (word * (1 + (10 << 8)) >> 8) & 0x00FF00FF00FF00FF
    word = (word * (1 + (100 << 16)) >> 16) & 0x0000FFFF0000FFFF
    return (word * (1 + (10_000 << 32)) >> 32).astype(np.float64)
