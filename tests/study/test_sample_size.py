"""What a budget is said to pay for."""

from types import SimpleNamespace

import pandas as pd
import pytest

from nextpert.core.design.screen_plans import Prices
from nextpert.study.sample_size import _of_budget, _of_cells


@pytest.mark.parametrize(
    ("prices", "spending"),
    [
        (Prices(), "A screen of 2,000 cells"),
        (Prices(construct=5.0), "A budget of 2,000"),
        (Prices(million_reads=3.0), "A budget of 2,000"),
        (Prices(cell=0.2), "A budget of 2,000"),
    ],
)
def test_a_budget_is_in_cells_only_if_nothing_else_costs(prices, spending):
    layout = SimpleNamespace(n_guides=3)
    plan = SimpleNamespace(prices=prices, screens=pd.DataFrame(), layout=layout)
    assert _of_budget(plan, 2000).startswith(f"{spending} does not pay for one perturbation")


@pytest.mark.parametrize(
    ("n_guides", "words"), [(1, "1 guide and 2 replicates"), (3, "3 guides and 2 replicates")]
)
def test_one_guide_is_not_guides(n_guides, words):
    plan = SimpleNamespace(
        genes=pd.DataFrame({"cells_needed": [50.0, 80.0]}),
        layout=SimpleNamespace(n_guides=n_guides, n_replicates=2),
        effect=0.5,
        power=0.8,
        rule="lfsr < 0.05",
    )
    assert f"({words})" in _of_cells(plan)
