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

from nextpert._adata.read import read_sample, slot
from nextpert._adata.stored import eager
from nextpert._adata.table import is_table
from nextpert._warn import warn

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles

logger = logging.getLogger(__name__)

# Ratios of values to the smallest of their cell that are looked at: above 1, and up to 10, since
# files that were rounded keep larger ones less exactly. A ratio counts as whole this close to a
# whole number, where a random one lies with probability 0.1.
_RATIOS, _CLOSE = (1.5, 10.5), 0.05
# Fewer ratios than this are no evidence. On the right scale at least 0.8 of them are whole, and on
# every other a share smaller by 0.3. They must take three different values or more: where there are
# few different ones, such as ratios of 0.5 and 1, one may be whole by chance.
_FEWEST, _MOST, _MARGIN, _SEVERAL = 50, 0.8, 0.3, 3
_LARGEST = 64.0  # no logarithm of a 64-bit integer is larger, by whatever base


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
    """

    kind: str
    minimum: float
    maximum: float
    n_cells: int
    whole: bool
    fault: str = ""

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
    parts = [
        sp.csr_array(each, dtype=np.float64, copy=True)
        for each in read_sample(adata, columns, cells, layer)
    ]
    sample = sp.vstack(parts or [sp.csr_array((0, 0))], format="csr")
    sample.data[~np.isfinite(sample.data)] = 0.0
    sample.eliminate_zeros()
    if 0 in sample.shape:
        return Scale("no values", 0.0, 0.0, sample.shape[0], whole=True)
    low, high = float(sample.min()), float(sample.max())
    whole = low >= 0 and bool((sample.data == np.floor(sample.data)).all())
    scale = partial(Scale, minimum=low, maximum=high, n_cells=sample.shape[0], whole=whole)
    # Centred or simulated values, axes of effects.
    if low < 0:
        return scale("values below 0, used as they are")
    # Seen or not may be so on any scale.
    if whole and high - low < 2:
        return scale("0 and 1, or one value")
    logged: Any = eager(adata.uns.get("log1p"))
    base = logged.get("base") if hasattr(logged, "get") else None  # as scanpy writes it
    bases = [
        np.exp(1),
        2.0,
        10.0,
        *([float(base)] if isinstance(base, Real) and float(base) > 1 else []),
    ]
    logarithms = _n_logarithms(sample, bases)
    where = slot(layer)
    prepare = "call pp.perturbation_screen on counts, or name the layer of log-normalised values"
    if whole:
        fault = f"{where} holds counts (whole numbers, up to {high:,.4g}), not log-normalised "
        return scale("counts", fault=f"{fault}expression: {prepare}.")
    if logarithms == 0:
        fault = (
            f"{where} holds scaled counts without a logarithm (multiples of one number in every "
            f"cell, up to {high:,.4g}): call scanpy.pp.log1p on them, or {prepare}."
        )
        return scale("scaled counts", fault=fault)
    if logarithms == 2:
        fault = (
            f"{where} holds logarithms of logarithms (log1p was applied twice; up to {high:,.3g}): "
            f"begin with the counts, and {prepare}."
        )
        return scale("logarithms of logarithms", fault=fault)
    if high > _LARGEST:
        fault = (
            f"{where} holds values up to {high:,.4g}, but no logarithm of a count or intensity "
            f"exceeds {_LARGEST:g}: take logarithms first, {prepare}."
        )
        return scale("values too large for logarithms", fault=fault)
    return scale("log-normalised" if logarithms == 1 else "taken for log-normalised")


def _n_logarithms(sample: sp.csr_array, bases: Iterable[float]) -> int | None:
    """Return how many logarithms positive values are, ``None`` where they do not tell."""
    counts = np.diff(sample.indptr)
    starts, counts = sample.indptr[:-1][counts > 0], counts[counts > 0]
    shares = dict.fromkeys((0, 1, 2), 0.0)
    for depth in shares:
        for base in bases if depth else (1.0,):
            values = sample.data
            # Large values are no logarithms.
            with np.errstate(all="ignore"):
                for _ in range(depth):
                    values = np.expm1(values * np.log(base))
                ratio = values / np.repeat(np.minimum.reduceat(values, starts), counts)
            ratio = ratio[(ratio > _RATIOS[0]) & (ratio < _RATIOS[1])]
            number = np.round(ratio)
            whole = np.abs(ratio - number) < _CLOSE
            if len(ratio) >= _FEWEST and len(np.unique(number[whole])) >= _SEVERAL:
                shares[depth] = max(shares[depth], float(whole.mean()))
    best, second = sorted(shares, key=shares.__getitem__, reverse=True)[:2]
    return best if shares[best] >= _MOST and shares[best] - shares[second] >= _MARGIN else None


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
    """Log what was found; where it is ``checked``, warn of what are no log-normalised values."""
    logger.info(
        "%s: %s, values from %.3g to %.3g in %d cells.",
        slot(layer), scale.kind, scale.minimum, scale.maximum, scale.n_cells,
    )  # fmt: skip
    if checked and scale.fault:
        warn(scale.fault)
