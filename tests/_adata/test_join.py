"""Rounds of a table of effects as one AnnData: every gene and row keeps what is its own."""

import numpy as np
import pandas as pd

import nextpert as npt
from nextpert._adata.join import joined_cells, kept_cells

GENES = list("ABCDE")


def table(names, seed):
    rng = np.random.default_rng(seed)
    effects = pd.DataFrame(rng.normal(size=(len(names), 5)), names, GENES)
    errors = effects * 0 + rng.uniform(0.1, 0.9, effects.shape)
    return npt.pp.effect_table(effects, errors, n_cells=100, n_controls=400)


def test_values_errors_and_correlations_go_by_gene():
    one, two = table(["A", "B"], 0), table(["C", "A"], 1)
    one.varp["correlation"] = np.arange(25.0).reshape(5, 5)
    before = kept_cells(one[:, ::-1].copy(), ["perturbation"], None)
    after = kept_cells(two, ["perturbation"], None, genes=GENES)
    found = joined_cells(before, after, None, "-2")
    assert list(found.var_names) == GENES
    assert found.obs["perturbation"].tolist() == ["control", "A", "B", "control", "C", "A"]
    names = list(before.obs_names)
    own = [f"{name}-2" if name in names else name for name in after.obs_names]
    assert list(found.obs_names) == [*names, *own]
    for read in (lambda a: a.X, lambda a: a.layers["se"]):
        np.testing.assert_array_equal(read(found), np.vstack([read(one), read(two)]))
    np.testing.assert_array_equal(found.varp["correlation"], one.varp["correlation"])
    assert found.obs["n_cells"].tolist() == 2 * [400, 100, 100]
