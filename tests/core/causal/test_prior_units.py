"""The prior in units of the noise: against dense algebra, and under changes of units."""

import numpy as np
import pytest
from scipy import stats

from nextpert.core import Dag, DagBlr, LinearScm, Moments

SD = np.array([1.0, 0.3, 4.0, 0.05, 2.0, 0.7])


@pytest.fixture
def environments(cells, graphs):
    """Two environments of cells whose genes have very different noise, with their shifts."""
    return simulated(cells, graphs["complete"])


def simulated(cells, parents):
    rng, p = np.random.default_rng(5), len(parents)
    shift = rng.normal(size=p)
    return [
        (SD[:p] * cells(parents, rng, 12, intercept=True), np.zeros(p)),
        (SD[:p] * cells(parents, rng, 7, shift, intercept=True), SD[:p] * shift),
    ]


def fitted(parents, environments, **options):
    blr = DagBlr(Dag.from_parents(parents), **options)
    for x, shift in environments:
        blr = blr.update(Moments.from_array(x), shift)
    return blr


def rows_of(dense, parents, environments, intercept):
    """Design and response of every node."""
    return dense(parents, intercept=intercept).regressions(environments)


def assert_dense(blr, rows, parents, scale, units):
    """Compare mean and covariance of every node with the normal equations, written out."""
    for i, (x, y) in enumerate(rows):
        own = units[sorted(parents[i])] / scale
        prior = np.diag([*[1e-6] * blr.intercept, *own])
        cov = np.linalg.inv(prior + x.T @ x)
        at = slice(blr.vptr[i], blr.vptr[i + 1])
        np.testing.assert_allclose(blr.blocks["weights"][at], cov @ x.T @ y, rtol=1e-7, atol=1e-9)
        block = blr.blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]].reshape(cov.shape)
        np.testing.assert_allclose(block, cov, rtol=1e-6, atol=1e-9 * np.abs(cov).max(initial=1))


@pytest.mark.parametrize("graph", ["complete", "sparse", "in_star"])
def test_known_noise_is_the_dense_posterior(graph, graphs, cells, dense, intercept):
    parents = graphs[graph]
    p, cut = len(parents), simulated(cells, parents)
    noise = SD[:p] ** 2
    options = {"noise_var": noise, "prior_units": "noise", "intercept": intercept}
    blr = fitted(parents, cut, prior_scale=0.7, **options)
    rows = rows_of(dense, parents, cut, intercept)
    assert_dense(blr, rows, parents, 0.7, noise)
    # The marginal density of the cells, without any of the algebra of the posterior.
    expected = 0.0
    for i, (x, y) in enumerate(rows):
        prior = np.array([*[1e6] * intercept, *(0.7 / noise[sorted(parents[i])])])
        cov = noise[i] * (np.eye(len(y)) + (x * prior) @ x.T)
        expected += stats.multivariate_normal.logpdf(y, np.zeros(len(y)), cov)
    assert blr.log_evidence() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("rate", [None, 0.01])
def test_unknown_noise_is_taken_from_a_fit_where_variances_of_cells_stand_for_it(
    graphs, environments, dense, rate
):
    parents = graphs["complete"]
    options = {"prior_scale": 2.0, "prior_rate": rate}
    blr = fitted(parents, environments, prior_units="noise", **options)
    shape = 2.0 + sum(len(x) for x, _ in environments) / 2
    rows = rows_of(dense, parents, environments, True)
    variance = np.array([y.var() for _, y in rows])
    estimated = np.empty(len(parents))
    for i, (x, y) in enumerate(rows):
        prior = np.diag([1e-6, *(variance[sorted(parents[i])] / 2.0)])
        mean = np.linalg.solve(prior + x.T @ x, x.T @ y)
        before = 1e-3 * variance[i] if rate is None else rate
        after = before + (((y - x @ mean) ** 2).sum() + mean @ prior @ mean) / 2
        estimated[i] = after / shape
    assert_dense(blr, rows, parents, 2.0, estimated)


def test_learned_scale_has_the_best_evidence(graphs, environments):
    parents = graphs["complete"]
    options = {"noise_var": SD[: len(parents)] ** 2, "prior_units": "noise"}
    blr = fitted(parents, environments, **options)
    relative = blr.blocks["precision"][blr.is_weight] / options["noise_var"][blr.dag.indices]
    assert len(np.unique(np.round(relative, 9))) == 1

    def objective(log_lambda):
        fixed = fitted(parents, environments, prior_scale=float(np.exp(-log_lambda)), **options)
        return fixed.log_evidence() - (log_lambda / 3.0) ** 2 / 2

    top = objective(float(np.log(relative[0])))
    assert top >= max(objective(t) for t in np.linspace(-6, 9, 301)) - 1e-7


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("with_intercept", [True, False])
@pytest.mark.parametrize(
    "factor", [np.full(5, 1e-3), np.array([10.0, 0.2, 1.0, 3.0, 0.5])], ids=["all", "each"]
)
def test_posterior_follows_the_units_of_the_genes(
    graphs, environments, known, with_intercept, factor
):
    parents = graphs["complete"]
    other = [(x * factor, shift * factor) for x, shift in environments]
    noise = SD[:5] ** 2
    options = {"intercept": with_intercept}
    if np.ptp(factor):  # the default follows a change of the unit of all genes alone
        options["prior_units"] = "noise"
    one = fitted(parents, environments, noise_var=noise if known else None, **options)
    two = fitted(parents, other, noise_var=noise * factor**2 if known else None, **options)
    weights = one.mean().toarray() * factor[:, None] / factor
    # Up to 1e-4, to which the scale of the prior is refined.
    np.testing.assert_allclose(two.mean().toarray(), weights, atol=1e-4 * np.abs(weights).max())
    np.testing.assert_allclose(two.noise_var, one.noise_var * factor**2, rtol=1e-4)
    np.testing.assert_allclose(two.intercept_mean, one.intercept_mean * factor, rtol=1e-3)
    cells = sum(len(x) for x, _ in environments)
    change = -cells * np.log(factor).sum()
    assert two.log_evidence() == pytest.approx(one.log_evidence() + change, abs=1e-3)


@pytest.mark.parametrize("with_intercept", [True, False])
def test_one_cell_or_cells_that_do_not_vary_give_a_rate_above_zero(graphs, with_intercept):
    dag = Dag.from_parents(graphs["complete"])
    for x in (np.zeros((3, 5)), np.full((4, 5), 7.0), np.arange(5.0)[None], np.empty((0, 5))):
        blr = DagBlr(dag, intercept=with_intercept).update(Moments.from_array(x))
        assert np.isfinite(blr.log_evidence())
        assert (blr.noise_var > 0).all()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", ["data", "noise"])
@pytest.mark.parametrize("seed", range(3))
def test_the_default_takes_the_units_of_higher_evidence(kind, known, seed):
    """Weights of one size in the data, or in units of noise that spans two decades."""
    rng = np.random.default_rng(seed)
    sd = np.array([1.0, 0.1, 3.0, 0.3, 10.0, 0.5])
    weights = np.tril(rng.normal(size=(6, 6)), -1) * (1 if kind == "data" else sd[:, None] / sd)
    scm = LinearScm(weights, sd**2)
    options = {"noise_var": scm.noise_var if known else None}
    cells = Moments.from_array(scm.sample(40, rng=rng))
    noise, data, default = (
        DagBlr(scm.dag, prior_units=units, **options).update(cells)
        for units in ("noise", "data", None)
    )
    assert (noise.log_evidence() > data.log_evidence()) == (kind == "noise")
    expected, found = {"noise": noise, "data": data}[kind].mean(), default.mean()
    np.testing.assert_allclose(found.toarray(), expected.toarray(), atol=0.03)
    assert default.log_evidence() >= max(noise.log_evidence(), data.log_evidence()) - 0.1
