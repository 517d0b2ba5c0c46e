"""Graphs learned without some perturbations: those of a file without the cells of these."""

import copy
import logging

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata import posterior_from, read_graph
from nextpert._adata.graph import read_held_out_graphs
from nextpert.core.fit import learn
from nextpert.core.fit.learn import Graphs
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.graph import Graph
from nextpert.study import searches as graphs
from nextpert.tl._read_halves import read_refit

pytestmark = pytest.mark.brief_chain

LEARN = {"method": "boss", "environments": "all", "search_options": {"n_runs": 3}}
SEED = {"rng": 3}


def few_cells(seed=0, **options):
    """20 genes, ten cells of each perturbation: another search ends in another graph."""
    return npt.datasets.simulated_screen(
        n_genes=20, n_control=50, n_perturbed=10, perturbed=20, rng=seed, **options
    )


def grouped(adata):
    """The same cells, with guides, batches and a covariate."""
    rng = np.random.default_rng(1)
    adata.obs["plate"] = rng.choice(list("ab"), adata.n_obs)
    adata.obs["depth"] = rng.normal(size=adata.n_obs)
    adata.obs["guide"] = adata.obs["perturbation"].astype(str) + rng.choice(list("xy"), adata.n_obs)
    npt.pp.setup_screen(adata, batch_key="plate", guide_key="guide", covariates="depth")
    return adata


def without(adata, labels):
    rest = adata[~adata.obs["perturbation"].isin(labels)].copy()
    for key in set(rest.uns) - {"screen"}:
        del rest.uns[key]
    return rest


def public(adata, labels, **options):
    """The graph that the public call learns from a file without the cells of some labels."""
    rest = without(adata, labels)
    npt.tl.learn_dag(rest, **LEARN | options)
    return read_graph(rest, "dag")[2]


def edges(dags):
    return [dag.edges() for dag in dags]


def stored(adata):
    return read_held_out_graphs(adata, "dag", adata.n_vars)


def sparse_screen():
    adata = few_cells(4)
    x, least = adata.X, np.quantile(adata.X, 0.8, axis=0)
    adata.X = sp.csr_matrix(np.where(x < least, 0.0, x))
    return adata


PRIOR = {"before": [("CDK4", "B2M")], "perturbation_targets": "known"}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (few_cells, SEED),
        (lambda: few_cells(14), {"rng": np.random.default_rng(5), "n_graphs": 2}),
        (lambda: grouped(few_cells(2)), SEED),
        (lambda: few_cells(3), {"search_options": {"n_runs": 2, "prior": PRIOR}}),
        (sparse_screen, {}),
    ],
    ids=["plain", "generator", "guides and batches", "prior", "sparse"],
)
def test_the_graph_of_a_fold_is_that_of_a_file_without_it(make, options):
    adata = make()
    again = copy.deepcopy(options)
    npt.tl.learn_dag(adata, **LEARN | options)
    record = stored(adata)
    names = sorted(set(adata.obs["perturbation"]) - {"control"})
    assert record.folds == learn.folds_of(names)
    one = {name: value for name, value in again.items() if name != "n_graphs"}
    expected = [public(adata, fold, **copy.deepcopy(one)) for fold in record.folds]
    assert edges(record.graphs.dags) == edges(expected)
    assert len({tuple(each) for each in edges(expected)}) > 1


@pytest.fixture
def spied(monkeypatch):
    """What the last fit was given, and the weights of the graphs of its folds."""
    found, real = {}, learn.weights_without

    def record(spec, cells, graphs):
        found.update(spec=spec, cells=cells, weights=real(spec, cells, graphs))
        return found["weights"]

    monkeypatch.setattr(learn, "weights_without", record)
    return found, real


def test_left_out_predictions_of_a_fit_are_those_of_public_calls(spied):
    found, real = spied
    for seed in (13, 14, 15):
        adata = few_cells(seed)
        npt.tl.learn_dag(adata, **LEARN)
        npt.tl.fit_dag_blr(adata)
        dags = [public(adata, fold) for fold in learn.folds_of(found["spec"].plan.names)]
        by_public = real(found["spec"], found["cells"], Graphs(None, [], lambda _, d=dags: d))
        predicted = [predictions(found, each) for each in (found["weights"], by_public)]
        assert np.abs(predicted[0]).max() > 0.1
        np.testing.assert_array_equal(*predicted)


def predictions(found, by_graph):
    spec, cells = found["spec"], found["cells"]
    names = spec.plan.names
    places = [[spec.genes.index(name)] for name in names]
    seen = Perturbations(cells.screen, 0, np.arange(1, 1 + len(names)), places, names=names)
    return Graph(None, by_graph).held_out(seen).effects


def test_graphs_of_the_diagnosis_are_those_of_public_calls():
    adata = few_cells(1)
    npt.tl.learn_dag(adata, **LEARN | SEED)
    npt.tl.fit_dag_blr(adata)
    rng = np.random.default_rng(0)
    refit, _, _ = read_refit(adata, posterior_from(adata), "dag_blr", rng)
    assert edges(dags[0] for dags in refit.without) == edges(stored(adata).graphs.dags)
    for fold, dags in list(zip(refit.folds, refit.without, strict=True))[:2]:
        rest = without(adata, fold)
        npt.tl.learn_dag(rest, **LEARN | SEED)
        assert edges(dags) == edges([read_graph(rest, "dag")[2], *stored(rest).graphs.dags])


def test_scales_are_learned_only_where_labels_without_cells_are_predicted(monkeypatch):
    adata = few_cells(1)
    npt.tl.learn_dag(adata, **LEARN)
    npt.tl.fit_dag_blr(adata)
    learned, real = [], learn.learn_scales
    monkeypatch.setattr(learn, "learn_scales", lambda *given: learned.append(1) or real(*given))
    npt.tl.diagnose(adata)
    assert len(learned) == len(stored(adata).folds)


def test_of_many_perturbations_the_one_graph_is_that_of_a_public_call(monkeypatch):
    monkeypatch.setattr("nextpert.tl._read_halves.MAX_JUDGED", 8)
    adata = few_cells(1)
    npt.tl.learn_dag(adata, **LEARN | SEED)
    npt.tl.fit_dag_blr(adata)
    rng = np.random.default_rng(0)
    refit, _, _ = read_refit(adata, posterior_from(adata), "dag_blr", rng)
    judged = [name for fold in refit.folds for name in fold]
    assert len(judged) == 8
    expected = public(adata, judged, **SEED).edges()
    assert all(dag.edges() == expected for dags in refit.without for dag in dags)


def test_same_bits_for_any_number_of_threads(assert_same):
    one, two = few_cells(), few_cells()
    npt.tl.learn_dag(one, **LEARN)
    npt.tl.learn_dag(two, **LEARN, n_jobs=2)
    assert_same(one.uns["dag"], two.uns["dag"])


def test_a_graph_of_controls_needs_no_folds():
    adata = few_cells()
    npt.tl.learn_dag(adata, method="boss")
    assert "held_out" not in adata.uns["dag"]
    npt.tl.learn_dag(adata, method="given", dag=adata.varp["dag"])
    assert "held_out" not in adata.uns["dag"]


@pytest.fixture
def n_searches(monkeypatch):
    """Searches without some cells."""
    done, real = [], graphs.search

    def count(*given, **more):
        done.append(given)
        return real(*given, **more)

    monkeypatch.setattr(graphs, "search", count)

    def since():
        n = len(done)
        done.clear()
        return n

    return since


SAID = "has no graphs without folds of these perturbations"


def older(adata, key="held_out"):
    """As a version wrote it that stored no graphs of folds."""
    mine = {k: v for k, v in adata.uns["dag"].items() if k not in (key, "format", "contents")}
    adata.uns["dag"] = npt._adata.stored.with_format(mine)


def relabelled(adata):
    label = adata.obs["perturbation"].astype(str)
    label.iloc[np.flatnonzero(label == "B2M")[0]] = "CDK4"
    adata.obs["perturbation"] = label


@pytest.mark.parametrize(
    ("change", "options", "n"),
    [
        (lambda adata: None, {}, 0),
        (lambda adata: None, {"shift_sd": 0}, 0),
        (lambda adata: npt.pp.setup_screen(adata, guide_key="guide"), {}, 0),  # of the fit alone
        (older, {}, 5),
        (relabelled, {}, 5),
        (lambda adata: adata.X.__imul__(1.1), {}, 5),
        (lambda adata: None, {"perturbations": ["B2M", "CDK4", "CDK6", "FOS", "CTSA"]}, 5),
    ],
    ids=["same", "exact", "roles", "older", "labels", "values", "perturbations"],
)
def test_a_fit_learns_graphs_only_if_there_are_none(change, options, n, n_searches, caplog):
    adata = few_cells()
    adata.obs["guide"] = adata.obs["perturbation"].astype(str) + "_1"
    npt.tl.learn_dag(adata, **LEARN)
    assert n_searches() == 5
    change(adata)
    with caplog.at_level(logging.INFO):
        npt.tl.fit_dag_blr(adata, **options)
    assert n_searches() == n
    assert (SAID in caplog.text) == (n > 0)


def test_graphs_learned_by_the_fit_are_those_that_are_stored(assert_same):
    adata = few_cells()
    npt.tl.learn_dag(adata, **LEARN | SEED)
    known = npt.tl.fit_dag_blr(adata, copy=True).uns["dag_blr"]
    older(adata)
    npt.tl.fit_dag_blr(adata)
    assert_same(known, adata.uns["dag_blr"])


def test_stored_graphs_outlive_files(tmp_path, n_searches):
    adata = few_cells()
    npt.tl.learn_dag(adata, **LEARN)
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    n_searches()
    for read in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        again = stored(read)
        assert again.folds == stored(adata).folds
        assert edges(again.graphs.dags) == edges(stored(adata).graphs.dags)
        npt.tl.fit_dag_blr(read)
        assert n_searches() == 0


def test_damaged_records_are_refused():
    adata = few_cells()
    npt.tl.learn_dag(adata, **LEARN)
    with pytest.raises(ValueError, match=r"damaged.*19 genes each.*run tl.learn_dag again"):
        read_held_out_graphs(adata, "dag", 19)
    folds = {"names": np.array(["B2M"], object), "offsets": np.array([0, 1])}
    adata.uns["dag"]["held_out"]["folds"] = folds
    with pytest.raises(ValueError, match=r"damaged.*5 graphs for 1 folds.*run tl.learn_dag again"):
        stored(adata)


def alike_without(label):
    """Two genes that differ in the cells of one perturbation alone, and one that is off there."""
    adata = npt.datasets.simulated_screen(
        n_genes=6, n_control=200, n_perturbed=30, perturbed=6, rng=0
    )
    mine = (adata.obs["perturbation"] == label).to_numpy()
    x = np.asarray(adata.X, np.float64)
    x[~mine, 1] = x[~mine, 0]
    return adata, mine, x


@pytest.mark.parametrize("kind", ["copies", "sums"])
def test_genes_that_a_fold_alone_tells_apart_are_isolated_without_it(kind, caplog):
    adata, mine, x = alike_without("CD59")
    if kind == "sums":
        x[~mine, 1] = x[~mine, 0] - x[~mine, 2]
    adata.X = x
    genes = list(adata.var_names)
    with caplog.at_level(logging.INFO):
        npt.tl.learn_dag(adata, **LEARN)
    last = 1 if kind == "copies" else 2  # the last that the earlier ones determine
    assert f"the other genes determine {genes[last]}:" in caplog.text
    record = stored(adata)
    (k,) = (k for k, fold in enumerate(record.folds) if "CD59" in fold)
    assert not any(last in edge for edge in record.graphs.dags[k].edges())
    assert record.graphs.dags[k].n_edges
    # The other genes have the graph of a panel without it.
    rest = without(adata, record.folds[k])
    with pytest.raises(ValueError, match="linearly dependent among the cells"):
        npt.tl.learn_dag(rest, **LEARN)
    npt.tl.fit_dag_blr(adata)
    npt.tl.diagnose(adata)
    assert np.isfinite(adata.uns["diagnosis"]["null_z"]).all()
