"""Tables of genes (or antibodies) x cells, read a line at a time; errors name file and line."""

from __future__ import annotations

import gzip
import logging
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import closest, list_names
from nextpert._adata.progress import progress
from nextpert._warn import warn
from nextpert.datasets._scp1064.rows import counts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from nextpert.datasets._scp1064.rows import Entries, Options, Study

    Line = tuple[str, NDArray[np.int64], NDArray[np.float64]]

logger = logging.getLogger(__name__)
LARGEST = float(np.log1p(1e6)) + 1e-6  # all of a cell's reads on one gene
_MILLION = 10.0  # how far a sum of TPM may be from a million, by the digits printed
_ZEROS = (b"0", b"0.0")  # most fields


class WideTable:
    """A csv file with a column per cell, gzipped or not.

    Attributes
    ----------
    cells
        Names in the header.
    line
        Number of the line read last, the header being line 1.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 1
        header = next(self._lines(), b"")
        try:
            corner, *self.cells = header.decode("utf-8-sig").replace('"', "").split(",")
        except UnicodeDecodeError as error:
            raise self.error("is no line of names") from error
        twice = pd.Index(self.cells)
        twice = twice[twice.duplicated()]
        if corner.upper() not in ("GENE", "PROTEIN", "") or not self.cells or "" in self.cells:
            raise self.error("does not begin with GENE, or Protein, and names of cells")
        if len(twice):
            raise self.error(f"names cell {twice[0]!r} twice")

    def error(self, what: str) -> ValueError:
        """Return an error about the line read last."""
        return ValueError(f"{self.path.name!r}, line {self.line} {what}.")

    def rows(self, *, least: float = 0.0, most: float = np.inf, bar: Any = None) -> Iterator[Line]:
        """Yield every line's name, its fields that are not zero, and their values.

        Values below ``least`` or above ``most`` are errors. The bar grows by the bytes read.
        """
        lines = self._lines(bar)
        next(lines)
        names: set[str] = set()
        for self.line, line in enumerate(lines, 2):
            first, *texts = line.split(b",")
            if len(texts) != len(self.cells):
                raise self.error(f"holds {len(texts)} values, not one of {len(self.cells)} cells")
            name = first.decode("utf-8", "replace").strip('"')
            if not name or name in names:
                raise self.error(f"begins with {name!r}, no name of its own")
            names.add(name)
            fields = np.array([i for i, text in enumerate(texts) if text not in _ZEROS], np.int64)
            try:
                values = np.array([float(texts[i]) for i in fields])
            except ValueError as error:
                raise self.error(f"holds what is no number ({error})") from error
            wrong = np.flatnonzero(~((values >= least) & (values <= most) & np.isfinite(values)))
            if len(wrong):
                what = f"holds {values[wrong[0]]:g} for cell {self.cells[fields[wrong[0]]]!r}"
                raise self.error(f"{what}, which is not between {least:g} and {most:.4g}")
            yield name, fields[values != 0], values[values != 0]
        if self.line == 1:
            raise self.error("is the only one")

    def _lines(self, bar: Any = None) -> Iterator[bytes]:
        with self.path.open("rb") as raw:
            opened: Any = gzip.GzipFile(fileobj=raw) if self.path.suffix == ".gz" else raw
            try:
                for line in opened:
                    yield line.rstrip(b"\r\n")
                    if bar is not None:
                        bar.update(raw.tell() - bar.n)
            except (EOFError, OSError, zlib.error) as error:
                raise self.error(
                    f"is followed by a truncated or corrupted part ({error})"
                ) from error


def read_expression(
    tables: Sequence[WideTable], study: Study, options: Options
) -> Iterator[Entries]:
    """Yield the entries of tables of genes x cells; tables without any cell wanted are left out.

    Names of genes are appended to ``study.genes`` as they come, unless some are wanted.
    """
    row, umi = study.row, study.obs["UMI_count"].to_numpy(dtype=np.float64)
    placed = [(table, study.obs.index.get_indexer(pd.Index(table.cells))) for table in tables]
    placed = [(table, place) for table, place in placed if study.kept[place].any()]
    column = {name: j for j, name in enumerate(study.genes)}
    genes: list[str] = []  # of the first file
    for table, place in placed:
        rows, sums, seen = row[place], np.zeros(len(place)), []
        with progress(table.path.stat().st_size, "Expression", unit="B", unit_scale=True) as bar:
            for gene, fields, values in table.rows(most=LARGEST, bar=bar):
                seen.append(gene)
                if options.genes is None and gene not in column:
                    column[gene] = len(study.genes)
                    study.genes.append(gene)
                sums[fields] += np.expm1(values)
                where = f"{table.path.name!r}, line {table.line},"
                counts = counts_of(values, umi[place[fields]], where, options)
                kept = rows[fields] >= 0
                if gene in column:
                    at = np.full(int(kept.sum()), column[gene])
                    yield rows[fields[kept]], at, values[kept], counts[kept]
        genes = genes or seen
        if set(seen) != set(genes):
            other = sorted(set(seen) ^ set(genes))
            message = (
                f"{table.path.name!r} and the first file differ in genes: {list_names(other)}."
            )
            raise ValueError(message)
        if unknown := [name for name in column if name not in set(seen)]:
            message = (
                f"{table.path.name!r} holds no such genes: {list_names(unknown)}."
                f"{closest(unknown, seen)} Correct the names or leave these genes out."
            )
            raise ValueError(message)
        _check_sums(table, sums, verify=options.verify)
    study.facts["n_genes_study"] = len(genes)


def _check_sums(table: WideTable, sums: NDArray[np.float64], *, verify: bool) -> None:
    """Compare every cell's transcripts per million with a million."""
    off = np.abs(sums - 1e6)
    if (off <= _MILLION).all():
        logger.info("%s: the values of every cell sum up to a million TPM", table.path.name)
        return
    worst = int(off.argmax())
    message = (
        f"{table.path.name!r}: the values of {int((off > _MILLION).sum())} of {len(off)} cells do "
        f"not sum up to a million transcripts per million (cell {table.cells[worst]!r}: "
        f"{sums[worst]:.2f}): values are altered, or genes missing."
    )
    if verify:
        message += " Download the file anew, or pass `verify=False` to load it as it is."
        raise ValueError(message)
    warn(message)
