"""Regressions on genes, indicators and batches with guides, against dense generalised ones."""

import numpy as np
import pytest

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
