import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, nct, norm, ttest_ind
from scipy.stats import t as student

from nextpert.core.design.cell_numbers import Layout
from nextpert.core.design.power import DistancePrecision, EffectPrecision
from nextpert.core.screen.mean_distance import mean_distance
from nextpert.core.screen.moments import Moments


def two_samples(n, effect):
    """The textbook's power of the two-sample t test, unit variances, by the noncentral t."""
    freedom, away = 2 * n - 2, effect * np.sqrt(n / 2)
    reach = student.ppf(0.975, freedom)
    return nct.sf(reach, freedom, away) + nct.cdf(-reach, freedom, away)


@pytest.mark.parametrize("n", [5, 20, 64, 300])
@pytest.mark.parametrize("effect", [0.0, 0.2, 0.5, -1.5])
def test_textbook_two_samples(n, effect):
    plan = EffectPrecision([1.0], [1.0], n)
    np.testing.assert_allclose(plan.power([n], effect)[0, 0], two_samples(n, effect), atol=2e-5)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 40), (3, 7), (60, 2), (5, 5)])
def test_intervals_are_those_of_welchs_test(n, m):
    rng = np.random.default_rng(n)
    x, y = rng.normal(0, 2, n), rng.normal(1, 1, m)
    plan = EffectPrecision([x.var(ddof=1)], [y.var(ddof=1)], n_control=m)
    for confidence in (0.5, 0.95):
        low, high = ttest_ind(x, y, equal_var=False).confidence_interval(confidence)
        width = plan.half_width([n], confidence).item()
        np.testing.assert_allclose(width, (high - low) / 2, rtol=1e-9)
    # Of one cell no variance is known: it is taken to be known as of two.
    one = plan.half_width([1]).item()
    assert one == pytest.approx(
        student.ppf(0.975, welch(x.var(ddof=1), y.var(ddof=1) / m, 1, m - 1))
        * np.sqrt(x.var(ddof=1) + y.var(ddof=1) / m)
    )


def welch(own, other, of_own, of_other):
    """Satterthwaite's degrees of freedom."""
    return (own + other) ** 2 / (own**2 / of_own + other**2 / of_other)


def test_one_sample_by_quadrature():
    n, effect, sd = 9, 0.4, 0.5
    plan = EffectPrecision([sd**2], [1.0], np.inf)
    reach = student.ppf(0.95, n - 1)

    def found(s2):  # given the sample variance over the true one
        z = reach * np.sqrt(s2)
        away = effect / sd * np.sqrt(n)
        return (norm.sf(z - away) + norm.cdf(-z - away)) * chi2.pdf(s2 * (n - 1), n - 1) * (n - 1)

    wanted = quad(found, 0, 20)[0]
    np.testing.assert_allclose(plan.power([n], effect, 0.9)[0, 0], wanted, atol=1e-6)


def test_power_against_simulation_with_guides():
    rng, n_draws = np.random.default_rng(0), 20000
    layout, of_control = (Layout(4, guide_variance=0.05) for _ in range(2))
    plan = EffectPrecision([1.5], [0.7], 200, layout, of_control)
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
    plan = EffectPrecision(variance, variance, 500, layout)
    effect = np.array([0.1, 0.5, 1.0])
    cells = plan.cells_for_power(effect, 0.8)
    assert np.isfinite(cells).tolist() == [False, True, True]
    for gene in range(3):
        if np.isfinite(cells[gene]):
            assert plan.power([cells[gene]], effect)[0, gene] >= 0.8
            assert plan.power([cells[gene] - 1], effect)[0, gene] < 0.8
        else:
            assert plan.power([1e12], effect)[0, gene] < 0.8


def test_guides_for_power_are_the_least_that_do():
    variance, effect = np.array([1.0, 3.0, 1.0]), np.array([0.4, 0.4, 0.05])
    options = {"variance": variance, "control_variance": variance, "n_control": 1000}
    plan = EffectPrecision(**options, layout=Layout(1, guide_variance=0.1))
    guides = plan.guides_for_power(effect, 0.8)
    assert np.isinf(guides[2])
    for gene in (0, 1):
        limits = [
            EffectPrecision(**options, layout=Layout(g, guide_variance=0.1)).power([1e15], effect)[
                0, gene
            ]
            for g in (int(guides[gene]) - 1, int(guides[gene]))
        ]
        assert limits[0] < 0.8 < limits[1]


def test_extremes_are_no_nan():
    plan = EffectPrecision([1e-12, 1.0, 0.0], [1e-12, 1.0, 0.0], 1e4)
    power = plan.power([2, 3, 1e9], [1.0, 50.0, 0.0])
    assert np.isfinite(power).all()
    assert power[-1, 0] == power[-1, 1] == 1
    assert ((power >= 0) & (power <= 1)).all()


def covariance(rng, p):
    root = rng.normal(size=(p, p)) / np.sqrt(p)
    return root @ root.T


def drawn_means(rng, n_draws, mean, cell, spread):
    return mean + rng.multivariate_normal(np.zeros(len(mean)), cell * spread, n_draws)


@pytest.mark.parametrize("n", [4, 200])
def test_variance_of_distances_against_simulation(n):
    rng, p, n_draws = np.random.default_rng(1), 8, 40000
    cell, of_goal = (covariance(rng, p) for _ in range(2))
    layout = Layout(2, guide_variance=0.02)
    a, k = rng.normal(size=p) * 0.3, float(layout.spread(n))
    goal = drawn_means(rng, n_draws, np.zeros(p), of_goal, 1 / 3)
    squares = ((drawn_means(rng, n_draws, a, cell, k) - goal) ** 2).sum(axis=1)
    found = squares - np.trace(cell) * k - np.trace(of_goal) / 3
    plan = DistancePrecision.of_distance(a, cell, target_covariance=of_goal / 3, layout=layout)
    np.testing.assert_allclose(plan.sd(n), found.std(), rtol=0.015)
    np.testing.assert_allclose(found.mean(), a @ a, atol=4 * found.std() / np.sqrt(n_draws))


def test_the_variance_is_that_which_the_estimator_states():
    """With all cells seen, planned for as many cells: the sd of the estimator itself."""
    rng, p, n = np.random.default_rng(2), 6, 4000
    cells, goal = (
        Moments.from_array(rng.multivariate_normal(rng.normal(size=p), covariance(rng, p), n))
        for _ in range(2)
    )
    of = [m.scatter / (n - 1) for m in (cells, goal)]
    plan = DistancePrecision.of_distance(cells.mean - goal.mean, of[0], target_covariance=of[1] / n)
    np.testing.assert_allclose(plan.sd(n), mean_distance(cells, goal).sd, rtol=0.01)


def test_what_noise_adds_to_a_measured_departure_is_taken_off():
    rng, p, n = np.random.default_rng(3), 5, 30
    cell, a = covariance(rng, p), np.full(p, 0.8)
    measured = np.mean([
        DistancePrecision.of_distance(
            rng.multivariate_normal(a, cell / n), cell, error=cell / n
        ).linear
        for _ in range(3000)
    ])  # fmt: skip
    np.testing.assert_allclose(measured, DistancePrecision.of_distance(a, cell).linear, rtol=0.08)


def test_cells_for_a_distance():
    layout = Layout(2, guide_variance=0.01)
    goal = np.eye(3) / 500
    plan = DistancePrecision.of_distance(
        [1.0, 0.0, 0.5], np.eye(3), target_covariance=goal, layout=layout
    )
    for sd in (0.5, 0.25):
        n = float(layout.cells_for(plan.spread_for(sd)))
        assert plan.sd(n) <= sd < plan.sd(n - 1)
    assert np.isinf(layout.cells_for(plan.spread_for(0.1)))  # guides
    assert layout.guides_for(plan.spread_for(0.17)) > 2
    assert plan.spread_for(0.05) == -np.inf  # the target's own error
