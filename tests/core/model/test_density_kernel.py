"""Exponentials and sums of logarithms of the compiled loops, against numpy."""

import numpy as np

from nextpert.core._compile import entry, exp, short_exp
from nextpert.core.model._density_kernel import N_DENSITIES, N_SCALES, N_TAILS, add_logs


@entry
def fill(x, double, single):
    for i in range(len(x)):
        double[i] = exp(x[i])
        single[i] = short_exp(np.float32(x[i]))


@entry
def add(density, tail, chance, product, exponent):
    add_logs(density, tail, chance, product, exponent)


def test_exponentials_have_the_precision_that_they_state():
    x = -np.concatenate([np.linspace(0, 87, 5001), np.geomspace(1e-6, 1, 101)])
    double, single = np.empty(len(x)), np.empty(len(x), np.float32)
    fill(x, double, single)
    np.testing.assert_allclose(double, np.exp(x), rtol=1e-8)
    expected = np.exp(x.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(single, expected, rtol=3e-7)


def test_likelihoods_of_many_genes_neither_vanish_nor_overflow():
    rng = np.random.default_rng(0)
    density = 10.0 ** rng.uniform(-6, -4, (500, N_DENSITIES))
    tail = rng.dirichlet(np.ones(N_TAILS))
    chance = np.zeros(N_SCALES)
    single = density.astype(np.float32), tail.astype(np.float32)
    add(*single, chance, np.empty(N_SCALES), np.empty(N_SCALES, np.int64))
    windows = np.lib.stride_tricks.sliding_window_view(density, N_TAILS, axis=1)[:, :N_SCALES]
    np.testing.assert_allclose(chance, np.log(windows @ tail).sum(axis=0), rtol=1e-6)
