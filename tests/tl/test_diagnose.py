"""``tl.diagnose`` against the cells themselves, and its verdict on screens whose truth is known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import read_roles
from nextpert.study.searches import graphs_without
from nextpert.tl import _read_halves as refit
from nextpert.tl._read_halves import read_halves
from tests._screens import screen_of, small_fit, true_graph, with_graph


def diagnosed(adata, **options):
    npt.tl.fit_dag_blr(adata)
    npt.tl.diagnose(adata, **options)
    return adata.uns["diagnosis"]


def levels(found):
    return found["parts"].set_index("part")["level"].to_dict()


def values(found):
    return found["summary"].set_index(["part", "quantity"])["value"]


@pytest.fixture
def screen():
    return small_fit()


@pytest.fixture(scope="module")
def _right():
    adata = npt.datasets.simulated_screen(n_genes=20, n_control=2000, expected_degree=5, rng=4)
    return with_graph(adata, true_graph(adata))


@pytest.fixture
def right(_right):
    """A screen on which the model is right."""
    return _right.copy()


@pytest.fixture(scope="module")
def trusted(_right):
    """The same with its diagnosis."""
    adata = _right.copy()
    diagnosed(adata)
    return adata


@pytest.fixture(scope="module")
def of_empty_graph(_right):
    """The diagnosis of the same on a graph without edges."""
    adata = _right.copy()
    npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    return diagnosed(adata)


@pytest.fixture(scope="module")
def of_nothing(_right):
    """The diagnosis of the same with the labels of all cells shuffled."""
    return diagnosed(shuffled(_right.copy(), np.zeros(_right.n_obs, bool)))


def shuffled(adata, kept):
    labels = adata.obs["perturbation"].astype(str).to_numpy(copy=True)
    labels[~kept] = np.random.default_rng(0).permutation(labels[~kept])
    adata.obs["perturbation"] = labels
    return adata


# -- the verdict --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_model_is_trusted_where_it_is_right(trusted):
    found = trusted.uns["diagnosis"]
    assert found["level"] == "trust"
    assert found["verdict"].startswith("Trust the model here.\n")
    assert set(levels(found).values()) == {"trust"}
    assert set(found["summary"]["passed"]) == {"yes", ""}
    value = values(found)
    assert value["graph", "weight"] == pytest.approx(1, abs=0.05)
    assert value["unseen perturbations", "error_to_no_effect"] < 0.05
    for part in ("shrinkage", "unseen perturbations"):
        assert 0.85 < value[part, "coverage_90"] < 0.96
        assert value[part, "coverage_90_large"] > 0.85


@pytest.mark.slow
def test_perturbations_with_shuffled_labels_cannot_be_told_apart(right):
    found = diagnosed(shuffled(right, (right.obs["perturbation"] == "control").to_numpy()))
    assert found["level"] == "do not trust"
    assert "they cannot be distinguished" in found["verdict"]
    assert values(found)["cells", "n_significant"] > 10  # all share the mean effect
    assert values(found)["cells", "n_distinct"] == 0
    # That is predicted well, and it ranks nothing.
    assert values(found)["unseen perturbations", "error_to_no_effect"] < 0.5
    assert levels(found)["unseen perturbations"] == "do not trust"
    assert found["perturbations"]["split_by"].eq("cells").all()
    assert levels(found)["graph"] == "do not trust"


@pytest.mark.slow
def test_without_effects_nothing_is_trusted(of_nothing):
    found = of_nothing
    assert found["level"] == "do not trust"
    assert levels(found)["negative controls"] == "trust"  # and no false alarm either
    others = {part: level for part, level in levels(found).items() if part != "negative controls"}
    assert set(others.values()) == {"do not trust"}
    assert "choose perturbations at random" in found["verdict"]
    # The cells' means are farther from the truth: they are not recommended in their place.
    assert values(found)["shrinkage", "error_to_raw_means"] < -0.01  # as it came out, by chance
    assert "raw means are less accurate" in found["verdict"]


@pytest.mark.slow
def test_a_graph_turned_round_is_not_trusted_but_the_cells_are(right):
    # The reversed graph fits control cells; only held-out cells tell.
    npt.tl.learn_dag(right, method="given", dag=right.uns["truth"]["weights"])
    found = diagnosed(right)
    assert found["level"] == "care"
    assert levels(found)["cells"] == "trust"
    assert levels(found)["graph"] == "do not trust"
    assert "do not rank unseen perturbations by it" in found["verdict"]
    assert values(found)["shrinkage", "error_to_raw_means"] < 0.8  # 1.55 if it were used
    assert values(found)["unseen perturbations", "coverage_90_large"] < 0.7


@pytest.mark.slow
def test_an_empty_graph_adds_nothing_and_takes_nothing(of_empty_graph):
    found = of_empty_graph
    assert levels(found)["shrinkage"] == "trust"
    assert levels(found)["graph"] == "do not trust"
    assert values(found)["graph", "weight"] == 0


# -- no verdict without evidence ----------------------------------------------------------------


def one_strong_perturbation():
    """Return a screen of eight perturbations, one of which does something: no error is known."""
    rng, p = np.random.default_rng(4), 15
    label = np.repeat(["control", *(f"P{j}" for j in range(1, 9))], [800, *[60] * 8])
    x = 3 + rng.normal(size=(len(label), p))
    x[label == "P1", :3] += 3.0
    adata = screen_of(x, label)
    return with_graph(adata)


@pytest.mark.slow
def test_a_ratio_without_a_standard_error_passes_no_rule():
    found = diagnosed(one_strong_perturbation())
    rows = found["summary"].set_index(["part", "quantity"])
    row = rows.loc["shrinkage", "error_to_no_effect"]
    assert row["value"] < 0.5
    assert np.isnan(row["standard_error"])
    assert row["passed"] == "no"
    assert levels(found)["shrinkage"] == "care"
    assert "(no standard error) relative to no effect." in found["verdict"]
    ratios = rows[rows["rule"].str.contains("at most|below 1|at least 0")]
    assert not (ratios["standard_error"].isna() & (ratios["passed"] == "yes")).any()


@pytest.mark.slow
def test_intervals_that_miss_large_effects_are_not_trusted(of_empty_graph):
    found = of_empty_graph
    row = found["summary"].set_index(["part", "quantity"]).loc["unseen perturbations"]
    assert row.loc["coverage_90", "passed"] == "yes"
    assert row.loc["coverage_90_large", "value"] < 0.5
    assert row.loc["coverage_90_large", "passed"] == "no"
    assert levels(found)["unseen perturbations"] == "do not trust"
    large = 100 * row.loc["coverage_90_large", "value"]
    assert f"but only {large:.0f}% of the large ones." in found["verdict"]


# -- the numbers --------------------------------------------------------------------------------


def test_halves_are_halves_of_every_environment(screen):
    screen.obs["depth"] = np.arange(screen.n_obs, dtype=float)
    npt.pp.setup_screen(screen, batch_key="batch", covariates=["depth"])
    names = ["MYC", "OXR1"]
    found, _ = read_halves(
        screen, np.arange(8), names, read_roles(screen), np.random.default_rng(0)
    )
    one, two = (part.n for part in found.parts)
    assert (abs(one - two) <= 1).all()
    assert not found.by_guides.any()
    labels = screen.obs["perturbation"].astype(object).fillna("")
    for code, name in enumerate(["control", *names]):
        x = np.asarray(screen.X[(labels == name).to_numpy()])
        mine = found.group == code
        assert found.all_cells.n[mine].sum() == len(x)
        mean = np.average(found.all_cells.mean[mine], axis=0, weights=found.all_cells.n[mine])
        np.testing.assert_allclose(mean, x.mean(axis=0))
        assert len(set(found.batch[mine])) == 2
    other, _ = read_halves(
        screen, np.arange(8), names, read_roles(screen), np.random.default_rng(1)
    )
    assert not np.array_equal(other.parts[0].mean, found.parts[0].mean)
    np.testing.assert_allclose(other.all_cells.mean, found.all_cells.mean)


@pytest.mark.slow
def test_halves_are_scored_as_their_cells_say(trusted):
    """Errors of means, and which effects are large in the half that is learned from."""
    found = trusted.uns["diagnosis"]
    table = found["perturbations"]
    names, n_large = table["perturbation"].tolist(), 0
    halves, _ = read_halves(
        trusted, np.arange(trusted.n_vars), names, read_roles(trusted), np.random.default_rng(0)
    )
    sides, order = [], np.argsort(halves.group)
    for half in halves.parts:
        n, mean, squares = (x[order] for x in (half.n, half.mean, half.squares))
        pooled = np.diag(half.scatter) / (n.sum() - len(n))
        own = (squares[1:] + 10 * pooled) / (n[1:, None] + 9)
        noise = own / n[1:, None] + squares[0] / (n[0] - 1) / n[0]
        sides.append((mean[1:] - mean[0], noise))
        n_large += (np.abs(mean[1:] - mean[0]) >= 3 * np.sqrt(noise)).sum()
    (one, noise_one), (two, noise_two) = sides
    noise = (noise_one + noise_two) / 2
    expected = ((one - two) ** 2 - noise).sum(axis=1)
    np.testing.assert_allclose(table["error_half_raw_means"], expected, rtol=1e-6, atol=1e-9)
    expected = ((one**2 + two**2) / 2 - noise).sum(axis=1)
    np.testing.assert_allclose(table["error_half_no_effect"], expected, rtol=1e-6)
    ratio = table["error_half"].sum() / table["error_half_raw_means"].sum()
    assert values(found)["shrinkage", "error_to_raw_means"] == pytest.approx(ratio)
    rows = found["summary"].set_index(["part", "quantity"])
    assert rows.loc[("shrinkage", "coverage_90_large"), "n"] == n_large


@pytest.mark.slow
def test_own_genes_and_distances_are_those_of_the_cells(screen):
    npt.tl.diagnose(screen)
    table = screen.uns["diagnosis"]["perturbations"].set_index("perturbation")
    assert table.index.tolist() == ["HS2", "MYC", "MYC+OXR1", "OXR1", "STK3"]
    labels = screen.obs["perturbation"].astype(object).fillna("")
    control = np.asarray(screen.X[(labels == "control").to_numpy()])
    names = list(screen.var_names)
    for name in ("MYC", "MYC+OXR1", "STK3"):
        change = np.asarray(screen.X[(labels == name).to_numpy()]).mean(axis=0) - control.mean(0)
        row = table.loc[name]
        weakest = max(change[names.index(gene)] for gene in name.split("+"))
        assert row["target_gene_mean"] == pytest.approx(weakest, rel=0.2)
        assert weakest < 0
        assert row["squared_distance"] == pytest.approx((change**2).sum(), rel=0.1)
        assert row["q_value"] < 0.05
    assert table.loc["HS2", "target_gene_found"] == ""
    assert np.isnan(table.loc["HS2", "target_gene_mean"])
    assert table.loc["HS2", "q_value"] > 0.05


# -- use ----------------------------------------------------------------------------------------


@pytest.mark.brief_chain
@pytest.mark.slow
def test_same_seed_same_result_and_cells_left_alone(screen, assert_same):
    before = screen.X.copy()
    one = npt.tl.diagnose(screen, rng=3, copy=True).uns["diagnosis"]
    assert "diagnosis" not in screen.uns
    two = npt.tl.diagnose(screen, rng=3, copy=True).uns["diagnosis"]
    assert_same(one, two)
    other = npt.tl.diagnose(screen, rng=4, copy=True).uns["diagnosis"]
    assert not one["perturbations"]["error_half"].equals(other["perturbations"]["error_half"])
    assert np.array_equal(screen.X, before)


@pytest.mark.brief_chain
@pytest.mark.slow
@pytest.mark.parametrize("options", [
    {"shift": "activation"}, {"prior_options": {"intercept": False}},
    {"shift": {"MYC": {"MYC": -1.0}, "HS2": {}, "OXR1": {"OXR1": -1.0}}},
])  # fmt: skip
def test_fits_of_every_kind_are_judged(small_screen, edges, options):
    npt.tl.learn_dag(small_screen, method="given", dag=edges)
    with warnings.catch_warnings(action="ignore"):
        npt.tl.fit_dag_blr(small_screen, key_added="mine", **options)
    npt.tl.diagnose(small_screen, posterior_key="mine")
    assert small_screen.uns["diagnosis"]["params"]["posterior_key"] == "mine"
    assert np.isfinite(values(small_screen.uns["diagnosis"])["shrinkage", "error_to_no_effect"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"posterior_key": "no"}, "no posterior 'no'"),
        ({"posterior_key": "three"}, "has 3 perturbations, but at least 4 are needed"),
        ({"posterior_key": "exact"}, "fit without shift_sd"),
        ({"key_added": "a/b"}, "key_added"),
    ],
)
def test_bad_input_is_named_and_nothing_written(screen, assert_same_adata, options, message):
    npt.tl.fit_dag_blr(screen, perturbations=["MYC", "HS2", "STK3"], key_added="three")
    npt.tl.fit_dag_blr(screen, shift_sd=0, key_added="exact")
    before = screen.copy()
    with pytest.raises(ValueError, match=message):
        npt.tl.diagnose(screen, **options)
    assert_same_adata(screen, before)


@pytest.mark.parametrize("n_controls", [2, 3])
def test_a_few_controls_are_named_before_anything_is_judged(screen, n_controls):
    """A half with one control cell knows nothing of the noise of controls."""
    control = np.flatnonzero(screen.obs["perturbation"] == "control")
    few = screen[np.setdiff1d(np.arange(screen.n_obs), control[n_controls:])].copy()
    npt.tl.fit_dag_blr(few)
    with pytest.raises(ValueError, match=f"but there are {n_controls} control cells in all"):
        npt.tl.diagnose(few)
    assert "diagnosis" not in few.uns


@pytest.mark.slow
def test_a_knockout_is_expected_to_lower_its_gene_whatever_the_mean_of_controls(right):
    """Values may be centred: minus a negative mean would be an increase."""
    right.X = right.X - 10.0
    npt.pp.setup_screen(right, check_scale=False)
    npt.tl.fit_dag_blr(right)
    found = diagnosed(right)
    rows = found["perturbations"]
    assert values(found)["positive controls", "n_found"] == len(rows)
    assert values(found)["positive controls", "n_opposite"] == 0


@pytest.mark.brief_chain
def test_of_many_perturbations_a_sample_is_judged(screen, monkeypatch):
    """As if the screen had no others: but for tests of differences, which are of all."""
    monkeypatch.setattr("nextpert.tl._read_halves.MAX_JUDGED", 4)
    whole = npt.tl.diagnose(screen, copy=True).uns["diagnosis"]
    table = whole["perturbations"]
    kept = table["split_by"] != ""
    names = table.loc[kept, "perturbation"].tolist()
    assert len(names) == 4 < len(table)
    assert f"judged by 4 of {len(table)} perturbations" in whole["verdict"]
    scored = table.filter(regex="^(error|coverage|r_)")
    assert scored[~kept].isna().all(axis=None)
    assert scored["error_half"][kept].notna().all()
    assert table["squared_distance"].notna().all()
    monkeypatch.undo()
    part = screen[screen.obs["perturbation"].isin(["control", *names])].copy()
    npt.tl.fit_dag_blr(part)
    npt.tl.diagnose(part)
    alone = part.uns["diagnosis"]["perturbations"]["r_all"]
    assert np.isfinite(alone).any()
    np.testing.assert_allclose(table["r_all"][kept], alone, rtol=1e-12)


@pytest.mark.brief_chain
def test_of_many_perturbations_one_graph_has_seen_no_judged_one(right, monkeypatch):
    """Where half of the perturbations are judged, or fewer: that of a screen without these."""
    npt.tl.learn_dag(right, method="boss", environments="all")
    npt.tl.fit_dag_blr(right)
    monkeypatch.setattr(refit, "MAX_JUDGED", 6)
    asked = []

    def record(dag, held_out, searches, genes, sets, *rest, **more):
        asked.append(sets)
        return graphs_without(dag, held_out, searches, genes, sets, *rest, **more)

    monkeypatch.setattr(refit, "graphs_without", record)
    npt.tl.diagnose(right)
    table = right.uns["diagnosis"]["perturbations"]
    assert asked == [[table.loc[table["split_by"] != "", "perturbation"].tolist()]]
