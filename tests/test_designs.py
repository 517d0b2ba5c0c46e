"""Called effects are false no more often than stated, in designs where they were not."""

import pandas as pd
import pytest
from scipy.stats import poisson

from benchmarks import designs

pytestmark = [pytest.mark.benchmarks, pytest.mark.full_chain]


def of(design, seeds):
    return pd.DataFrame([designs.scores(*designs.DESIGNS[design](seed)) for seed in seeds])


@pytest.mark.parametrize(
    ("design", "seeds", "least"),
    [
        ("pairs, 15 cells", range(4), 2500),  # 28 false, 20 allowed, where 2 sd were clear
        ("nested", range(500, 503), 250),
        ("nested, no effects", range(500, 503), 0),
    ],
)
def test_no_more_effects_are_false_than_the_limit(design, seeds, least):
    total = of(design, seeds).sum()
    assert total["called"] >= least
    assert total["false"] <= poisson.ppf(0.975, 2 * total["stated"])


def test_nothing_is_called_of_perturbations_without_cells():
    found = of("without cells", [500])
    assert found["called"].sum() == 0
    assert found["of all"].iloc[0] > 0.8


def test_scores_count_what_is_false_and_covered():
    truth = pd.DataFrame([[1.0, 0.0, -1.0]], ["P"], list("abc"))
    table = {"mean": [[2.0, 1.0, 1.0]], "lower": [[0.5, 0.5, 0.0]], "upper": [[3.0, 2.0, 2.0]]}
    table |= {"lfsr": [[0.01, 0.04, 0.2]], "perturbations": ["P"], "genes": list("abc")}
    assert designs.scores(table, truth) == {
        "called": 2.0, "false": 1.0, "stated": 0.05, "of all": 1 / 3, "of called": 0.5,
        "of large": 0.5,
    }  # fmt: skip
    every = pd.DataFrame([designs.scores(table, truth)] * 40)
    # 40 are false; 2 stated, twice that is 4, of which the quantile is 8.
    assert designs.row(every)[:5] == ["80", "40 ± 0.0", "2.0", "8", "no"]
