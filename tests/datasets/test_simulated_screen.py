import json

import numpy as np
import pytest

from nextpert.datasets import simulated_screen


@pytest.fixture(scope="module")
def screen():
    return simulated_screen(n_control=4000, n_perturbed=400, perturbed=4, rng=1)


@pytest.fixture(scope="module")
def truth(screen):
    return screen.uns["truth"] | {"weights": screen.uns["truth"]["weights"].toarray()}


def test_shape_labels_and_panel(screen):
    counts = screen.obs["perturbation"].value_counts()
    assert screen.shape == (4000 + 4 * 400, 36)
    assert counts["control"] == 4000
    assert set(counts.index) - {"control"} <= set(screen.var_names)
    assert (counts.drop("control") == 400).all()
    assert screen.X.dtype == np.float32
    assert {"HLA-A", "MYC", "STAT1"} <= set(screen.var_names)


@pytest.mark.screen
def test_panel_is_that_of_the_paper(screen, screen_path):
    graph = json.loads((screen_path / "reference" / "estimated_dag_edges.json").read_text())
    assert sorted(screen.var_names) == sorted(graph["nodes"])


def test_control_cells_follow_the_truth(screen, truth):
    """The regression of each gene on its parents, among controls, gives the weights back."""
    weights = truth["weights"]
    x = np.asarray(screen.X[screen.obs["perturbation"] == "control"], dtype=float)
    for i in range(36):
        parents = np.flatnonzero(weights[i])
        design = np.column_stack([np.ones(len(x)), x[:, parents]])
        coefficients, *_ = np.linalg.lstsq(design, x[:, i], rcond=None)
        residual = x[:, i] - design @ coefficients
        error = np.sqrt(truth["noise_var"][i] * np.diag(np.linalg.inv(design.T @ design)))
        expected = np.r_[truth["intercept"][i], weights[i, parents]]
        assert (np.abs(coefficients - expected) < 4.5 * error).all(), screen.var_names[i]
        assert residual.var() == pytest.approx(truth["noise_var"][i], rel=0.12)


def test_means_are_those_of_expression_and_the_order_is_topological(screen, truth):
    weights = truth["weights"]
    mean = np.linalg.solve(np.eye(36) - weights, truth["intercept"])
    np.testing.assert_allclose(mean, truth["control_mean"])
    assert mean.min() >= 1
    assert mean.max() <= 3
    x = screen.X[(screen.obs["perturbation"] == "control").to_numpy()]
    np.testing.assert_allclose(x.mean(0), mean, atol=0.06)
    assert (x < 0).mean() < 0.01
    ordered = weights[np.ix_(truth["order"], truth["order"])]
    assert np.count_nonzero(np.triu(ordered)) == 0
    assert truth["order"].tolist() != list(range(36))


def test_a_knockout_shifts_its_gene_by_minus_the_control_mean(screen, truth):
    effects = np.linalg.inv(np.eye(36) - truth["weights"])
    for gene in set(screen.obs["perturbation"]) - {"control"}:
        i = screen.var_names.get_loc(gene)
        expected = truth["control_mean"] - effects[:, i] * truth["control_mean"][i]
        x = np.asarray(screen.X[(screen.obs["perturbation"] == gene).to_numpy()], dtype=float)
        error = x.std(0) / np.sqrt(len(x))
        assert (np.abs(x.mean(0) - expected) < 4.5 * error).all(), gene
        assert expected[i] == pytest.approx(0)


def test_seeds_reproduce_and_leave_the_global_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    small = {"n_control": 20, "n_perturbed": 3}
    first, second = simulated_screen(**small), simulated_screen(**small)
    assert len(set(first.obs["perturbation"]) - {"control"}) == 24  # a third is left to design
    other = simulated_screen(**small, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(first.X, second.X)
    assert not np.array_equal(first.X, other.X)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_genes": 1}, "n_genes"),
        ({"n_control": 0}, "n_control"),
        ({"n_perturbed": 0}, "n_perturbed"),
        ({"perturbed": 37}, "only 36 genes"),
        ({"perturbed": ["MYC", "NOPE"]}, "NOPE"),
        ({"perturbed": ["MYC", "MYC"]}, "twice"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        simulated_screen(**options)
