"""The variance of cells that stands for a unit, against the cells themselves."""

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, Moments
from nextpert.core.causal._blocks import RATE_SHARE


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_the_default_rate_is_a_share_of_the_cells_variance(n, intercept):
    x = np.random.default_rng(n).normal(size=(n, 3)) + 2.0
    x[:, 1] = 5.0  # never varies
    shift = np.array([0.0, 2.0, -1.0])
    blr = DagBlr(Dag.from_edges(3, []), intercept=intercept)
    if n:
        blr = blr.update(Moments.from_array(x), shift)
    kept = x - shift
    square = (kept**2).sum(axis=0) / max(n, 1)
    wanted = kept.var(axis=0) if n and intercept else square
    wanted = np.where(wanted > 1e-12 * square, wanted, square)  # its mean square, or 1
    wanted = np.where(wanted > 0, wanted, 1.0)
    rate = blr.rate - blr.blocks["residual"] / 2
    np.testing.assert_allclose(rate, RATE_SHARE * wanted, rtol=1e-6)
