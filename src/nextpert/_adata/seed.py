"""The seed of a result, as it is stored with it."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def seed_of(rng: int | np.random.Generator | None) -> str:
    """Return what a function was given as ``rng``: the seed, or that there was none to repeat.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert._adata import seed_of
    >>> seed_of(7), seed_of(np.random.default_rng(7)), seed_of(None)
    ('7', 'generator', 'fresh')
    """
    if rng is None:
        return "fresh"
    return str(int(rng)) if isinstance(rng, Integral) else "generator"
