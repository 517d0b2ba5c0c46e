"""Programs that perturbations share."""

import numpy as np
import pytest

from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.programs import (
    _loadings,
    _Products,
    _varimax,
    find_programs,
    strongest,
)
from nextpert.core.screen.guides import PooledGuides

N, P = 25, 60
FIRST, SECOND = np.arange(12), np.arange(30, 42)  # genes of two pathways


def screen(effect, seed=0, cells=100.0):
    """Sums of cells of perturbations with given effects, genes independent within cells."""
    rng = np.random.default_rng(seed)
    n, p = effect.shape
    mean = np.vstack([np.zeros(p), effect]) + rng.normal(size=(n + 1, p)) / np.sqrt(cells)
    mean[0] /= 4.0
    n_cells = np.append(16 * cells, np.full(n, cells))
    scatter = np.eye(p) * (n_cells.sum() - n - 1)
    return PooledGuides(n_cells.astype(int), n_cells, mean, scatter, np.ones((n + 1, p)))


def pathways(seed=1):
    """Effects of which five perturbations each share those on 12 genes."""
    rng = np.random.default_rng(seed)
    effect = 0.7 * rng.normal(size=(N, P)) * (rng.random((N, P)) < 0.03)
    for rows, genes in ((range(5), FIRST), (range(5, 10), SECOND)):
        size = rng.choice([-0.6, 0.6], len(genes))
        effect[np.ix_(rows, genes)] += np.outer([1.0, 0.8, 1.0, -0.9, 0.7], size)
    return effect


def nothing(draws):
    """No targets."""
    return np.zeros(draws.expected.shape, bool)


@pytest.fixture(scope="module")
def fitted():
    return fit_hierarchical(screen(pathways()), rng=0)


def auc(score, true):
    order = score.argsort().argsort() + 1
    k = true.sum()
    return (order[true].sum() - k * (k + 1) / 2) / (k * (len(true) - k))


def test_two_pathways_are_recovered(fitted):
    found = find_programs(fitted, nothing(fitted.effects))
    for rows, genes in ((slice(0, 5), FIRST), (slice(5, 10), SECOND)):
        mine = np.abs(found.scores[rows]).mean(axis=0).argmax()
        score = found.scores[:, mine]
        assert np.abs(score[rows]).min() > 0.4 > np.abs(np.delete(score, range(N)[rows])).max()
        np.testing.assert_array_equal(
            np.sign(score[rows]) * np.sign(score[rows][0]), [1, 1, 1, -1, 1]
        )
        assert auc(np.abs(found.genes[mine]), np.isin(np.arange(P), genes)) >= 0.9
    np.testing.assert_allclose(np.abs(found.scores).max(axis=0), 1.0)
    np.testing.assert_allclose(found.scores.max(axis=0), 1.0)
    assert (np.diff(found.share) <= 0).all()
    assert 0.1 < found.share[:2].sum() < 1.0
    for one, two in zip(found, find_programs(fitted, nothing(fitted.effects)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_spreads_are_those_of_draws(fitted):
    """A program is off from what it is by as much as its standard deviation says."""
    found, effect = find_programs(fitted, nothing(fitted.effects)), pathways()
    mine = np.abs(found.scores[:5]).mean(axis=0).argmax()
    top = found.scores[:, mine].argmax()
    true = effect[top, FIRST]
    sd = found.genes_sd[mine, FIRST]
    assert (np.abs(found.genes[mine, FIRST] - true) < 4 * sd).all()
    assert 0.02 < np.median(sd) < 0.1  # a mean of 100 cells is off by 0.1, five of them by 0.05
    score = effect[:5, FIRST] @ true / (true @ true)
    assert (np.abs(found.scores[:5, mine] - score) < 4 * found.scores_sd[:5, mine]).all()


@pytest.mark.parametrize("alone", [False, True])
def test_no_program_where_nothing_is_shared(alone):
    effect = np.zeros((N, P))
    if alone:
        effect[3, :20], effect[7, 30:] = 1.0, -1.0
    fit = fit_hierarchical(screen(effect), rng=0)
    found = find_programs(fit, nothing(fit.effects))
    assert found.share.sum() <= 0.05
    shapes = [x.shape for x in found]
    k = len(found.share)
    assert shapes == [(N, k), (N, k), (k, P), (k, P), (k,)]


def test_loadings_do_without_the_diagonal():
    rng = np.random.default_rng(0)
    true = np.zeros((20, 2))
    true[:8, 0], true[8:15, 1] = rng.uniform(0.5, 1.0, 8), rng.uniform(-1.0, -0.5, 7)
    specific = np.diag(np.sqrt(rng.uniform(0, 50, 20)))  # each in a gene of its own
    products = _Products(np.hstack([true, specific]))
    found = _loadings(products, 2)
    np.testing.assert_allclose(found @ found.T, true @ true.T, atol=1e-4)
    turned = _varimax(found)
    np.testing.assert_allclose(turned @ turned.T, true @ true.T, atol=1e-4)
    order = np.abs(turned[:8]).sum(axis=0).argsort()[::-1]
    np.testing.assert_allclose(np.abs(turned[:, order]), np.abs(true), atol=1e-3)
    assert _loadings(products, 0).shape == (20, 0)


@pytest.mark.parametrize(("n", "p"), [(30, 8), (100, 20), (100, 60)])
def test_eigenvalues_of_products_are_those_of_the_matrix(n, p):
    """Of small matrices, of products without their matrix, and with it."""
    rng = np.random.default_rng(0)
    effects, diagonal = rng.normal(size=(n, p)), rng.uniform(0, 5, n)
    products = _Products(effects)
    assert (products.matrix is None) == (p == 20)
    values, vectors = products.largest(diagonal, 3)
    matrix = effects @ effects.T
    np.fill_diagonal(matrix, diagonal)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[:-4:-1])
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-8)


def test_programs_do_not_depend_on_draws_in_memory(fitted, monkeypatch):
    held = find_programs(fitted, nothing(fitted.effects))
    monkeypatch.setattr("nextpert.core.model.programs._MAX_HELD", 0)
    for one, two in zip(held, find_programs(fitted, nothing(fitted.effects)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_of_many_perturbations_the_strongest_are_compared(fitted, monkeypatch):
    """Programs are learned from some; scores are of all."""
    whole = find_programs(fitted, nothing(fitted.effects))
    monkeypatch.setattr("nextpert.core.model.programs.MAX_COMPARED", 12)
    mean = fitted.effects.posterior_mean() / fitted.effects.unit
    among, size = strongest(mean), (mean**2).sum(axis=1)
    assert sorted(size[among]) == sorted(size)[-12:]
    assert (np.diff(among) > 0).all()
    found = find_programs(fitted, nothing(fitted.effects))
    assert found.scores.shape[0] == N
    for rows in (slice(0, 5), slice(5, 10)):
        one, two = (
            x.scores[:, np.abs(x.scores[rows]).mean(axis=0).argmax()] for x in (whole, found)
        )
        assert np.corrcoef(one, two)[0, 1] > 0.98


def test_target_genes_are_left_out_of_programs():
    """One perturbation has its target in the program alone, one has it there besides."""
    effect = pathways()
    effect[20] = 0.0
    effect[20, 3] = -4.0
    effect[0, 5] -= 4.0
    own = np.zeros((N, P), bool)
    own[[20, 0], [3, 5]] = True
    fit = fit_hierarchical(screen(effect), rng=0)
    naive, found = find_programs(fit, nothing(fit.effects)), find_programs(fit, own)
    mine = [np.abs(x.scores[1:5]).mean(axis=0).argmax() for x in (naive, found)]
    assert naive.takes_part[20].any()
    assert not found.takes_part[20].any()
    np.testing.assert_array_equal(np.flatnonzero(found.takes_part[:, mine[1]]), range(5))
    top = found.scores[:, mine[1]].argmax()
    true = pathways()[top, FIRST]
    error, of_naive = (
        np.abs(x.genes[k, FIRST] - true) / x.genes_sd[k, FIRST]
        for x, k in ((found, mine[1]), (naive, mine[0]))
    )
    assert error.max() < 4 < of_naive.max()
    score = pathways()[:5, FIRST] @ true / (true @ true)
    off = found.scores[:5, mine[1]] - score
    assert (np.abs(off) < 4 * found.scores_sd[:5, mine[1]]).all()
