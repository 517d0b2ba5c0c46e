"""The study as h5ad, in the conventions of scPerturb and pertpy, comes out in the same shape."""

import hashlib
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from nextpert.datasets import _perturb_cite_seq as loader
from nextpert.datasets import perturb_cite_seq


@pytest.fixture(scope="module")
def loaded(portal):
    return perturb_cite_seq(portal[0], counts=True)


@pytest.fixture
def scperturb(portal):
    """The object as scPerturb makes it: counts by gene, guides joined by ';', one target named."""
    _, standin = portal
    obs = pd.DataFrame(index=pd.Index(standin.cells, name="cell_barcode"))
    first = [next((g for g in some if "SITE" not in g), "") for some in standin.guides]
    mixed = [any("SITE" in g for g in some) for some in standin.guides]
    obs["perturbation"] = [
        "control" if not name or m else name.rpartition("_")[0]
        for name, m in zip(first, mixed, strict=True)
    ]
    obs["perturbation_2"] = pd.Categorical(standin.conditions)
    obs["MOI"] = [float(len(some)) for some in standin.guides]
    obs["nperts"] = (obs["perturbation"] != "control").astype(int)
    obs["ncounts"] = standin.umi_count.astype(np.float32)
    obs["ngenes"] = (standin.counts > 0).sum(axis=1)
    obs["sgRNA"] = [some[0] if len(some) == 1 else np.nan for some in standin.guides]
    obs["guide_id"] = [";".join(some) if some else "nan" for some in standin.guides]
    obs["library_preparation_protocol"] = "10x 3' v3 sequencing"
    var = pd.DataFrame({"ncells": 1}, index=standin.genes)
    return ad.AnnData(sp.csc_matrix(standin.counts.astype(np.float32)), obs, var)


def assert_same_shape(found, loaded):
    assert found.obs_names.equals(loaded.obs_names)
    assert found.var_names.equals(loaded.var_names)
    pd.testing.assert_frame_equal(found.obs, loaded.obs)
    pd.testing.assert_frame_equal(found.uns["guides"], loaded.uns["guides"])
    assert found.X.dtype == np.float32
    assert found.X.has_canonical_format
    assert found.X.nnz == loaded.X.nnz
    assert np.allclose(found.X.toarray(), loaded.X.toarray(), rtol=2e-7, atol=0)
    counts = found.layers["counts"]
    assert counts.dtype == np.int32
    assert np.array_equal(counts.toarray(), loaded.layers["counts"].toarray())


@pytest.mark.parametrize("form", ["object", "csc", "csr", "dense"])
def test_however_stored(scperturb, loaded, form, tmp_path):
    if form == "csr":
        scperturb.X = sp.csr_matrix(scperturb.X)
    elif form == "dense":
        scperturb.X = scperturb.X.toarray()
    source = scperturb
    if form != "object":
        source = tmp_path / "study.h5ad"
        scperturb.write_h5ad(source)
    before = scperturb.copy()
    found = perturb_cite_seq(source, counts=True)
    assert_same_shape(found, loaded)
    assert scperturb.obs.equals(before.obs)
    assert np.array_equal(scperturb.to_df(), before.to_df())
    # The label there names one target and calls mixtures of guides controls; ours does not.
    several = found.obs["n_targets"] > 1
    assert (found.obs.loc[several, "perturbation"].str.count(r"\+") >= 1).all()
    genes = loaded.var_names[[7, 2, 20]].tolist()
    part = perturb_cite_seq(source, condition="IFNγ", genes=genes, counts=True)
    expected = loaded[loaded.obs["condition"] == "IFNγ", genes]
    assert np.array_equal(part.layers["counts"].toarray(), expected.layers["counts"].toarray())
    assert np.allclose(part.X.toarray(), expected.X.toarray(), rtol=2e-7, atol=0)


def test_what_it_made_goes_in_again(loaded, tmp_path):
    found = perturb_cite_seq(loaded, counts=True)
    assert_same_shape(found, loaded)
    loaded.write_h5ad(tmp_path / "made.h5ad")
    assert_same_shape(perturb_cite_seq(tmp_path / "made.h5ad", counts=True), loaded)


@pytest.mark.parametrize("value", [-1, 1.5, np.nan, np.inf])
def test_values_that_are_no_counts(scperturb, value):
    scperturb.X.data[5] = value
    with pytest.raises(ValueError, match=r"for gene 'GENE\d+' and cell 'CELL_\d+', .* not a count"):
        perturb_cite_seq(scperturb)


def test_values_that_cannot_be(scperturb, loaded):
    scperturb.obs["ncounts"] = scperturb.obs["ncounts"] / 2
    with pytest.raises(ValueError, match=r"sum up to more UMI than the cell has.*verify=False"):
        perturb_cite_seq(scperturb)
    assert perturb_cite_seq(scperturb, verify=False).n_obs == 90
    made = loaded.copy()
    made.X.data[made.X.data.argmin()] *= 0.9
    with pytest.raises(ValueError, match=r"not a whole number.*counts=False"):
        perturb_cite_seq(made, counts=True)
    del scperturb.obs["perturbation_2"]
    with pytest.raises(ValueError, match=r"adata.obs lacks condition; it holds"):
        perturb_cite_seq(scperturb)


@pytest.fixture
def zenodo(scperturb, tmp_path, monkeypatch):
    """Zenodo's file in small: the download copies it; a second one, or a broken one, fails."""
    path = tmp_path / "origin.h5ad"
    scperturb.write_h5ad(path)
    digits = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(loader, "SCPERTURB", loader.SCPERTURB._replace(checksum=f"md5:{digits}"))
    asked = []

    def download(url, output_file, pooch):
        asked.append(url)
        if not path.exists():
            raise OSError("no network")
        shutil.copyfile(path, output_file)

    monkeypatch.setattr("pooch.core.choose_downloader", lambda *_, **__: download)
    return path, asked


def test_without_a_path_the_file_of_scperturb_is_fetched_once(zenodo, loaded, tmp_path):
    path, asked = zenodo
    cache = tmp_path / "cache"
    assert_same_shape(perturb_cite_seq(cache=cache, counts=True), loaded)
    assert asked == [loader.SCPERTURB.url]
    path.unlink()
    assert_same_shape(perturb_cite_seq(cache=cache, counts=True), loaded)
    assert len(asked) == 1


def test_another_file_than_scperturbs_is_discarded(zenodo, tmp_path):
    path, _ = zenodo
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"corrupted or has changed.*perturb_cite_seq_standin"):
        perturb_cite_seq(cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_network_the_error_says_how_to_get_the_data(zenodo, tmp_path):
    zenodo[0].unlink()
    with pytest.raises(ConnectionError, match=r"zenodo.*`source`.*SCP1064.*_standin"):
        perturb_cite_seq(cache=tmp_path / "cache")
