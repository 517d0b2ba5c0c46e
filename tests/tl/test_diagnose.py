"""``tl.diagnose`` against the cells themselves, and its verdict on screens whose truth is known."""

from __future__ import annotations

import tracemalloc
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from scipy.stats import skew

import nextpert as npt
from nextpert.core import Dag, DagBlr, LinearScm, Moments
from nextpert.core.predict.predictive_means import predictive_means

quiet = pytest.mark.filterwarnings("ignore:Perturbations left out")


def cells_of(adata, label):
    return np.asarray(adata.X[(adata.obs["perturbation"] == label).to_numpy()], dtype=float)


def moments_without(cells, held_out):
    """Moments of the other groups of cells, with their share of the scatter within them all."""
    others = {name: x for name, x in cells.items() if name != held_out}
    scatter = sum(Moments.from_array(x).scatter for x in others.values())
    n = sum(len(x) for x in others.values())
    return {
        name: Moments(len(x), x.mean(axis=0), scatter * (len(x) / n)) for name, x in others.items()
    }


def diagnosed(adata, **options):
    npt.tl.diagnose(adata, **options)
    return adata.uns["diagnosis"]


@pytest.fixture
def screen(small_screen, arcs):
    npt.tl.learn_dag(small_screen, method="given", dag=arcs, genes=list(small_screen.var_names))
    return small_screen


@pytest.fixture(scope="module")
def _right():
    adata = npt.datasets.simulated_screen(n_genes=20, n_control=2000, expected_degree=5, rng=4)
    npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    return adata


@pytest.fixture
def right(_right):
    """A screen on which the model is right."""
    return _right.copy()


def with_shuffled_labels(adata):
    labels = adata.obs["perturbation"].astype(str).to_numpy(copy=True)
    perturbed = labels != "control"
    labels[perturbed] = np.random.default_rng(0).permutation(labels[perturbed])
    adata.obs["perturbation"] = labels
    return adata


# -- the verdict --------------------------------------------------------------------------------


def test_the_model_is_trusted_where_it_is_right(right):
    found = diagnosed(right)
    assert found["level"] == "trust"
    assert found["verdict"].startswith("Trust the model here: ")
    assert set(found["summary"]["passed"]) == {"yes", ""}
    value = found["summary"].set_index("quantity")["value"]
    # Of the squared error little but the cells' own scatter is left, and intervals hold.
    assert value["error_to_noise"] < 1.5
    assert 0.85 < value["coverage_90"] < 0.95
    assert 0.42 < value["coverage_50"] < 0.58
    assert value["sign_accuracy"] > 0.95


@pytest.mark.parametrize("shift", ["knockout"])
def test_not_trusted_with_shuffled_labels(right, shift):
    found = diagnosed(with_shuffled_labels(right), shift=shift)
    assert found["level"] == "do not trust"
    assert "use random or greedy" in found["verdict"]
    assert (found["perturbations"]["own_z"].abs() > 3).mean() < 0.4


def test_not_trusted_with_the_arrows_turned_round(right):
    # The reversed graph fits control cells; only held-out perturbations tell.
    npt.tl.learn_dag(right, method="given", dag=right.uns["truth"]["weights"])
    found = diagnosed(right)
    assert found["level"] == "do not trust"
    passed = found["summary"].set_index("quantity")["passed"]
    assert passed["n_strong"] == "yes"
    assert passed["r_parents"] == "yes"
    assert passed["r"] == "no"


def test_not_trusted_where_effects_are_not_linear():
    # Genes answer to the distance of their parent from its control mean, either way.
    rng = np.random.default_rng(3)
    n, p = 300, 12
    labels = ["control"] * 2000 + [f"G{k}" for k in range(0, p, 2) for _ in range(n)]
    x = rng.normal(3, 0.5, (len(labels), p))
    for k in range(0, p, 2):
        x[np.array(labels) == f"G{k}", k] -= 3
        x[:, k + 1] += (x[:, k] - 3) ** 2 + 0.3 * (x[:, k] - 3)
    obs = pd.DataFrame({"perturbation": labels}, index=[str(i) for i in range(len(x))])
    adata = ad.AnnData(x, obs, pd.DataFrame(index=[f"G{k}" for k in range(p)]))
    npt.tl.learn_dag(adata, method="given", dag=[(f"G{k}", f"G{k + 1}") for k in range(0, p, 2)])
    found = diagnosed(adata)
    assert found["level"] == "do not trust"
    assert found["perturbations"]["is_strong"].all()


def test_without_arcs_nothing_is_predicted(right):
    npt.tl.learn_dag(right, method="given", dag=[], genes=list(right.var_names))
    found = diagnosed(right)
    assert found["level"] == "do not trust"
    assert found["perturbations"]["r"].isna().all()
    assert found["genes"]["r_parents"].isna().all()


def test_weak_perturbations_are_named(right):
    labels = right.obs["perturbation"].astype(str).to_numpy(copy=True)
    names = [str(name) for name in np.unique(labels) if name != "control"]
    weak = names[2:]
    rows = np.flatnonzero(np.isin(labels, weak))
    controls = np.flatnonzero(labels == "control")
    right.X[rows] = right.X[controls[: len(rows)]]  # guides that do nothing
    found = diagnosed(right)
    table = found["perturbations"].set_index("perturbation")
    assert not table.loc[weak, "is_strong"].any()
    assert table.loc[names[:2], "is_strong"].all()
    assert f"only 2 of {len(names)} perturbations" in found["verdict"]
    assert weak[0] in found["verdict"]


# -- the numbers --------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("shift", ["knockout"])
def test_scores_against_a_brute_force(screen, graph, shift):
    found = diagnosed(screen, shift=shift)
    labels = ["MYC", "MYC+OXR1", "OXR1", "STK3"]
    table = found["perturbations"].set_index("perturbation")
    assert table.index.tolist() == labels
    names = list(screen.var_names)
    control = cells_of(screen, "control")
    mu, cells = control.mean(axis=0), {name: cells_of(screen, name) for name in labels}
    targets = {name: [names.index(gene) for gene in name.split("+")] for name in labels}
    changes = {name: x.mean(axis=0) - mu for name, x in cells.items()}
    shifts = {}
    for name in labels:
        shifts[name] = np.zeros(len(names))
        own = targets[name]
        shifts[name][own] = -mu[own] if shift == "knockout" else changes[name][own]
    for held_out in labels:
        blr = DagBlr(graph).update(Moments.from_array(control))
        for name, moments in moments_without(cells, held_out).items():
            blr = blr.update(moments, shifts[name])
        inverse = np.linalg.inv(np.eye(len(names)) - blr.mean().toarray())
        effect = inverse @ shifts[held_out]
        predicted = inverse @ (shifts[held_out] + blr.intercept_mean) - mu
        others = np.setdiff1d(np.arange(len(names)), targets[held_out])
        observed = changes[held_out]
        mean = np.array([
            np.mean([changes[n][g] for n in labels if n != held_out and g not in targets[n]])
            for g in others
        ])  # fmt: skip
        own = targets[held_out]
        centred = control - mu
        slopes = np.linalg.lstsq(centred[:, own], centred, rcond=None)[0]
        coexpression = (shifts[held_out][own] @ slopes)[others]
        row = table.loc[held_out]
        expected = {
            "error": np.mean((predicted - observed)[others] ** 2),
            "error_nothing": np.mean(observed[others] ** 2),
            "error_mean": np.mean((mean - observed[others]) ** 2),
            "error_coexpression": np.mean((coexpression - observed[others]) ** 2),
            "r_coexpression": np.corrcoef(coexpression, observed[others])[0, 1],
            "r_with_target": np.corrcoef(effect, observed)[0, 1],
            "r": np.corrcoef(effect[others], observed[others])[0, 1],
        }
        if np.ptp(effect[others]) == 0:
            expected["r"] = np.nan
        np.testing.assert_allclose(
            row[list(expected)].astype(float), list(expected.values()), rtol=1e-4, err_msg=held_out
        )
        assert row["gain_on_mean"] == pytest.approx(row["error_mean"] - row["error"])
        assert row["gain_on_nothing"] == pytest.approx(row["error_nothing"] - row["error"])
        se = np.sqrt(
            cells[held_out].var(axis=0, ddof=1) / len(cells[held_out])
            + control.var(axis=0) / len(control)
        )
        assert row["error_noise"] == pytest.approx(np.mean(se[others] ** 2))
        z = observed / se
        weakest = min(targets[held_out], key=lambda i: abs(z[i]))
        assert row["weakest_target"] == names[weakest]
        assert row["own_z"] == pytest.approx(z[weakest])
        clear = others[np.abs(z[others]) >= 3]
        assert row["n_changed"] == len(clear)
        if len(clear):
            right = np.where(
                effect[clear] == 0, 0.5, np.sign(effect[clear]) == np.sign(observed[clear])
            )
            assert row["sign_accuracy"] == pytest.approx(right.mean())
    value = found["summary"].set_index("quantity")["value"]
    ratio = table["error"] / table["error_nothing"]
    assert value["error_to_nothing"] == pytest.approx(np.exp(np.log(ratio).mean()))
    ratio = table["error"] / table["error_coexpression"]
    assert value["error_to_coexpression"] == pytest.approx(np.exp(np.log(ratio).mean()))
    assert value["r_with_target"] == pytest.approx(table["r_with_target"].mean())


@quiet
def test_genes_against_a_brute_force(screen, graph):
    npt.tl.fit_dag_blr(screen, shift_sd=0)
    table = diagnosed(screen)["genes"]
    control = cells_of(screen, "control")
    blr = DagBlr.from_dict(dict(screen.uns["dag_blr"]["posterior"]))
    residual = control - control @ blr.mean().toarray().T - blr.intercept_mean
    np.testing.assert_allclose(table["residual_skewness"], skew(residual), rtol=1e-6)
    np.testing.assert_array_equal(table["share_of_zeros"], 0.0)
    labels = ["MYC", "STK3", "OXR1", "MYC+OXR1"]
    for i in range(screen.n_vars):
        parents = graph.parents(i)
        if not len(parents):
            assert np.isnan(table["r_parents"][i])
            continue
        slope = np.linalg.lstsq(
            control[:, parents] - control[:, parents].mean(0),
            control[:, i] - control[:, i].mean(),
            rcond=None,
        )[0]
        within = [cells_of(screen, label) for label in labels]
        x = np.concatenate([part - part.mean(axis=0) for part in within])
        expected = np.corrcoef(x[:, parents] @ slope, x[:, i])[0, 1]
        assert table["r_parents"][i] == pytest.approx(expected)
    assert (table["r_random_sd"].dropna() > 0).all()


def test_pooled_scatter_hardly_changes_what_is_predicted(right):
    found = diagnosed(right)
    names = [str(name) for name in found["perturbations"]["perturbation"]]
    genes, control = list(right.var_names), cells_of(right, "control")
    mu = control.mean(axis=0)
    start = DagBlr(Dag.from_matrix(right.varp["dag"])).update(Moments.from_array(control))
    for k, held_out in enumerate(names):
        blr = start
        for name in names:
            if name != held_out:  # here each with its own scatter
                shift = np.where(np.isin(genes, name), -mu, 0.0)
                blr = blr.update(Moments.from_array(cells_of(right, name)), shift)
        effect = blr.solve(np.where(np.isin(genes, held_out), -mu, 0.0)[:, None])[:, 0]
        np.testing.assert_allclose(found["predicted_effect"][k], effect, atol=0.02 * mu.mean())


def test_no_matrix_is_kept_of_any_perturbation():
    p, n_labels = 150, 200
    labels = np.array(["control"] * 600 + [f"G{k % p}+G{k // p}" for k in range(p, p + n_labels)])
    x = np.random.default_rng(0).normal(3, 1, (len(labels), p))
    obs = pd.DataFrame({"perturbation": labels}, index=[str(i) for i in range(len(x))])
    adata = ad.AnnData(x, obs, pd.DataFrame(index=[f"G{k}" for k in range(p)]))
    npt.tl.learn_dag(adata, method="given", dag=[("G0", "G1"), ("G2", "G3")], genes=adata.var_names)
    options = {"n_samples": 100, "n_random": 20}
    diagnosed(adata[: 600 + 3], **options)  # compiled
    tracemalloc.start()
    diagnosed(adata, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n_labels * p * p * 8 / 2


def test_zeros_are_counted_and_sparse_cells_give_the_same(right):
    right.X[:500, 3] = 0
    dense = diagnosed(right.copy())
    right.X = sp.csr_matrix(right.X)
    sparse = diagnosed(right)
    assert dense["genes"]["share_of_zeros"][3] == 500 / 2000
    columns = ["residual_skewness", "r_parents", "share_of_zeros"]
    np.testing.assert_allclose(sparse["genes"][columns], dense["genes"][columns], rtol=1e-6)


def test_predictive_means_hold_weights_and_scatter():
    # Known weights: what is left is the scatter of n cells, A diag(noise) A' / n.
    scm = LinearScm([[0, 0, 0], [0.8, 0, 0], [0.5, -0.7, 0]], [1.0, 0.5, 0.2], [1.0, 2.0, 3.0])
    blr = DagBlr(scm.dag).update(Moments.from_array(scm.sample(400_000, rng=1)))
    shift = np.array([1.0, 0, 0.5])
    draws = predictive_means(blr, shift, 25, n_samples=20_000, rng=2)
    np.testing.assert_allclose(draws.mean(axis=0), scm.mean(shift), atol=0.02)
    np.testing.assert_allclose(np.cov(draws.T), scm.covariance() / 25, atol=0.002)
    # Few cells to learn from: the weights' own uncertainty comes on top.
    few = DagBlr(scm.dag).update(Moments.from_array(scm.sample(30, rng=1)))
    spread = predictive_means(few, shift, 25, n_samples=5000, rng=2).var(axis=0)
    assert (spread > 1.3 * draws.var(axis=0)).all()
    fixed = predictive_means(blr, shift, 25, known={0: 7.0}, n_samples=20_000, rng=2)
    assert (fixed[:, 0] == 7.0).all()
    assert fixed[:, 1].mean() == pytest.approx(2 + 0.8 * 7, abs=0.02)
    assert fixed[:, 1].var() == pytest.approx(0.5 / 25, rel=0.05)


# -- use ----------------------------------------------------------------------------------------


@quiet
def test_same_seed_same_result_and_cells_left_alone(screen, assert_same):
    before = screen.X.copy()
    one = npt.tl.diagnose(screen, rng=3, copy=True).uns["diagnosis"]
    assert "diagnosis" not in screen.uns
    two = npt.tl.diagnose(screen, rng=3, copy=True).uns["diagnosis"]
    assert_same(one, two)
    other = npt.tl.diagnose(screen, rng=4, copy=True).uns["diagnosis"]
    assert not one["genes"]["r_random_mean"].equals(other["genes"]["r_random_mean"])
    assert_same(one["perturbations"]["r"].to_numpy(), other["perturbations"]["r"].to_numpy())
    assert np.array_equal(screen.X, before)


@quiet
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_survives_files(screen, tmp_path, assert_same, kind):
    table = {"MYC": {"MYC": -1.0}, "HS2": {}, "OXR1": {"OXR1": -1.0}}
    npt.tl.diagnose(
        screen, shift=table, layer="lognorm", key_added="mine"
    )  # NaN: HS2 has no target
    assert screen.uns["mine"]["perturbations"]["weakest_target"].tolist() == ["", "MYC", "OXR1"]
    if kind == "h5ad":
        screen.write_h5ad(tmp_path / "screen.h5ad")
        back = ad.read_h5ad(tmp_path / "screen.h5ad")
    else:
        store = zarr.storage.MemoryStore()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            screen.write_zarr(store)
            back = ad.read_zarr(store)
    assert_same(back.uns["mine"], screen.uns["mine"])


def test_labels_left_out_are_named(screen):
    with pytest.warns(UserWarning, match="HS2"):
        npt.tl.diagnose(screen)
    assert screen.uns["diagnosis"]["left_out"]["perturbation"].tolist() == ["HS2"]


@quiet
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturbations": ["MYC"]}, "Only 1 perturbations can be used"),
        ({"perturbations": ["MYC", "HS2"]}, "Left out: HS2"),
        ({"n_samples": 10}, "n_samples must be a whole number of at least 100"),
        ({"n_random": 5}, "n_random must be a whole number of at least 20"),
        ({"dag_key": "no"}, "no graph 'no'"),
        ({"control": "no"}, "No control cells"),
        ({"shift": "no"}, "shift must be"),
        ({"layer": "no"}, "no layer 'no'"),
        ({"key_added": "a/b"}, "key_added"),
    ],
)
def test_bad_input_is_named_and_nothing_written(screen, assert_same_adata, options, message):
    before = screen.copy()
    with pytest.raises(ValueError, match=message):
        npt.tl.diagnose(screen, **options)
    assert_same_adata(screen, before)


def test_one_cell_a_perturbation(screen):
    first = screen.obs.groupby("perturbation", observed=True).head(1).index
    keep = screen.obs_names.isin(first) | (screen.obs["perturbation"] == "control").to_numpy()
    few = screen[keep].copy()
    with pytest.warns(UserWarning, match="left out"):
        found = diagnosed(few)
    assert (found["perturbations"]["n_cells"] == 1).all()
    assert np.isfinite(found["perturbations"]["own_z"]).all()
