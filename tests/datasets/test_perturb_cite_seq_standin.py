"""The simulated study: read as the study is, its truth known, and near the printed numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata.panel import MODULE_OF, ZHANG2023
from nextpert.datasets import perturb_cite_seq, perturb_cite_seq_standin
from nextpert.datasets._perturb_cite_seq_model import _knockouts, reference_edges
from nextpert.datasets._perturb_cite_seq_standin import _draw_counts

CDH19 = "CDH19"


def load(folder, **options):
    return perturb_cite_seq(folder, condition="Control", genes="zhang2023", **options)


@pytest.fixture(scope="module")
def standins(tmp_path_factory):
    """Folders of the default study, and of one without a count of CDH19."""
    folders = {}
    for name, undetected in (("counts", ()), ("none", (CDH19,))):
        folders[name] = tmp_path_factory.mktemp(name)
        perturb_cite_seq_standin(folders[name], undetected=undetected)
    return folders


def test_it_is_read_as_the_study_is_and_knockouts_do_what_the_truth_says(tmp_path):
    truth = perturb_cite_seq_standin(tmp_path, n_cells=1400, rng=1)
    adata = perturb_cite_seq(tmp_path)
    assert adata.shape == (1400, 60)
    assert adata.obs["condition"].value_counts().to_dict() == {
        "Control": 1200, "IFNγ": 100, "Co-culture": 100
    }  # fmt: skip
    assert list(truth.index) == list(truth.columns)
    assert {"MYC", "JAK2"} <= set(truth.index) <= set(adata.var_names)
    # Rows are parents, and the edges are the published ones.
    parents, children = np.nonzero(truth.to_numpy())
    edges = set(zip(truth.index[parents], truth.columns[children], strict=True))
    assert edges == set(reference_edges())
    assert np.abs(truth.to_numpy()[parents, children]).max() <= 0.15


def test_constants_are_those_of_the_reference(screen_path):
    folder = Path(screen_path) / "reference"
    if not folder.is_dir():
        pytest.skip("no reference data")
    graph = json.loads((folder / "estimated_dag_edges.json").read_text())
    assert {tuple(edge) for edge in graph["edges"]} == set(reference_edges())
    assert len(reference_edges()) == 144
    modules = json.loads((folder / "genes_modules_programs.json").read_text())["modules"]
    known = {gene: name for name, genes in modules.items() for gene in genes if gene in ZHANG2023}
    assert known == MODULE_OF
    lines = (folder / "frangieh_derived/02_self_knockdown_gene.csv").read_text().splitlines()
    rows = {row[0]: row for row in (line.split(",") for line in lines) if row[1] == "Control"}
    changes = []
    for gene, (tpm, change, n_cells) in _knockouts().items():
        assert tpm == pytest.approx(float(rows[gene][3]), rel=1e-3)
        assert change == pytest.approx(float(rows[gene][5]), abs=0.0051)
        assert n_cells == int(rows[gene][4])
        changes += [change] * (gene in ZHANG2023)
    assert np.median(changes) == pytest.approx(-1.0, abs=0.03)


def test_means_and_distances_are_near_the_printed_ones(standins):
    """Printed numbers, and their sampling errors: means, the split of HLA-C, the range.

    The printed numbers are those of as many cells, so that both sides have a sampling error.
    """
    adata = npt.pp.perturb_cite_seq(load(standins["counts"]), preset="zhang2023", copy=True)
    cells = adata.to_df().astype(float).groupby(adata.obs["perturbation"], observed=True)
    mean, error2 = cells.mean(), cells.var().div(cells.size(), axis=0)
    printed = {"MYC": (1.52, 2.58), "EIF3K": (5.19, 4.78), "HLA-C": (5.98, 4.16)}
    for gene, (control, knockout) in printed.items():
        assert mean.loc["control", gene] == pytest.approx(control, abs=0.15)
        error = np.sqrt(error2.loc[gene, gene])
        assert abs(mean.loc[gene, gene] - knockout) < 2 * np.sqrt(2) * error
    change = mean - mean.loc[CDH19]
    distance = (change**2).sum(axis=1).drop([CDH19, "control"])
    variance = (error2 + error2.loc[CDH19]).loc[distance.index]
    sd = np.sqrt((4 * change.loc[distance.index] ** 2 * variance + 2 * variance**2).sum(axis=1))
    sd *= np.sqrt(2)
    assert abs(distance["HLA-C"] - 4.35) < 2 * sd["HLA-C"]
    own = change.loc["HLA-C", "HLA-C"]
    own_sd = 2 * abs(own) * np.sqrt(2 * variance.loc["HLA-C", "HLA-C"])
    assert abs(own**2 - 3.31) < 2 * own_sd
    assert own**2 > distance["HLA-C"] / 2
    assert abs(distance.min() - 0.4) < 2 * sd[distance.idxmin()]
    assert abs(distance.max() - 5.1) < 2 * sd[distance.idxmax()]
    assert distance["SOX4"] < distance["HLA-C"]


@pytest.mark.parametrize(
    ("name", "controls"),
    [
        ("counts", "no_guide"),
        ("none", "control_guide"),
        pytest.param("counts", "control_guide", marks=pytest.mark.slow),
        pytest.param("none", "no_guide", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_six_lines_run_on_files_with_and_without_counts_of_the_target(standins, name, controls):
    adata = load(standins[name])
    npt.pp.perturb_cite_seq(adata, preset="zhang2023", controls=controls)
    assert (CDH19 in adata.var_names) == (name == "counts")
    assert (adata.obs["perturbation"] == CDH19).sum() > 100
    npt.tl.learn_dag(adata, search_options={"n_runs": 3})
    npt.tl.fit_dag_blr(adata, shift_sd=0, prior_options={"prior_scale": 1})
    npt.tl.design_interventions(adata, CDH19, acquisition="civ", candidates=list(adata.var_names))
    npt.tl.cpca(adata)
    ranking = adata.uns["design"]["ranking"]
    assert set(ranking["perturbation"]) - {"control"} == set(adata.var_names)
    # A few control cells, in which several genes do not vary, are enough for known shifts.
    few = np.flatnonzero(adata.obs["perturbation"] == "control")[:100]
    part = adata[few].copy()
    assert (part.to_df().std() == 0).any()
    npt.tl.fit_dag_blr(part, shift_sd=0, prior_options={"prior_scale": 1})
    noise = npt.core.DagBlr.from_dict(part.uns["dag_blr"]["posterior"]).noise_var
    assert (noise > 0).all()


def test_a_third_of_the_genes_is_induced_by_interferon():
    names, rng = list(ZHANG2023), np.random.default_rng(0)
    conditions = np.repeat(["Control", "IFNγ"], 2000)
    guides = [["MYC_1"]] * len(conditions)
    _, weights, state = _draw_counts(names, names, conditions, guides, (), rng)
    shift = state - state @ weights.T  # x - W x, per cell
    change = shift[conditions == "IFNγ"].mean(axis=0) - shift[conditions == "Control"].mean(axis=0)
    is_induced = change > 0.25
    np.testing.assert_allclose(change, 0.5 * is_induced, atol=0.1)
    assert 5 < is_induced.sum() < 20  # of 36


def test_a_target_without_counts_is_kept_and_named(standins):
    with pytest.warns(UserWarning, match="left out: CDH19.*can be a target"):
        adata = npt.pp.perturb_cite_seq(load(standins["none"]), panel="zhang2023", copy=True)
    assert CDH19 in set(adata.obs["perturbation"])


@pytest.mark.parametrize(("name", "least"), [("n_cells", 140), ("n_genes", 40)])
def test_too_few(name, least, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must be .*{least}"):
        perturb_cite_seq_standin(tmp_path / "made", **{name: least - 1})
    assert not (tmp_path / "made").exists()


def test_an_undetected_gene_that_is_no_target(tmp_path):
    with pytest.raises(ValueError, match=r"no targets: CDH18.*CDH19"):
        perturb_cite_seq_standin(tmp_path / "made", undetected=["CDH18"])
    assert not (tmp_path / "made").exists()
