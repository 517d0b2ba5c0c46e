"""The frozen judgement: any folder of screens gives a page, failures among them."""

import tomllib

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from benchmarks import _shrinkage, frozen

pytestmark = [pytest.mark.benchmarks, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A screen of cells with roles, one with usual columns, a table, and what cannot be read."""
    path = tmp_path_factory.mktemp("screens")
    screen = npt.datasets.simulated_screen(
        n_genes=12, n_control=300, n_perturbed=80, perturbed=5, rng=0
    )
    screen.write_h5ad(path / "usual.h5ad")
    named = screen.copy()
    label = named.obs.pop("perturbation").astype(str).replace("control", "NT")
    named.obs["gene"], named.layers["logged"] = label, named.X.copy()
    named.obs["guide"] = label + np.where(np.arange(len(label)) % 2, "_1", "_2")
    named.write_h5ad(path / "named.h5ad")
    (path / "roles.toml").write_text(
        'cells = "named.h5ad"\nperturbation_key = "gene"\ncontrol = "NT"\nguide_key = "guide"\n'
        'layer = "logged"\nchose = "nothing"\n'
    )
    rng = np.random.default_rng(0)
    true = np.repeat(rng.normal(size=(6, 30)), 3, axis=0)
    rows = [f"b{i % 2}|P{i // 3}_{i}" for i in range(18)]
    effects = pd.DataFrame(true + 0.2 * rng.normal(size=true.shape), rows).add_prefix("G")
    effects.to_csv(path / "effects.csv")
    (0 * effects + 0.2).to_csv(path / "errors.csv")
    (path / "table.toml").write_text(
        'effects = "effects.csv"\nerrors = "errors.csv"\nbase = 2\n'
        "row = '(?P<batch>.+)\\|(?P<perturbation>.+)_.+'\n"
    )
    (path / "absent.toml").write_text('cells = "nowhere.h5ad"\n')
    ad.AnnData(np.ones((3, 2), np.float32)).write_h5ad(path / "no_labels.h5ad")
    return path


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "frozen.md"
    frozen.main([str(folder), "--splits", "1", "--save", str(file)])
    parts = file.read_text().split("\n## ")
    return {part.splitlines()[0]: part for part in parts[1:]}


def test_all_screens_have_a_section(page):
    assert set(page) == {"absent", "roles", "table", "no_labels", "usual"}
    assert "FileNotFoundError: There is no file 'nowhere.h5ad'" in page["absent"]
    assert "**Failed**" in page["no_labels"]
    for name in ("roles", "table", "usual"):
        assert "Failed" not in page[name]
        assert "nan" not in page[name]
        assert "Recommendation" in page[name]
    assert "Chosen by looking at this screen: nothing." in page["roles"]
    assert "Chosen by looking at this screen: not stated." in page["usual"]


def rows(section, title):
    lines = section.split(f"### {title}")[1].split("###")[0].splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("| ")][1:]
    return {row[0].strip(): row[1].strip() for row in cells}


def test_no_effect_has_its_own_error(page):
    for name in ("roles", "table", "usual"):
        errors = rows(page[name], "Effects")
        assert float(errors["no effect"]) == pytest.approx(1.0, abs=1e-3)
        assert float(errors["nextpert"]) < 0.5
        best = rows(page[name], "Recommendation")
        assert float(best["the nearest held out"]) <= float(best["nextpert"]) + 1e-9


def test_replicates_of_a_table_share_nothing(folder):
    """The row that is seen is not among those that judge it."""
    screen = frozen.opened(
        tomllib.loads((folder / "table.toml").read_text()), folder / "table.toml", folder
    )
    split = screen.split(1, 3)
    assert split.is_judged.all()
    for k, name in enumerate(split.names):
        mine = screen.effects.to_numpy()[screen.names == name]
        mine = mine[:, screen.effects.columns.get_indexer(split.adata.var_names)]
        seen = np.abs(mine - split.effect[k]).max(axis=1).argmin()
        others = np.delete(mine, seen, axis=0)
        np.testing.assert_allclose(split.truth[k], others.mean(axis=0))


def test_cells_that_judge_are_not_seen(folder):
    screen = frozen.opened({"cells": "usual.h5ad"}, folder / "usual.h5ad", folder)
    split = screen.split(20, 0)
    sizes = split.adata.obs["perturbation"].value_counts()
    assert set(sizes.drop("control")) == {20}
    assert sizes["control"] == 150
    label, x = screen.label, screen.x
    for k, name in enumerate(split.names):
        seen = np.asarray(split.adata[split.adata.obs["perturbation"] == name].X).sum(axis=0)
        held_out = (x[label == name].sum(axis=0) - seen) / ((label == name).sum() - 20)
        control = np.asarray(split.adata[split.adata.obs["perturbation"] == "control"].X)
        other = (x[label == "control"].sum(axis=0) - control.sum(axis=0)) / 150
        np.testing.assert_allclose(split.truth[k], held_out - other, atol=1e-5)


def test_distances_are_unbiased():
    rng = np.random.default_rng(0)
    true, noise = rng.normal(size=(3, 8)), rng.uniform(0.5, 2.0, size=(3, 8))
    used = rng.random((3, 8)) < 0.7
    drawn = true + np.sqrt(noise) * rng.normal(size=(20_000, 3, 8))
    found = np.array([frozen.distance(x, noise, 1, used)[0] for x in drawn])
    wanted = ((true[0] - true[1]) ** 2)[used[0]].sum()
    assert abs(found.mean() - wanted) < 4 * found.std() / np.sqrt(len(found))
    assert frozen.distance_sd(true, noise, 1, used)[0] == pytest.approx(found.std(), rel=0.03)


def test_singular_values_are_shrunk_towards_the_signal():
    rng = np.random.default_rng(0)
    variance = np.full((40, 60), 0.25)
    noise = 0.5 * rng.normal(size=variance.shape)
    signal = np.outer(rng.normal(size=40), rng.normal(size=60))
    found = _shrinkage.singular_values(signal + noise, variance)
    alone = _shrinkage.james_stein(signal + noise, variance)
    assert ((found - signal) ** 2).sum() < 0.3 * ((alone - signal) ** 2).sum()
    # Noise alone has no singular value above the edge, so that James-Stein is all.
    quiet = 0.9 * noise
    np.testing.assert_allclose(
        _shrinkage.singular_values(quiet, variance), _shrinkage.james_stein(quiet, variance)
    )
