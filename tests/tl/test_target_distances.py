import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.core import Moments
from nextpert.core.screen.mean_distance import mean_distance

GENES = ["GATA1", "MYC", "RIPK2"]
ALL_GENES = npt.Target(state="MYC", own_genes="include")


def _cells(adata, mask, genes):
    return np.asarray(adata[mask, genes].X, dtype=float)


def _labels(adata):
    return np.array(adata.obs["perturbation"], dtype=object)


def _unbiased(x, y):
    """Return the squared distance of two means, from the cells."""
    plug_in = np.sum((x.mean(0) - y.mean(0)) ** 2)
    return plug_in - x.var(0, ddof=1).sum() / len(x) - y.var(0, ddof=1).sum() / len(y), plug_in


def test_distances_to_a_label(small_screen):
    npt.tl.target_distances(small_screen, ALL_GENES, genes=GENES)
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


def _measured(adata, target, **options):
    npt.tl.target_distances(adata, target, **options)
    return adata.uns["target_distances"]["table"].set_index("perturbation")


def test_target_genes_are_left_out_and_the_control_is_compared_on_the_same_genes(small_screen):
    table = _measured(small_screen, "MYC")
    stored = small_screen.uns["target_distances"]
    labels, genes = _labels(small_screen), list(small_screen.var_names)
    goal = _cells(small_screen, labels == "MYC", genes)

    def unbiased(name, counted):
        index = [genes.index(gene) for gene in counted]
        cells = _cells(small_screen, labels == name, genes)
        return np.array(_unbiased(cells[:, index], goal[:, index]))

    left_out = {"HS2": [], "MYC+OXR1": ["OXR1"], "OXR1": ["OXR1"], "STK3": ["STK3"], "control": []}
    assert set(left_out) == set(table.index)
    without = [gene for gene in genes if gene != "MYC"]
    control = unbiased("control", without)[0]
    for name, more in left_out.items():
        row, counted = table.loc[name], [gene for gene in without if gene not in more]
        same = unbiased("control", counted)[0]
        distance, plug_in = unbiased(name, counted) * control / same
        assert row["genes_left_out"] == ", ".join(["MYC", *more])
        assert row["distance"] == pytest.approx(distance, rel=1e-8)
        assert row["plug_in_distance"] == pytest.approx(plug_in, rel=1e-8)
        assert row["relative_distance"] == pytest.approx(unbiased(name, counted)[0] / same)
        if name != "control":
            assert row["difference"] == pytest.approx(distance - control)
    assert stored["params"]["genes_left_out"].startswith("without MYC and the target genes of each")
    assert not len(stored["not_measured"])


def test_a_perturbation_whose_gene_makes_most_of_the_distance_is_not_measured(small_screen, caplog):
    small_screen.X[_labels(small_screen) != "MYC", list(small_screen.var_names).index("STK3")] += 9
    table = _measured(small_screen, "MYC")
    assert "STK3" not in table.index
    reasons = small_screen.uns["target_distances"]["not_measured"].set_index("perturbation")
    assert "without STK3, " in reasons.loc["STK3", "why"]
    assert "Not measured: STK3" in caplog.text
    assert "own_genes='include'" in caplog.text
    assert "STK3" in _measured(small_screen, ALL_GENES).index


def test_nothing_is_scaled_or_dropped_where_the_target_is_not_told_from_the_control(small_screen):
    rng, labels = np.random.default_rng(0), _labels(small_screen)
    small_screen.X = rng.normal(2.0, 1.0, small_screen.shape)
    small_screen.X[labels == "STK3", list(small_screen.var_names).index("STK3")] -= 2
    table = _measured(small_screen, "MYC")
    assert table.loc["control", "low"] == 0
    assert {"OXR1", "STK3"} <= set(table.index)
    without = [gene for gene in small_screen.var_names if gene not in ("MYC", "STK3")]
    cells = (_cells(small_screen, labels == name, without) for name in ("STK3", "MYC"))
    assert table.loc["STK3", "distance"] == pytest.approx(_unbiased(*cells)[0])


@pytest.mark.parametrize(
    "target",
    [
        "MYC",
        ALL_GENES,
        npt.Target(state="MYC", weights={"CPQ": 2.0, "RIPK2": 0.5, "STK3": 1.0}),
        npt.Target(state=["MYC", "OXR1"]),
        npt.Target(state=("perturbation", "STK3"), distance="noise"),
    ],
    ids=repr,
)
def test_distances_are_the_measured_distances_of_a_ranking(small_screen, target):
    npt.pp.setup_screen(small_screen, guide_key=None, batch_key=None)
    npt.tl.learn_dag(small_screen, method="boss", environments="all")
    npt.tl.fit_dag_blr(small_screen)
    npt.tl.design_interventions(small_screen, target, n_samples=10)
    ranking = small_screen.uns["design"]["ranking"].set_index("perturbation")
    table = _measured(small_screen, target)
    shared = ranking.index.intersection(table.index)
    assert len(shared) >= 3
    np.testing.assert_allclose(
        np.maximum(table.loc[shared, "distance"], 0.0),
        ranking.loc[shared, "measured_distance"],
        rtol=1e-6,
        atol=1e-9,
    )
    assert (table.loc[shared, "genes_left_out"] == ranking.loc[shared, "genes_left_out"]).all()
    assert (
        small_screen.uns["target_distances"]["target"]
        == small_screen.uns["design"]["params"]["target"]
    )


def test_the_distance_to_a_list_of_states_is_the_mean_of_their_distances(small_screen):
    states = ["MYC", "OXR1", {"CPQ": 1.0, "RIPK2": 2.0, "GATA1": 0.5}]
    weights = {"CPQ": 2.0, "RIPK2": 0.5, "GATA1": 0.0}
    table = _measured(small_screen, npt.Target(state=states, weights=weights))
    assert not {"MYC", "OXR1"} & set(table.index)
    stored = small_screen.uns["target_distances"]
    assert stored["genes"].tolist() == ["RIPK2", "CPQ"]
    assert stored["n_target_cells"] == 120
    assert stored["target"].startswith("MYC, OXR1, CPQ=1")
    alone = [
        _measured(small_screen, npt.Target(state=state, weights=weights, own_genes="include"))
        for state in states
    ]
    for name in table.index:
        wanted = np.mean([one.loc[name, "distance"] for one in alone])
        assert table.loc[name, "distance"] == pytest.approx(wanted)
        assert table.loc[name, "low"] < wanted < table.loc[name, "high"]


def test_the_double_knockout_is_where_the_single_one_is_but_for_the_second_gene(small_screen):
    # OXR1 has no edge to these three, so that MYC+OXR1 and MYC have the same means there.
    npt.tl.target_distances(small_screen, ALL_GENES, genes=["MYC", "STK3", "GATA1"])
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
        (npt.Target(signature={"MYC": 1.0}), {}, ValueError, "signature.*measured_distance"),
        (npt.Target(state="MYC", at_most={"MYC": 1.0}), {}, ValueError, "at_most.*tl.design_"),
        (npt.Target(state="MYC", distance="cosine"), {}, ValueError, "distance='cosine'"),
        (npt.Target(state={"MYC": 1.0}, weights=["CPQ"]), {}, ValueError, "CPQ.*to state"),
        (npt.Target(state=["MYC", {"MYC": 1.0}]), {}, ValueError, "no mean of .*weights"),
        (npt.Target(state="MYC", weights=["NOPE"]), {}, ValueError, "NOPE"),
        ("MYC", {"genes": ["MYC"]}, ValueError, "All genes with a weight.*include"),
        ("MYC", {"genes": ["MYC", "STK3"], "perturbations": ["STK3"]}, ValueError, "measured"),
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


def test_two_controls_outside_the_target_are_enough(small_screen):
    state = np.where(_labels(small_screen) == "control", "goal", "other").astype(object)
    state[np.flatnonzero(state == "goal")[:2]] = "other"
    small_screen.obs["state"] = state
    npt.tl.target_distances(small_screen, ("state", "goal"))
    table = small_screen.uns["target_distances"]["table"].set_index("perturbation")
    assert table.loc["control", "n_cells"] == 2
