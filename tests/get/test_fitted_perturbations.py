"""The perturbations of a fit as a table."""

import numpy as np
import pytest

import nextpert as npt


def test_cells_guides_and_targets(small_screen, edges):
    guide = small_screen.obs["perturbation"].astype(str)
    n = guide.map({"MYC": 3, "control": 4}).fillna(2).astype(int).to_numpy()
    small_screen.obs["guide"] = guide + "-" + (np.arange(len(n)) % n).astype(str)
    npt.tl.learn_dag(small_screen, method="given", dag=edges, genes=list(small_screen.var_names))
    npt.tl.fit_dag_blr(small_screen, key_added="plain")
    assert "n_guides" not in npt.get.fitted_perturbations(small_screen, "plain")
    npt.tl.fit_dag_blr(small_screen, guide_key="guide")
    table = npt.get.fitted_perturbations(small_screen).set_index("perturbation")
    cells = small_screen.obs["perturbation"].value_counts()
    assert table["n_cells"].to_dict() == {name: cells[name] for name in table.index}
    assert table.loc["MYC", "n_guides"] == 3
    assert set(table["n_guides"].drop("MYC")) == {2}
    assert table.loc["MYC+OXR1", "target_genes"] == "MYC, OXR1"
    assert table["targets_on_panel"].drop("HS2").all()
    assert not table.loc["HS2", "targets_on_panel"]  # an enhancer


def test_without_a_fit(small_screen):
    with pytest.raises(ValueError, match=r"run tl\.fit_dag_blr first"):
        npt.get.fitted_perturbations(small_screen)
