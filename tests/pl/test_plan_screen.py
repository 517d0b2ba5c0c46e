"""The figure of a plate: every well and its cells."""

from __future__ import annotations

import numpy as np

import nextpert as npt
from nextpert.pl import plan_screen
from tests._screens import new_copies


@new_copies
def planned():
    adata = npt.datasets.simulated_screen(
        n_genes=8, n_control=300, n_perturbed=60, perturbed=4, expected_degree=2, rng=0
    )
    npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    npt.tl.fit_dag_blr(adata)
    target = str(adata.obs["perturbation"].iloc[-1])
    npt.tl.plan_screen(adata, target, candidates="genes", strategy="exploit")
    return adata


def test_every_well_is_drawn(planned, rows):
    table = planned.uns["plan"]["plate"]
    axes = plan_screen(planned, show=False)
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert [name.split()[0] for name in names] == table["perturbation"].tolist()
    assert [name.endswith("(new)") for name in names] == (table["n_cells_seen"] == 0).tolist()
    columns = ["predicted_distance", "predicted_low", "predicted_high"]
    drawn = rows(axes[0])
    np.testing.assert_allclose(drawn[["value", "low", "high"]], table[columns])
    assert drawn["filled"].tolist() == (table["n_cells_seen"] > 0).tolist()
    assert axes[0].get_xlim()[0] < 0  # an interval that ends at 0 is drawn whole
    assert [bar.get_width() for bar in axes[1].patches] == table["n_cells"].tolist()
    assert f"{table['n_cells'].sum()} cells" in axes[1].get_title()
    wells = table.query("strategy != 'control'")
    covered, removed = axes[2].lines
    np.testing.assert_allclose(covered.get_xdata(), 100 * wells["probability_contains_best"])
    np.testing.assert_allclose(removed.get_xdata(), 100 * wells["variance_reduction"])
