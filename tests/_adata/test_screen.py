"""Roles of columns, environments, and their moments from every kind of matrix."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata import graph as resampled
from nextpert._adata import read, sources
from nextpert._adata.graph import resample_weights, resampled_screens
from nextpert._adata.roles import Roles, read_roles
from nextpert._adata.screen import read_environments, screen_moments
from nextpert.core import ScreenMoments


@pytest.fixture
def screen():
    """600 cells of 5 genes: 2 perturbations of 2 guides, two crossed batches, a depth, a dose."""
    rng = np.random.default_rng(1)
    pert = rng.choice(["NT", "A", "B+C"], 600)
    obs = pd.DataFrame(
        {
            "pert": pert,
            "guide": [f"{p}_{k}" for p, k in zip(pert, rng.integers(1, 3, 600), strict=True)],
            "plate": rng.choice(["x", "y", "z"], 600),
            "donor": rng.integers(0, 2, 600),
            "depth": rng.normal(8, 1, 600),
            "dose": pd.Categorical(rng.choice(["low", "high"], 600)),
        },
        index=[f"c{k}" for k in range(600)],
    )
    obs.loc["c5", "pert"] = np.nan
    x = rng.poisson(0.4, (600, 5)) * rng.gamma(2, size=(600, 5))
    return ad.AnnData(sp.csr_matrix(x), obs, pd.DataFrame(index=list("ABCDE")))


ROLES = {
    "perturbation_key": "pert", "control": "NT", "guide_key": "guide",
    "batch_key": ["plate", "donor"], "covariates": ["depth", "dose"],
}  # fmt: skip


def test_roles_are_said_once_and_overridden(screen, tmp_path):
    npt.pp.setup_screen(screen, **ROLES)
    wanted = Roles(
        "pert", "NT", "guide", batch_key=("plate", "donor"), covariates=("depth", "dose")
    )
    assert read_roles(screen) == wanted
    assert read_roles(screen, guide_key="dose", covariates=[]).covariates == ()
    screen.write_h5ad(tmp_path / "screen.h5ad")
    assert read_roles(ad.read_h5ad(tmp_path / "screen.h5ad")) == wanted
    npt.pp.setup_screen(screen, guide_key=None, batch_key=None, covariates=None)
    assert read_roles(screen) == Roles("pert", "NT")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"guide_key": "guides"}, ValueError, r"no columns guides. Close matches: guide"),
        ({"batch_key": "pert"}, ValueError, "more than one role: pert"),
        ({"control": ""}, ValueError, "control must be a string that is not empty"),
        (
            {"control": "nothing"},
            ValueError,
            r"No control cells: .* NT may be the label of the controls\.",
        ),
        ({"control": "NTX"}, ValueError, r"NT may be the label of the controls\."),
        ({"perturbation_key": "nope"}, ValueError, "or run pp.assign_guides on a column of guides"),
        (
            {"batch_key": 3},
            TypeError,
            "batch_key must be .* a list of names",
        ),
        ({"layer": "nope"}, ValueError, "no layer 'nope'"),
    ],
)
def test_wrong_roles_are_refused_and_nothing_written(screen, change, error, match):
    with pytest.raises(error, match=match):
        npt.pp.setup_screen(screen, **(ROLES | change))
    assert "screen" not in screen.uns


def test_stored_roles_of_another_version_are_refused(screen):
    screen.uns["screen"] = {"format": 99}
    with pytest.raises(ValueError, match=r"run pp\.setup_screen again"):
        read_roles(screen)


@pytest.mark.parametrize("column", ["plate", "depth"])
def test_missing_batches_and_covariates_are_named(screen, column):
    screen.obs.loc["c7", column] = np.nan
    with pytest.raises(ValueError, match=f"{column}.* missing .*1 labelled cells"):
        npt.pp.setup_screen(screen, **ROLES)


def test_environments_are_the_combinations_that_occur(screen):
    found = read_environments(
        screen, Roles("pert", "NT", "guide", batch_key=("plate", "donor"), covariates=("dose",))
    )
    keys = ["pert", "guide", "plate", "donor", "dose"]
    count = screen.obs.dropna(subset="pert").astype(str).groupby(keys).size()
    assert found.table.set_index(keys)["n_cells"].to_dict() == count.to_dict()
    assert found.codes[5] == -1
    cell = found.table.iloc[found.codes[9]]
    assert cell[keys].tolist() == screen.obs.iloc[9][keys].astype(str).tolist()
    assert found.perturbations() == ["A", "B+C"]
    assert found.indicators(found.condition_names)[0] == ["dose=low"]
    names, batches = found.indicators(found.roles.batch_key)
    assert names == ["plate=y", "plate=z", "donor=1"]
    assert batches.shape == (len(found.table), 3)
    assert (batches[:, 2] == (found.table["donor"] == "1")).all()
    kept = found.only(["A"])
    assert set(kept.perturbation) == {"A"}
    assert (kept.codes >= 0).sum() == (screen.obs["pert"] == "A").sum()


def moments(adata, weights=None, **roles):
    environments = read_environments(adata, Roles("pert", "NT", **roles))
    return environments, screen_moments(adata, [3, 0, 1], environments, weights=weights)


def test_moments_are_those_of_the_cells(screen):
    found, got = moments(screen, guide_key="guide", covariates=("depth",))
    x = np.c_[screen.X.toarray()[:, [3, 0, 1]], screen.obs["depth"]]
    wanted = ScreenMoments.from_array(x, found.codes, len(found.table))
    for name in ("n", "mean", "squares", "scatter"):
        np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), atol=1e-8)


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("n", "mean", "squares", "scatter")
    )


@pytest.mark.formats
@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix, sp.csr_matrix.toarray])
def test_the_same_bits_from_file_and_dask(screen, tmp_path, monkeypatch, layout):
    da = pytest.importorskip("dask.array")
    monkeypatch.setattr(read, "_BLOCK_ENTRIES", 96)  # 19 blocks: the last tree is of three
    monkeypatch.setattr(read, "_CELLS_A_GROUP", 1)
    monkeypatch.setattr(sources, "_AT_ONCE", 4)
    x, roles = screen.X, {"batch_key": ("plate",), "covariates": ("depth",)}
    screen.X = layout(x)
    screen.write_h5ad(tmp_path / "screen.h5ad")
    backed, lazy = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r"), screen.copy()
    lazy.X = da.from_array(x.toarray(), (7, 5)).map_blocks(
        lambda block: layout(sp.csr_matrix(block))
    )
    for weights in (None, np.random.default_rng(0).poisson(1.0, 600)):
        memory = moments(screen, weights, **roles)[1]
        assert same(moments(backed, weights, **roles)[1], memory)
        assert same(moments(lazy, weights, **roles)[1], memory)
    backed.file.close()


def test_resamples_take_guides_whole_and_other_cells_one_by_one(screen):
    rng = np.random.default_rng(2)
    screen.obs["guide"] = [
        f"{p}_{k}" for p, k in zip(screen.obs["pert"], rng.integers(1, 6, 600), strict=True)
    ]
    few = screen.obs["pert"] == "A"
    screen.obs.loc[few, "guide"] = rng.choice(["A_1", "A_2"], few.sum())
    found = read_environments(screen, Roles("pert", "NT", "guide"))
    taken = np.array([resample_weights(found, np.uint64(seed)) for seed in range(60)])
    assert (taken[:, found.codes < 0] == 0).all()
    whole = (screen.obs["pert"] == "B+C").to_numpy()
    for guide in screen.obs.loc[whole, "guide"].unique():
        block = taken[:, whole & (screen.obs["guide"] == guide).to_numpy()]
        assert (block == block[:, :1]).all()
    guides = np.array([taken[:, (screen.obs["guide"] == f"B+C_{k}").to_numpy()][:, 0]
                       for k in range(1, 6)])  # fmt: skip
    assert (guides.sum(axis=0) == 5).all()
    cells = taken[:, few.to_numpy()]
    assert (cells != cells[:, :1]).any(axis=1).all()
    assert abs(cells.mean() - 1) < 0.02


def test_resampled_moments_are_those_of_the_repeated_cells(screen, monkeypatch):
    found = read_environments(screen, Roles("pert", "NT", "guide", covariates=("depth",)))
    seeds = np.array([5, 6, 7], np.uint64)
    together = list(resampled_screens(screen, [3, 0], found, seeds))
    monkeypatch.setattr(resampled, "_MOST_ENTRIES", 1)
    alone = list(resampled_screens(screen, [3, 0], found, seeds))
    x = np.c_[screen.X.toarray()[:, [3, 0]], screen.obs["depth"]]
    for seed, one, other in zip(seeds, together, alone, strict=True):
        assert same(one, other)
        weights = resample_weights(found, seed)
        wanted = ScreenMoments.from_array(
            np.repeat(x, weights, axis=0), np.repeat(found.codes, weights), len(found.table)
        )
        np.testing.assert_allclose(one.scatter, wanted.scatter, atol=1e-8)
        np.testing.assert_allclose(one.mean, wanted.mean, atol=1e-10)
