"""How often resamples take a cell, against a plain stream of numbers."""

import math

import numpy as np

from nextpert.core.search._classes import poisson_weights

_ALL = 2**64 - 1


def plain_weight(seed, cell):
    """Number ``cell`` of the splitmix64 stream, through the inverse of the Poisson distribution."""
    z = (seed + (cell + 1) * 0x9E3779B97F4A7C15) & _ALL
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _ALL
    uniform = ((z ^ (z >> 31)) >> 11) / 2**53
    weight, below = 0, math.exp(-1)
    while uniform >= below:
        weight += 1
        below += math.exp(-1) / math.factorial(weight)
    return weight


def test_weights_are_those_of_the_stream_in_any_order():
    seeds = np.random.default_rng(3).integers(0, 2**64, 4, dtype=np.uint64)
    cells = np.random.default_rng(0).permutation(500)
    wanted = [[plain_weight(int(seed), int(k)) for k in cells] for seed in seeds]
    np.testing.assert_array_equal(poisson_weights(seeds, cells), wanted)


def test_weights_are_poisson_and_independent():
    seeds = np.random.default_rng(0).integers(0, 2**64, 20, dtype=np.uint64)
    weights = poisson_weights(seeds, np.arange(20_000))
    share = np.bincount(weights.ravel(), minlength=8)[:8] / weights.size
    wanted = [math.exp(-1) / math.factorial(k) for k in range(8)]
    np.testing.assert_allclose(share, wanted, atol=4 * 0.5 / math.sqrt(weights.size))
    across = np.corrcoef(weights)  # resamples
    along = np.corrcoef(weights[:, :-1].ravel(), weights[:, 1:].ravel())  # cells in a row
    limit = 5 / math.sqrt(20_000)
    assert np.abs(across - np.eye(20)).max() < limit
    assert abs(along[0, 1]) < limit
