import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, nct, norm, ttest_ind
from scipy.stats import t as student

from nextpert.core.design.power import DistancePrecision, EffectPrecision, Layout
from nextpert.core.screen.mean_distance import distance_difference, mean_distance
from nextpert.core.screen.moments import Moments

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


def test_guides_for_power_are_the_least_that_do():
    variance, effect = np.array([1.0, 3.0, 100.0]), 0.4
    options = {"variance": variance, "control_error": variance / 1000, "n_control": 1000}
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
    variance = np.array([1e-12, 1.0, 0.0])
    power = EffectPrecision(variance, variance / 1e4, 1e4).power([2, 3, 1e9], 50.0)
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
    plan = DistancePrecision.of_distance(a, cell, of_goal / 3)
    np.testing.assert_allclose(plan.sd(k), found.std(), rtol=0.015)
    np.testing.assert_allclose(found.mean(), a @ a, atol=4 * found.std() / np.sqrt(n_draws))


def test_the_variance_is_that_which_the_estimator_states():
    """With all cells seen, planned for as many cells: the sd of the estimators themselves."""
    rng, p, n = np.random.default_rng(2), 6, 4000
    cells, other, goal = (
        Moments.from_array(rng.multivariate_normal(rng.normal(size=p), covariance(rng, p), n))
        for _ in range(3)
    )
    target = goal.scatter / (n - 1) / n
    one, two = (
        DistancePrecision.of_distance(m.mean - goal.mean, m.scatter / (n - 1), target)
        for m in (cells, other)
    )
    np.testing.assert_allclose(one.sd(1 / n), mean_distance(cells, goal).sd, rtol=0.01)
    apart = one.less(two, cells.mean - other.mean, np.zeros(p), target)
    _, low, high = distance_difference(cells, other, goal)
    np.testing.assert_allclose(norm.ppf(0.975) * apart.sd(1 / n), (high - low) / 2, rtol=0.06)


@pytest.mark.parametrize("k", [0.25, 0.01])
@pytest.mark.parametrize("weighed", [False, True])
def test_variance_of_differences_against_simulation(k, weighed):
    rng, p, n_draws = np.random.default_rng(4), 8, 40000
    cells, target = [covariance(rng, p) for _ in range(2)], covariance(rng, p) / 10
    weights = [np.where(np.arange(p) % 3, 1.2, 0.0) if weighed else np.ones(p), np.ones(p)]
    w, every, squares = drawn_means(rng, n_draws, np.zeros(p), target, 1.0), [], []
    departures = [0.3 * rng.normal(size=p) for _ in range(2)]
    for d, cell, weight in zip(departures, cells, weights, strict=True):
        r = np.sqrt(weight)
        squares.append(((drawn_means(rng, n_draws, d, cell, k) - w) ** 2) @ weight)
        units = np.outer(r, r)
        every.append(DistancePrecision.of_distance(r * d, units * cell, units * target))
    departure = weights[0] * departures[0] - weights[1] * departures[1]
    apart = every[0].less(every[1], departure, weights[0] - weights[1], target)
    np.testing.assert_allclose(apart.sd(k), (squares[0] - squares[1]).std(), rtol=0.015)


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
    plan = DistancePrecision.of_distance(np.array([1.0, 0.0, 0.5]), np.eye(3), np.eye(3) / 500)
    for sd in (0.5, 0.25):
        n = float(layout.cells_for(plan.spread_for(sd)))
        assert plan.sd(layout.spread(n)) <= sd < plan.sd(layout.spread(n - 1))
    assert np.isinf(layout.cells_for(plan.spread_for(0.1)))  # guides
    assert layout.guides_for(plan.spread_for(0.17)) > 2
    assert plan.spread_for(0.05) == -np.inf  # the target's own error


def test_spread_of_means_of_cells_in_guides_and_replicates():
    layout = Layout(3, 2, guide_variance=0.2, replicate_variance=0.1)
    rng, n_draws = np.random.default_rng(0), 20000
    guides = rng.normal(0, np.sqrt(0.2), (n_draws, 3, 1))
    replicates = rng.normal(0, np.sqrt(0.1), (n_draws, 1, 2))
    cells = rng.normal(size=(n_draws, 3, 2)) / np.sqrt(2)  # two cells of each
    means = (guides + replicates + cells).mean(axis=(1, 2))
    error = layout.spread(12) * np.sqrt(2 / n_draws)
    assert abs(means.var() - layout.spread(12)) < 4 * error


@pytest.mark.parametrize("n_guides", [1, 2, 5])
def test_cells_for_is_the_least_number(n_guides):
    layout = Layout(n_guides, 3, guide_variance=0.05, replicate_variance=0.01)
    wanted = np.array([0.5, 0.1, 0.0301])
    cells = layout.cells_for(wanted)
    for w, n in zip(wanted, cells, strict=True):
        if np.isfinite(n):
            assert layout.spread(n) <= w * (1 + 1e-9)
            assert n == n_guides or layout.spread(n - 1) > w  # a cell a guide
        else:
            assert layout.spread(1e12) >= w
    assert Layout().cells_for(0.01) == 100


def test_guides_for_is_the_least_number():
    layout = Layout(1, 2, guide_variance=0.06, replicate_variance=0.02)
    assert layout.guides_for([0.02, 0.04, 0.01, 0.2]).tolist() == [7, 3, np.inf, 1]
    for n_guides, enough in ((6, False), (7, True)):
        more = Layout(n_guides, 2, guide_variance=0.06, replicate_variance=0.02)
        assert (more.floor < 0.02) == enough
