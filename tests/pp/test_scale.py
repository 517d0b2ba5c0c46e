"""On which scale values are: told where a screen is set up, or at the fit, and refused."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata import sources

GENES = ["A", "B", "C", "D", "E", "F"]


def cells(x, **layers):
    """Return a screen of these values."""
    obs = pd.DataFrame({"perturbation": np.repeat(["control", "A", "B"], [240, 80, 80])})
    obs["guide"] = obs["perturbation"] + np.resize(["_1", "_2"], len(obs))
    adata = ad.AnnData(x, obs.set_index(obs.index.astype(str)), pd.DataFrame(index=GENES))
    adata.layers.update(layers)
    return adata


def counts():
    rng = np.random.default_rng(0)
    depth = rng.lognormal(0, 0.3, (400, 1))
    return rng.poisson(depth * np.array([1, 2, 4, 3, 6, 1.5]))


def scaled(total=10_000):
    n = counts()
    return n / np.maximum(n.sum(axis=1, keepdims=True), 1) * total


def tpm():
    """Counts over the lengths of genes, scaled to a million: no multiples of one number."""
    x = counts() / np.array([0.7, 1.3, 2.2, 0.9, 3.1, 1.7])
    return x / np.maximum(x.sum(axis=1, keepdims=True), 1e-9) * 1e6


def positive():
    return np.random.default_rng(1).gamma(2, 1.5, (400, 6))


REFUSED = {
    "counts": (counts, r"counts \(whole numbers\)"),
    "scaled": (scaled, "scaled counts without a logarithm"),
    "scaled to the median": (lambda: scaled(18), "scaled counts without a logarithm"),
    "a multiple of counts": (lambda: 0.37 * counts(), "scaled counts without a logarithm"),
    "TPM": (tpm, "no logarithm of a count or intensity exceeds"),
    "log1p twice": (lambda: np.log1p(np.log1p(scaled())), "logarithms of logarithms"),
    "intensities": (lambda: np.exp(3 + positive()), "no logarithm of a count or intensity exceeds"),
}


TAKEN = {
    "log1p": lambda: np.log1p(scaled()),
    "log1p of counts": lambda: np.log1p(counts()),
    "log1p of shallow counts": lambda: np.log1p(np.minimum(counts(), 2)),
    "log1p TPM": lambda: np.log1p(tpm()),
    "log2 CPM": lambda: np.log2(1 + scaled(1e6)),
    "size factors": lambda: np.log2(
        1 + counts() / np.random.default_rng(2).gamma(9, 0.1, (400, 1))
    ),
    "rounded": lambda: np.round(np.log1p(scaled()), 2),
    "positive": positive,
    "log2 intensities": lambda: 10 + positive() / 2,
    "CLR of cells": lambda: np.log1p(counts() / np.exp(np.log1p(counts()).mean(1))[:, None]),
    "centred CLR": lambda: np.log1p(counts()) - np.log1p(counts()).mean(1)[:, None],
    "standardised": lambda: sc.pp.scale(np.log1p(scaled())),
    "seen or not": lambda: (counts() > 2).astype(float),
    "axes": lambda: np.random.default_rng(3).normal(0, 100, (400, 6)),
}


set_up = npt.pp.setup_screen


screen = npt.pp.perturbation_screen


def learn(adata, **options):
    npt.tl.learn_dag(
        adata, method="boss", environments="all", search_options={"n_runs": 1}, **options
    )


CALLS = {"setup_screen": set_up, "screen": screen, "learn": learn, "fit": npt.tl.fit_dag_blr}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_log_normalised_is_refused(case, call, assert_same_adata):
    make, message = REFUSED[case]
    if (case, call) == ("counts", "screen"):
        return  # they are normalised
    adata = cells(make())
    if call == "fit":
        npt.tl.learn_dag(adata, method="given", dag=[("A", "B")], genes=GENES)
    before = adata.copy()
    with pytest.raises(ValueError, match=rf"adata\.X holds .*{message}.*check_scale=False"):
        CALLS[call](adata)
    assert_same_adata(adata, before)


@pytest.mark.parametrize("case", TAKEN)
def test_what_may_be_log_normalised_is_taken_in_silence(case):
    x = TAKEN[case]()
    with warnings.catch_warnings(action="error", category=UserWarning):
        for kind in (np.asarray, sp.csr_matrix, lambda x: x.astype(np.float32)):
            adata = cells(kind(x))
            set_up(adata)
            assert adata.uns["screen"]["values"]["checked"]


def test_the_check_can_be_overruled_once_for_a_layer():
    x = 0.37 * counts()
    adata = cells(x, log=np.log1p(scaled()), twice=np.log1p(np.log1p(scaled())))
    with warnings.catch_warnings(action="error", category=UserWarning):
        set_up(adata, check_scale=False)
        assert not adata.uns["screen"]["values"]["checked"]
        set_up(adata, guide_key="guide")  # stays as it was said
        assert not adata.uns["screen"]["values"]["checked"]
        learn(adata)
        npt.tl.fit_dag_blr(adata)
        npt.tl.target_distances(adata, "A")
    with pytest.raises(ValueError, match="logarithms of logarithms"):
        set_up(adata, layer="twice")
    set_up(adata, layer="log")
    assert adata.uns["screen"]["values"]["checked"]
    with pytest.raises(ValueError, match="scaled counts"):
        set_up(adata, layer=None)


def test_a_sample_is_small_and_spread_over_all_cells(monkeypatch):
    n = 50_000
    x = sp.csr_matrix((np.ones(n), (np.arange(n), np.zeros(n, int))), shape=(n, 3))
    seen = []
    original = sources.CsrRows.read
    monkeypatch.setattr(
        sources.CsrRows, "read", lambda self, rows: (seen.append(rows), original(self, rows))[1]
    )
    adata = ad.AnnData(x, pd.DataFrame({"perturbation": ["control"] * n}, index=map(str, range(n))))
    set_up(adata)
    rows = np.concatenate(seen)
    assert len(rows) == 1000
    assert (rows.min(), rows.max()) == (0, n - 1)
    assert len(np.unique(rows // 5000)) == 4


SCREENS = {
    "schraivogel_tapseq/schraivogel_tapseq_umi5.h5ad": {"control": "non-targeting"},
    "papalexi_thp1/papalexi_lowmoi.h5ad": {},
    "hill2018_cropseq/hill2018_cropseq.h5ad": {"depth_key": "nUMI"},
    "norman2019/norman_subset.h5ad": {"depth_key": "ncounts"},
}


@pytest.mark.screen
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SCREENS)
def test_real_screens(name, screen_path):
    if not (screen_path / name).is_file():
        pytest.skip(f"{name} is not in the folder of the real screens")
    raw = ad.read_h5ad(screen_path / name)
    control = {"control": SCREENS[name].get("control", "control")}
    if "lognorm" in raw.layers:
        npt.pp.setup_screen(raw, layer="lognorm")
        assert raw.uns["screen"]["values"]["scale"] == "log-normalised"
        del raw.uns["screen"]
    with pytest.raises(ValueError, match="holds counts"):
        npt.pp.setup_screen(raw, **control)
    for total in (None, 1e4, 1e6):
        adata = ad.AnnData(raw.X.astype(np.float32), raw.obs)
        sc.pp.normalize_total(adata, target_sum=total)
        with pytest.raises(ValueError, match="scaled counts"):
            npt.pp.setup_screen(adata, **control)
        sc.pp.log1p(adata)
        npt.pp.setup_screen(adata, **control)
        assert adata.uns["screen"]["values"]["scale"] == "log-normalised"
        sc.pp.log1p(adata)
        with pytest.raises(ValueError, match="logarithms of logarithms"):
            npt.pp.setup_screen(adata)
    adata = npt.pp.perturbation_screen(raw, **SCREENS[name], copy=True)
    assert adata.uns["screen"]["values"]["scale"] == "log-normalised"


def highly_expressed():
    """Counts of 15 genes of which every cell has many: their minimum is not one count."""
    rng = np.random.default_rng(4)
    depth = rng.lognormal(0, 0.3, (400, 1))
    return rng.poisson(depth * np.geomspace(4, 60, 15))


@pytest.mark.parametrize("total", [1e3, 1e4])
def test_two_logarithms_are_seen_on_15_genes_with_many_counts(total):
    n = highly_expressed()
    once = np.log1p(n / n.sum(axis=1, keepdims=True) * total)
    for x in (once, np.log1p(once)):
        adata = ad.AnnData(x, cells(np.zeros((400, 6))).obs.copy())
        if x is once:
            npt.pp.setup_screen(adata)
            assert adata.uns["screen"]["values"]["scale"] == "log-normalised"
        else:
            with pytest.raises(ValueError, match="log1p was applied twice"):
                npt.pp.setup_screen(adata)
