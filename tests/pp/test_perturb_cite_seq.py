"""``pp.perturb_cite_seq``: the paper's numbers, and every choice against counting by hand."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata.panel import ZHANG2023
from nextpert.pp._expression import _require_log_tpm

from .conftest import CELLS, CONDITIONS, PANEL, SINGLE


def steps(adata):
    return adata.uns["preprocessing"]["steps"].set_index("step")


def perturbations(adata):
    return adata.uns["preprocessing"]["perturbations"].set_index("perturbation")


def carried(adata):
    table = adata.uns["preprocessing"]["guides"].set_index(["guides", "kind"])
    return table["n_cells"].to_dict(), table["n_cells_kept"].to_dict()


@pytest.fixture(scope="module")
def replicated(full_study):
    adata, _, _ = full_study
    return npt.pp.perturb_cite_seq(adata, preset="zhang2023", copy=True)


@pytest.mark.slow
def test_the_preset_gives_the_numbers_of_the_paper(replicated, full_study):
    new = replicated
    table = steps(new)
    kept, dropped = table["n_cells_kept"], table["n_cells_dropped"]
    assert kept.to_dict() == {
        "all cells": 218_331, "condition": 57_627, "guides": 5039 + 30_486,
        "controls": 5039 + 26_716, "combinations": 5039 + 26_716,
        "panel": 5039 + sum(SINGLE.values()), "min_cells": 5039 + sum(SINGLE.values()),
    }  # fmt: skip
    assert dropped["condition"] == CONDITIONS["IFNγ"] + CONDITIONS["Co-culture"]
    assert dropped["guides"] == 22_102
    assert table.loc["controls", "why"].endswith("no_site 2189, one_non-gene_site 1581")
    found, _ = carried(new)
    assert found["none", ""] == 5039
    assert found["one", "targeting"] == 26_716
    assert sum(n for (guides, _), n in found.items() if guides == "several") == 22_102
    assert new.obs["perturbation"].value_counts().to_dict() == SINGLE | {"control": 5039}
    assert set(new.obs["condition"]) == {"Control"}
    assert new.uns["preprocessing"]["n_control_cells"] == 5039
    # The panel is complete, and ln(1 + TPM) as it was, to the bit.
    assert new.var_names.tolist() == PANEL == list(ZHANG2023)
    assert (new.X != full_study[0][new.obs_names, PANEL].X).nnz == 0
    assert "log_tpm" not in new.layers
    assert new.var.loc["HLA-E", "module"] == "m3"
    assert new.var["module"].isna().sum() == 9


def by_hand(controls="control_guide", combinations="drop", max_guides=99, panel=("MYC", "STAT1")):
    """Return label -> number of cells, counted from CELLS."""
    out = {}
    for guides, n in CELLS:
        each = guides.split(",") if guides else []
        targets = sorted({g.rsplit("_", 1)[0] for g in each if "SITE" not in g})
        if len(each) > max_guides:
            continue
        if not targets:
            own = "control_guide" if each else "no_guide"
            label = "control" if controls in (own, "both") else None
        elif set(targets) <= set(panel) and (combinations == "keep" or len(targets) == 1):
            label = "+".join(targets)
        else:
            label = None
        if label:
            out[label] = out.get(label, 0) + n
    return out


@pytest.mark.parametrize("controls", ["no_guide", "control_guide", "both"])
@pytest.mark.parametrize("combinations", ["drop", "keep"])
@pytest.mark.parametrize("max_guides", [None, 1])
def test_every_choice_against_counting_by_hand(small_study, controls, combinations, max_guides):
    chosen = {"controls": controls, "combinations": combinations}
    npt.pp.perturb_cite_seq(small_study, panel=["MYC", "STAT1"], max_guides=max_guides, **chosen)
    found = small_study.obs["perturbation"].value_counts().to_dict()
    assert found == by_hand(**chosen, max_guides=max_guides or 99)
    table = steps(small_study)
    total, dropped = table["n_cells_kept"].to_numpy(), table["n_cells_dropped"].to_numpy()
    assert np.array_equal(total[:-1] - dropped[1:], total[1:])
    assert total[-1] == small_study.n_obs


def test_defaults_and_what_is_left_out(small_study):
    with pytest.warns(UserWarning, match="not measured: HLA-H, NUP50-AS"):
        npt.pp.perturb_cite_seq(small_study)
    found = small_study.obs["perturbation"].value_counts().to_dict()
    assert found == {"control": 75, "MYC": 50, "STAT1": 22, "TP53": 21}
    table = perturbations(small_study)
    assert table.loc["CDK4"].tolist() == ["CDK4", 0, 19, False, "too few cells"]
    _, kept = carried(small_study)
    assert kept == {
        ("none", ""): 0,
        ("one", "targeting"): 30 + 22 + 21,
        ("one", "no_site"): 60,
        ("several", "one target"): 12 + 8,
        ("several", "several targets"): 0,
        ("several", "control guides"): 15,
    }
    params = small_study.uns["preprocessing"]["params"]
    assert (params["controls"], params["condition"]) == ("control_guide", "Control")
    assert (params["values"], params["target_sum"], params["min_cells"]) == ("counts", 1e4, 20)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, np.asarray])
def test_counts_of_every_form_are_normalised_by_all_genes(small_study, form):
    counts = small_study.X.toarray()
    small_study.X = form(counts)
    names = small_study.obs_names
    npt.pp.perturb_cite_seq(small_study, panel=["STAT1", "MYC"])
    rows = names.get_indexer(small_study.obs_names)
    depth = counts.sum(axis=1)[rows]
    expected = np.log1p(counts[rows][:, [3, 2]] / depth[:, None] * 1e4)
    x = small_study.X.toarray() if sp.issparse(small_study.X) else small_study.X
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    controls = expected[(small_study.obs["perturbation"] == "control").to_numpy()]
    np.testing.assert_allclose(small_study.var["control_mean"], controls.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(small_study.var["control_sd"], controls.std(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(small_study.var["seen_in_control"], (controls > 0).mean(axis=0))


def test_views_backed_files_and_copies_give_the_same(small_study, tmp_path, assert_same_adata):
    whole = small_study.copy()
    few = np.arange(0, whole.n_obs, 2)
    expected = whole[few].copy()
    options = {"panel": ["STAT1", "MYC"], "min_cells": 1}
    npt.pp.perturb_cite_seq(expected, **options)
    view = small_study[few]
    new = npt.pp.perturb_cite_seq(view, **options, copy=True)
    assert view.is_view
    assert_same_adata(new, expected)
    assert new.uns["preprocessing"]["params"]["panel"] == "list"
    with warnings.catch_warnings(action="error", category=ad.ImplicitModificationWarning):
        assert npt.pp.perturb_cite_seq(view, **options) is None
    assert_same_adata(view, expected)
    assert_same_adata(small_study, whole)
    whole.write_h5ad(tmp_path / "screen.h5ad")
    backed = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    for part in (backed[few], ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")):
        with pytest.raises(ValueError, match="copy=True"):
            npt.pp.perturb_cite_seq(part, **options)
    assert_same_adata(npt.pp.perturb_cite_seq(backed[few], **options, copy=True), expected)
    backed.file.close()


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_one_value_in_twenty_may_not_come_from_a_count(form):
    counts, depth = np.ones((25, 4)), np.full(25, 1000.0)
    for n_halves, is_refused in ((0, False), (5, False), (6, True)):  # of 100 values
        counts[:n_halves, 0] = 1.5
        x = form(np.log1p(1e6 * counts / depth[:, None]))
        if is_refused:
            with pytest.raises(ValueError, match="the counts behind them are not whole numbers"):
                _require_log_tpm(x, depth)
        else:
            _require_log_tpm(x, depth)
