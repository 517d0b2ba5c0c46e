"""Predictors against cells, loops and repeated screens."""

import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core.model.interactions import CombinationPrediction
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.base import (
    Prediction,
    SideInformation,
    Sources,
    build_predictors,
    predictor,
    predictors,
)
from nextpert.core.model.predictors.coexpression import Coexpression
from nextpert.core.model.predictors.features import OtherScreen
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation
from nextpert.core.model.predictors.members import Members

N_GENES = 6
TARGETS = [[0], [1], [0, 2], [], [3]]  # of environments 1 to 5; 0 holds the controls
SIZES = [60, 40, 25, 30, 50, 20]


@pytest.fixture
def cells():
    """Cells of five perturbations, expression correlated, one gene constant."""
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(6), SIZES)
    mix = rng.normal(size=(N_GENES, N_GENES))
    x = 4 + rng.normal(size=(len(groups), N_GENES)) @ mix
    x += rng.normal(size=(6, N_GENES))[groups] * (groups > 0)[:, None]
    x[:, 5] = 3.0
    return x, groups


@pytest.fixture
def screen(cells):
    return Perturbations(ScreenMoments.from_array(*cells, 6), 0, [1, 2, 3, 4, 5], TARGETS)


def test_observed_effects_and_their_variance(cells, screen):
    x, groups = cells
    means = np.array([x[groups == e].mean(axis=0) for e in range(6)])
    np.testing.assert_allclose(screen.observed, means[1:] - means[0])
    within = x - means[groups]
    pooled = (within**2).sum(axis=0) / (len(x) - 6)
    own = np.array([(within[groups == e] ** 2).sum(axis=0) for e in range(1, 6)])
    n = np.array(SIZES[1:])[:, None]
    spread = (own + 10 * pooled) / (n + 9)
    control = x[groups == 0].var(axis=0, ddof=1) / 60
    np.testing.assert_allclose(screen.variance, spread / n + control)
    scored = np.ones((5, N_GENES), bool)
    scored[0, 0] = scored[1, 1] = scored[2, [0, 2]] = scored[4, 3] = scored[:, 5] = False
    assert (screen.scored() == scored).all()


def test_graph_moves_what_a_shift_of_the_own_gene_moves(screen):
    rng = np.random.default_rng(0)
    graphs = np.tril(rng.normal(size=(5, N_GENES, N_GENES)), -1)
    one = Graph(graphs[0]).predict(screen, screen)
    each = Graph(None, [([j], b) for j, b in enumerate(graphs)]).held_out(screen)
    for j, genes in enumerate(TARGETS):
        for found, b in ((one, graphs[0]), (each, graphs[j])):
            wanted = np.zeros(N_GENES)
            for k in genes:  # the gene's equation is replaced by its change, the others run on
                moved = np.zeros(N_GENES)
                for i in range(N_GENES):
                    moved[i] = screen.observed[j, k] if i == k else b[i] @ moved
                wanted += moved
            wanted[genes] = 0
            np.testing.assert_allclose(found.effects[j], wanted, atol=1e-12)


def test_coexpression_is_the_regression_over_all_other_cells(cells, screen):
    x, groups = cells
    found = Coexpression().held_out(screen).effects
    within = screen.moments.scatter
    for j, genes in enumerate(TARGETS):
        # Means of the other environments; of the pooled scatter the share of their cells.
        kept = [e for e in range(6) if e != j + 1]
        n = np.array([(groups == e).sum() for e in kept])
        mean = np.array([x[groups == e].mean(axis=0) for e in kept])
        away = mean - n @ mean / n.sum()
        scatter = within * n.sum() / len(x) + (n * away.T) @ away
        wanted = np.zeros(N_GENES)
        for k in genes:
            wanted += scatter[:, k] / scatter[k, k] * screen.observed[j, k]
        wanted[genes] = 0
        np.testing.assert_allclose(found[j], wanted, atol=1e-9)
    # Learned from all cells it is the regression over cells.
    found = Coexpression().predict(screen, screen).effects
    for j, genes in enumerate(TARGETS):
        slopes = [[np.polyfit(x[:, k], x[:, i], 1)[0] for i in range(N_GENES)] for k in genes]
        wanted = screen.observed[j, genes] @ np.reshape(slopes, (len(genes), N_GENES))
        wanted[genes] = 0
        np.testing.assert_allclose(found[j], wanted, atol=1e-9)


def random_effects_mean(screen, rows, gene):
    """The mean of perturbations ``rows`` on a gene, their spread learned from these rows alone."""
    scored, sd = screen.scored(), np.where(screen.sd > 0, screen.sd, 1)
    z = screen.observed / sd
    n = screen.moments.n
    kept = [0, *(q + 1 for q in rows)]
    pooled = np.diag(screen.moments.scatter) / n.sum() * n[kept].sum()
    pooled /= n[kept].sum() - len(kept)
    cells = n[1:, None]
    v = (screen.moments.squares[1:] + 10 * pooled) / (cells + 9) / cells / sd**2
    left = freedom = 0.0
    for i in range(N_GENES):
        some = [q for q in rows if scored[q, i]]
        if some:
            left += ((z[some, i] - z[some, i].mean()) ** 2).sum()
            left -= v[some, i].sum() * (len(some) - 1) / len(some)
            freedom += len(some) - 1
    between = max(left / freedom, 0)
    some = [q for q in rows if scored[q, gene]]
    weight = [1 / (between + v[q, gene]) for q in some]
    return np.average([screen.observed[q, gene] for q in some], weights=weight) if some else 0.0


def test_mean_of_the_others_leaves_their_own_genes_and_the_perturbation_out(screen):
    found = MeanPerturbation().held_out(screen)
    for j in range(5):
        others = [q for q in range(5) if q != j]
        for i in range(N_GENES):
            wanted = 0.0 if i in TARGETS[j] else random_effects_mean(screen, others, i)
            assert found.effects[j, i] == pytest.approx(wanted, abs=1e-12)


def test_what_is_scored_of_a_perturbation_left_out_is_what_a_candidate_is_given(screen):
    """The same numbers whether a perturbation is left out, or asked for without cells."""
    for one in (Coexpression(), MeanPerturbation()):
        scored = one.held_out(screen).effects
        for j, genes in enumerate(TARGETS):
            others = screen.without([j])
            asked = Perturbations(others.moments, 0, [-1], [genes], screen.observed[[j]])
            found = one.predict(others, asked).effects
            assert np.abs(found).max() > 0 or not genes
            np.testing.assert_allclose(found[0], scored[j], rtol=1e-10, atol=1e-14)


def test_many_perturbations_are_left_out_in_blocks():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(121), 10)
    x = rng.normal(size=(len(groups), 4)) + (groups > 0)[:, None]
    moments = ScreenMoments.from_array(x, groups, 121)
    screen = Perturbations(moments, 0, np.arange(1, 121), [[]] * 120)
    found = MeanPerturbation().held_out(screen).effects
    block = np.arange(6)  # the first of 20
    wanted = MeanPerturbation().predict(screen.without(block), screen.some(block)).effects
    np.testing.assert_allclose(found[:6], wanted)
    assert np.ptp(found[:, 0]) < 0.2
    assert len(np.unique(found[:, 0])) == 20


def test_perturbations_without_cells_are_expected_by_the_change_given(screen):
    change = np.zeros((7, N_GENES))
    change[5, 1], change[6, 4] = -2.0, 1.5
    members, targets = [1, 2, 3, 4, 5, -1, -1], [*TARGETS, [1], []]
    wider = Perturbations(screen.moments, 0, members, targets, change)
    assert not wider.scored()[5:].any()
    assert np.isinf(wider.variance[5:]).all()
    b = np.tril(np.ones((N_GENES, N_GENES)), -1)
    seen = Graph(b).predict(wider, wider).effects
    np.testing.assert_allclose(seen[5], [0, 0, -2, -4, -8, -16])
    assert (seen[[0, 6]] == 0).all()
    mean = MeanPerturbation().held_out(wider).effects
    np.testing.assert_allclose(mean[:5], MeanPerturbation().held_out(screen).effects)
    assert np.abs(mean[6, :5]).min() > 0
    assert (Coexpression().predict(wider, wider).shared == 0).all()  # no change of it was measured
    change[:5] = np.nan  # as observed
    mixed = Perturbations(screen.moments, 0, members, targets, change)
    found, wanted = (Coexpression().held_out(some) for some in (mixed, screen))
    np.testing.assert_allclose(found.effects[:5], wanted.effects)
    np.testing.assert_allclose(found.shared[:5], wanted.shared)
    assert (found.shared[5:] == 0).all()
    np.testing.assert_allclose(Graph(b).predict(mixed, mixed).effects[5:], seen[5:])


@pytest.mark.slow
def test_covariance_with_sampling_error_is_that_of_repeated_screens():
    """Of 2,000 screens, drawn by means and a scatter that is known."""
    rng = np.random.default_rng(3)
    n, mix = np.array([50, 20, 30, 40]), np.tril(rng.normal(size=(4, 4)))
    covariance = mix @ mix.T
    truth = rng.normal(size=(4, 4))
    b = np.tril(rng.normal(size=(4, 4)), -1)
    targets, got, errors = [[0], [1], []], [], []
    squares = (n - 1)[:, None] * np.diag(covariance)
    scatter = (n.sum() - 4) * covariance
    for _ in range(2000):
        mean = truth + rng.normal(size=(4, 4)) @ mix.T / np.sqrt(n)[:, None]
        screen = Perturbations(ScreenMoments(n, mean, squares, scatter), 0, [1, 2, 3], targets)
        asked = [Graph(b).predict(screen, screen), MeanPerturbation().held_out(screen)]
        got.append([e.effects for e in asked])
        errors.append(screen.observed - (truth[1:] - truth[0]))
    got, errors = np.array(got), np.array(errors)
    found = ((got - got.mean(axis=0)) * (errors - errors.mean(axis=0))[:, None]).mean(axis=0)
    spread = got.std(axis=0) * errors.std(axis=0)
    for k, each in enumerate(asked):
        assert np.abs(each.shared).max() > 0.01
        assert (np.abs(found[k] - each.shared) <= 0.07 * spread[k]).all()


def test_a_name_stands_for_one_predictor():
    with pytest.raises(ValueError, match=r"There is a predictor 'graph' already \(Graph\)"):
        predictor("graph")(Coexpression)
    assert Prediction("silent", np.zeros((5, 6))).shared is None


def test_predictors_speak_where_their_sources_do():
    names = [
        "graph",
        "coexpression",
        "mean perturbation",
        "other screen",
        "features",
        "members together",
    ]

    def known_here(found):
        return [each for each in found if each.name in names]

    assert [kind.name for kind in known_here(predictors())] == names
    assert [each.name for each in known_here(build_predictors(Sources()))] == names[:3]
    known = SideInformation(["A"], np.ones((1, 1)), np.zeros((1, 6)))
    built = known_here(build_predictors(Sources(features=known)))
    assert [each.name for each in built] == names[:5]
    assert isinstance(built[3], OtherScreen)


def test_of_combinations_members_speak_alone(screen):
    rng, rows = np.random.default_rng(0), np.array([2])
    mean, variance = rng.normal(size=(1, N_GENES)), rng.gamma(1.0, size=(1, N_GENES))
    members = Members(CombinationPrediction(rows, mean, variance, np.full((1, N_GENES), 0.5)))
    said = members.predict(screen, screen)
    assert said.fixed
    assert not np.delete(said.effects, 2, axis=0).any()
    free = ~screen.own()[2]
    np.testing.assert_array_equal(said.effects[2], np.where(free, mean[0], 0.0))
    np.testing.assert_allclose(said.shared[2, free], 0.5 * screen.control_variance[free])
    other = Prediction("other", *np.ones((2, 5, N_GENES))).silenced(rows)
    assert said.silenced(rows) is said
    for table in (other.effects, other.shared):
        assert np.delete(table, 2, axis=0).all()
        assert not table[2].any()
