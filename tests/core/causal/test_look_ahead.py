"""The look ahead with the cells' noise: unknown variances, pools, bounds."""

from itertools import pairwise

import numpy as np
import pytest

from nextpert.core import (
    CausalVariance,
    Civ,
    CivOw,
    Dag,
    DagBlr,
    MaxVariance,
    Moments,
    Sphere,
    TargetMeanVariance,
)
from nextpert.core.causal import _kernels, _lookahead

LOOKAHEAD = [Civ, CivOw, CausalVariance, MaxVariance, TargetMeanVariance]


@pytest.mark.parametrize(("n_before", "n"), [(100, 100), (100, 1000), (20, 50)])
def test_noise_aware_values_are_those_that_cells_leave_on_average(n_before, n, fit_twice, graphs):
    plain, blr = fit_twice(graphs["sparse"], True, False, n=n_before)
    rng = np.random.default_rng(1)
    p, draws = plain.p, 600
    shift, target = 0.1 * rng.normal(size=p), rng.normal(size=p)
    off = plain.ideal(target) ** 2 + 1 / p
    b, c, noise = plain.draw(draws, rng)
    e, values = np.empty((draws, p)), np.empty(draws)
    for r in range(draws):  # cells of a model drawn from the posterior, used as they come
        source = rng.normal(size=(n, p)) * np.sqrt(noise[r]) + c[r] + shift
        x = np.linalg.solve(np.eye(p) - b[r], source.T).T
        after = blr.update(Moments.from_array(x), shift)
        e[r], kappa = after.spread()
        rows = [plain.design(target[None], i)[0] for i in range(p)]
        blocks = [after.blocks["cov"][i:j] for i, j in pairwise(after.mptr)]
        w = [q @ m.reshape(len(q), -1) @ q for q, m in zip(rows, blocks, strict=True)]
        s = 1 / n + np.array(w)
        values[r] = (kappa * s**2 + 4 * s * e[r] * off).sum()
    civ = Civ(blr, target, n_cells=n, noise_aware=True)
    error = e.std(axis=0) / np.sqrt(draws)
    assert (np.abs(civ.spread_ahead()[0] - e.mean(axis=0)) < 4 * error).all()
    bias = 0.1 if n_before == 20 else 0.03  # weights are not known when looking ahead
    assert civ.value(shift) == pytest.approx(values.mean(), rel=bias)
    assert Civ(blr, target, n_cells=n).value(shift) < (0.75 if n < 1000 else 0.3) * values.mean()


@pytest.mark.parametrize("kind", LOOKAHEAD)
def test_noise_aware_pools_and_bounds(fitted, kind):
    plain, blr = fitted
    rng = np.random.default_rng(2)
    acquisition = kind(blr, rng.normal(size=plain.p), n_cells=8, noise_aware=True)
    shifts = rng.normal(size=(2000, plain.p))
    single = [acquisition.value(a) for a in shifts[:40]]
    np.testing.assert_allclose(acquisition.values(shifts)[:40], single, rtol=1e-12)
    shifts /= np.linalg.norm(shifts, axis=1, keepdims=True)
    found = Sphere(1.0).minimise(acquisition, rng=0)
    assert found.value <= acquisition.values(shifts).min() * (1 + 1e-10)
    # seeing scatter too never leaves more than the paper's look ahead
    paper = kind(blr, acquisition.target_mean, n_cells=8)
    same = {"quad": acquisition.problem.quad, "lin": acquisition.problem.lin}
    paper.problem = paper.problem._replace(**same)  # the paper's expect the noise to shrink
    assert (acquisition.values(shifts) <= paper.values(shifts) * (1 + 1e-10)).all()
    assert acquisition.current() == pytest.approx(paper.current(), rel=1e-12)


@pytest.mark.parametrize("noise_aware", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("prior_scale", [1.0, "evidence"])
def test_one_factor_for_a_complete_graph_gives_the_sum_of_all_nodes(
    intercept, noise_aware, prior_scale, monkeypatch
):
    rng, p = np.random.default_rng(3), 7
    order = rng.permutation(p).tolist()
    dag = Dag.from_edges(p, [(order[a], order[b]) for b in range(p) for a in range(b)])
    x = rng.normal(size=(30, p)) @ rng.normal(size=(p, p)) + 0.5
    blr = DagBlr(dag, intercept=intercept, prior_scale=prior_scale).update(Moments.from_array(x))
    target, shifts = rng.normal(size=p), rng.normal(size=(9, p))

    def found():
        return Civ(blr, target, domain=Sphere(1.0), n_cells=5, noise_aware=noise_aware)

    shared = found()
    assert len(shared.problem.root) == p - 1 + intercept
    monkeypatch.setattr(
        Civ, "_shared_root", lambda self: (np.zeros((0, 0)), np.zeros(0))
    )  # node by node
    plain = found()
    np.testing.assert_allclose(shared.values(shifts), plain.values(shifts), rtol=1e-10)
    for shift in shifts:
        (one, slope), (other, expected) = (c.value_and_grad(shift) for c in (shared, plain))
        assert one == pytest.approx(other, rel=1e-10)
        np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-10 * abs(expected).max())
    # Compiled loops do not check indices; Python does.
    monkeypatch.setattr(_lookahead, "dot", _kernels.dot.py_func)
    x, slope = shifts[0], np.zeros((2, p))
    value = _lookahead._shared.py_func(shared.problem, x, slope[0])
    layout = plain.problem[2:4] + plain.problem[5:7]
    for name in ("look_ahead", "add_slope", "longest_row"):
        monkeypatch.setattr(_lookahead, name, getattr(_lookahead, name).py_func)
    assert value == pytest.approx(
        _lookahead._summed.py_func(plain.problem, layout, x, slope[1]), rel=1e-10
    )
    np.testing.assert_allclose(*slope, rtol=1e-8, atol=1e-10 * abs(slope).max())


@pytest.mark.parametrize("place", [1, 3, 4])
def test_nodes_that_saw_other_cells_share_no_factor(place, monkeypatch):
    rng, p = np.random.default_rng(4), 5
    dag = Dag.from_edges(p, [(a, b) for b in range(p) for a in range(b)])
    x = Moments.from_array(rng.normal(size=(40, p)) @ np.triu(rng.normal(size=(p, p))))
    blr = DagBlr(dag, prior_scale=1.0).update(x)
    assert len(Civ(blr, np.ones(p)).problem.root)
    other, counted = DagBlr(dag, prior_scale=1.0).update(x), np.full((1, p), 30.0)
    counted[0, place] = 0.0
    other.add_means(np.ones((1, p)), np.ones((1, p)), counted)
    civ, shifts = Civ(other, np.ones(p)), rng.normal(size=(4, p))
    assert not len(civ.problem.root)
    monkeypatch.setattr(Civ, "_shared_root", lambda self: (np.zeros((0, 0)), np.zeros(0)))
    plain = Civ(other, np.ones(p))
    np.testing.assert_allclose(civ.values(shifts), plain.values(shifts), rtol=1e-12)
