"""Noise of log-normalised expression with fewer reads, from thinned counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

# A decrease of expression by this share measures how log-normalised values respond to changes.
_DECREASE = 0.2
_MAX_RELATIVE_NOISE = 1e4  # noise relative to all reads, of a gene that is no longer detected


def noise_of_reads(
    counts: ArrayLike, value: ArrayLike, reads: float, *, rng: int | np.random.Generator = 0
) -> Array:
    r"""Return the noise of a cell with a share of the reads, relative to that with all reads.

    Counts are thinned binomially, and expression is :math:`\\log(1 + c\\, v / f)` for the share
    ``f`` of the reads and the value ``v`` of one count. With fewer reads the variance of a gene
    changes, and the same change of expression changes its mean less: the noise is the variance over
    the squared response to a decrease by a fifth. It is at least 1.

    Parameters
    ----------
    counts
        Counts of control cells, ``(n_cells, n_genes)``.
    value
        Scaled value of one count of every cell, ``(n_cells,)``.
    reads
        Share of the reads, above 0 and at most 1.
    rng
        Seed or generator.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.reads import noise_of_reads
    >>> counts = np.random.default_rng(0).poisson(2.0, (2000, 1))
    >>> noise_of_reads(counts, np.ones(2000), 0.5).round(1).tolist()
    [2.4]
    """
    generator = as_rng(rng)
    all_reads = np.asarray(counts, np.int64)
    of_count = np.asarray(value, np.float64)[:, None]

    def measured(thinned: NDArray[np.int64], share: float) -> tuple[Array, Array]:
        """Return the variance of every gene, and the response of its mean."""
        less = generator.binomial(thinned, 1.0 - _DECREASE)
        high, low = (np.log1p(c * of_count / share) for c in (thinned, less))
        return high.var(axis=0), (high - low).mean(axis=0)

    variance, response = measured(all_reads, 1.0)
    fewer, smaller = measured(generator.binomial(all_reads, reads), reads)
    with np.errstate(all="ignore"):  # genes without counts
        noise = fewer / variance * (response / smaller) ** 2
    return np.clip(
        np.nan_to_num(noise, nan=1.0, posinf=_MAX_RELATIVE_NOISE), 1.0, _MAX_RELATIVE_NOISE
    )
