"""The whole way through on the TAP-seq screen of Schraivogel et al. 2020 (CRISPRi)."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc

import nextpert as npt

pytestmark = [pytest.mark.screen, pytest.mark.filterwarnings("ignore:Perturbations left out")]
CONTROL = "non-targeting"
TARGETS = [
    "CPQ", "DSCC1", "FAM83A", "GATA1", "LRRCC1", "MYC", "OXR1", "RIPK2", "STK3", "UBR5", "ZFPM2",
]  # fmt: skip


def normalised(screen_path, target_sum=None):
    path = screen_path / "schraivogel_tapseq" / "schraivogel_tapseq_umi5.h5ad"
    if not path.is_file():
        pytest.skip("the TAP-seq screen is not in the folder of the real screens")
    adata = ad.read_h5ad(path)
    sc.pp.normalize_total(adata, target_sum=target_sum)
    sc.pp.log1p(adata)
    return adata


def seen(adata):
    """Genes seen in more than 10 % of the controls."""
    controls = adata.X[(adata.obs["perturbation"] == CONTROL).to_numpy()]
    share = np.asarray((controls > 0).mean(axis=0)).ravel()
    return list(adata.var_names[share > 0.1])


def nearest(adata, shift):
    """Design towards every perturbation's own mean; return the nearest candidate of each."""
    npt.tl.fit_dag_blr(adata, control=CONTROL, shift=shift)
    found = {}
    for target in adata.uns["dag_blr"]["environments"]["perturbation"]:
        npt.tl.design_interventions(adata, target)
        ranking = adata.uns["design"]["ranking"]
        found[target] = ranking.loc[ranking["predicted_distance"].idxmin(), "perturbation"]
    return found


def missed(found):
    return {target for target, nearest_one in found.items() if nearest_one != target}


@pytest.fixture(scope="module")
def screen(screen_path):
    return normalised(screen_path)


def test_the_whole_way_through(screen):
    genes = seen(screen)
    assert len(genes) == 62
    npt.tl.learn_dag(screen, genes=genes, control=CONTROL)
    observed = nearest(screen, "observed")
    assert sorted(observed) == TARGETS
    # Silencing UBR5 lowers MYC by as much as silencing MYC does, and much else with it (CPNE3,
    # LAPTM4B, HBE1 up). A graph of control cells does not carry those effects out of UBR5, so
    # that another perturbation is predicted to come nearer.
    assert missed(observed) <= {"UBR5"}

    trace = screen.uns["design"]["trace"]
    assert trace["target"].tolist() == TARGETS
    assert trace["n_control_cells"].tolist() == [7760] * 11
    left = screen.uns["dag_blr"]["left_out"].set_index("perturbation")["reason"]
    assert left["HS2"] == "not measured: HS2"
    assert left["CCNE2"] == "measured but outside the panel: CCNE2"
    assert sorted(left.index) == ["CCNE2", "HS2", "PHF20L1", "multi", "unassigned"]

    # CRISPRi lowers MYC by 0.28 of 2.57 and GATA1 by 0.28 of 3.26: modelled as knockouts, they
    # overshoot their own state by far.
    knockout = nearest(screen, "knockout")
    assert {"MYC", "GATA1"} <= missed(knockout)
    assert len(missed(knockout)) > len(missed(observed))
    table = screen.uns["design"]["ranking"].set_index("perturbation")
    assert table.loc["MYC", "shift"] == "-2.57"
    assert table.loc["GATA1", "shift"] == "-3.26"


def test_counts_per_ten_thousand_find_all_eleven(screen_path):
    adata = normalised(screen_path, 1e4)
    npt.tl.learn_dag(adata, genes=seen(adata), control=CONTROL)
    assert not missed(nearest(adata, "observed"))
