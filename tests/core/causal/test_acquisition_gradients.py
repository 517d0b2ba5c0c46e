"""Analytic gradients against central differences, and lower bounds against many shifts."""

import numpy as np
import pytest

from nextpert.core import (
    CausalVariance,
    Civ,
    CivOw,
    Dag,
    DagBlr,
    Greedy,
    MaxVariance,
    Moments,
    Sphere,
    TargetMeanVariance,
)

LOOKAHEAD = [Civ, CivOw, CausalVariance, MaxVariance, TargetMeanVariance]
STEP = 1e-5


def assert_gradient(acquisition, shift):
    """Central differences err by about step^2 |f'''| and 1e-16 |f| / step, both below 1e-10."""
    value, grad = acquisition.value_and_grad(shift)
    assert value == acquisition.value(shift)
    numeric = np.empty(len(shift))
    for j, axis in enumerate(np.eye(len(shift))):
        above, below = (acquisition.value(shift + sign * STEP * axis) for sign in (1, -1))
        numeric[j] = (above - below) / (2 * STEP)
    tolerance = 1e-6 * np.abs(grad).max() + 1e-10 * max(abs(value), 1.0)
    np.testing.assert_allclose(grad, numeric, rtol=0, atol=tolerance)
    return grad


@pytest.mark.parametrize("kind", [*LOOKAHEAD, Greedy])
def test_gradients(fitted, kind):
    plain, blr = fitted
    rng = np.random.default_rng(1)
    for n in (1, 30):
        target = rng.normal(size=plain.p)
        acquisition = kind(blr, target) if kind is Greedy else kind(blr, target, n_cells=n)
        for size in (0.2, 1.0, 4.0):
            grad = assert_gradient(acquisition, size * rng.normal(size=plain.p))
        if any(plain.parents) or kind is Greedy:
            assert np.abs(grad).max() > 0


@pytest.mark.parametrize("offset", [0.0, 1e-9, 1e-6, 1e-3])
def test_max_variance_gradient_near_ties(offset):
    # Eigenvalues 1 and 1 - offset or so: the gradient is that of the dense eigenvector.
    blr = DagBlr(Dag.complete(range(3)), noise_var=1.0, intercept=False, prior_scale=1.0)
    x = np.sqrt(offset) * np.array([[0.0, 1.0, 0.0]])
    blr = blr.update(Moments.from_array(x))
    acquisition = MaxVariance(blr, np.ones(3))
    shift = np.array([0.7, -0.4, 0.1])
    mean = blr.predict_mean(shift)[:2]
    cov = blr.blocks["cov"][blr.mptr[2] :].reshape(2, 2)
    later = np.linalg.inv(np.linalg.inv(cov) + np.outer(mean, mean))
    assert acquisition.value(shift) == pytest.approx(np.linalg.eigvalsh(later)[1], rel=1e-12)
    top = np.linalg.eigh(later)[1][:, 1]
    # d(lambda) = -v' M' (dx x' + x dx') M' v
    along = -2 * (top @ later @ mean) * (later @ top)
    effects = np.linalg.inv(np.eye(3) - blr.mean().toarray())[:2]
    np.testing.assert_allclose(acquisition.value_and_grad(shift)[1], along @ effects, atol=1e-7)


@pytest.mark.parametrize("kind", LOOKAHEAD)
def test_a_search_reaches_the_least_value_where_one_weight_is_unknown(kind):
    dag = Dag.from_edges(2, [(0, 1)])
    blr = DagBlr(dag, noise_var=[0.5, 0.7], intercept=False, prior_scale=1.3)
    acquisition = kind(blr, [1.0, -0.4], n_cells=4)
    found = Sphere(1.7).minimise(acquisition, rng=0)
    # by hand: M' = (1/1.3 + 4 a_0^2)^-1, least at a_0 = +-1.7, and q = mu*_0 = 1
    w = 1 / (1 / 1.3 + 4 * 1.7**2)
    floor = acquisition.value([1e9, 0.0])
    excess = acquisition.problem.quad[1] * ((w + 1 / 4) ** 2 - (1 / 4) ** 2)
    excess += acquisition.problem.lin[1] * w
    assert excess > 0
    assert found.value == pytest.approx(floor + excess, rel=1e-9)
