import numpy as np
import pytest

import nextpert as npt
from nextpert.pl import plan_cells


def test_curves_and_what_is_wanted(designed):
    stored = designed.uns["plan_cells"]
    axes = plan_cells(designed, show=False)
    for ax, column, level in zip(axes, ("power", "half_width"), (0.8, 0.1), strict=True):
        curve, line = ax.lines  # guides are not told apart: one curve
        np.testing.assert_allclose(curve.get_ydata(), stored["curves"][column])
        np.testing.assert_allclose(curve.get_xdata(), stored["curves"]["n_cells"])
        assert line.get_ydata()[0] == pytest.approx(level)
        assert ax.get_xscale() == "log"
        assert ax.get_xlabel() == "cells per perturbation"
    assert "change of 0.2" in axes[0].get_ylabel()


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
    npt.tl.plan_cells(designed, effect=0.5, n_cells=4000)
    *others, last = plan_cells(designed, show=False)
    assert len(others) == 2
    budget = designed.uns["plan_cells"]["budget"]
    curve, _, largest = last.lines
    np.testing.assert_allclose(curve.get_xdata(), budget["n_perturbations"])
    np.testing.assert_allclose(curve.get_ydata(), budget["power"])
    (most,) = largest.get_xdata()
    assert most == budget.loc[budget["power"] >= 0.8, "n_perturbations"].max()
    assert last.get_xlabel() == "perturbations that share 4,000 cells"
    npt.tl.plan_cells(designed, n_cells=2)
    assert len(plan_cells(designed, show=False)) == 2  # cells that suffice for no perturbation
