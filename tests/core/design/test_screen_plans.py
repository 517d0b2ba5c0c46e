import numpy as np
import pytest

from nextpert.core.design.screen_plans import Prices


@pytest.mark.parametrize("prices", [Prices(), Prices(80.0, 0.3, 5.0)])
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_budget_pays_for_perturbations_and_their_controls(prices, share):
    n, g, budget = 40, 3, 30_000
    k = prices.affordable(budget, n, g, share)

    def cost(k):
        return (k + np.sqrt(k)) * n * prices.of_cell(share) + k * g * prices.construct

    assert cost(k) <= budget < cost(k + 1)
    assert prices.affordable(1.0, n, g, share) == 0
