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
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata._sample import FEWEST, Sample
from nextpert._adata.read import sample_blocks, slot
from nextpert._adata.stored import eager
from nextpert._warn import warn

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles

logger = logging.getLogger(__name__)

# log2(1 + 1e6): the largest logarithm of counts per million. Of what is used in practice, only
# logarithms of intensities, which reach 1e10 or more, are larger.
_LARGEST_USUAL = float(np.log2(1 + 1e6))
# log2 of the largest 64-bit integer: no logarithm of a count or intensity is larger.
_LARGEST = 64.0
# ln(1 + ln(1 + 1e6)): the largest value of counts per million after two logarithms.
_TWICE = float(np.log1p(np.log1p(1e6)))
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
    logged: Any = eager(adata.uns.get("log1p"))
    base = logged.get("base") if hasattr(logged, "get") else None  # as scanpy writes it
    known = [float(base)] if isinstance(base, Real) and float(base) > 1 else []
    sample = Sample([float(np.exp(1)), 2.0, 10.0, *known])
    for values in sample_blocks(adata, columns, cells, layer=layer):
        sample.add(values)
    return _judge(sample, slot(layer))


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
        raise ValueError(overruled_by(scale, " to pp.setup_screen or pp.perturbation_screen"))
    report_scale(scale, roles.layer)


def overruled_by(scale: Scale, where: str = "") -> str:
    """Return the message of an error, and ``where`` to say that it should not be raised."""
    return f"{scale.fault} To use these values as they are, pass check_scale=False{where}."


def report_scale(scale: Scale, layer: str | None, *, checked: bool = True) -> None:
    """Log what was found; where it is ``checked``, warn of what may be no log-normalised values."""
    logger.info(
        "%s: %s, values from %.3g to %.3g in %d cells.",
        slot(layer), scale.kind, scale.minimum, scale.maximum, scale.n_cells,
    )  # fmt: skip
    if checked and (scale.fault or scale.doubt):
        warn(scale.fault or scale.doubt)


def _judge(sample: Sample, where: str) -> Scale:
    low, high = sample.minimum, sample.maximum
    if sample.n_cells == 0 or low > high:
        return Scale("no values", 0.0, 0.0, sample.n_cells, whole=True)
    kind, fault, doubt = _found(sample, where)
    return Scale(kind, low, high, sample.n_cells, sample.whole, fault, doubt)


def _found(sample: Sample, where: str) -> tuple[str, str, str]:
    """Return the kind of values, why they cannot be log-normalised, and why they may not be."""
    low, high = sample.minimum, sample.maximum
    if low < 0:  # centred or simulated values, axes of effects
        return "values below 0, used as they are", "", ""
    prepare = "call pp.perturbation_screen on counts, or name the layer of log-normalised values"
    if sample.whole and high - low < 2:  # seen or not may be so on any scale
        return "0 and 1, or one value", "", ""
    # Three values or more, for two are some constant above whole numbers on any scale.
    shifted = sample.one_offset and sample.n_told >= FEWEST and high - sample.least > 1.5
    if sample.whole or shifted:
        kind = "counts" if sample.whole else f"counts plus {sample.offset:.3g}"
        what = "whole numbers" if sample.whole else "whole numbers plus a constant"
        fault = f"{where} holds {kind} ({what}, up to {high:,.4g}), not log-normalised expression"
        return kind, f"{fault}: {prepare}.", ""
    logarithms = sample.logarithms()
    if logarithms == 0:
        fault = (
            f"{where} holds scaled counts without a logarithm (multiples of one number in every "
            f"cell, or of one sum; up to {high:,.4g}): call scanpy.pp.log1p on them, or {prepare}."
        )
        return "scaled counts", fault, ""
    if logarithms == 2:
        fault = (
            f"{where} holds logarithms of logarithms (log1p was applied twice; up to {high:,.3g}): "
            f"begin with the counts, and {prepare}."
        )
        return "logarithms of logarithms", fault, ""
    if high <= _ABOUT_LINEAR:
        doubt = (
            f"{where} holds values of {high:.2g} or less, on which a logarithm has no effect: "
            f"scale cells to about as many counts as they have before log1p, not to 1."
        )
        return "values near 0", "", doubt
    if logarithms == 1:
        return "log-normalised", "", ""
    if high > _LARGEST_USUAL and sample.is_standardised():
        return "standardised", "", ""
    if high > _LARGEST:
        fault = (
            f"{where} holds values up to {high:,.4g}, but no logarithm of a count or intensity "
            f"exceeds {_LARGEST:g}: take logarithms first, {prepare}."
        )
        return "values too large for logarithms", fault, ""
    if high > _LARGEST_USUAL:
        doubt = (
            f"{where} holds values up to {high:.3g}, more than the logarithm of all counts per "
            f"million ({_LARGEST_USUAL:.1f}): check that they are logarithms."
        )
        return "large values", "", doubt
    if high <= _TWICE:  # those of few counts a cell lie here as well, so that it is no doubt
        return f"taken for log-normalised, or a logarithm of one (none above {_TWICE:.1f})", "", ""
    return "taken for log-normalised", "", ""
