"""The command on raw counts."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from nextpert.cli import main

FAST = ["--quiet", "--n-runs", "2", "--n-samples", "20", "--no-figures"]


@pytest.fixture
def counts(small_screen, tmp_path):
    """A screen of raw counts, sparse."""
    rate = np.exp(np.asarray(small_screen.X)[:, :6] / 2)
    adata = small_screen[:, :6].copy()
    adata.X = sp.csr_matrix(np.random.default_rng(0).poisson(rate).astype(np.int32))
    adata.X[:, 5] = 0
    adata.X[0, 5] = 1
    path = tmp_path / "counts.h5ad"
    adata.write_h5ad(path)
    return path


def _design(path, *options, out=None):
    out = path.parent / "out" if out is None else out
    return main(["design", str(path), "--target", "MYC", "--out", str(out), *FAST, *options])


def _result(path):
    return ad.read_h5ad(path.parent / "out" / "annotated.h5ad")


def test_log_normalise_and_min_fraction(counts, capsys):
    raw = ad.read_h5ad(counts)
    assert _design(counts, "--log-normalise", "--min-fraction", "0.1") == 0
    result = _result(counts)
    assert result.uns["dag"]["genes"].tolist() == raw.var_names[:5].tolist()
    totals = raw.X.sum(1).A1 if hasattr(raw.X.sum(1), "A1") else np.asarray(raw.X.sum(1)).ravel()
    expected = np.log1p(raw.X.toarray() / totals[:, None] * np.median(totals[totals > 0]))
    np.testing.assert_allclose(result.X.toarray(), expected, rtol=1e-4)
    assert (result.layers["counts"] != raw.X).nnz == 0
    assert "--log-normalise" not in capsys.readouterr().err
    assert _design(counts, "--min-fraction", "0.1") == 0
    assert "--log-normalise" in capsys.readouterr().err


def test_cells_without_counts_are_left_out(counts, capsys):
    raw = ad.read_h5ad(counts)
    raw.X = raw.X.toarray()
    raw.X[3:6] = 0
    raw.write_h5ad(counts)
    assert _design(counts, "--log-normalise") == 0
    assert "3 cells without any counts are left out" in capsys.readouterr().err
    assert _result(counts).n_obs == raw.n_obs - 3


def test_rounds_add_up_and_normalised_data_are_not_normalised_again(counts, capsys):
    assert _design(counts, "--log-normalise") == 0
    first = counts.parent / "out" / "annotated.h5ad"
    assert _design(first, "--log-normalise", out=counts.parent / "two") == 2
    assert "no raw counts" in capsys.readouterr().err
    assert not (counts.parent / "two").exists()
    assert _design(first, out=counts.parent / "two") == 0
    trace = pd.read_csv(counts.parent / "two" / "trace.csv")
    assert trace["round"].tolist() == [1]  # the same cells, the same question
    cells = ad.read_h5ad(first)
    cells[:-1].copy().write_h5ad(first)
    assert _design(first, out=counts.parent / "three") == 0
    trace = pd.read_csv(counts.parent / "three" / "trace.csv")
    assert trace["round"].tolist() == [1, 2]
