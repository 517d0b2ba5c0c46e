"""Regressions on genes, indicators and batches with guides, against dense generalised ones."""

import numpy as np
import pytest
import scipy.sparse as sp

from nextpert.core import ScreenMoments, context_moments


@pytest.mark.parametrize("tau2", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("with_batches", [False, True])
def test_residuals_are_those_of_generalised_least_squares(tau2, with_batches):
    rng = np.random.default_rng(4)
    n = rng.integers(3, 12, size=12)
    guide = np.repeat(np.arange(12), n)
    perturbation = np.repeat([0, 1, 2], 4)
    indicators = np.eye(3)[perturbation][:, 1:]
    batch = np.array([0, 1] * 6)[:, None].astype(float)
    x = rng.normal(size=(len(guide), 3)) @ rng.normal(size=(3, 3)) + rng.normal(size=(12, 3))[guide]
    joint = context_moments(
        ScreenMoments.from_array(x, guide, 12), indicators,
        fixed=batch if with_batches else None, guide_variance=tau2,
    )  # fmt: skip
    same = np.equal.outer(guide, guide).astype(float)
    inverse = np.linalg.inv(np.eye(len(guide)) + tau2 * same)
    columns = [np.ones(len(guide)), x[:, 1], x[:, 2], *indicators[guide].T]
    design = np.column_stack([*columns, *([batch[guide, 0]] if with_batches else [])])
    left = x[:, 0] - design @ np.linalg.solve(
        design.T @ inverse @ design, design.T @ inverse @ x[:, 0]
    )
    parents = [1, 2, 3, 4]
    gram = joint.scatter[np.ix_(parents, parents)]
    cross = joint.scatter[parents, 0]
    found = joint.scatter[0, 0] - cross @ np.linalg.solve(gram, cross)
    np.testing.assert_allclose(found, left @ inverse @ left, rtol=1e-9)
    assert joint.n == len(guide)


@pytest.mark.parametrize("tau2", [0.0, 0.3])
def test_sparse_columns_are_regressed_out_as_dense_ones(tau2):
    """Also where they depend on one another, and explain an indicator."""
    rng = np.random.default_rng(5)
    group, batch = np.repeat(np.arange(40), 2), np.tile([0.0, 1.0], 40)
    screen = ScreenMoments(
        rng.integers(3, 30, 80), rng.normal(size=(80, 3)), np.zeros((80, 3)), np.eye(3)
    )
    one = np.equal.outer(group, np.arange(40)).astype(float)
    indicators = np.c_[one[:, :5], one[:, 5:7].sum(axis=1)]
    fixed = np.c_[batch, one[:, 5:39], one[:, 5:8].sum(axis=1), 2 * batch, 0 * batch]
    dense, sparse = (
        context_moments(screen, indicators, fixed=columns, guide_variance=tau2)
        for columns in (fixed, sp.csr_array(fixed))
    )
    np.testing.assert_allclose(sparse.scatter, dense.scatter, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(sparse.mean, dense.mean)
    assert not sparse.scatter[-1].any()
    assert sparse.scatter[3, 3] > 1
