"""Gene names with commas: targets are lists, joined for show alone."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import read_lists, stored_lists

GENES = ["A", "B", "A, B", "C"]


@pytest.fixture
def screen():
    rng = np.random.default_rng(0)
    labels = ["control"] * 200 + ["A, B"] * 40 + ["A+B"] * 40 + ["A, B+C"] * 40
    x = 3 + rng.normal(size=(len(labels), 4))
    x[:, 3] += 0.5 * x[:, 0]
    obs = pd.DataFrame({"perturbation": labels})
    adata = ad.AnnData(x, obs.set_index(obs.index.astype(str)), pd.DataFrame(index=GENES))
    npt.tl.learn_dag(adata, method="given", dag=[("A", "C"), ("A, B", "C")], genes=GENES)
    npt.tl.fit_dag_blr(adata)
    return adata


def through(adata, kind, tmp_path):
    if kind == "h5ad":
        adata.write_h5ad(tmp_path / "x.h5ad")
        return ad.read_h5ad(tmp_path / "x.h5ad")
    if kind == "zarr":
        adata.write_zarr(tmp_path / "x.zarr")
        return ad.read_zarr(tmp_path / "x.zarr")
    return adata


@pytest.mark.parametrize("kind", ["memory", "h5ad", "zarr"])
def test_a_knockout_of_a_gene_with_a_comma(kind, screen, tmp_path):
    adata = through(screen, kind, tmp_path)
    npt.tl.design_interventions(adata, "A+B", shift="knockout", n_samples=20)
    adata = through(adata, kind, tmp_path)
    design = adata.uns["design"]
    ranking = design["ranking"]
    targets = read_lists(design["targets"], len(ranking), "targets")
    shifts = np.asarray(design["shifts"].todense())
    wanted = {"A, B": ["A, B"], "A+B": ["A", "B"], "A, B+C": ["A, B", "C"]}
    assert set(ranking["perturbation"]) == set(wanted)
    for label, names, shift in zip(ranking["perturbation"], targets, shifts, strict=True):
        assert names == wanted[label]
        assert [GENES[i] for i in np.flatnonzero(shift)] == sorted(names, key=GENES.index)
    shown = dict(zip(ranking["perturbation"], ranking["target_genes"], strict=True))
    assert shown["A, B+C"] == "A, B, C"


def test_hardly_expressed_targets_with_a_comma(screen):
    screen.X[:200, :2] = np.tile([-1.0, 1.0], 100)[:, None]  # of mean 0
    with pytest.warns(UserWarning, match=r"about nothing: A, B\. Leave"):
        found = npt.pp.perturbation_screen(
            screen, panel=GENES, normalise="none", combinations="keep", copy=True
        )
    table = found.uns["preprocessing"]["perturbations"].set_index("perturbation")
    assert table["hardly_expressed"].to_dict() == {"A, B": False, "A+B": True, "A, B+C": False}


DAMAGES = {
    "absent": lambda s: s.clear(),
    "offsets absent": lambda s: s.pop("offsets"),
    "offsets short": lambda s: s.update(offsets=s["offsets"][:-1]),
    "offsets fall": lambda s: s.update(offsets=np.array([0, 3, 1, 3])),
    "names short": lambda s: s.update(names=s["names"][:-1]),
    "floats": lambda s: s.update(offsets=s["offsets"].astype(float)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_lists_are_refused(damage):
    stored = stored_lists([["a"], ["b", "c"], []])
    assert read_lists(stored, 3, "targets") == [["a"], ["b", "c"], []]
    DAMAGES[damage](stored)
    with pytest.raises(ValueError, match="targets is damaged"):
        read_lists(stored, 3, "targets")


def test_damaged_targets_of_a_fit_are_refused(screen):
    del screen.uns["dag_blr"]["targets"]
    with pytest.raises(ValueError, match="run what wrote it again"):
        npt.tl.design_interventions(screen, "A+B")
