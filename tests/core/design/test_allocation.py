"""How cells are split among wells: optimality conditions, other splits, and whole cells."""

from __future__ import annotations

import numpy as np
import pytest
from nextpert.core.model.shift_posterior import ShiftPosterior

from nextpert.core.design.plate import PlateCiv, allocate_cells, best_split


def after(civ, chosen, cells):
    every = np.zeros(civ.size)
    every[chosen] = cells
    return civ.after(every)


@pytest.mark.parametrize("seed", range(30))
def test_no_cell_is_worth_more_elsewhere(seed, pools):
    blr, known, target, rng = (pools.several if seed % 5 == 4 else pools.one)(seed)
    known = ShiftPosterior.exact(known.prior) if seed % 3 == 1 else known
    k, n_cells = int(rng.integers(2, known.n_perturbations + 1)), float(10 ** rng.uniform(1, 4))
    chosen = rng.permutation(known.n_perturbations)[:k]
    least = rng.random() * n_cells / k if seed % 3 == 2 else 0.0
    pending = rng.integers(0, 50, known.n_perturbations) * (rng.random(known.n_perturbations) < 0.3)
    civ = PlateCiv(blr, known, target, gap_cells=n_cells / k, pending=pending)
    cells = best_split(civ, chosen, n_cells, least)
    np.testing.assert_allclose(cells.sum(), n_cells)
    assert (cells >= least * (1 - 1e-12)).all()
    found = after(civ, chosen, cells)
    # What moving all cells that may be moved along the slopes promises bounds what is lost.
    slopes, best = found.slopes(chosen), np.full(k, least)
    best[np.argmin(slopes)] += n_cells - k * least
    assert slopes @ (cells - best) <= 1e-5 * found.value
    for share in rng.dirichlet(np.full(k, 0.5), size=20):
        other = least + (n_cells - k * least) * share
        assert after(civ, chosen, other).value >= found.value * (1 - 1e-6)


def test_whole_cells_of_the_same_total(pools):
    for seed in range(10):
        blr, known, target, rng = pools.one(seed)
        k = min(3, known.n_perturbations)
        civ = PlateCiv(blr, known, target, gap_cells=20)
        chosen, n_cells = list(range(k)), int(10 ** rng.uniform(1.5, 3))
        cells = allocate_cells(civ, chosen, n_cells, least=5)
        assert cells.dtype == np.int64
        assert cells.sum() == n_cells
        assert cells.min() >= 5
        free = best_split(civ, chosen, n_cells, 5.0)
        assert np.abs(cells - free).max() < 1


def test_one_well_has_all_cells_and_too_few_are_refused(pools):
    blr, known, target, _ = pools.one(2)
    civ = PlateCiv(blr, known, target, gap_cells=20)
    assert allocate_cells(civ, [1], 30, least=5).tolist() == [30]
    assert allocate_cells(civ, [1, 0], 10, least=5).tolist() == [5, 5]
    with pytest.raises(ValueError, match="10 cells do not suffice for 2 wells of 6"):
        allocate_cells(civ, [0, 1], 10, least=6)


def test_where_there_is_nothing_to_learn_cells_are_split_alike(pools):
    blr, known, target, _ = pools.one(2)
    m = known.n_perturbations
    blr = type(blr)(type(blr.dag).from_edges(blr.n_nodes, []), noise_var=1.0, intercept=False)
    civ = PlateCiv(blr, ShiftPosterior.exact(known.prior), target, gap_cells=20)
    assert civ.after(np.zeros(m)).value == 0
    assert civ.after(np.zeros(m)).variance_reduction == 0
    assert allocate_cells(civ, [0, 1], 11).tolist() == [6, 5]
