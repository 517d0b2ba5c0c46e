import numpy as np
import pytest

from nextpert.core import Moments
from nextpert.core.causal.weights import parent_fit


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    x = rng.gamma(1.0, 1.0, (90, 6)) + 5
    x[:, 3] += x[:, 0] - 2 * x[:, 1]
    return x


def _predict(train, test, node, parents):
    design = np.column_stack([np.ones(len(train)), train[:, parents]])
    weights = np.linalg.lstsq(design, train[:, node], rcond=None)[0]
    return np.column_stack([np.ones(len(test)), test[:, parents]]) @ weights


def test_in_sample_and_held_out_against_regressions_on_the_cells(cells):
    a, b = cells[:50], cells[50:]
    sets = [[0, 1], [2, 4], [1, 5]]
    of_a, of_b = Moments.from_array(a), Moments.from_array(b)
    for train, test, moments in ((a, a, (of_a, of_a)), (a, b, (of_a, of_b))):
        wanted = [np.corrcoef(_predict(train, test, 3, s), test[:, 3])[0, 1] for s in sets]
        found = parent_fit([moments[0]], [moments[1]], 3, sets)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_folds_are_added_up_each_about_its_own_mean(cells):
    parts = [cells[:30], cells[30:60] + 7, cells[60:]]
    others = [np.concatenate(parts[:f] + parts[f + 1 :]) for f in range(3)]
    predicted = [_predict(o, t, 3, [0, 2]) for o, t in zip(others, parts, strict=True)]
    centred = [
        np.concatenate([v - v.mean() for v in vs]) for vs in (predicted, [t[:, 3] for t in parts])
    ]
    train, test = ([Moments.from_array(x) for x in side] for side in (others, parts))
    found = parent_fit(train, test, 3, [[0, 2]])
    np.testing.assert_allclose(found, np.corrcoef(*centred)[0, 1], rtol=1e-6)


def test_constant_and_repeated_parents_do_no_harm(cells):
    x = np.column_stack([cells, np.ones(len(cells)), cells[:, 0]])
    m = Moments.from_array(x)
    alone, beside, twice, nothing = (
        parent_fit([m], [m], 3, [s])[0] for s in ([0], [0, 6], [0, 7], [6])
    )
    np.testing.assert_allclose([beside, twice], alone, rtol=1e-6)
    assert nothing == 0
    assert np.isnan(parent_fit([m], [m], 6, [[0]])).all()
