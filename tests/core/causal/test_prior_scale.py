"""The learned prior scale against a search of the dense evidence over a fine grid."""

import numpy as np
import pytest
from scipy import stats

from nextpert.core import Dag, DagBlr, Moments

COARSE = np.linspace(-14, 18, 129)
HYPER_SD = 3.0  # of log lambda: documented


def node_evidence(x, y, ones, grid, noise, shape, rate):
    """Log evidence of one node at each log lambda of the grid, by dense determinants."""
    values = np.empty(len(grid))
    for j, t in enumerate(grid):
        prior = np.diag([*ones, *[np.exp(t)] * (x.shape[1] - len(ones))])
        precision = prior + x.T @ x
        mean = np.linalg.solve(precision, x.T @ y)
        quad = ((y - x @ mean) ** 2).sum() + mean @ prior @ mean
        values[j] = (np.linalg.slogdet(prior)[1] - np.linalg.slogdet(precision)[1]) / 2
        if noise is None:
            values[j] -= (shape + len(y) / 2) * np.log(rate + quad / 2)
        else:
            values[j] -= quad / 2 / noise
    return values


def finest(objective):
    """Best log lambda of a coarse grid over the whole range, then of a fine one about it."""
    best = COARSE[objective(COARSE).argmax()]
    fine = np.linspace(best - 0.26, best + 0.26, 105)
    values = objective(fine)
    return fine[values.argmax()], values.max()


@pytest.mark.parametrize("graph", ["complete", "sparse", "in_star"])
def test_learned_precision_is_the_best_of_a_fine_grid(
    graph, intercept, known, dense, cells, graphs
):
    parents = graphs[graph]
    rng = np.random.default_rng(3)
    p = len(parents)
    shift = rng.normal(size=p)
    data = [
        (0.2 * cells(parents, rng, 30, intercept=intercept), np.zeros(p)),
        (0.2 * cells(parents, rng, 10, shift, intercept=intercept), 0.2 * shift),
    ]
    noise = 0.04 if known else None
    model = dense(parents, intercept=intercept)
    rows = model.regressions(data)
    ones = [1e-6] * intercept
    has_parents = [i for i in range(p) if parents[i]]

    def evidence(i, grid):
        return node_evidence(*rows[i], ones, grid, noise, 2.0, 1e-3)

    best, _ = finest(
        lambda t: sum(evidence(i, t) for i in has_parents) + stats.norm.logpdf(t, 0, HYPER_SD)
    )
    options = {"noise_var": noise, "prior_units": "data", "prior_rate": 1e-3}
    blr = DagBlr(Dag.from_parents(parents), intercept=intercept, **options)
    for x, a in data:
        blr = blr.update(Moments.from_array(x), a)
    learned = np.log(blr.blocks["precision"])
    np.testing.assert_allclose(learned[~blr.is_weight], np.log(1e-6))
    np.testing.assert_allclose(learned[blr.is_weight], best, atol=0.0051)


def test_without_parents_or_cells_the_hyperprior_decides(graphs):
    for name in ("empty", "complete"):
        blr = DagBlr(Dag.from_parents(graphs[name]), prior_units="data")
        np.testing.assert_allclose(blr.blocks["precision"][blr.is_weight], 1.0, atol=1e-3)


def test_scale_is_learned_anew_as_cells_arrive(cells, graphs):
    parents = graphs["complete"]
    rng = np.random.default_rng(0)
    blr = DagBlr(Dag.from_parents(parents))
    few = blr.update(Moments.from_array(cells(parents, rng, 8, intercept=True)))
    _ = few.blocks
    cell = Moments.from_array(cells(parents, rng, 1, intercept=True))
    many = few.update(cell)
    fresh = blr.update(few_moments := Moments.from_array(np.zeros((0, 5))))
    assert few_moments.n == 0
    assert fresh.n_cells == 0
    changed = many.blocks["precision"] != few.blocks["precision"]
    np.testing.assert_array_equal(changed, many.is_weight)


@pytest.mark.parametrize(("unit", "low", "high"), [(1e3, 9.0, 14.5), (1e-3, -14.1, -9.0)])
def test_scales_far_from_one_are_found(unit, low, high):
    # 200 children of one gene whose weights are of the size of 1 / unit.
    rng = np.random.default_rng(0)
    parent = unit * rng.normal(size=300)
    children = np.outer(parent, rng.normal(size=200) / unit) + rng.normal(size=(300, 200))
    dag = Dag.from_edges(201, [(0, i) for i in range(1, 201)])
    blr = DagBlr(dag, prior_units="data")
    blr = blr.update(Moments.from_array(np.column_stack([parent, children])))
    assert low < np.log(blr.blocks["precision"][blr.is_weight][0]) < high
