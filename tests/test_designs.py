"""Called effects are false no more often than stated, in designs where they were not."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import poisson

from benchmarks import _replicated, designs

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


def test_designs_are_chosen_by_patterns(monkeypatch, capsys):
    frame = pd.DataFrame([[0.0]], ["P"], ["a"])
    table = {name: [[0.0]] for name in ("mean", "lower", "upper")} | {"lfsr": [[1.0]]}
    table |= {"perturbations": ["P"], "genes": ["a"]}
    few = {name: lambda seed: (table, frame) for name in ("a, 1", "a, 2", "b")}
    monkeypatch.setattr(designs, "DESIGNS", few)
    designs.main(["--designs", "a, *", "a, 2", "--screens", "2"])
    rows = capsys.readouterr().out.splitlines()[2:4]
    assert [line.split(" | ")[0] for line in rows] == ["| a, 1", "| a, 2"]
    with pytest.raises(SystemExit):
        designs.main(["--designs", "c*"])
    assert "no design is named 'c*'" in capsys.readouterr().err


@pytest.mark.parametrize("form", _replicated.FORMS)
def test_departures_of_guides_have_the_covariance_of_their_form(form):
    world = _replicated.draw_world(0)
    seen = np.cov(world.departures(40_000, form, 0.1), rowvar=False)
    factors = {"by gene": 0.0, "along factors": 0.2, "as measured": [[1 / 6], [0.06], [0.06]]}
    own = {"by gene": 0.1, "along factors": 0.0, "as measured": 0.02 * world.own}
    loadings = world.loadings
    stated = (factors[form] * loadings).T @ loadings + np.diag(np.full(40, own[form]))
    np.testing.assert_allclose(seen, stated, atol=0.006)
    np.testing.assert_allclose(np.cov(world.noise(40_000), rowvar=False).diagonal(), 1, atol=0.04)


@pytest.mark.parametrize(
    ("design", "seeds"),
    [("guides along factors, 2", range(2)), ("few cells, unequal variances", range(2))],
)
def test_replicated_designs_are_judged(design, seeds):
    found = of(design, seeds)
    assert found["called"].sum() > 20
    assert found["false"].sum() <= poisson.ppf(0.975, 2 * found["stated"].sum())
    assert found["of all"].between(0.85, 1.0).all()


def test_simulators_lay_out_cells_as_the_designs_say():
    adata, truth = _replicated.with_guides(0, 2, of_controls=3, off_targets="targeting")
    sizes = adata.obs.groupby(["perturbation", "guide"]).size()
    assert sizes["control"].tolist() == [100] * 3
    assert set(sizes.drop("control")) == {30}
    assert len(sizes) == 3 + 2 * len(truth)
    adata, _ = _replicated.one_control_batch(0, 1.0, share=0.0)
    batches = adata.obs.groupby("perturbation")["batch"].unique()
    assert batches["control"].tolist() == ["0"]
    assert batches.drop("control").map(tuple).value_counts().tolist() == [5] * 4
    adata, _ = _replicated.with_replicates(0, 3, 0.1)
    assert set(adata.obs.groupby(["perturbation", "batch"]).size()) == {20, 100}
    adata, other = _replicated.of_few_cells(0)
    assert adata.obs["perturbation"].value_counts().drop("control").between(3, 12).all()
    pd.testing.assert_frame_equal(truth, other)
