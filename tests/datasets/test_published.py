"""Published screens: labels, guides and replicates from the layouts in which they are found."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt


def screen(**obs):
    n = len(next(iter(obs.values())))
    index = [f"c{i}" for i in range(n)]
    return ad.AnnData(np.ones((n, 3), np.float32), pd.DataFrame(obs, index=index))


PAPALEXI = {
    "scPerturb": {
        "perturbation": ["STAT1g2", "control", "JAK2g1"],
        "guide_id": ["STAT1g2", "NTg3", "JAK2g1"],
        "hto": ["rep1", "rep2", "rep3"],
    },
    "pertpy": {
        "perturbation": ["Perturbed", "NT", "Perturbed"],
        "gene_target": ["STAT1", "NT", "JAK2"],
        "guide_ID": ["STAT1g2", "NTg3", "JAK2g1"],
        "replicate": ["rep1", "rep2", "rep3"],
    },
    "sceptredata": {
        "perturbation": ["STAT1", "control", "JAK2"],
        "grna": ["STAT1g2", "NTg3", "JAK2g1"],
        "bio_rep": ["rep1", "rep2", "rep3"],
    },
}


@pytest.mark.parametrize("layout", PAPALEXI)
@pytest.mark.parametrize("form", ["file", "object"])
def test_papalexi(layout, form, tmp_path):
    given = screen(**PAPALEXI[layout])
    before = given.obs.copy()
    if form == "file":
        given.write_h5ad(tmp_path / "screen.h5ad")
    adata = npt.datasets.papalexi_2021(tmp_path / "screen.h5ad" if form == "file" else given)
    assert adata.obs["perturbation"].tolist() == ["STAT1", "control", "JAK2"]
    assert adata.obs["guide"].tolist() == ["STAT1g2", "NTg3", "JAK2g1"]
    assert adata.obs["replicate"].tolist() == ["rep1", "rep2", "rep3"]
    assert adata.uns["published"]["doi"] == "10.1038/s41588-021-00778-2"
    if form == "object":
        pd.testing.assert_frame_equal(given.obs, before)


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        ("perturbation", ["control", "CEBPE", "KLF1_MAP2K6"]),
        ("perturbation_name", ["control", "CEBPE", "MAP2K6+KLF1"]),
        ("condition", ["ctrl", "CEBPE+ctrl", "KLF1+MAP2K6"]),
        ("perturbation", ["NegCtrl0_NegCtrl0", "NegCtrl0_CEBPE", "KLF1_MAP2K6"]),
    ],
)
def test_norman(column, labels):
    adata = npt.datasets.norman_2019(screen(**{column: labels}))
    assert adata.obs["perturbation"].tolist() == ["control", "CEBPE", "KLF1+MAP2K6"]
    assert "guide" not in adata.obs


def test_hill():
    adata = npt.datasets.hill_2018(screen(gene=["TP53", np.nan, "NonTargeting"]))
    assert adata.obs["perturbation"].tolist() == ["TP53", "unassigned", "control"]


def test_replogle_stays_on_disk(tmp_path):
    given = screen(
        gene=["KAT2A", "non-targeting"], sgID_AB=["a|b", "c|d"], gem_group=np.array([1, 2])
    )
    given.write_h5ad(tmp_path / "screen.h5ad")
    adata = npt.datasets.replogle_2022(tmp_path / "screen.h5ad")
    assert adata.isbacked
    assert adata.obs["perturbation"].tolist() == ["KAT2A", "control"]
    assert adata.obs["replicate"].tolist() == ["1", "2"]
    adata.file.close()


@pytest.mark.parametrize("name", ["papalexi_2021", "norman_2019", "hill_2018", "replogle_2022"])
def test_what_is_no_screen_is_named(name, tmp_path):
    load = getattr(npt.datasets, name)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5ad"):
        load(tmp_path / "nowhere.h5ad")
    with pytest.raises(ValueError, match=r"none of the columns .*scPerturb or pertpy"):
        load(screen(cluster=["a", "b"]))
    (tmp_path / "page.h5ad").write_text("<html>")
    with pytest.raises(ValueError, match=r"page.h5ad"):
        load(tmp_path / "page.h5ad")


@pytest.mark.parametrize("name", ["papalexi_2021", "norman_2019"])
def test_a_download_is_of_the_record_and_checked(name, tmp_path, monkeypatch):
    """The file comes from the address of the record, and its MD5 is compared."""
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append((url, known_hash, fname))
        raise OSError("no connection")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(ConnectionError, match=r"could not be downloaded.*pass its path"):
        getattr(npt.datasets, name)(cache=tmp_path)
    url, known_hash, fname = asked[0]
    assert url == f"https://zenodo.org/records/13350497/files/{fname}"
    assert known_hash.startswith("md5:")
    assert len(known_hash) == 36
