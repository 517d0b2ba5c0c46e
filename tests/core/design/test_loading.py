"""From usable cells to cells to load: against libraries and droplets drawn at random."""

import numpy as np
import pytest
from scipy.stats import poisson

from nextpert.core.design.loading import (
    abundance_cv,
    cells_to_reach,
    lanes_for,
    share_reached,
    share_single,
)


@pytest.mark.parametrize("moi", [0.05, 0.3, 1.5])
def test_single_constructs_are_those_of_a_poisson_variable_without_its_zeros(moi):
    n = np.random.default_rng(0).poisson(moi, 400_000)
    assert share_single(moi) == pytest.approx((n[n > 0] == 1).mean(), abs=0.01)


def test_without_unequal_abundance_counts_are_poisson():
    share, least = np.array([0.2, 0.3]), [5, 9]
    expected = (poisson.sf(4, 8.0) + poisson.sf(8, 12.0)) / 2
    assert share_reached(40, share, least, 0.0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("cv", [0.0, 0.3, 1.0])
def test_abundance_is_estimated_without_the_sampling_of_cells(cv):
    rng, sd = np.random.default_rng(1), np.sqrt(np.log1p(cv**2))
    found = [
        abundance_cv(rng.poisson(40 * np.exp(rng.normal(-(sd**2) / 2, sd, 400)))) for _ in range(40)
    ]
    assert np.mean(found) == pytest.approx(cv, abs=0.05)


def library(rng, n_perturbations, n_guides, cv):
    """Return the abundance of every guide, shape ``(n_perturbations, n_guides)``."""
    sd = np.sqrt(np.log1p(cv**2))
    each = np.exp(rng.normal(-(sd**2) / 2, sd, (n_perturbations, n_guides)))
    return each / (n_perturbations * n_guides)  # as planned on average, not normalised


def usable_cells(rng, abundance, lanes, droplets, moi, kept):
    """Return the usable cells of every perturbation, by cells in droplets and guides in cells."""
    flat, total = abundance.ravel(), np.zeros(abundance.size, np.int64)
    for _ in range(lanes.n):
        droplet = rng.integers(droplets, size=rng.poisson(lanes.captured))
        n = rng.poisson(moi, 4 * len(droplet))
        n = n[n > 0][: len(droplet)]
        alone = (np.bincount(droplet, minlength=droplets) == 1)[droplet]
        usable = alone & (n == 1) & (rng.random(len(n)) < kept)
        total += rng.poisson(flat * usable.sum())
    return total.reshape(abundance.shape).sum(axis=1)


@pytest.mark.parametrize(("n_guides", "cv"), [(1, 0.4), (3, 0.6)])
def test_loaded_cells_reach_the_least_cells_in_nine_of_ten_perturbations(n_guides, cv):
    rng, k, least, moi, kept, droplets = np.random.default_rng(2), 60, 30, 0.4, 0.8, 57_000
    share = np.full(k, 1 / k)
    n_usable = cells_to_reach(0.9, share, least, cv / np.sqrt(n_guides))
    lanes = lanes_for(
        n_usable,
        share_single(moi) * kept,
        droplets=droplets,
        max_captured=10_000,
        of_barcodes=False,
    )
    reached = [
        (usable_cells(rng, library(rng, k, n_guides, cv), lanes, droplets, moi, kept) >= least)
        for _ in range(200)
    ]
    assert np.mean(reached) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("of_barcodes", [False, True])
@pytest.mark.parametrize("n_cells", [300, 9_000, 200_000])
def test_lanes_hold_the_usable_cells_and_one_fewer_does_not(n_cells, of_barcodes):
    droplets, most, usable = 57_000, 10_000, 0.6
    lanes = lanes_for(
        n_cells, usable, droplets=droplets, max_captured=most, of_barcodes=of_barcodes
    )
    drawn = np.bincount(
        np.random.default_rng(3).integers(droplets, size=round(lanes.captured)), minlength=droplets
    )
    assert lanes.barcodes == pytest.approx((drawn > 0).sum(), rel=0.02)
    assert lanes.singles == pytest.approx((drawn == 1).sum(), rel=0.02)
    each = usable * (lanes.barcodes if of_barcodes else lanes.singles)
    assert lanes.n * each == pytest.approx(n_cells, rel=1e-6)
    assert lanes.captured <= most
    full = usable * (lanes_at(most, droplets)[of_barcodes])
    assert (lanes.n - 1) * full < n_cells


def lanes_at(captured, droplets):
    x = captured / droplets
    return captured * np.exp(-x), droplets * (1 - np.exp(-x))
