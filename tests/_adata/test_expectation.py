"""What a fit expects of perturbations without cells, by dense algebra."""

import numpy as np
import pytest

from nextpert._adata import posterior_from
from nextpert.core import DagBlr, Moments, ScreenMoments, random_scm
from nextpert.core.fit.fitted import Expectation
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.coexpression import Coexpression
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation
from nextpert.study.pool import read_candidates
from tests._screens import small_fit

P = 6
SCALES = np.array([[2.0, 0.5], [1.0, 1.0]])


@pytest.fixture
def seen():
    rng = np.random.default_rng(0)
    scm = random_scm(P, expected_degree=3, rng=1)
    shifts = np.vstack([np.zeros(P), -np.eye(P)[:4]])
    x = np.concatenate([scm.sample(50, a, rng=rng) for a in shifts])
    moments = ScreenMoments.from_array(x, np.repeat(np.arange(5), 50), 5)
    blr = DagBlr(scm.dag).update(Moments.from_array(x[:50]))
    return Perturbations(moments, 0, [1, 2, 3, 4], [[0], [1], [2], [3]]), blr


def test_unseen_perturbations_are_expected_by_weighted_predictors_and_graph(seen):
    screen, blr = seen
    rng, other = np.random.default_rng(1), DagBlr(blr.dag).update(
        Moments.from_array(np.random.default_rng(2).normal(size=(30, P)))
    )  # fmt: skip
    weights = {"graph": 0.3, "coexpression": 0.2, "mean perturbation": 0.4}
    own, targets = np.zeros((2, P)), [[4], [0, 5]]
    own[0, 4], own[1, [0, 5]] = -1.0, rng.normal(size=2)
    variance = np.where(own != 0, 0.25, np.nan)
    expectation = Expectation(weights, screen, None, None, SCALES)
    found = expectation.without_cells(["A", "B"], targets, own, variance, [blr, other])
    asked = Perturbations(screen.moments, 0, [-1, -1], targets, own, names=["A", "B"])
    one = np.eye(P)
    total = np.mean([np.linalg.inv(one - b.mean().toarray()) for b in (blr, other)], axis=0)
    wanted = own + 0.3 * own @ (total - one).T
    wanted += 0.2 * Coexpression().predict(screen, asked).effects
    wanted += 0.4 * MeanPerturbation().predict(screen, asked).effects
    np.testing.assert_allclose(found.effect, wanted, atol=1e-12)
    np.testing.assert_array_equal(found.own_variance, variance)
    np.testing.assert_array_equal(found.scale, SCALES[[0, 0]])
    nothing = Expectation({}, screen, None, None).without_cells(["A"], [[4]], own[:1], own[:1], [])
    np.testing.assert_array_equal(nothing.effect, own[:1])
    np.testing.assert_array_equal(nothing.scale, np.ones((1, 2)))


def test_of_candidates_own_changes_are_those_of_the_efficacy():
    fit = posterior_from(small_fit(genes=None))
    names = ["GATA1", "MYC", "UBR5"]
    unseen = [name for name in names if name not in fit.names]
    assert unseen
    pool = read_candidates(names, fit)
    np.testing.assert_array_equal(pool.fit_rows, fit.rows_of(names))
    assert pool.measured.sum() + len(unseen) == 3
    for row, name in enumerate(unseen):
        gene, mean = fit.genes.index(name), fit.efficacy.mean
        told = pool.rows([names.index(name)]).without_cells
        own = np.zeros((1, len(fit.genes)))
        own[0, gene] = -mean * fit.control_mean[gene]
        variance = (fit.efficacy.sd * fit.control_mean[gene]) ** 2
        wanted = fit.expectation.without_cells(
            [name], [[gene]], own, np.where(own != 0, variance, np.nan), fit.posteriors
        )
        again = [values[[row]] for values in pool.without_cells]
        for one, two, table in zip(told, again, wanted, strict=True):
            np.testing.assert_allclose(one, table, rtol=1e-9)
            np.testing.assert_array_equal(one, two)
