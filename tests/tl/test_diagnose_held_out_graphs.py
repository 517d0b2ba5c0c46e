"""``tl.diagnose`` of graphs that perturbed cells helped to learn: each left out of its graph."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.roles import Roles
from nextpert._adata.screen import read_environments, screen_moments
from nextpert.core import Dag, DagBlr, Moments, PriorKnowledge
from nextpert.tl._learn_dag.held_out import without_folds
from nextpert.tl._learn_dag.prior import read_knowledge, stored_knowledge

LEARN = {"method": "boss", "environments": "all"}


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


def made(parts, genes):
    x = np.concatenate(list(parts.values()))
    labels = np.repeat(list(parts), [len(part) for part in parts.values()])
    obs = pd.DataFrame({"perturbation": labels}, index=[str(i) for i in range(len(x))])
    return ad.AnnData(x, obs, pd.DataFrame(index=genes))


def hidden_arcs(scatter):
    """Sources whose scatter is so small that cells they were not perturbed in hardly show arcs."""
    rng, parts = np.random.default_rng(1), {}
    genes = [f"{kind}{k}" for kind in "SABC" for k in range(8)]
    for label in ("control", *genes[:8]):
        n = 400 if label == "control" else 80
        x = rng.normal(3, 1, (n, len(genes)))
        x[:, :8] = rng.normal(3, scatter, (n, 8))
        if label != "control":
            x[:, genes.index(label)] -= 3
        for kind in (1, 2, 3):
            x[:, 8 * kind : 8 * kind + 8] += x[:, :8] - 3
        parts[label] = x
    return made(parts, genes)


def test_a_graph_that_saw_the_perturbations_is_not_praised_for_them():
    adata = hidden_arcs(0.06)
    npt.tl.learn_dag(adata, **LEARN)
    held_out = diagnosed(adata)
    # The same graph, as if it had been known before.
    npt.tl.learn_dag(adata, method="given", dag=adata.varp["dag"])
    seen = diagnosed(adata)
    r = seen["perturbations"]["r"]
    assert r.mean() > 0.5
    assert "adds nothing" not in seen["verdict"]
    assert np.nan_to_num(held_out["perturbations"]["r"]).mean() < 0.3
    assert "the graph adds nothing" in held_out["verdict"]
    assert held_out["level"] == "do not trust"
    assert held_out["params"]["n_folds"] == 8
    assert seen["params"]["n_folds"] == 8


def test_scores_against_graphs_learned_on_the_other_cells():
    graphs = compare(hidden_arcs(0.12))
    assert len({tuple(graph.ravel()) for graph in graphs}) > 3  # they depend on what was seen


@pytest.mark.filterwarnings("ignore:Perturbations left out")
def test_combinations_and_prior_knowledge_against_graphs_learned_on_the_other_cells(small_screen):
    assert compare(small_screen)[0][0, 2] == 1
    graphs = compare(small_screen, {"forbidden": [("MYC", "GATA1")]})
    assert not any(graph[0, 2] for graph in graphs)


def compare(adata, prior=None):
    """Compare the table with a brute force; return its graphs."""
    npt.tl.learn_dag(adata, **LEARN, prior=prior)
    table = diagnosed(adata)["perturbations"].set_index("perturbation")
    names, genes = list(table.index), list(adata.var_names)
    mu = cells_of(adata, "control").mean(axis=0)
    shifts = {name: np.where(np.isin(genes, name.split("+")), -mu, 0.0) for name in names}
    cells = {name: cells_of(adata, name) for name in names}
    graphs = []
    # Cells alone leave some directions open, so that a search is compared on its own draws.
    streams = np.random.default_rng(0).spawn(len(names))
    for held_out, stream in zip(names, streams, strict=True):
        rest = adata[(adata.obs["perturbation"] != held_out).to_numpy()].copy()
        npt.tl.learn_dag(rest, **LEARN, prior=prior, rng=stream)
        graphs.append(rest.varp["dag"].toarray())
        blr = DagBlr(Dag.from_matrix(rest.varp["dag"]))
        blr = blr.update(Moments.from_array(cells_of(adata, "control")))
        for name, moments in moments_without(cells, held_out).items():
            blr = blr.update(moments, shifts[name])
        others = ~np.isin(genes, held_out.split("+"))
        change = cells_of(adata, held_out).mean(axis=0) - mu
        apart = blr.predict_mean(shifts[held_out]) - mu - change
        assert table.loc[held_out, "error"] == pytest.approx(np.mean(apart[others] ** 2), rel=1e-6)
        effect = np.linalg.solve(np.eye(len(genes)) - blr.mean().toarray(), shifts[held_out])
        r = np.corrcoef(effect[others], change[others])[0, 1] if np.ptp(effect[others]) else np.nan
        assert table.loc[held_out, "r"] == pytest.approx(r, rel=1e-6, nan_ok=True)
    return graphs


def test_moments_without_a_fold_are_those_of_the_other_cells(small_screen):
    adata = small_screen
    adata.obs["depth"] = np.random.default_rng(0).normal(size=adata.n_obs)
    roles = Roles(guide_key="batch", covariates=("depth",))
    environments = read_environments(adata, roles)
    columns = np.arange(adata.n_vars)
    folds = [["MYC", "HS2"], ["STK3"]]
    for fold, (rest, found) in zip(
        folds, without_folds(adata, columns, environments, folds), strict=True
    ):
        others = adata[~adata.obs["perturbation"].isin(fold).to_numpy()].copy()
        expected = read_environments(others, roles)
        pd.testing.assert_frame_equal(rest.table, expected.table)
        moments = screen_moments(others, columns, expected)
        np.testing.assert_array_equal(found.n, moments.n)
        for name in ("mean", "squares", "scatter"):
            np.testing.assert_allclose(getattr(found, name), getattr(moments, name), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:Perturbations left out")
def test_same_bits_for_any_number_of_workers(small_screen, assert_same):
    npt.tl.learn_dag(small_screen, **LEARN, targets_first=True)
    one, two = (
        npt.tl.diagnose(small_screen, n_jobs=n, n_folds=3, copy=True).uns["diagnosis"]
        for n in (1, 2)
    )
    assert_same(one, two)
    assert one["params"]["n_folds"] == 3


@pytest.mark.filterwarnings("ignore:Perturbations left out")
def test_knowledge_of_before_survives_files(small_screen, tmp_path, assert_same):
    network = pd.DataFrame(
        {"source": ["MYC", "STK3", "HLA-A"], "target": ["STK3", "HLA-A", "UBR5"]}
    )
    npt.tl.learn_dag(
        small_screen, **LEARN, prior={"required": [("CPQ", "UBR5")]}, prior_network=network
    )
    expected = diagnosed(small_screen)
    small_screen.write_h5ad(tmp_path / "screen.h5ad")
    back = ad.read_h5ad(tmp_path / "screen.h5ad")
    assert_same(diagnosed(back), expected)


def test_knowledge_of_before_is_read_as_it_was_stored():
    prior = PriorKnowledge(4, before=[(0, 3)], required=[(1, 2)], forbidden=[(2, 0)])
    log_odds = np.random.default_rng(0).normal(size=(4, 4)) * (np.eye(4, k=1) + np.eye(4, k=-2))
    known, odds = read_knowledge(stored_knowledge(prior, log_odds), 4)
    for kind in ("before", "required", "forbidden"):
        np.testing.assert_array_equal(getattr(known, kind), getattr(prior, kind))
    np.testing.assert_array_equal(odds, log_odds)
    assert read_knowledge(stored_knowledge(None, None), 4) == (None, None)
    assert read_knowledge(stored_knowledge(None, log_odds), 4)[0] is None


def test_labels_of_another_column_are_refused(small_screen):
    npt.tl.learn_dag(small_screen, **LEARN)
    small_screen.obs["other"] = small_screen.obs["perturbation"]
    with pytest.raises(ValueError, match="perturbation_key='perturbation', but this call has 'o"):
        npt.tl.diagnose(small_screen, perturbation_key="other")
    assert "diagnosis" not in small_screen.uns
