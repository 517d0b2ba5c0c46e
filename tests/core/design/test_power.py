import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, nct, norm, ttest_ind
from scipy.stats import t as student

from nextpert.core.design.power import EffectPrecision, Layout

ONE = np.ones(1)


def two_samples(n, effect):
    """The textbook's power of the two-sample t test, unit variances, by the noncentral t."""
    freedom, away = 2 * n - 2, effect * np.sqrt(n / 2)
    reach = student.ppf(0.975, freedom)
    return nct.sf(reach, freedom, away) + nct.cdf(-reach, freedom, away)


@pytest.mark.parametrize("n", [5, 20, 64, 300])
@pytest.mark.parametrize("effect", [0.0, 0.2, 0.5, -1.5])
def test_textbook_two_samples(n, effect):
    plan = EffectPrecision(ONE, ONE / n, n)
    np.testing.assert_allclose(plan.power([n], effect)[0, 0], two_samples(n, effect), atol=2e-5)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 40), (3, 7), (60, 2), (5, 5)])
def test_intervals_are_those_of_welchs_test(n, m):
    rng = np.random.default_rng(n)
    x, y = rng.normal(0, 2, n), rng.normal(1, 1, m)
    plan = EffectPrecision(x.var(ddof=1) * ONE, y.var(ddof=1) / m * ONE, n_control=m)
    for confidence in (0.5, 0.95):
        low, high = ttest_ind(x, y, equal_var=False).confidence_interval(confidence)
        width = plan.half_width([n], confidence).item()
        np.testing.assert_allclose(width, (high - low) / 2, rtol=1e-9)
    # Of one cell no variance is known: it is taken to be known as of two.
    one = plan.half_width([1], 0.95).item()
    assert one == pytest.approx(
        student.ppf(0.975, welch(x.var(ddof=1), y.var(ddof=1) / m, 1, m - 1))
        * np.sqrt(x.var(ddof=1) + y.var(ddof=1) / m)
    )


def welch(own, other, of_own, of_other):
    """Satterthwaite's degrees of freedom."""
    return (own + other) ** 2 / (own**2 / of_own + other**2 / of_other)


def test_one_sample_by_quadrature():
    n, effect, sd = 9, 0.4, 0.5
    plan = EffectPrecision(sd**2 * ONE, 0 * ONE, np.inf)
    reach = student.ppf(0.975, n - 1)

    def found(s2):  # given the sample variance over the true one
        z = reach * np.sqrt(s2)
        away = effect / sd * np.sqrt(n)
        return (norm.sf(z - away) + norm.cdf(-z - away)) * chi2.pdf(s2 * (n - 1), n - 1) * (n - 1)

    wanted = quad(found, 0, 20)[0]
    np.testing.assert_allclose(plan.power([n], effect)[0, 0], wanted, atol=1e-6)


def test_power_against_simulation_with_guides():
    rng, n_draws = np.random.default_rng(0), 20000
    layout, of_control = (Layout(4, guide_variance=0.05) for _ in range(2))
    plan = EffectPrecision(1.5 * ONE, 0.7 * ONE * of_control.spread(200), 200, layout)
    for n in (8, 40):
        means, squares = [], []
        for sd2, where, size, effect in (
            (1.5, layout, n, 1.2),
            (0.7, of_control, 200, 0.0),
        ):
            g = where.n_guides
            guides = rng.normal(effect, np.sqrt(0.05 * sd2), (n_draws, g, 1))
            x = guides + rng.normal(0, np.sqrt(sd2), (n_draws, g, size // g))
            means.append(x.mean(axis=(1, 2)))
            # That of a cell, out of guides and cells.
            part = 1 + 0.05 * (size - size / g) / (size - 1)
            of_cell = x.reshape(n_draws, -1).var(axis=1, ddof=1) / part
            squares.append((of_cell * where.spread(size), size - 1))
        (a, f_a), (b, f_b) = squares
        freedom = (a + b) ** 2 / (a**2 / f_a + b**2 / f_b)
        statistic = np.abs(means[0] - means[1]) / np.sqrt(a + b)
        share = (statistic > student.ppf(0.975, freedom)).mean()
        error = np.sqrt(share * (1 - share) / n_draws)
        assert abs(share - plan.power([n], 1.2)[0, 0]) < 4 * error + 0.005  # Satterthwaite's


def test_cells_are_the_least_that_do():
    layout = Layout(3, 2, guide_variance=0.02, replicate_variance=0.01)
    variance = np.array([0.1, 1.0, 4.0])
    plan = EffectPrecision(variance, variance / 500, 500, layout)
    effect = 0.5
    cells = plan.cells_for_power(effect, 0.8)
    assert np.isfinite(cells).tolist() == [True, True, False]
    for gene in range(3):
        if np.isfinite(cells[gene]):
            assert plan.power([cells[gene]], effect)[0, gene] >= 0.8
            assert plan.power([cells[gene] - 1], effect)[0, gene] < 0.8
        else:
            assert plan.power([1e12], effect)[0, gene] < 0.8


def test_extremes_are_no_nan():
    variance = np.array([1e-12, 1.0, 0.0])
    power = EffectPrecision(variance, variance / 1e4, 1e4).power([2, 3, 1e9], 50.0)
    assert np.isfinite(power).all()
    assert power[-1, 0] == power[-1, 1] == 1
    assert ((power >= 0) & (power <= 1)).all()


def test_spread_of_means_of_cells_in_guides_and_replicates():
    layout = Layout(3, 2, guide_variance=0.2, replicate_variance=0.1)
    rng, n_draws = np.random.default_rng(0), 20000
    guides = rng.normal(0, np.sqrt(0.2), (n_draws, 3, 1))
    replicates = rng.normal(0, np.sqrt(0.1), (n_draws, 1, 2))
    cells = rng.normal(size=(n_draws, 3, 2)) / np.sqrt(2)  # two cells of each
    means = (guides + replicates + cells).mean(axis=(1, 2))
    error = layout.spread(12) * np.sqrt(2 / n_draws)
    assert abs(means.var() - layout.spread(12)) < 4 * error
