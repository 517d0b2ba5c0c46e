"""``pp.setup_screen``: a later call changes only what it names; batches that are none."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import read_roles
from nextpert._adata.roles import Roles
from tests._screens import with_fit

N = 300


@pytest.fixture
def screen():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({
        "target": np.resize(["NT", "A", "B"], N),
        "perturbation": np.resize(["control", "A", "B"], N),
        "guide": rng.choice(["g1", "g2"], N), "plate": rng.integers(0, 3, N),
        "phase": rng.choice(["G1", "S"], N), "depth": rng.normal(9, 1, N),
        "umi": rng.integers(500, 5000, N), "donor": rng.integers(0, 40, N),
        "score": np.round(rng.random(N), 1) + rng.integers(0, 10, N),
    })  # fmt: skip
    obs.index = [f"c{i}" for i in range(N)]
    obs["cell"] = obs.index
    x = rng.normal(size=(N, 4))
    return ad.AnnData(x, obs, pd.DataFrame(index=list("ABCD")), layers={"other": x + 1})


EVERYTHING = {
    "perturbation_key": "target", "control": "NT", "guide_key": "guide", "batch_key": "plate",
    "covariates": ["depth"], "layer": "other",
}  # fmt: skip
ROLES = Roles(
    "target", "NT", guide_key="guide", batch_key=("plate",), covariates=("depth",), layer="other"
)
CHANGES = [
    ({"guide_key": "phase"}, {"guide_key": "phase"}),
    ({"batch_key": ["plate", "phase"]}, {"batch_key": ("plate", "phase")}),
    ({"covariates": "phase"}, {"covariates": ("phase",)}),
    ({"layer": None}, {"layer": None}),
    ({"guide_key": None}, {"guide_key": None}),
    ({"batch_key": None}, {"batch_key": ()}),
    ({"covariates": None}, {"covariates": ()}),
    ({"perturbation_key": None, "control": None},
     {"perturbation_key": "perturbation", "control": "control"}),
]  # fmt: skip


@pytest.mark.parametrize(("call", "changed"), CHANGES)
def test_a_later_call_changes_what_it_names_and_keeps_the_rest(call, changed, screen):
    npt.pp.setup_screen(screen, **EVERYTHING)
    npt.pp.setup_screen(screen, **call)
    assert read_roles(screen) == replace(ROLES, **changed)
    npt.pp.setup_screen(screen)
    assert read_roles(screen) == replace(ROLES, **changed)


def test_a_column_that_is_gone_is_named_with_the_remedy(screen):
    npt.pp.setup_screen(screen, **EVERYTHING)
    del screen.obs["guide"]
    with pytest.raises(ValueError, match=r"no columns guide\..*or set the role to None"):
        npt.pp.setup_screen(screen, batch_key="phase")
    npt.pp.setup_screen(screen, batch_key="phase", guide_key=None)
    assert read_roles(screen).guide_key is None


def test_a_damaged_record_is_written_anew(screen, caplog):
    npt.pp.setup_screen(screen, **EVERYTHING)
    del screen.uns["screen"]["control"]
    npt.pp.setup_screen(screen, guide_key="guide")
    assert "is damaged" in caplog.text
    assert read_roles(screen) == Roles(guide_key="guide")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("depth", r"holds 300 values in 300 cells: name a column .*covariates"),
        ("umi", r"holds \d+ values in 300 cells"),
        ("score", r"holds \d+ values in 300 cells"),
        ("cell", r"holds 300 values in 300 cells"),
    ],
)
@pytest.mark.parametrize("call", ["setup_screen", "perturbation_screen"])
def test_a_quantity_or_the_cells_are_no_batches(key, message, call, screen, assert_same_adata):
    before = screen.copy()
    with pytest.raises(ValueError, match=f"batch_key={key!r} {message}"):
        getattr(npt.pp, call)(screen, batch_key=key)
    assert_same_adata(screen, before)


def test_many_donors_are_batches(screen):
    npt.pp.setup_screen(screen[:6].copy(), batch_key=["plate", "phase"])
    many = ad.concat([screen] * 2, index_unique="-")
    npt.pp.setup_screen(many, batch_key="donor")


def test_a_role_of_symbols_is_checked_and_cleared_and_does_not_rename_what_is_there():
    adata = npt.datasets.simulated_screen(n_genes=3, n_control=40, n_perturbed=20, rng=0)
    adata.var["symbol"] = ["x", "y", "z"]
    with_fit(adata, shift_sd=0)
    with pytest.raises(ValueError, match=r"adata\.var has no column 'symbols'\. Close matches"):
        npt.pp.setup_screen(adata, gene_symbols="symbols")
    npt.pp.setup_screen(adata, gene_symbols="symbol")
    npt.tl.perturbation_effects(adata)  # of the fit by names
    with pytest.raises(ValueError, match=r"Genes not in adata\.var\['symbol'\]"):
        npt.tl.cpca(adata, genes=list(adata.var_names))
    npt.pp.setup_screen(adata, gene_symbols=None)
    assert "gene_symbols" not in adata.uns["screen"]
