"""``penalty="auto"``: what graphs predict of perturbations that they have not seen."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.core import Dag, ScreenMoments, context_moments, random_scm
from nextpert.core.search.registry import Found
from nextpert.tl._learn_dag import penalty
from nextpert.tl._learn_dag.context import Joint
from nextpert.tl._learn_dag.penalty import PENALTIES, HeldOutCells, held_out_loss

pytestmark = pytest.mark.slow

GENES = [f"G{i}" for i in range(8)]


def screen(shared, seed=0, n_cells=60, n_control=300):
    """Every gene knocked out; members of clones of 20 cells share a part of their noise."""
    rng = np.random.default_rng(seed)
    scm = random_scm(8, "erdos_renyi", expected_degree=3, rng=rng)
    label = np.repeat(["control", *GENES], [n_control, *[n_cells] * 8])
    clone = rng.permutation(len(label)) // 20
    noise = np.sqrt(1 - shared) * rng.normal(size=(len(label), 8))
    noise += np.sqrt(shared) * rng.normal(size=(clone.max() + 1, 8))[clone]
    shift = np.zeros((len(label), 8))
    for k, gene in enumerate(GENES):
        shift[label == gene] = -2 * np.eye(8)[k]
    x = (noise * np.sqrt(scm.noise_var) + shift) @ np.linalg.inv(np.eye(8) - scm.weights).T
    obs = pd.DataFrame({"perturbation": label, "clone": clone.astype(str)})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(x + 6, obs, pd.DataFrame(index=GENES))
    npt.pp.setup_screen(adata, check_scale=False)
    return scm, adata


def learn(adata, penalty, **options):
    options = {"penalty": penalty, "n_runs": 2} | options
    npt.tl.learn_dag(adata, method="boss", environments="all", search_options=options)
    return adata.uns["dag"]


def n_wrong(scm, adata):
    found = adata.varp["dag"].toarray() != 0
    wrong = found != (scm.weights.T != 0)
    return int((wrong | wrong.T)[np.triu_indices(8, 1)].sum())


@pytest.mark.slow
def test_cells_that_are_not_independent_get_a_higher_penalty():
    wrong, chosen = {2.0: 0, "auto": 0}, []
    for seed in range(3):
        for asked in wrong:
            scm, adata = screen(0.5, seed)
            chosen.append(learn(adata, asked)["params"]["penalty"])
            wrong[asked] += n_wrong(scm, adata)
    assert max(chosen) > 2
    assert wrong["auto"] < wrong[2.0] / 2


@pytest.mark.slow
def test_independent_cells_lose_nothing():
    wrong = {2.0: 0, "auto": 0}
    for seed in range(3):
        for asked in wrong:
            scm, adata = screen(0.0, seed)
            learn(adata, asked)
            wrong[asked] += n_wrong(scm, adata)
    assert wrong["auto"] <= wrong[2.0] + 1


def test_the_graph_is_that_of_the_penalty_chosen(tmp_path):
    _, adata = screen(0.3)
    stored = learn(adata, "auto")
    chosen, graph = stored["params"]["penalty"], adata.varp["dag"].toarray()
    table = stored["penalties"]
    assert table["penalty"].tolist() == list(PENALTIES)
    assert chosen in PENALTIES
    assert table["loss"].min() == 0
    adata.write_h5ad(tmp_path / "kept.h5ad")
    assert ad.read_h5ad(tmp_path / "kept.h5ad").uns["dag"]["params"]["penalty"] == chosen
    again = learn(adata, chosen)
    np.testing.assert_array_equal(adata.varp["dag"].toarray(), graph)
    assert "penalties" not in again


def test_the_choice_does_not_depend_on_workers_or_order():
    _, adata = screen(0.3)
    first = learn(adata, "auto")["penalties"]
    turned = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    options = {"penalty": "auto", "n_runs": 2}
    npt.tl.learn_dag(turned, method="boss", environments="all", search_options=options, n_jobs=2)
    pd.testing.assert_frame_equal(first, turned.uns["dag"]["penalties"], atol=1e-9)


def test_batches_and_covariates_are_no_mistake_of_the_graph():
    """Shifts of batches, and a covariate in all genes, change the losses by little."""
    _, adata = screen(0.0)
    plain = learn(adata, "auto")["penalties"]
    rng = np.random.default_rng(1)
    batch, depth = rng.integers(0, 3, adata.n_obs), rng.normal(size=adata.n_obs)
    adata.obs["plate"], adata.obs["depth"] = batch.astype(str), depth
    adata.X = adata.X + 5 * rng.normal(size=(3, 8))[batch] + np.outer(depth, np.ones(8))
    npt.pp.setup_screen(adata, batch_key="plate", covariates=["depth"])
    both = learn(adata, "auto")["penalties"]
    assert np.abs(plain["loss"] - both["loss"]).max() < 0.03
    assert adata.uns["dag"]["params"]["penalty"] <= 8


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_that_of_regressions_on_the_cells(seed):
    """Against dense least squares with an intercept, of four genes, a covariate and a knockout."""
    rng = np.random.default_rng(seed)
    p, n = 4, 50
    label = np.repeat([0, 1, 2, 3], n)  # controls, seen, and two that are left out
    x = rng.normal(size=(4 * n, p + 1)) @ rng.normal(size=(p + 1, p + 1))
    x += rng.normal(size=(4, p + 1))[label]
    seen = label < 2
    dag = Dag.from_edges(p, [(0, 1), (1, 2), (0, 3)])
    acts = np.array([[1, 0, 1, 0], [0, 1, 0, 0]], bool)  # the covariate, the knockout
    moments = ScreenMoments.from_array(x[seen], label[seen], 2)
    joint = Joint(context_moments(moments, [[0.0], [1.0]]), np.array([0, 1]), ["c", "k"], {})
    columns = np.c_[x, label == 1][seen]
    left = ScreenMoments.from_array(x[~seen], label[~seen] - 2, 2)
    other = np.array([[0, 1, 1, 1], [1, 1, 0, 1]], bool)
    means = np.array([x[label == k].mean(axis=0) for k in range(4)])
    cells = HeldOutCells(means[2:] - means[0], left.scatter / (2 * n), other)
    found = held_out_loss(joint, Found(dag, dag.order, acts), cells)

    total = np.zeros(2)
    for gene in range(p):
        used = [*dag.parents(gene), *(p + np.flatnonzero(acts[:, gene]))]
        design = np.c_[np.ones(2 * n), columns[:, used]]
        weights = np.linalg.lstsq(design, columns[:, gene], rcond=None)[0]
        variance = np.mean((columns[:, gene] - design @ weights) ** 2)
        residual = x[:, gene].copy()
        for node, weight in zip(used, weights[1:], strict=True):
            if node <= p:
                residual -= weight * x[:, node]
        inside = [residual[label == k] - residual[label == k].mean() for k in (2, 3)]
        within = np.mean(np.concatenate(inside) ** 2)
        for j in range(2):
            away = residual[label == j + 2].mean() - residual[label == 0].mean()
            off = within + other[j, gene] * away**2
            total[j] += (np.log(variance) + off / variance) / 2 / p
    np.testing.assert_allclose(found, total, rtol=1e-9)


def test_too_few_perturbations_of_known_targets():
    _, adata = screen(0.0)
    kept = adata.obs["perturbation"].isin(["control", *GENES[:4]])
    few = adata[kept].copy()
    with pytest.raises(ValueError, match=r"but there are 4 \(G0, G1, G2, G3\)"):
        learn(few, "auto")
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = labels.replace({gene: f"drug {gene}" for gene in GENES})
    with pytest.raises(ValueError, match=r"0 \(none\).* with perturbation_targets"):
        learn(adata, "auto")
    told = {f"drug {gene}": gene for gene in GENES}
    assert learn(adata, "auto", perturbation_targets=told)["params"]["penalty"] in PENALTIES
    with pytest.raises(ValueError, match='penalty="auto" needs environments="all"'):
        npt.tl.learn_dag(adata, method="boss", search_options={"penalty": "auto"})


def test_what_is_left_out_is_summed_as_by_hand(monkeypatch):
    """Means, covariance and target genes of each fold, and the targets known in the others."""
    _, adata = screen(0.2)
    folds, real = [], penalty._folds

    def record(panel, known):
        folds.extend(real(panel, known))
        return folds

    monkeypatch.setattr(penalty, "_folds", record)
    learn(adata, "auto", perturbation_targets={"G1": ["G2", "G3"]})
    label, x = adata.obs["perturbation"].to_numpy(), np.asarray(adata.X)
    for k, (joint, cells) in enumerate(folds):
        names = GENES[k::5]
        means = [x[label == name].mean(axis=0) for name in ["control", *names]]
        np.testing.assert_allclose(cells.shift, np.array(means[1:]) - means[0], atol=1e-9)
        away = np.vstack([x[label == n] - m for n, m in zip(names, means[1:], strict=True)])
        np.testing.assert_allclose(cells.within, away.T @ away / len(away), atol=1e-9)
        own = {"G1": ["G2", "G3"]}
        wanted = [[gene not in own.get(name, [name]) for gene in GENES] for name in names]
        assert cells.other.tolist() == wanted
        told = {joint.names[j]: nodes for j, nodes in joint.targets.items()}
        assert told == ({} if "G1" in names else {"G1": [2, 3]})
        assert joint.moments.n == (~np.isin(label, names)).sum()
