"""``tl.learn_dag(prior_network=...)``: tables of edges, the belief learned and where it lies."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.core import Moments, boss, random_scm

GENES = [f"G{i}" for i in range(24)]


def edges_of(adata):
    matrix = sp.coo_array(adata.varp["dag"])
    names = np.asarray(adata.var_names)
    return {(str(names[k]), str(names[i])) for k, i in zip(*matrix.coords, strict=True)}


@pytest.fixture
def controls():
    rng = np.random.default_rng(3)
    scm = random_scm(24, "erdos_renyi", expected_degree=3, standardise=True, rng=rng)
    place = rng.permutation(24)
    cells = scm.sample(600, rng=rng)[:, place]
    names = {int(node): GENES[i] for i, node in enumerate(place)}
    obs = pd.DataFrame({"perturbation": ["control"] * 600}, index=np.arange(600).astype(str))
    adata = ad.AnnData(cells + 3, obs, pd.DataFrame(index=GENES))
    true = sorted((names[a], names[b]) for a, b in scm.dag.edges())
    return adata, true


def network(edges, **columns):
    return pd.DataFrame(
        {"source": [a for a, _ in edges], "target": [b for _, b in edges], **columns}
    )


def test_a_true_network_directs_what_cells_leave_open(controls, caplog):
    adata, true = controls
    npt.tl.learn_dag(adata, method="boss")
    plain, rows = edges_of(adata), adata.uns["dag"]["edges"]
    assert "prior_network" not in adata.uns["dag"]
    assert (rows["oriented_by"] == "open").any()
    outside = [("TF1", "G0"), ("G0", "TF2"), ("G1", "G1")]
    table = network([*true, *outside], weight=-1, resources="CollecTRI")
    with caplog.at_level("INFO", logger="nextpert"):
        npt.tl.learn_dag(adata, method="boss", search_options={"prior_network": table})
    assert f"{len(true)} of {len(true) + 3} edges are between two genes" in caplog.text
    assert "2 genes are not in it" in caplog.text
    belief = adata.uns["dag"]["prior_network"]
    assert belief["log_odds_along"] > 2 > 0 > belief["log_odds_against"]
    assert belief["log_evidence"] > 10
    found = edges_of(adata)
    assert belief["n_edges"] == len(true)
    assert belief["n_along"] == len(found & set(true))
    assert len(found ^ set(true)) < 0.5 * len(plain ^ set(true))
    rows = adata.uns["dag"]["edges"]
    assert "prior knowledge" in set(rows["oriented_by"])
    assert not (rows["oriented_by"] == "open").any()


def test_order_of_rows_sizes_and_signs_do_not_matter(controls):
    adata, true = controls
    npt.tl.learn_dag(adata, method="boss", search_options={"prior_network": network(true)})
    first = edges_of(adata), adata.uns["dag"]["prior_network"]
    signs = np.random.default_rng(0).choice([-2, 2], len(true))
    table = network(true, weight=signs).sample(frac=1, random_state=1)
    npt.tl.learn_dag(adata, method="boss", search_options={"prior_network": table})
    assert first == (edges_of(adata), adata.uns["dag"]["prior_network"])


def test_a_random_network_changes_nothing(controls):
    adata, true = controls
    npt.tl.learn_dag(adata, method="boss")
    plain = edges_of(adata)
    rng = np.random.default_rng(0)
    pairs = {tuple(rng.choice(GENES, 2, replace=False)) for _ in range(40)} - set(true)
    npt.tl.learn_dag(adata, method="boss", search_options={"prior_network": network(sorted(pairs))})
    assert edges_of(adata) == plain
    assert adata.uns["dag"]["prior_network"]["log_odds_along"] == 0.0
    assert (adata.uns["dag"]["edges"]["oriented_by"] == "open").any()


@pytest.mark.slow
def test_graphs_of_resamples_take_the_belief(controls):
    adata, true = controls
    options = {"method": "boss", "n_graphs": 5}
    npt.tl.learn_dag(adata, search_options={"n_runs": 2}, **options)
    before = adata.varp["dag_frequency"].toarray()
    told = {"prior_network": network(true), "n_runs": 2}
    npt.tl.learn_dag(adata, search_options=told, **options)
    after = adata.varp["dag_frequency"].toarray()
    place = [tuple(GENES.index(gene) for gene in edge) for edge in true]
    assert sum(after[edge] for edge in place) > sum(before[edge] for edge in place) + 1
    serial = after.copy()
    npt.tl.learn_dag(adata, search_options=told, n_jobs=2, **options)
    assert np.array_equal(adata.varp["dag_frequency"].toarray(), serial)


def test_beside_prior_knowledge_and_perturbed_cells(controls):
    adata, true = controls
    perturbed = adata[:200].copy()
    perturbed.obs["perturbation"] = "G0"
    perturbed.X[:, 0] -= 2.0
    perturbed.obs_names = [f"p{i}" for i in range(200)]
    both = ad.concat([adata, perturbed])
    prior = {"forbidden": [true[0]], "required": [true[1]]}
    npt.tl.learn_dag(
        both,
        method="boss",
        environments="all",
        search_options={"prior": prior, "prior_network": network(true), "n_runs": 3},
    )
    assert true[0] not in edges_of(both)
    assert true[1] in edges_of(both)
    assert both.uns["dag"]["prior_network"]["log_odds_along"] > 1


@pytest.mark.formats
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_the_belief_survives_files(controls, tmp_path, suffix):
    adata, true = controls
    npt.tl.learn_dag(
        adata, method="boss", search_options={"prior_network": network(true), "n_runs": 2}
    )
    path = tmp_path / f"x.{suffix}"
    (adata.write_h5ad if suffix == "h5ad" else adata.write_zarr)(path)
    back = (ad.read_h5ad if suffix == "h5ad" else ad.read_zarr)(path)
    assert back.uns["dag"]["prior_network"] == adata.uns["dag"]["prior_network"]
    npt.tl.fit_dag_blr(back)


PAIR = network([("G0", "G1")])
BAD = [
    (PAIR.drop(columns="source"), "has no column source, but target"),
    (network([("G0", "G1"), ("G0", "G1")]), "has the edge G0 -> G1 twice"),
    (network([("G0", "G1"), ("G2", "G3")], weight=[1.0, np.nan]), "finite number at G2 -> G3"),
    (network([("G0", "G1")], weight=["much"]), "finite number at G0 -> G1"),
    (network([("G0", None)]), "no source or target in row 0"),
    (network([("G0", "X"), ("G1", "G1")]), "none between two genes of the panel, such as G0"),
    (network([]), "none between two genes of the panel"),
]


@pytest.mark.parametrize(("table", "message"), BAD)
def test_bad_tables(controls, table, message, assert_same_adata):
    adata, _ = controls
    before = adata.copy()
    with pytest.raises(ValueError, match=message):
        npt.tl.learn_dag(adata, method="boss", search_options={"prior_network": table})
    assert_same_adata(adata, before)


def test_other_kinds_and_methods_are_refused(controls):
    adata, _ = controls
    with pytest.raises(TypeError, match=r"prior_network'\] must be a table \(pandas\.DataFrame\)"):
        npt.tl.learn_dag(adata, method="boss", search_options={"prior_network": [("G0", "G1")]})
    for method in ("gsp", "given"):
        options = {"dag": [("G0", "G1")]} if method == "given" else {}
        with pytest.raises(ValueError, match='prior_network needs method="boss"'):
            npt.tl.learn_dag(
                adata, method=method, search_options={"prior_network": PAIR}, **options
            )


def test_no_network_no_change(controls):
    adata, _ = controls
    npt.tl.learn_dag(adata, method="boss", search_options={"n_runs": 3}, rng=5)
    plain = boss(Moments.from_array(adata.X), n_starts=3, rng=5)
    assert edges_of(adata) == {(GENES[a], GENES[b]) for a, b in plain.dag.edges()}
