"""Which scale the values of cells are on."""

import anndata as ad
import numpy as np
import pytest

from nextpert._adata.scale import read_scale


@pytest.mark.parametrize(("largest", "kind"), [(1, "0 and 1, or one value"), (2, "counts")])
def test_whole_numbers_are_counts_from_2_on(largest, kind):
    x = np.random.default_rng(0).integers(0, largest + 1, size=(40, 6)).astype(float)
    adata = ad.AnnData(x)
    assert read_scale(adata, np.arange(6), np.arange(40), None).kind == kind
