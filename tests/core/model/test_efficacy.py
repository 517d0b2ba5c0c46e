"""Efficacy against quadrature over everything that is not known, and where it must not move."""

import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core.model.effects import (
    learn_efficacy,
    screen_efficacy,
    speaks_of_knockouts,
)
from nextpert.core.screen.guides import pool_guides


def normal(x, mean, sd):
    return np.exp(-0.5 * ((x - mean) / sd) ** 2) / sd


def by_quadrature(mu, change, se, direction, prior):
    """Posterior mean, spread and the sd of a new efficacy.

    Every ``rho_j``, the mean and the spread are summed over a grid; no formula of normal
    distributions is used but the density.
    """
    rho0, sd0, scale = prior
    rho = np.linspace(rho0 - 5 * sd0, rho0 + 5 * sd0, 121)[:, None]
    s = (np.arange(160) + 0.5) / 160 * 5 * scale
    nodes = np.linspace(-7, 7, 1001)
    density = normal(rho, rho0, sd0) * np.exp(-0.5 * (s / scale) ** 2)
    for m, y, e in zip(mu, change, se, strict=True):
        like = 1e-300
        for t in nodes:
            like = like + np.exp(-0.5 * t**2) * normal(y, direction * (rho + s * t) * m, e)
        density = density * like
    density /= density.sum()

    def mean(value):
        return float((density * value).sum())

    centre = mean(rho + 0 * s)
    new = mean(rho**2 + s**2) - centre**2
    return centre, np.sqrt(mean(s**2 + 0 * rho)), np.sqrt(new)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("direction", "prior", "mu", "rho"),
    [
        (-1, (0.5, 0.3, 0.3), [1.5, 0.8, 2.4, 0.3, 0.02], [0.2, 0.7, 0.6, 0.9, 0.5]),
        (-1, (0.5, 0.3, 0.3), [1.5], [0.1]),
        (1, (1.0, 1.0, 1.0), [1.0, 2.0, 0.5], [2.0, 0.4, 3.0]),
    ],
)
def test_posterior_is_that_of_quadrature(direction, prior, mu, rho):
    mu, rho = np.array(mu), np.array(rho)
    se = np.linspace(0.1, 0.2, len(mu))
    change = direction * rho * mu + se * np.resize([0.5, -1.0], len(mu))
    expected = by_quadrature(mu, change, se, direction, prior)
    found = learn_efficacy(mu, change, se, direction=direction)
    assert found.n_measured == len(mu)
    np.testing.assert_allclose([found.mean, found.spread, found.sd], expected, rtol=2e-3)


@pytest.mark.parametrize("se", [0.0, 1e-6, 0.01])
@pytest.mark.parametrize("mu", [0.0, 1e-9, 1e-3])
def test_gene_that_is_not_there_says_nothing(mu, se):
    plain = learn_efficacy([1.0, 2.0, 1.5], [-0.5, -1.2, -0.6], [0.1, 0.1, 0.1])
    with_it = learn_efficacy([1.0, 2.0, 1.5, mu], [-0.5, -1.2, -0.6, 0.4], [0.1, 0.1, 0.1, se])
    assert abs(with_it.mean - plain.mean) < 0.01


def test_one_gene_that_rises_when_knocked_out_does_not_set_the_efficacy():
    rho = np.array([0.8, 0.6, 0.7, 0.9, 0.75, 0.65])
    mu = np.linspace(1, 2, 6)
    plain = learn_efficacy(mu, -rho * mu, np.full(6, 0.05))
    wild = learn_efficacy([*mu, 0.1], [*(-rho * mu), 3.0], np.full(7, 0.05))
    assert abs(plain.mean - wild.mean) < 0.02


def test_efficacy_of_a_screen_is_that_of_its_changes_and_their_errors():
    rng = np.random.default_rng(0)
    mu, group = np.array([2.0, 0.01, 3.0]), np.repeat([0, 1, 2, 3], [80, 20, 10, 0])
    x = rng.normal(mu, 0.5, (110, 3)) - 1.5 * (group == 1)[:, None] * [1, 0, 0]
    x -= 2.0 * (group == 2)[:, None] * [0, 1, 0]  # hardly there, so this says nothing
    cells = pool_guides(ScreenMoments.from_array(x, group, 4), np.arange(4), 4)
    speaks = speaks_of_knockouts(mu, np.full(3, 0.5))
    assert speaks.tolist() == [True, False, True]
    pairs = (np.array([0, 1, 2]), np.array([0, 1, 2]))
    found = screen_efficacy(cells, *pairs, mu, speaks, direction=-1)
    parts = [x[group == j] for j in range(3)]
    within = sum(((part - part.mean(axis=0)) ** 2).sum(axis=0) for part in parts) / (110 - 3)
    counted = [(20 + (len(part) - 1) * part.var(axis=0, ddof=1) / within) for part in parts]
    counted = [len(p) / (c / (20 + len(p) - 1)) for p, c in zip(parts, counted, strict=True)]
    change = (parts[1].mean(axis=0) - parts[0].mean(axis=0))[0]
    error = np.sqrt(within * (1 / counted[1] + 1 / counted[0]))[0]
    by_hand = learn_efficacy([2.0], [change], [error])
    assert found.n_measured == 1
    np.testing.assert_allclose([found.mean, found.sd], [by_hand.mean, by_hand.sd])
