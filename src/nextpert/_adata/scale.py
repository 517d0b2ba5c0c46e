"""Whether a matrix holds counts, scaled counts, logarithms or something else, from a sample.

Counting leaves a trace. The counts of a cell are whole numbers, so its scaled counts are multiples
of the value of one count, which is the smallest value above 0 in most cells. If this holds after
``expm1``, the values are logarithms of scaled counts; if it takes ``expm1`` twice, they are
logarithms of logarithms. On four real screens (28 to 500 genes), scaled to the median, 1e4 and 1e6
counts, the share of multiples is 1.00 on the right scale, and 0.25 or less on the others.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata.read import sample_blocks, slot
from nextpert._adata.stored import eager
from nextpert._adata.table import is_table
from nextpert._warn import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles

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
_DEPTHS = (0, 1, 2)  # numbers of logarithms to undo
_MOST_VALUES = 2**22  # of which ratios are taken: a second's work


class Sample:
    """A sample of values: what is seen of all of them, and the cells that ratios are taken of.

    Attributes
    ----------
    n_cells, minimum, maximum
        Of all values that are finite.
    whole
        Whether all are whole numbers of 0 or more.
    cells
        The values above 0 of the first cells, which hold a few million of them at most: CSR.
    """

    def __init__(self, blocks: Iterable[Any]) -> None:
        self.n_cells, self.minimum, self.maximum, self.whole = 0, np.inf, -np.inf, True
        kept, n_values = [sp.csr_array((0, 0))], 0
        for values in blocks:
            block = sp.csr_array(values, dtype=np.float64, copy=True)
            block.data[~np.isfinite(block.data)] = 0.0
            block.eliminate_zeros()
            self.n_cells += block.shape[0]
            seen = block.data
            if seen.size < block.shape[0] * block.shape[1]:
                seen = np.append(seen, 0.0)  # all zeros are alike
            if seen.size:
                self.minimum = min(self.minimum, float(seen.min()))
                self.maximum = max(self.maximum, float(seen.max()))
                self.whole = self.whole and bool(((seen >= 0) & (seen == np.floor(seen))).all())
            if n_values < _MOST_VALUES:
                kept.append(block)
                n_values += block.nnz
        self.cells = sp.vstack(kept[1:] or kept, format="csr")

    def logarithms(self, bases: Sequence[float]) -> int | None:
        """Return how many logarithms the values are, ``None`` where they do not tell."""
        n_values = np.diff(self.cells.indptr)
        rows = np.flatnonzero(n_values)
        starts, counts = self.cells.indptr[rows], n_values[rows]
        shares, constant = dict.fromkeys(_DEPTHS, 0.0), None
        for depth in _DEPTHS:
            for base in bases if depth else (1.0,):
                with np.errstate(all="ignore"):  # large values are no logarithms
                    values = self.cells.data
                    for _ in range(depth):
                        values = np.expm1(values * np.log(base))
                    n, *of_number = _whole_ratios(values, starts, counts)
                    totals = np.add.reduceat(values, starts)
                if n >= FEWEST and np.count_nonzero(of_number) >= _SEVERAL:
                    shares[depth] = max(shares[depth], sum(of_number) / n)
                if constant is None and self._are_constant(totals):
                    constant = depth
        best, second = sorted(shares, key=shares.__getitem__, reverse=True)[:2]
        if shares[best] < _MOST or shares[best] - shares[second] < _MARGIN:
            return constant
        # Values of any scale are multiples of 0.1, 0.01, ... where they were rounded.
        units = np.log10(np.minimum.reduceat(self.cells.data, starts)) / _CONSTANT
        step, n_cells = np.unique(np.round(units).astype(np.int64), return_counts=True)
        most = n_cells.argmax()
        rounded = n_cells[most] >= len(units) / 2 and step[most] % round(1 / _CONSTANT) == 0
        return None if best == 0 and rounded else best

    def _are_constant(self, totals: Values) -> bool:
        """Whether the sums of cells are the same, and those of enough cells and values."""
        enough = len(totals) >= max(_FEWEST_TOTALS, self.cells.shape[0] / 2)
        several = self.cells.nnz >= 2 * len(totals)
        if not (enough and several and np.isfinite(totals).all()):
            return False
        totals = totals / totals.max()  # squares of large ones overflow
        return bool(totals.std() <= _CONSTANT * totals.mean())


def _whole_ratios(values: Values, starts: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many values are some times the smallest of their cell, and 2, 3, ... times."""
    ratio = values / np.repeat(np.minimum.reduceat(values, starts), counts)
    ratio = ratio[(ratio > _RATIOS[0]) & (ratio < _RATIOS[1])]
    number = np.round(ratio)
    close = number[np.abs(ratio - number) < _CLOSE].astype(np.int64)
    return np.append(len(ratio), np.bincount(close, minlength=int(_RATIOS[1]) + 1))


logger = logging.getLogger(__name__)

# log2(1 + 1e6): the largest logarithm of counts per million. Of what is used in practice, only
# logarithms of intensities, which reach 1e10 or more, are larger.
_LARGEST_USUAL = float(np.log2(1 + 1e6))
# log2 of the largest 64-bit integer: no logarithm of a count or intensity is larger.
_LARGEST = 64.0
# Up to here ln(1 + x) differs from x by 5% or less: cells were scaled to a sum of 1 or so.
_ABOUT_LINEAR = 0.1


@dataclass(frozen=True)
class Scale:
    """What a sample of the values says of their scale.

    Parameters
    ----------
    kind
        In words, such as ``"log-normalised"``.
    minimum, maximum
        Of the sample.
    n_cells
        Cells in it.
    whole
        Whether all values are whole numbers of 0 or more.
    fault
        Why the values cannot be log-normalised, and the remedy; empty where they can.
    doubt
        Why they may not be, where the evidence is not conclusive.
    """

    kind: str
    minimum: float
    maximum: float
    n_cells: int
    whole: bool
    fault: str = ""
    doubt: str = ""

    def stored(self, *, checked: bool) -> dict[str, Any]:
        """Return what ``uns["screen"]["values"]`` keeps of it."""
        return {
            "scale": self.kind,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "n_cells": self.n_cells,
            "checked": bool(checked),
        }


def read_scale(
    adata: ad.AnnData, columns: NDArray[np.int64], cells: NDArray[np.int64], layer: str | None
) -> Scale:
    """Return the scale of the values of some genes, by 1,000 of ``cells`` at most."""
    if is_table(adata):
        return Scale("effects of a table", 0.0, 0.0, 0, whole=False)
    logged: Any = eager(adata.uns.get("log1p"))
    base = logged.get("base") if hasattr(logged, "get") else None  # as scanpy writes it
    known = [float(base)] if isinstance(base, Real) and float(base) > 1 else []
    sample = Sample(sample_blocks(adata, columns, cells, layer=layer))
    low, high = sample.minimum, sample.maximum
    if low > high:
        return Scale("no values", 0.0, 0.0, sample.n_cells, whole=True)
    where, scale = (
        slot(layer),
        partial(Scale, minimum=low, maximum=high, n_cells=sample.n_cells, whole=sample.whole),
    )
    if low < 0:  # centred or simulated values, axes of effects
        return scale("values below 0, used as they are")
    prepare = "call pp.perturbation_screen on counts, or name the layer of log-normalised values"
    if sample.whole and high - low < 2:  # seen or not may be so on any scale
        return scale("0 and 1, or one value")
    if sample.whole:
        fault = f"{where} holds counts (whole numbers, up to {high:,.4g}), not log-normalised "
        return scale("counts", fault=f"{fault}expression: {prepare}.")
    logarithms = sample.logarithms([float(np.exp(1)), 2.0, 10.0, *known])
    if logarithms == 0:
        fault = (
            f"{where} holds scaled counts without a logarithm (multiples of one number in every "
            f"cell, or of one sum; up to {high:,.4g}): call scanpy.pp.log1p on them, or {prepare}."
        )
        return scale("scaled counts", fault=fault)
    if logarithms == 2:
        fault = (
            f"{where} holds logarithms of logarithms (log1p was applied twice; up to {high:,.3g}): "
            f"begin with the counts, and {prepare}."
        )
        return scale("logarithms of logarithms", fault=fault)
    if high <= _ABOUT_LINEAR:
        doubt = (
            f"{where} holds values of {high:.2g} or less, on which a logarithm has no effect: "
            f"scale cells to about as many counts as they have before log1p, not to 1."
        )
        return scale("values near 0", doubt=doubt)
    if logarithms == 1:
        return scale("log-normalised")
    if high > _LARGEST:
        fault = (
            f"{where} holds values up to {high:,.4g}, but no logarithm of a count or intensity "
            f"exceeds {_LARGEST:g}: take logarithms first, {prepare}."
        )
        return scale("values too large for logarithms", fault=fault)
    if high > _LARGEST_USUAL:
        doubt = (
            f"{where} holds values up to {high:.3g}, more than the logarithm of all counts per "
            f"million ({_LARGEST_USUAL:.1f}): check that they are logarithms."
        )
        return scale("large values", doubt=doubt)
    return scale("taken for log-normalised")


def check_scale(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    cells: NDArray[np.int64],
    roles: Roles,
    *,
    only_warn: bool = False,
) -> None:
    """Raise if values that a call reads are not log-normalised, and were not looked at before.

    Parameters
    ----------
    adata, columns, cells
        What the call reads.
    roles
        Its roles; ``roles.values`` is there where ``pp.setup_screen`` has looked at the layer.
    only_warn
        Whether to warn in place of raising.

    Raises
    ------
    ValueError
        If the values cannot be log-normalised.
    """
    if roles.values:
        return
    scale = read_scale(adata, columns, cells, roles.layer)
    if scale.fault and not only_warn:
        raise ValueError(overruled_by(scale, "check_scale=False to pp.setup_screen"))
    report_scale(scale, roles.layer)


def overruled_by(scale: Scale, where: str) -> str:
    """Return the message of an error, and ``where`` to say that it should not be raised."""
    return f"{scale.fault} To use these values as they are, pass {where}."


def report_scale(scale: Scale, layer: str | None, *, checked: bool = True) -> None:
    """Log what was found; where it is ``checked``, warn of what may be no log-normalised values."""
    logger.info(
        "%s: %s, values from %.3g to %.3g in %d cells.",
        slot(layer), scale.kind, scale.minimum, scale.maximum, scale.n_cells,
    )  # fmt: skip
    if checked and (scale.fault or scale.doubt):
        warn(scale.fault or scale.doubt)
