import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core.design.detection import ByFalseSigns
from nextpert.core.design.effect_sizes import EffectSizes
from nextpert.core.design.power import Layout, screen_noise
from nextpert.core.design.screen_plans import Prices, ScreenPlans
from nextpert.core.screen.departures import Coexpression


@pytest.mark.parametrize("prices", [Prices(), Prices(80.0, 0.3, 5.0)])
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_budget_pays_for_perturbations_and_their_controls(prices, share):
    n, g, budget = 40, 3, 30_000
    k = prices.affordable(budget, n, g, share)

    def cost(k):
        return (k + np.sqrt(k)) * n * prices.of_cell(share) + k * g * prices.construct

    assert cost(k) <= budget < cost(k + 1)
    assert prices.affordable(1.0, n, g, share) == 0


def test_detected_effects_are_those_of_all_perturbations_and_genes():
    x = np.random.default_rng(0).normal(size=(800, 30))
    screen = ScreenMoments.from_array(x, (np.arange(800) >= 400).astype(int), 2)
    sizes = EffectSizes.of_share(0.2, 2.0)
    plans = ScreenPlans(
        noise=screen_noise(screen, [0, 1], [0, 0], [0, 0], 2),
        cells=Coexpression(np.zeros((30, 0)), np.ones(30), np.ones(30)),
        sizes=sizes,
        rule=ByFalseSigns(sizes, np.ones(30)),
        effect=np.ones(30),
        n_control=400,
        n_perturbations=20,
        reads={1.0: np.ones(30)},
    )
    table = plans.table(Layout(), [1], [5000], Prices(), None, None)
    assert table["n_perturbations"] == [20]
    # With 5,000 cells, nearly all effects that are not zero are detected: of 20 x 30, a fifth.
    assert table["detected"][0] == pytest.approx(0.2 * 20 * 30, rel=0.1)
