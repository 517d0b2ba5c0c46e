"""Whether untested combinations are nearer than what is known, and cells to confirm a distance."""

import numpy as np
import pytest

from nextpert.core.design.admission import nearer_than_known
from nextpert.core.design.remaining_variance import NoiseTerms


def test_probabilities_are_shares_of_draws():
    rng = np.random.default_rng(0)
    draws = rng.gamma(3, size=(500, 6))
    members = {4: [0, 1], 5: [1, 2, 4], 3: []}
    over_members, over_best = nearer_than_known(draws, members, 2)
    for i in range(6):
        if i not in members:
            assert np.isnan([over_members[i], over_best[i]]).all()
            continue
        nearer = [all(row[i] < row[j] for j in members[i]) for row in draws]
        known = np.mean(nearer) if members[i] else np.nan
        np.testing.assert_equal(over_members[i], known)
        assert over_best[i] == np.mean([row[i] < row[2] for row in draws])
    assert np.isnan(nearer_than_known(draws, members, None)[1]).all()


@pytest.mark.parametrize("shared", [0.0, 0.01])
def test_cells_for_a_variance_are_the_least_that_have_it(shared):
    noise = NoiseTerms(np.array([4.0, 0.5, 0.0]), np.array([2.0, 3.0, 1.0]), shared)
    for variance in (0.02, 0.3):
        found = noise.cells_for(variance)
        for k in range(3):
            enough = [n for n in range(1, 3000) if noise.at(n)[k] <= variance]
            assert found[k] == (enough[0] if enough else np.inf)
            assert noise.rows([k]).cells_for(variance)[0] == found[k]
