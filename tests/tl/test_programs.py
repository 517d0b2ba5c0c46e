"""Programs through ``tl.perturbation_effects``."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scanpy as sc

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core.model.programs import find_programs
from tests._screens import new_copies, screen_of, with_fit
from tests.core.model.test_programs import auc

GENES = [f"G{i}" for i in range(40)]
FIRST, SECOND = GENES[10:18], GENES[25:33]  # of two pathways


def cells(effect, seed=0, n=60):
    """Return cells of 20 perturbations of the first 20 genes, and 10 times as many controls."""
    rng = np.random.default_rng(seed)
    label = np.repeat(["control", *GENES[: len(effect)]], [10 * n, *[n] * len(effect)])
    mean = np.vstack([np.zeros(len(GENES)), effect])
    code = np.repeat(np.arange(len(mean)), [10 * n, *[n] * len(effect)])
    x = 5.0 + mean[code] + rng.normal(size=(len(code), len(GENES)))
    return screen_of(x, label, GENES)


def pathways():
    """Return effects of which five perturbations each share those on 8 genes."""
    rng = np.random.default_rng(1)
    effect = 0.7 * rng.normal(size=(20, len(GENES))) * (rng.random((20, len(GENES))) < 0.02)
    for rows, genes in ((range(5), FIRST), (range(5, 10), SECOND)):
        size = rng.choice([-0.8, 0.8], len(genes))
        columns = [GENES.index(gene) for gene in genes]
        effect[np.ix_(rows, columns)] += np.outer([1.0, 0.8, 1.0, -0.9, 0.7], size)
    effect[range(20), range(20)] -= 2.0  # target genes
    return effect


def fitted(adata, **options):
    return with_fit(adata, [(GENES[38], GENES[39])], **options)


@new_copies
def shared():
    adata = fitted(cells(pathways()))
    npt.tl.perturbation_effects(adata)
    return adata


def test_two_pathways_are_recovered(shared):
    programs = shared.uns["perturbation_effects"]["programs"]
    shares, genes, scores = (programs[name] for name in ("shares", "genes", "scores"))
    found = set()
    for rows, members in ((GENES[:5], FIRST), (GENES[5:10], SECOND)):
        on = scores[scores["takes_part"] & scores["perturbation"].isin(rows)]
        number = on["program"].mode()[0]
        found.add(number)
        taking = scores[(scores["program"] == number) & scores["takes_part"]]
        assert set(taking["perturbation"]) == set(rows)
        mine = genes[(genes["program"] == number) & ~genes["gene"].isin(rows)]
        is_member = mine["gene"].isin(members).to_numpy()
        assert auc(mine["effect"].abs().to_numpy(), is_member) >= 0.9
    assert len(found) == 2
    assert shares["share"].between(0, 1).all()
    assert shares["share"].is_monotonic_decreasing


def test_tables_are_those_of_the_core(shared):
    stored = shared.uns["perturbation_effects"]
    shares, genes, scores = (stored["programs"][x] for x in ("shares", "genes", "scores"))
    fit = posterior_from(shared)
    names = list(fit.environments["perturbation"])
    place = [GENES.index(name) for name in names]
    found = find_programs(fit.hierarchical, np.eye(20, len(GENES), dtype=bool)[place])
    k = len(found.share)
    np.testing.assert_array_equal(shares["program"], np.arange(1, k + 1))
    np.testing.assert_array_equal(shares["share"], found.share)
    np.testing.assert_array_equal(shares["n_perturbations"], found.takes_part.sum(axis=0))
    for table, column, order, wanted in (
        (genes, "gene", fit.genes, {"effect": found.genes, "sd": found.genes_sd}),
        (scores, "perturbation", names, {"score": found.scores.T, "sd": found.scores_sd.T,
                                         "takes_part": found.takes_part.T}),
    ):  # fmt: skip
        for name, values in wanted.items():
            wide = table.pivot_table(values=name, index="program", columns=column, sort=False)
            np.testing.assert_array_equal(wide[list(order)].to_numpy(), values)
        size = table.groupby("program")[next(iter(wanted))].apply(lambda x: np.diff(x.abs()).max())
        assert (size <= 0).all()  # the largest of every program first
    assert scores.groupby("program")["score"].max().eq(1.0).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_labels_share_nothing(seed):
    adata = cells(pathways())
    label = adata.obs["perturbation"].to_numpy()
    adata.obs["perturbation"] = np.random.default_rng(seed).permutation(label)
    npt.tl.perturbation_effects(fitted(adata))
    stored = adata.uns["perturbation_effects"]
    assert stored["programs"]["shares"]["share"].sum() <= 0.05


def test_without_the_hierarchical_model_there_are_none(shared):
    npt.tl.fit_dag_blr(shared, shift_sd=0)
    npt.tl.perturbation_effects(shared)
    assert "programs" not in shared.uns["perturbation_effects"]


@pytest.mark.slow
@pytest.mark.screen
def test_perturbations_of_one_pathway_share_a_program_on_a_real_screen(screen_path):
    """20 cells each of Papalexi et al. 2021, of which the interferon pathway is known."""
    path = screen_path / "papalexi_thp1" / "papalexi_lowmoi.h5ad"
    if not path.is_file():
        pytest.skip("the Papalexi screen is not in the folder of the real screens")
    adata = ad.read_h5ad(path)
    place = adata.obs.groupby("perturbation", observed=True).cumcount().to_numpy()
    control = (adata.obs["perturbation"] == "control").to_numpy()
    adata = adata[place < np.where(control, 1000, 20)].copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    with_fit(adata, [("JAK2", "STAT1")])
    npt.tl.perturbation_effects(adata)
    stored = adata.uns["perturbation_effects"]
    pathway = ["IFNGR1", "IFNGR2", "JAK2", "STAT1"]
    scores = stored["programs"]["scores"]
    assert sorted(scores.loc[scores["takes_part"], "perturbation"]) == pathway
