import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.core import Moments
from nextpert.core.screen.mean_distance import mean_distance

GENES = ["GATA1", "MYC", "RIPK2"]


def _cells(adata, mask, genes):
    return np.asarray(adata[mask, genes].X, dtype=float)


def _labels(adata):
    return np.array(adata.obs["perturbation"], dtype=object)


def _unbiased(x, y):
    """Return the squared distance of two means, from the cells."""
    plug_in = np.sum((x.mean(0) - y.mean(0)) ** 2)
    return plug_in - x.var(0, ddof=1).sum() / len(x) - y.var(0, ddof=1).sum() / len(y), plug_in


def test_distances_to_a_label(small_screen):
    npt.tl.target_distances(small_screen, "MYC", genes=GENES)
    stored = small_screen.uns["target_distances"]
    labels = _labels(small_screen)
    table = stored["table"].set_index("perturbation")
    assert sorted(table.index) == ["HS2", "MYC+OXR1", "OXR1", "STK3", "control"]
    goal = _cells(small_screen, labels == "MYC", GENES)
    for name, row in table.iterrows():
        cells = _cells(small_screen, labels == name, GENES)
        distance, plug_in = _unbiased(cells, goal)
        assert row["n_cells"] == len(cells)
        np.testing.assert_allclose(row["distance"], distance, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(row["plug_in_distance"], plug_in, rtol=1e-8)
        share = distance / table.loc["control", "distance"]
        np.testing.assert_allclose(row["relative_distance"], share, atol=1e-8)
        found = mean_distance(Moments.from_array(cells), Moments.from_array(goal), confidence=0.9)
        if name == "control":
            assert row[["difference", "difference_low", "difference_high"]].isna().all()
        else:
            wanted = distance - table.loc["control", "distance"]
            np.testing.assert_allclose(row["difference"], wanted, atol=1e-9)
            assert row["difference_low"] < row["difference"] < row["difference_high"]
        np.testing.assert_allclose(
            row[["low", "high", "sd"]].astype(float), [found.low, found.high, found.sd], rtol=1e-6
        )
    assert stored["table"]["distance"].is_monotonic_increasing
    assert stored["n_target_cells"] == 60
    assert stored["genes"].tolist() == GENES


def test_the_double_knockout_is_where_the_single_one_is_but_for_the_second_gene(small_screen):
    # OXR1 has no edge to these three, so that MYC+OXR1 and MYC have the same means there.
    npt.tl.target_distances(small_screen, "MYC", genes=["MYC", "STK3", "GATA1"])
    table = small_screen.uns["target_distances"]["table"].set_index("perturbation")
    assert table.index[0] == "MYC+OXR1"
    assert table.loc["MYC+OXR1", "low"] == 0
    assert table.loc["MYC+OXR1", "high"] < table.loc["control", "low"]


def test_cells_of_a_target_group_count_once(small_screen):
    npt.tl.target_distances(small_screen, ("batch", "a"), genes=GENES)
    stored = small_screen.uns["target_distances"]
    batch = small_screen.obs["batch"].to_numpy() == "a"
    labels = _labels(small_screen)
    table = stored["table"].set_index("perturbation")
    assert stored["target"] == "batch=a"
    assert stored["n_target_cells"] == batch.sum()
    for name in ("MYC", "control"):
        inside = (labels == name) & ~batch
        assert table.loc[name, "n_cells"] == inside.sum()
        wanted, _ = _unbiased(
            _cells(small_screen, inside, GENES), _cells(small_screen, batch, GENES)
        )
        np.testing.assert_allclose(table.loc[name, "distance"], wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", [dict, pd.Series])
def test_wanted_means_are_known_without_error(small_screen, kind):
    wanted = kind({"MYC": 0.0, "CPQ": 2.5})
    npt.tl.target_distances(small_screen, wanted, perturbations=["MYC", "STK3"])
    stored = small_screen.uns["target_distances"]
    assert stored["genes"].tolist() == ["MYC", "CPQ"]
    assert stored["n_target_cells"] == 0
    assert stored["target"] == "MYC=0, CPQ=2.5"
    table = stored["table"].set_index("perturbation")
    assert set(table.index) == {"MYC", "STK3", "control"}
    x = _cells(small_screen, _labels(small_screen) == "MYC", ["MYC", "CPQ"])
    plug_in = np.sum((x.mean(0) - [0, 2.5]) ** 2)
    np.testing.assert_allclose(table.loc["MYC", "plug_in_distance"], plug_in)
    np.testing.assert_allclose(table.loc["MYC", "distance"], plug_in - x.var(0, ddof=1).sum() / 60)


def test_few_cells_are_left_out_with_a_warning(small_screen):
    labels = _labels(small_screen)
    labels[np.flatnonzero(labels == "STK3")[1:]] = "control"
    small_screen.obs["perturbation"] = labels
    with pytest.warns(UserWarning, match="fewer than 2 cells.*STK3"):
        npt.tl.target_distances(small_screen, "MYC")
    assert "STK3" not in set(small_screen.uns["target_distances"]["table"]["perturbation"])


def test_confidence_copy_layer_and_files(small_screen, tmp_path, assert_same):
    copied = npt.tl.target_distances(
        small_screen, "MYC", layer="lognorm", confidence=0.5, key_added="d", copy=True
    )
    assert "d" not in small_screen.uns
    npt.tl.target_distances(small_screen, "MYC", key_added="d")
    narrow, wide = (a.uns["d"]["table"] for a in (copied, small_screen))
    for column in ("high", "difference_high"):
        known = narrow[column].notna()
        assert (narrow[column] < wide[column])[known].all()
    np.testing.assert_array_equal(narrow["distance"], wide["distance"])
    copied.write_h5ad(tmp_path / "a.h5ad")
    assert_same(ad.read_h5ad(tmp_path / "a.h5ad").uns["d"], copied.uns["d"])


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ("MYCC", {}, ValueError, "Close matches: MYC"),
        (("batch", "c"), {}, ValueError, "Target not found"),
        (("nope", "c"), {}, ValueError, "no column 'nope'"),
        ({"NOPE": 1.0}, {}, ValueError, "NOPE"),
        ({"MYC": np.nan}, {}, ValueError, "MYC.*finite"),
        ({"MYC": 1.0}, {"genes": ["MYC"]}, ValueError, "do not pass genes"),
        (3, {}, TypeError, "but is 3"),
        (npt.Target(state="MYC"), {}, TypeError, "target must be"),
        ("MYC", {"genes": ["NOPE"]}, ValueError, "NOPE"),
        ("MYC", {"control": "ctrl"}, ValueError, "No control cells"),
        ("MYC", {"perturbations": ["NOPE"]}, ValueError, "NOPE"),
        ("MYC", {"confidence": 95}, ValueError, "confidence"),
        ("control", {"perturbations": []}, ValueError, "label more cells"),
        ("MYC", {"key_added": ""}, ValueError, "key_added"),
    ],
)
def test_errors_write_nothing(small_screen, target, options, error, message):
    before = set(small_screen.uns)
    with pytest.raises(error, match=message):
        npt.tl.target_distances(small_screen, target, **options)
    assert set(small_screen.uns) == before


def test_a_target_of_one_cell_or_all_controls(small_screen):
    labels = _labels(small_screen)
    labels[np.flatnonzero(labels == "STK3")[1:]] = "control"
    small_screen.obs["perturbation"] = labels
    with pytest.raises(ValueError, match="the target 'STK3' has 1"):
        npt.tl.target_distances(small_screen, "STK3")
    small_screen.obs["state"] = np.where(labels == "control", "goal", "other")
    with pytest.raises(ValueError, match="control 'control' has 0 outside"):
        npt.tl.target_distances(small_screen, ("state", "goal"))
