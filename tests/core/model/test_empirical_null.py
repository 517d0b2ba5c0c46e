"""The width of the null against its definition, its standard error against repetition."""

import numpy as np
import pytest
from scipy.stats import norm

from nextpert.core.model.scores import NullWidth, null_width


def correlated(p, r):
    return np.full((p, p), r) + (1 - r) * np.eye(p)


@pytest.mark.parametrize("width", [1.0, 1.6])
@pytest.mark.parametrize("r", [0.0, 0.5])
def test_width_and_its_error_over_repetitions(width, r):
    rng, p = np.random.default_rng(0), 60
    sigma = correlated(p, r)
    root = np.linalg.cholesky(sigma)
    found = [null_width(width * rng.normal(size=(2, p)) @ root.T, sigma) for _ in range(400)]
    value, error = (np.array([getattr(each, name) for each in found]) for name in
                    ("value", "error"))  # fmt: skip
    assert value.mean() == pytest.approx(width, rel=0.08)
    # Two rows count as one, as they are compared with one another: root 2 too much here.
    assert 0.6 < value.std() / (error.mean() / np.sqrt(2)) < 1.3
    above = np.mean([each.factor > 1.0 for each in found])
    assert above < 0.03 if width == 1.0 else (r > 0 or above > 0.6)


def test_the_median_of_all_z_scores_and_not_of_genes_that_are_constant():
    z = np.random.default_rng(1).normal(size=(5, 30))
    z[:, 3] = 0
    sigma = np.eye(30)
    sigma[3, 3] = 0
    wanted = np.median(np.abs(np.delete(z, 3, axis=1))) / norm.ppf(0.75)
    assert null_width(z, sigma).value == pytest.approx(wanted)
    # Scale does not matter, nor what single genes of one guide do.
    scale = np.diag(np.arange(30.0))
    assert null_width(z, scale @ sigma @ scale).value == pytest.approx(
        np.median(np.abs(np.delete(z, [0, 3], axis=1))) / norm.ppf(0.75)
    )
    wild = z.copy()
    wild[0, :4] = 50
    assert null_width(wild, sigma).value < 1.15 * wanted


def test_guides_that_differ_from_one_another_have_the_error_of_the_jackknife():
    z = np.random.default_rng(2).normal(size=(8, 400)) * np.array([0.3, 2.5] * 4)[:, None]
    without = np.array([null_width(np.delete(z, k, axis=0), np.eye(400)).value for k in range(8)])
    jackknife = np.sqrt(7 / 8 * ((without - without.mean()) ** 2).sum())
    assert null_width(z, np.eye(400)).error == pytest.approx(jackknife, rel=1e-12)


def test_factor_is_1_unless_the_width_is_above_1():
    assert NullWidth(1.5, 0.1).factor == 1.5
    assert NullWidth(1.5, 0.3).factor == 1.0
    assert NullWidth(0.7, 0.01).factor == 1.0
    nothing = null_width(np.zeros((0, 4)), np.eye(4))
    assert np.isnan(nothing.value)
    assert nothing.factor == 1.0
