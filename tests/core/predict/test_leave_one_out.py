"""Many environments at once, and one left out, against updates with one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from nextpert.core import DagBlr, Moments, ScreenMoments, random_scm
from nextpert.core.posterior.add_screen import add_screen
from nextpert.core.predict.leave_one_out import leave_one_out

P, K = 6, 5


@pytest.fixture(params=[True, False])
def case(request):
    """A posterior, a screen with a guide that no cell has, its cells, and the shifts."""
    rng = np.random.default_rng(0)
    scm = random_scm(P, expected_degree=3, rng=0)
    options = {"intercept": request.param}
    start = DagBlr(scm.dag, **options).update(Moments.from_array(scm.sample(50, rng=rng)))
    shifts = rng.normal(size=(K, P))
    cells = [scm.sample(n, a, rng=rng) for n, a in zip([10, 11, 1, 0, 300], shifts, strict=True)]
    groups = np.repeat(np.arange(K), [len(x) for x in cells])
    return start, ScreenMoments.from_array(np.concatenate(cells), groups, K), cells, shifts


def one_by_one(start, screen, cells, shifts, chosen):
    for k in chosen:
        share = screen.scatter * (len(cells[k]) / screen.n.sum())
        mean = cells[k].mean(axis=0) if len(cells[k]) else np.zeros(P)
        start = start.update(Moments(len(cells[k]), mean, np.zeros((P, P))), shifts[k])
        start = start.update(Moments(0, mean, share))
    return start


def assert_alike(one, other):
    np.testing.assert_allclose(one.mean().toarray(), other.mean().toarray(), rtol=1e-9)
    np.testing.assert_allclose(one.intercept_mean, other.intercept_mean, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(one.rate, other.rate, rtol=1e-9)
    np.testing.assert_array_equal(one.cells, other.cells)
    assert one.log_evidence() == pytest.approx(other.log_evidence(), rel=1e-9)


@pytest.mark.parametrize("chosen", [None, [4, 1], []])
def test_many_at_once_are_one_after_the_other(case, chosen):
    start, screen, cells, shifts = case
    before = start.to_dict()
    found = add_screen(start, screen, shifts, chosen)
    numbers = range(K) if chosen is None else chosen
    assert_alike(found, one_by_one(start, screen, cells, shifts, numbers))
    for name, value in start.to_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_all_together_are_the_cells_themselves(case):
    start, screen, cells, shifts = case
    expected = start
    for x, shift in zip(cells, shifts, strict=True):
        expected = expected.update(Moments.from_array(x), shift)
    assert_alike(add_screen(start, screen, shifts), expected)


def test_leave_one_out_is_a_refit_without_it(case):
    start, screen, cells, shifts = case
    for chosen in (list(range(K)), [3, 0, 4]):
        found = list(leave_one_out(start, screen, shifts, chosen))
        assert len(found) == len(chosen)
        for held_out, blr in zip(chosen, found, strict=True):
            others = [k for k in chosen if k != held_out]
            assert_alike(blr, one_by_one(start, screen, cells, shifts, others))
    assert [b.n_cells for b in leave_one_out(start, screen, shifts, [1])] == [50]
    assert list(leave_one_out(start, screen, shifts, [])) == []


@pytest.mark.parametrize(
    ("shifts", "message"),
    [(np.zeros((K, P + 1)), "must fit"), (np.full((K, P), np.nan), "shifts"),
     (np.full((K, P), 1e200), "too large")],
)  # fmt: skip
def test_bad_shifts_are_named(case, shifts, message):
    with pytest.raises(ValueError, match=message):
        add_screen(case[0], case[1], shifts)
