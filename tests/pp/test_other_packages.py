"""Objects as they come: MuData, pertpy's Papalexi screen, scPerturb, genome-scale screens."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from tests._screens import with_fit

pytestmark = pytest.mark.formats

GENES = ["IFNGR1", "STAT1", "JAK2", "B2M", "ACTB"]
TARGETS = ["NT", "IFNGR1", "STAT1", "JAK2"]


def cells(targets: list[str], rng: np.random.Generator) -> sp.csr_matrix:
    """Counts in which a target loses nine tenths of its messenger RNA."""
    mean = np.full((len(targets), len(GENES)), 20.0)
    for row, target in zip(mean, targets, strict=True):
        for gene in target.split("_"):
            if gene in GENES:
                row[GENES.index(gene)] = 2.0
    return sp.csr_matrix(rng.poisson(mean).astype(np.float32))


def papalexi() -> tuple[ad.AnnData, ad.AnnData]:
    """The modalities rna and gdo of pertpy's `papalexi_2021`, by their columns."""
    rng = np.random.default_rng(0)
    target = np.repeat(TARGETS, 60)
    guide = [f"{name}g{1 + k % 2}" for k, name in enumerate(target)]
    index = [f"l1_{k:04d}" for k in range(len(target))]
    obs = pd.DataFrame(
        {
            "orig.ident": "Lane1", "nCount_RNA": 100.0, "replicate": ["rep1", "rep2", "rep3"] * 80,
            "Phase": "G1", "guide_ID": guide, "gene_target": target,
            "NT": np.where(target == "NT", "NT", guide),
            "perturbation": np.where(target == "NT", "NT", "Perturbed"),
        },
        index=index,
    )  # fmt: skip
    rna = ad.AnnData(cells(target.tolist(), rng), obs, pd.DataFrame(index=GENES))
    names = sorted(set(guide))
    umi = rng.poisson(0.1, (len(guide), len(names)))
    umi[np.arange(len(guide)), [names.index(name) for name in guide]] = 40
    gdo = ad.AnnData(sp.csr_matrix(umi.astype(np.float32)), obs[[]], pd.DataFrame(index=names))
    return rna, gdo


def effect_on_itself(adata: ad.AnnData, gene: str) -> float:
    with_fit(adata)
    npt.tl.perturbation_effects(adata)
    return npt.get.effects_df(adata).set_index(["perturbation", "gene"])["mean"][gene, gene]


@pytest.mark.brief_chain
def test_guides_are_another_modality_of_a_mudata():
    mudata = pytest.importorskip("mudata")
    rna, gdo = papalexi()
    mdata = mudata.MuData({"rna": rna[:, ::-1].copy(), "gdo": gdo[::-1].copy()})
    npt.pp.assign_guides(mdata["rna"], guides=mdata["gdo"])
    assert mdata["rna"].obs["guides"].tolist() == rna.obs["guide_ID"].tolist()
    npt.pp.perturbation_screen(mdata["rna"], guide_key="guides")
    assert effect_on_itself(mdata["rna"], "STAT1") < -1


def test_a_screen_of_genome_scale_as_replogle_et_al_publish_it(tmp_path):
    """Ensembl ids, symbols of which one has two ids, dense counts, two guides on one construct."""
    rng, target = np.random.default_rng(2), np.repeat(["non-targeting", *TARGETS[1:]], 60)
    counts = cells(target.tolist(), rng).toarray()
    counts = np.column_stack([counts, counts[:, 3]])  # a second id of B2M
    depth = counts.sum(axis=1)
    ids = [f"ENSG0000000000{k}" for k in range(6)]
    obs = pd.DataFrame(
        {
            "gem_group": rng.integers(1, 4, len(target)), "gene": pd.Categorical(target),
            "gene_id": "ENSG", "transcript": "P1P2", "gene_transcript": "x_P1P2",
            "sgID_AB": pd.Categorical([f"{t}_-_12.3-P1P2|{t}_+_45.6-P1P2" for t in target]),
            "mitopercent": 0.05, "UMI_count": depth, "z_gemgroup_UMI": 0.0,
            "core_scale_factor": 1.0, "core_adjusted_UMI_count": depth,
        },
        index=pd.Index([f"AAAC{k}-1" for k in range(len(target))], name="cell_barcode"),
    )  # fmt: skip
    var = pd.DataFrame({"gene_name": pd.Categorical([*GENES, "B2M"]), "chr": "chr1"}, index=ids)
    ad.AnnData(counts, obs, var).write_h5ad(tmp_path / "screen.h5ad")
    backed = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    adata = npt.pp.perturbation_screen(
        backed, "gene", "non-targeting", gene_symbols="gene_name", batch_key="gem_group",
        guide_key="sgID_AB", copy=True,
    )  # fmt: skip
    assert adata.n_vars == 6
    assert effect_on_itself(adata, "STAT1") < -1
    genes = set(npt.get.effects_df(adata)["gene"])
    assert {"STAT1", f"B2M_{ids[3]}", f"B2M_{ids[5]}"} < genes
