"""Updates in place equal those that copy, and leave no trace where they fail."""

import numpy as np
import pytest

from nextpert.core import DagBlr, Moments, random_scm


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("prior_scale", [1.0, "evidence"])
@pytest.mark.parametrize("n_cells", [1, 3])
def test_equals_the_copy(intercept, prior_scale, n_cells):
    scm = random_scm(6, rng=0)
    start = DagBlr(scm.dag, intercept=intercept, prior_scale=prior_scale)
    start = start.update(Moments.from_array(scm.sample(20, rng=1)))
    before = start.to_dict()
    changed = start.update(Moments.from_array(scm.sample(1, rng=2)))
    copied = changed
    for r in range(5):
        moments = Moments.from_array(scm.sample(n_cells, rng=10 + r))
        shift = np.full(6, 0.1 * r)
        copied = copied.update(moments, shift, do=[r])
        same = changed.update(moments, shift, do=[r], inplace=True)
        assert same is changed
    for name, value in copied.to_dict().items():
        np.testing.assert_array_equal(changed.to_dict()[name], value, err_msg=name)
    for name, value in start.to_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_nothing_is_changed_where_it_fails():
    scm = random_scm(4, rng=0)
    blr = DagBlr(scm.dag).update(Moments.from_array(scm.sample(20, rng=1)))
    before = blr.to_dict()
    with pytest.raises(ValueError, match="shift"):
        blr.update(Moments.from_array(scm.sample(2, rng=1)), np.full(4, np.nan), inplace=True)
    for name, value in blr.to_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
