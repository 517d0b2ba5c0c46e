import functools
import hashlib
import http.server
import os
import shutil
import threading
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from nextpert.datasets import _schraivogel_2020 as loader
from nextpert.datasets import schraivogel_2020
from nextpert.datasets._fetch import RemoteFile

GUIDE_NAMES = [
    "CROPseq_dCas9_DS_GATA1-A",
    "CROPseq_dCas9_DS_MYC_+_95907328.23-P1P2",
    "CROPseq_dCas9_DS_MYC_-_95907399.23",
    "CROPseq_dCas9_DS_non-targeting_00007",
]
UMI = np.array([[5, 0, 0, 4], [0, 5, 6, 0], [9, 0, 0, 5], [4, 4, 4, 4], [0, 0, 0, 7]])


@pytest.fixture
def folder(tmp_path):
    """Five cells in the layout of the origin."""
    where = tmp_path / "origin"
    where.mkdir()
    cells = [f"TAP1-{i}" for i in range(len(UMI))]
    counts = np.arange(15).reshape(5, 3)
    table = pd.DataFrame(counts, index=pd.Index(cells, name="gene"), columns=["GATA1", "MYC", "X"])
    table.to_csv(where / "gene_expression_counts.csv")
    guides = ad.AnnData(
        sp.csr_matrix(UMI),
        obs=pd.DataFrame({"batch": ["1"] * 5}, index=cells),
        var=pd.DataFrame(index=GUIDE_NAMES),
    )
    guides.write_h5ad(where / "gRNA_counts.h5ad")
    return where


@pytest.fixture
def server(folder):
    """Serve ``folder`` on the loopback interface; yields the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=os.fspath(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def _point_to(monkeypatch, server, folder):
    for name in ("COUNTS", "GUIDES"):
        file = getattr(loader, name).name
        checksum = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        monkeypatch.setattr(
            loader, name, RemoteFile(file, f"{server}/{file}", f"sha256:{checksum}")
        )


@pytest.fixture
def load(monkeypatch):
    """Load the files of a folder as they are."""

    def load(folder, **options):
        _point_to(monkeypatch, "nowhere", folder)
        return schraivogel_2020(folder, **options)

    return load


@pytest.mark.screen
def test_equals_the_reference_cell_for_cell(screen_path):
    where = screen_path / "schraivogel_tapseq"
    adata = schraivogel_2020(where)
    expected = ad.read_h5ad(where / "schraivogel_tapseq_umi5.h5ad")
    assert adata.obs_names.tolist() == expected.obs_names.tolist()
    assert adata.var_names.tolist() == expected.var_names.tolist()
    assert adata.X.dtype == expected.X.dtype
    assert (adata.X != expected.X).nnz == 0
    assert set(adata.obs.columns) == set(expected.obs.columns)
    for column in expected.obs:
        assert adata.obs[column].tolist() == expected.obs[column].tolist(), column
    assert (adata.obs["perturbation"] == "non-targeting").sum() == 7760


def test_calls_guides_at_min_umi(folder, load):
    adata = load(folder)
    expected = ["GATA1", "multi", "multi", "unassigned", "non-targeting"]
    assert adata.obs["perturbation"].tolist() == expected
    assert adata.obs["targets"].tolist() == [
        "GATA1", "MYC", "GATA1_non-targeting", "", "non-targeting",
    ]  # fmt: skip
    assert adata.obs["guides"].tolist()[1] == ";".join(GUIDE_NAMES[1:3])
    assert adata.obs["n_guides"].tolist() == (UMI >= 5).sum(1).tolist()
    np.testing.assert_array_equal(adata.X.toarray(), np.arange(15).reshape(5, 3))
    loose = load(folder, min_umi=4)
    assert loose.obs["n_guides"].tolist() == (UMI >= 4).sum(1).tolist()
    with pytest.raises(ValueError, match="min_umi"):
        load(folder, min_umi=0)


def test_cells_are_matched_by_name(folder, load):
    path = folder / "gRNA_counts.h5ad"
    guides = ad.read_h5ad(path)
    before = load(folder)
    guides[[3, 1, 0, 4, 2]].copy().write_h5ad(path)
    after = load(folder)
    assert after.obs["guides"].tolist() == before.obs["guides"].tolist()


def test_download_is_kept_and_used_again(folder, server, monkeypatch, tmp_path):
    _point_to(monkeypatch, server, folder)
    cache = tmp_path / "cache"
    first = schraivogel_2020(cache=cache)
    assert {p.name for p in cache.iterdir()} == {"gene_expression_counts.csv", "gRNA_counts.h5ad"}
    damaged = cache / "gene_expression_counts.csv"
    damaged.write_bytes(damaged.read_bytes()[:20])
    assert schraivogel_2020(cache=cache).n_obs == 5
    shutil.rmtree(folder)  # a second download would fail
    second = schraivogel_2020(cache=cache)
    assert (first.X != second.X).nnz == 0


def test_a_corrupted_download_leaves_nothing(folder, server, monkeypatch, tmp_path):
    _point_to(monkeypatch, server, folder)
    path = folder / "gene_expression_counts.csv"
    path.write_bytes(path.read_bytes()[:-9])
    cache = tmp_path / "cache"
    with pytest.raises(ValueError, match=r"gene_expression_counts.csv.*corrupted.*cache"):
        schraivogel_2020(cache=cache)
    assert list(cache.iterdir()) == []


def test_no_connection_is_a_clear_error(folder, server, monkeypatch, tmp_path):
    _point_to(monkeypatch, "http://127.0.0.1:1", folder)
    with pytest.raises(ConnectionError, match=r"could not be downloaded.*cache"):
        schraivogel_2020(cache=tmp_path)
    _point_to(monkeypatch, f"{server}/absent", folder)
    with pytest.raises(ConnectionError, match="HTTPError"):
        schraivogel_2020(cache=tmp_path)
    assert list(Path(tmp_path).glob("*.csv")) == []
