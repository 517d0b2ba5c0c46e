"""The scale of a matrix (counts, scaled counts, logarithms or other values), from a sample.

The counts of a cell are whole numbers, so its scaled counts are multiples of the value of one
count, which is the smallest value above 0 in most cells. If the values are multiples after
``expm1``, they are logarithms of scaled counts; if they are multiples only after two ``expm1``,
they are logarithms of logarithms. On four real screens (28 to 500 genes), scaled to the median, 1e4
and 1e6 counts, the share of multiples is 1.00 on the right scale, and 0.25 or less on all others.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from nextpert._adata.read import read_sample, slot
from nextpert._adata.table import is_table
from nextpert._warn import warn

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles

logger = logging.getLogger(__name__)

# Range of the ratios (value to smallest value of the cell) that are examined: above 1 and up to 10,
# because rounding in files makes larger ratios less exact.
_RATIOS = (1.5, 10.5)
# A ratio counts as whole if it is this close to a whole number; a random ratio is so with
# probability 0.1.
_CLOSE = 0.05
_MIN_RATIOS = 50  # minimum number of ratios for a conclusion
_MIN_WHOLE = 0.8  # minimum share of the ratios that are whole on the right scale
_MIN_MARGIN = 0.3  # by which this share exceeds that on every other scale
# Minimum number of different values among whole ratios: if few values occur, one of them may be
# whole by chance.
_MIN_VALUES = 3
# Where all counts of a cell are large, as of 15 highly expressed genes, the smallest value is not
# one count: 1 to 10 counts are tried. In the 15 genes of TAP-seq with most counts, at most 0.3 of
# the ratios are then whole on a wrong scale, and 0.7 or more on the right one.
_UNITS = 10
_MIN_WHOLE_OF_UNITS = 0.6
_LARGEST = 64.0  # no logarithm of a 64-bit integer, to base 2 or larger, exceeds this


class Scale(NamedTuple):
    """The scale of a sample of values: ``kind`` in words, and ``fault``.

    ``fault`` states why the values cannot be log-normalised, and the remedy; it is empty if they
    can be. ``whole`` is true if all values are whole numbers of at least 0. ``total`` is the mean
    total of the scaled counts of a cell; NaN if the values are not their logarithms. ``multiples``
    is the share of values that are logarithms of multiples of one count (NaN if this is unclear),
    ``zeros`` and ``negative`` the shares of values that are 0 and below 0.
    """

    kind: str
    minimum: float = 0.0
    maximum: float = 0.0
    n_cells: int = 0
    whole: bool = False
    fault: str = ""
    total: float = np.nan
    multiples: float = np.nan
    zeros: float = 0.0
    negative: float = 0.0

    def stored(self, *, checked: bool) -> dict[str, Any]:
        """Return the record of the scale in ``uns["screen"]["values"]``."""
        names = ("minimum", "maximum", "n_cells")
        parts = {name: getattr(self, name) for name in names}
        return {"scale": self.kind, **parts, "checked": bool(checked)}


def read_scale(
    adata: ad.AnnData, columns: NDArray[np.int64], cells: NDArray[np.int64], layer: str | None
) -> Scale:
    """Return the scale of the values of some genes, from at most 1,000 of ``cells``."""
    if is_table(adata):
        return Scale("effects of a table")
    parts = [
        sp.csr_array(each, dtype=np.float64, copy=True)
        for each in read_sample(adata, columns, cells, layer)
    ]
    sample = sp.vstack(parts or [sp.csr_array((0, 0))], format="csr")
    n_other = int((sample.data != 0).sum())  # NaN among them
    sample.data[~np.isfinite(sample.data)] = 0.0
    sample.eliminate_zeros()
    if 0 in sample.shape:
        return Scale("no values", n_cells=sample.shape[0], whole=True)
    low, high = float(sample.min()), float(sample.max())
    whole = low >= 0 and bool((sample.data == np.floor(sample.data)).all())
    (n, multiples), holds = _n_logarithms(sample), ""
    if low < 0:  # centred or simulated values, axes of effects
        kind = "values below 0, used as they are"
    elif whole and high - low < 2:  # detection (0 or 1) occurs on any scale
        kind = "0 and 1, or one value"
    elif whole:
        kind, holds = "counts", "counts (whole numbers), not log-normalised expression"
    elif n == 0:
        kind = "scaled counts"
        holds = "scaled counts without a logarithm (multiples of one number in every cell)"
    elif n == 2:
        kind = "logarithms of logarithms"
        holds = "logarithms of logarithms (log1p was applied twice)"
    elif high > _LARGEST:
        kind = "values too large for logarithms"
        holds = f"values above {_LARGEST:g}, which no logarithm of a count or intensity exceeds"
    else:
        kind = "log-normalised" if n == 1 else "assumed log-normalised"
    fault = (
        f"{slot(layer)} holds {holds}, with a maximum of {high:,.4g}: call pp.perturbation_screen "
        f"on counts, or pass the layer of log-normalised values as layer."
    )
    total = float(sample.expm1().sum()) / sample.shape[0] if kind == "log-normalised" else np.nan
    size = sample.shape[0] * sample.shape[1]
    return Scale(
        kind,
        low,
        high,
        sample.shape[0],
        whole,
        fault if holds else "",
        total,
        multiples,
        1 - n_other / size,
        float((sample.data < 0).sum()) / size,
    )


def _n_logarithms(sample: sp.csr_array) -> tuple[int | None, float]:
    """Return how many logarithms were taken of positive values, ``None`` if this is unclear.

    Also the share of ratios that are whole after one ``expm1``, NaN if there are too few ratios.
    The smallest value of a cell may stand for several counts: the number of counts with the most
    whole ratios is taken for each cell.
    """
    counts = np.diff(sample.indptr)
    starts, counts = sample.indptr[:-1][counts > 0], counts[counts > 0]
    cell = np.repeat(np.arange(len(counts)), counts)
    shares = np.full(3, np.nan)
    # One count first, then several; the minimum number of ratios of a cell is that of different
    # values if the number of counts is chosen.
    of_units = (_UNITS, _MIN_VALUES, _MIN_WHOLE_OF_UNITS)
    for n_units, min_values, min_whole in ((1, 1, _MIN_WHOLE), of_units):
        values = sample.data
        for depth in range(3 * bool(len(starts))):
            best, weight = np.full(len(counts), -1.0), np.zeros(len(counts))
            numbers: set[float] = set()
            with np.errstate(all="ignore"):  # large values overflow
                ratio = values / np.minimum.reduceat(values, starts)[cell]
                values = np.expm1(values)
                for unit in range(1, n_units + 1):
                    scaled = ratio * unit
                    used = (ratio > 1 + (_RATIOS[0] - 1) / unit) & (scaled < _RATIOS[1])
                    whole = used & (np.abs(scaled - np.round(scaled)) < _CLOSE)
                    numbers.update(np.round(scaled[whole]).tolist())
                    n = np.bincount(cell, used, len(counts))
                    share = np.where(
                        n >= min_values, np.bincount(cell, whole, len(counts)) / n, -1.0
                    )
                    weight = np.where(share > best, n, weight)
                    best = np.maximum(best, share)
            n_ratios, n_whole = weight[best >= 0].sum(), (best * weight)[best >= 0].sum()
            is_clear = n_ratios >= _MIN_RATIOS
            if is_clear:
                shares[depth] = n_whole / n_ratios * (len(numbers) >= _MIN_VALUES)
        second, highest = np.sort(np.nan_to_num(shares))[1:]
        if highest >= min_whole and highest - second >= _MIN_MARGIN:
            return int(np.nanargmax(shares)), float(shares[1])
    return None, float(shares[1])


def check_scale(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    cells: NDArray[np.int64],
    roles: Roles,
    *,
    only_warn: bool = False,
) -> None:
    """Raise, or warn, if values that a call reads are not log-normalised.

    If ``pp.setup_screen`` has checked the layer (``roles.values``), nothing is read.
    """
    if roles.values:
        return
    scale = read_scale(adata, columns, cells, roles.layer)
    if scale.fault and not only_warn:
        raise ValueError(overruled_by(scale, "check_scale=False to pp.setup_screen"))
    report_scale(scale, roles.layer)


def overruled_by(scale: Scale, where: str) -> str:
    """Return the error message, with ``where``: the argument that disables the check."""
    return f"{scale.fault} To use these values unchanged, pass {where}."


def report_scale(scale: Scale, layer: str | None, *, checked: bool = True) -> None:
    """Log the scale; if it is ``checked``, warn if values cannot be log-normalised."""
    logger.info(
        "%s: %s, values from %.3g to %.3g in %d cells.",
        slot(layer),
        scale.kind,
        scale.minimum,
        scale.maximum,
        scale.n_cells,
    )
    if checked and scale.fault:
        warn(scale.fault)
