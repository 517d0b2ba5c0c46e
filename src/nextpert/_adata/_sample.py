"""What a sample of values keeps of the counting that they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Values = NDArray[np.float64]

# Ratios of values to the smallest of their cell that are looked at: above 1, and up to 10, since
# files that were rounded keep larger ones less exactly. A ratio counts as whole this close to a
# whole number, where a random one lies with probability 0.1.
_RATIOS, _CLOSE = (1.5, 10.5), 0.05
# Fewer ratios than this are no evidence. On the right scale at least 0.9 of them are whole, and on
# every other a share smaller by 0.3. They must take three different values or more: where there are
# few different ones, such as ratios of 0.5 and 1, one may be whole by chance.
FEWEST, _MOST, _MARGIN, _SEVERAL = 50, 0.9, 0.3, 3
# Cells have the same total if its coefficient of variation is below 0.001. It is 0.1 or more on
# other scales than that on which they were normalised.
_CONSTANT, _FEWEST_TOTALS = 1e-3, 20
# 32-bit floats tell whether a number of this size is whole plus 0.003, but not one of 10,000.
_TOLD = 1000.0
_DEPTHS = (0, 1, 2)  # numbers of logarithms to undo
_MOST_VALUES = 2**22  # of which ratios are taken: a second's work
# Genes were standardised if 0.8 of them have a standard deviation within this factor of 1. The
# factor is for the sample, 0.8 for rare genes. On a linear scale they differ a hundredfold.
_FACTOR, _MOST_GENES = 1.5, 0.8


@dataclass
class Sample:
    """What is kept of the blocks of a sample.

    Parameters
    ----------
    bases
        Of the logarithms to undo.

    Attributes
    ----------
    least
        The smallest value above 0.
    offset, one_offset, n_told
        How far values above 0 lie above whole numbers; whether that is the same for all; how many.
    n_looked, n_values
        Cells and values above 0 that what follows is of.
    ratios
        By number of logarithms and base, how many ratios there are, and how many are 2, 3, ...
    totals
        By number of logarithms and base, the sum of every cell.
    units
        The smallest value above 0 of every cell.
    moments
        Of every gene: cells with a value, sum and sum of squares, shape ``(3, n_genes)``.
    """

    bases: Iterable[float]
    n_cells: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    whole: bool = True
    least: float = np.inf
    offset: float | None = None
    one_offset: bool = True
    n_told: int = 0
    n_looked: int = 0
    n_values: int = 0
    ratios: dict[tuple[int, float], NDArray[np.int64]] = field(default_factory=dict)
    totals: dict[tuple[int, float], list[Values]] = field(default_factory=dict)
    units: list[Values] = field(default_factory=list)
    moments: Values | None = None

    def add(self, values: Any) -> None:
        """Take up a block, dense or sparse; values that are not finite are passed over."""
        block = sp.csr_array(values, dtype=np.float64, copy=True)
        block.data[~np.isfinite(block.data)] = 0.0
        block.eliminate_zeros()
        self.n_cells += block.shape[0]
        seen = block.data
        if seen.size < block.shape[0] * block.shape[1]:
            seen = np.append(seen, 0.0)  # all zeros are alike
        if not seen.size:
            return
        self.minimum = min(self.minimum, float(seen.min()))
        self.maximum = max(self.maximum, float(seen.max()))
        self.whole = self.whole and bool(((seen >= 0) & (seen == np.floor(seen))).all())
        if self.minimum < 0 or not block.nnz:
            return
        self.least = min(self.least, float(block.data.min()))
        self._add_offset(block.data)
        if self.n_values < _MOST_VALUES:
            self.n_values += block.nnz
            self.n_looked += block.shape[0]
            self._add_moments(block)
            self._add_cells(block)

    def _add_offset(self, positive: Values) -> None:
        told = positive[positive <= _TOLD]
        if not told.size:
            return
        if self.offset is None:
            self.offset = float(told.min() % 1)
        off = np.abs((told - self.offset + 0.5) % 1 - 0.5)
        self.one_offset = self.one_offset and bool((off <= 1e-5 + 4e-7 * told).all())
        self.n_told += len(told)

    def _add_moments(self, block: sp.csr_array) -> None:
        n_genes = block.shape[1]
        part = np.stack(
            [
                np.bincount(block.indices, weights, n_genes).astype(np.float64)
                for weights in (None, block.data, block.data**2)
            ]
        )
        self.moments = part if self.moments is None else self.moments + part

    def _add_cells(self, block: sp.csr_array) -> None:
        n_values = np.diff(block.indptr)
        rows = np.flatnonzero(n_values)
        starts, counts = block.indptr[rows], n_values[rows]
        self.units.append(np.minimum.reduceat(block.data, starts))
        for depth in _DEPTHS:
            for base in self.bases if depth else (1.0,):
                key = (depth, base)
                with np.errstate(all="ignore"):  # large values are no logarithms
                    values = _undone(block.data, base, depth)
                    n = _whole_ratios(values, starts, counts)
                    totals = np.add.reduceat(values, starts)
                self.ratios[key] = self.ratios.get(key, 0) + n
                self.totals.setdefault(key, []).append(totals)

    def logarithms(self) -> int | None:
        """Return how many logarithms the values are, ``None`` where they do not tell."""
        shares = dict.fromkeys(_DEPTHS, 0.0)
        for (depth, _), (n, *of_number) in self.ratios.items():
            if n >= FEWEST and np.count_nonzero(of_number) >= _SEVERAL:
                shares[depth] = max(shares[depth], sum(of_number) / n)
        best, second = sorted(shares, key=shares.__getitem__, reverse=True)[:2]
        if shares[best] >= _MOST and shares[best] - shares[second] >= _MARGIN:
            return None if best == 0 and self._are_rounded() else best
        return self._constant_totals()

    def _are_rounded(self) -> bool:
        """Whether values of any scale may be multiples of 0.1, 0.01, ... as they were rounded."""
        steps = np.round(np.log10(np.concatenate(self.units)) / _CONSTANT).astype(np.int64)
        step, n = np.unique(steps, return_counts=True)
        return bool(n.max() >= len(steps) / 2 and step[n.argmax()] % round(1 / _CONSTANT) == 0)

    def _constant_totals(self) -> int | None:
        for (depth, _), parts in self.totals.items():
            totals = np.concatenate(parts)
            enough = len(totals) >= max(_FEWEST_TOTALS, self.n_looked / 2)
            several = self.n_values >= 2 * len(totals)
            if not (enough and several and np.isfinite(totals).all()):
                continue
            totals = totals / totals.max()  # squares of large ones overflow
            if totals.std() <= _CONSTANT * totals.mean():
                return depth
        return None

    def is_standardised(self) -> bool:
        """Whether most genes have a standard deviation near 1."""
        if self.moments is None:
            return False
        n, total, squares = self.moments[:, self.moments[0] >= _FEWEST_TOTALS]
        variance = squares / self.n_looked - (total / self.n_looked) ** 2
        near = (variance > _FACTOR**-2) & (variance < _FACTOR**2)
        return len(n) > 0 and bool(near.mean() >= _MOST_GENES)


def _undone(values: Values, base: float, times: int) -> Values:
    for _ in range(times):
        values = np.expm1(values * np.log(base))
    return values


def _whole_ratios(values: Values, starts: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many values are some times the smallest of their cell, and 2, 3, ... times."""
    ratio = values / np.repeat(np.minimum.reduceat(values, starts), counts)
    ratio = ratio[(ratio > _RATIOS[0]) & (ratio < _RATIOS[1])]
    number = np.round(ratio)
    close = number[np.abs(ratio - number) < _CLOSE].astype(np.int64)
    return np.append(len(ratio), np.bincount(close, minlength=int(_RATIOS[1]) + 1))
