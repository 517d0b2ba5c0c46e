"""Moments against exact sums, for every kind of matrix and far from zero."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp

from nextpert.core import Moments


def exact(x):
    """Mean and scatter in exact rational arithmetic, rounded once at the end."""
    rows = [[Fraction(float(v)) for v in row] for row in x]
    n, p = len(rows), len(rows[0])
    mean = [sum(row[j] for row in rows) / n for j in range(p)]
    scatter = np.empty((p, p))
    for j in range(p):
        for k in range(p):
            scatter[j, k] = float(sum((row[j] - mean[j]) * (row[k] - mean[k]) for row in rows))
    return np.array([float(m) for m in mean]), scatter


FORMS = {
    "array": np.asarray,
    "float32": lambda x: x.astype(np.float32),
    "uint8": lambda x: x.astype(np.uint8),
    "list": lambda x: x.tolist(),
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "coo_array": sp.coo_array,
    "csr_float32": lambda x: sp.csr_array(x.astype(np.float32)),
    "view": lambda x: np.repeat(x, 2, axis=0)[::2],
}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_kind_of_matrix_gives_the_same_moments(form):
    x = np.random.default_rng(0).poisson(1.3, size=(60, 4)).astype(float)
    x[:, 3] *= 20
    mean, scatter = exact(x)
    given = FORMS[form](x)
    before = given.copy() if hasattr(given, "copy") else None
    moments = Moments.from_array(given)
    assert moments.n == 60
    assert moments.n_nodes == 4
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(moments.scatter, scatter, rtol=1e-12, atol=1e-10)
    np.testing.assert_array_equal(moments.scatter, moments.scatter.T)
    np.testing.assert_allclose(moments.total, x.sum(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.gram, x.T @ x, rtol=1e-12)
    np.testing.assert_allclose(moments.variance, x.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.correlation(), np.corrcoef(x.T), rtol=1e-11, atol=1e-13)
    if sp.issparse(given):
        assert (given != before).nnz == 0


@pytest.mark.parametrize("form", ["array", "csr_array", "csc_array"])
@pytest.mark.parametrize("offset", [1e6, -3e7])
def test_moments_keep_their_digits_far_from_zero(form, offset):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 3)) + np.array([offset, 0.0, offset / 10])
    mean, scatter = exact(x)
    moments = Moments.from_array(FORMS[form](x))
    parts = sum(
        (Moments.from_array(FORMS[form](part)) for part in np.array_split(x, 9)), Moments.zeros(3)
    )
    for found in (moments, parts):
        np.testing.assert_allclose(found.mean, mean, rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(found.scatter, scatter, rtol=0, atol=1e-6)


def test_parts_add_up_in_any_order():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(101, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)
    mean, scatter = exact(x)
    parts = [Moments.from_array(part) for part in np.split(x, [1, 7, 7, 60])]
    assert [m.n for m in parts] == [1, 6, 0, 53, 41]
    forward = sum(parts[1:], parts[0])
    backward = sum(parts[-2::-1], parts[-1])
    nested = (parts[0] + parts[3]) + (parts[4] + (parts[1] + parts[2]))
    blocks = [Moments.from_array(b) for b in (x[:50], sp.csr_array(x[50:51]), x[51:].tolist())]
    streamed = sum(blocks, Moments.zeros(5))
    for found in (forward, backward, nested, streamed):
        assert found.n == 101
        np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(found.scatter, scatter, rtol=1e-11, atol=1e-11)
    same = forward + Moments.zeros(5)
    np.testing.assert_array_equal(same.scatter, forward.scatter)
    assert (Moments.zeros(5) + Moments.zeros(5)).n == 0
    with pytest.raises(ValueError, match=r"5 and of 2 nodes"):
        forward + Moments.zeros(2)


def test_subset():
    x = np.random.default_rng(3).normal(size=(30, 5))
    moments = Moments.from_array(x)
    some, wanted = moments.subset([3, 0]), Moments.from_array(x[:, [3, 0]])
    np.testing.assert_allclose(some.mean, wanted.mean)
    np.testing.assert_allclose(some.scatter, wanted.scatter)
    assert some.n == 30


@pytest.mark.parametrize("form", ["array", "csr_array", "csc_array"])
def test_constant_nodes_are_found_and_named(form):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(5000, 6))
    x[:, 1], x[:, 3], x[:, 4] = 0.0, 0.1, 1e5 / 3
    x[:, 5] = 1e5 / 3 + 1e-1 * rng.normal(size=5000)  # far from zero, but not constant
    moments = Moments.from_array(FORMS[form](x))
    assert moments.constant_nodes().tolist() == [1, 3, 4]
    parts = [Moments.from_array(FORMS[form](part)) for part in np.array_split(x, 7)]
    assert sum(parts, Moments.zeros(6)).constant_nodes().tolist() == [1, 3, 4]
    with pytest.raises(ValueError, match=r"\[1, 3, 4\] are constant"):
        moments.correlation()
    assert Moments.from_array(x[:1]).constant_nodes().tolist() == list(range(6))
    assert Moments.zeros(2).constant_nodes().tolist() == [0, 1]
    assert Moments.from_array(1e-9 * x).constant_nodes().tolist() == [1, 3, 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["array", "csr_array", "csc_array", "float32"])
def test_values_that_are_not_finite_are_named_by_column(form, bad):
    x = np.ones((6, 5))
    x[2, 1] = x[4, 3] = bad
    with pytest.raises(ValueError, match=r"Columns \[1, 3\]") as caught:
        Moments.from_array(FORMS[form](x))
    assert caught.value.columns.tolist() == [1, 3]


def test_wrong_shapes_are_refused():
    for bad in (np.ones(3), np.ones((2, 3, 4))):
        with pytest.raises(ValueError, match="must be a matrix"):
            Moments.from_array(bad)
    with pytest.raises(ValueError, match="3 and of 2"):
        Moments.zeros(3) + Moments.zeros(2)
    for empty in (np.empty((0, 3)), sp.csr_array((0, 3))):
        assert Moments.from_array(empty).n == 0
        assert Moments.from_array(empty).n_nodes == 3


@pytest.mark.parametrize("size", [1e155, 1e160, 1e300, 1e307])
@pytest.mark.parametrize("form", ["array", "csr_array", "csc_array"])
def test_values_too_large_to_be_squared_are_named(form, size):
    x = np.random.default_rng(0).normal(size=(500, 4))
    x[:, [1, 3]] *= size
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(ValueError, match=r"\[1, 3\] contain values too large") as caught,
    ):
        Moments.from_array(FORMS[form](x * (np.abs(x) > 0.5)))
    assert caught.value.columns.tolist() == [1, 3]
