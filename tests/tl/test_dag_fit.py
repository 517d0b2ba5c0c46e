import numpy as np
import pytest

import nextpert as npt
from nextpert.core.causal.scm import matched_random_dag

N_FOLDS, N_RANDOM = 4, 12


@pytest.fixture
def fitted(screen):
    npt.tl.dag_fit(screen, n_folds=N_FOLDS, n_random=N_RANDOM, rng=3)
    return screen


def _correlation(x, folds, node, parents):
    """Pool predictions of every fold from least squares on the others, cell by cell."""
    predicted, own = [], []
    for f in np.unique(folds):
        train, test = x[folds != f], x[folds == f]
        design = np.column_stack([np.ones(len(train)), train[:, parents]])
        weights = np.linalg.lstsq(design, train[:, node], rcond=None)[0]
        value = np.column_stack([np.ones(len(test)), test[:, parents]]) @ weights
        predicted.append(value - value.mean())
        own.append(test[:, node] - test[:, node].mean())
    return np.corrcoef(np.concatenate(predicted), np.concatenate(own))[0, 1]


def test_against_regressions_cell_by_cell(fitted, graph):
    stored = fitted.uns["dag_fit"]
    controls = (fitted.obs["perturbation"] == "control").to_numpy()
    x = fitted.X[controls]
    rng = np.random.default_rng(3)
    folds = rng.permutation(np.arange(len(x)) % N_FOLDS)
    randoms = [matched_random_dag(graph.in_degree, rng=rng) for _ in range(N_RANDOM)]
    nodes = np.flatnonzero(graph.in_degree)
    assert stored["table"]["gene"].tolist() == fitted.var_names[nodes].tolist()
    assert stored["table"]["n_parents"].tolist() == graph.in_degree[nodes].tolist()
    own = np.array([_correlation(x, folds, i, graph.parents(i)) for i in nodes])
    others = np.array([[_correlation(x, folds, i, g.parents(i)) for i in nodes] for g in randoms])
    np.testing.assert_allclose(stored["table"]["r"], own, rtol=1e-6)
    np.testing.assert_allclose(stored["random_r"], others, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(stored["table"]["random_sd"], others.std(0, ddof=1), rtol=1e-5)
    p_values = (1 + (others >= own).sum(0)) / (1 + N_RANDOM)
    np.testing.assert_allclose(stored["table"]["p_value"], p_values)
    means = others.mean(1)
    np.testing.assert_allclose(stored["mean_r"], own.mean())
    np.testing.assert_allclose(stored["z"], (own.mean() - means.mean()) / means.std(ddof=1))
    assert stored["p_value"] == 1 / (1 + N_RANDOM)
    for row, i in enumerate(nodes):
        design = np.column_stack([np.ones(len(x)), x[:, graph.parents(i)]])
        fit = design @ np.linalg.lstsq(design, x[:, i], rcond=None)[0]
        wanted = np.corrcoef(fit, x[:, i])[0, 1]
        np.testing.assert_allclose(stored["table"]["r_in_sample"].iloc[row], wanted)


def test_the_true_graph_beats_random_ones_and_a_random_one_does_not(fitted, graph):
    assert fitted.uns["dag_fit"]["z"] > 2
    p_values = []
    for seed in range(20):
        fitted.varp["random"] = matched_random_dag(graph.in_degree, rng=100 + seed).to_matrix()
        npt.tl.dag_fit(fitted, dag_key="random", n_random=19, key_added="r", rng=seed)
        p_values.append(fitted.uns["r"]["p_value"])
    assert 0.25 < np.mean(p_values) < 0.8  # uniform


def test_noise_of_many_parents_shows_in_sample_only():
    adata = npt.datasets.simulated_screen(
        n_genes=30, n_control=100, perturbed=0, expected_degree=0.0
    )
    names = adata.var_names
    npt.tl.learn_dag(adata, method="given", dag=[(k, names[29]) for k in names[:29]])
    npt.tl.dag_fit(adata, n_random=5)
    row = adata.uns["dag_fit"]["table"].iloc[0]
    assert row["r_in_sample"] > 0.4
    assert row["r"] < 0.25


def test_other_cells_than_those_of_the_graph(fitted):
    half = np.where(np.arange(fitted.n_obs) % 2, "learn", "test")
    fitted.obs["part"] = np.where(fitted.obs["perturbation"] == "control", half, "rest")
    npt.tl.dag_fit(fitted, perturbation_key="part", control="test", n_random=2, key_added="half")
    assert fitted.uns["half"]["n_cells"] == (fitted.obs["part"] == "test").sum()
    assert fitted.uns["half"]["params"]["control"] == "test"


def test_errors_write_nothing(fitted):
    del fitted.uns["dag_fit"]
    before = set(fitted.uns)
    cases = [
        ({"dag_key": "nope"}, "tl.learn_dag first"),
        ({"n_folds": 1}, "n_folds"),
        ({"n_random": 1}, "n_random"),
        ({"control": "contrl"}, "No control cells"),
        ({"perturbation_key": "nope"}, "no column 'nope'"),
        ({"n_folds": 300}, "control cells in 300 folds"),
        ({"key_added": "a/b"}, "key_added"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            npt.tl.dag_fit(fitted, **options)
    fitted.X[:, 0] = 1
    with pytest.raises(ValueError, match="MYC"):
        npt.tl.dag_fit(fitted)
    fitted.varp["dag"] = fitted.varp["dag"] * 0
    with pytest.raises(ValueError, match="no edges"):
        npt.tl.dag_fit(fitted)
    assert set(fitted.uns) == before
