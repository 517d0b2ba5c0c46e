import anndata as ad
import numpy as np
import pytest

import nextpert as npt
from nextpert.pl import plan_cells


def test_curves_and_what_is_wanted(designed):
    stored = designed.uns["plan_cells"]
    (ax,) = plan_cells(designed, show=False)
    curve, line = ax.lines  # guides are not told apart: one curve
    np.testing.assert_allclose(curve.get_ydata(), stored["screens"]["power"])
    np.testing.assert_allclose(curve.get_xdata(), stored["screens"]["n_cells"])
    assert line.get_ydata()[0] == pytest.approx(0.8)
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "cells per perturbation"
    assert "change of 0.2" in ax.get_ylabel()
    assert "lfsr < 0.05" in ax.figure._suptitle.get_text()


def test_numbers_of_cells_within_two_decades_have_more_ticks(designed):
    table = designed.uns["plan_cells"]["screens"]
    for factor, is_marked in ((30, True), (2000, False)):
        table["n_cells"] = np.geomspace(20, 20 * factor, len(table)).round()
        (ax,) = plan_cells(designed, show=False)
        assert np.isin([50.0, 20.0], ax.get_xticks()).all() == is_marked


def test_a_line_for_every_number_of_guides(designed):
    labels = designed.obs["perturbation"].astype(str)
    rng = np.random.default_rng(0)
    guide = rng.integers(3, size=designed.n_obs)
    names = labels + "-" + guide.astype(str)
    designed.obs["guide"] = names
    away = {name: 0.3 * rng.normal(size=designed.n_vars) for name in sorted(set(names))}
    designed.X = designed.X + np.array([away[name] for name in names])
    npt.pp.setup_screen(designed, guide_key="guide")
    npt.tl.fit_dag_blr(designed)
    npt.tl.plan_cells(designed)
    axes = plan_cells(designed, show=False)
    assert len(axes[0].lines) == 5 + 1
    texts = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert texts == ["1 guide", "2 guides", "3 guides", "4 guides", "8 guides", "needed"]
    colours = [line.get_color() for line in axes[0].lines]
    assert len(set(colours)) == 6


def test_a_budget_is_one_more_panel(designed):
    npt.tl.plan_cells(designed, effect=0.5, budget=4000, rule="fdr")
    _, last = plan_cells(designed, show=False)
    screens = designed.uns["plan_cells"]["screens"]
    curve, most = last.lines
    assert curve.get_ydata().max() == pytest.approx(screens["detected"].max())
    (number,) = most.get_xdata()
    assert number == screens.loc[screens["is_best"], "n_perturbations"].iloc[0]
    assert last.get_xlabel() == "perturbations in a budget of 4,000"
    assert "FDR 5%" in last.figure._suptitle.get_text()
    npt.tl.plan_cells(designed, budget=2)
    assert len(plan_cells(designed, show=False)) == 1  # cells that suffice for no perturbation


def test_a_line_for_every_share_of_the_reads():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(2.0, 2.0, 12), (200, 12))
    adata = ad.AnnData(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 50))
    adata.obs["perturbation"] = "control"
    npt.pp.setup_screen(adata)
    npt.tl.plan_cells(adata, budget=5000)
    _, of_reads, _ = plan_cells(adata, show=False)
    texts = [text.get_text() for text in of_reads.get_legend().get_texts()]
    assert texts == ["all reads", "50% of the reads", "25% of the reads", "10% of the reads",
                     "needed"]  # fmt: skip
    for line in of_reads.lines[:-1]:
        assert (np.diff(line.get_xdata()) > 0).all()
