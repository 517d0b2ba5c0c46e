"""The frozen judgement: any folder of screens gives a page, failures among them."""

import tomllib
from dataclasses import replace

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
    assert set(page) == {"absent", "roles", "table", "no_labels", "usual", "All screens"}
    assert "FileNotFoundError: There is no file 'nowhere.h5ad'" in page["absent"]
    assert "**Failed**" in page["no_labels"]
    for name in ("roles", "table", "usual", "All screens"):
        assert "Failed" not in page[name]
        assert "nan" not in page[name]
        assert "Recommendation" in page[name]
        assert float(rows(page[name], "Recommendation")["no perturbation"]) == 1.0
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


def test_all_screens_have_the_targets_of_each(page):
    """Each weighs by its number of targets, as units are targets."""
    of = {name: rows(page[name], "Recommendation") for name in ("roles", "table", "usual")}
    n = {name: int(page[name].split("### Recommendation: ")[1].split()[0]) for name in of}
    total = sum(n.values())
    assert f"### Recommendation: {total} targets" in page["All screens"]
    assert all(f"{name} {size}" in page["All screens"] for name, size in n.items())
    for method, mean in rows(page["All screens"], "Recommendation").items():
        wanted = sum(n[name] * float(of[name][method]) for name in of) / total
        assert float(mean) == pytest.approx(wanted, abs=2e-3)


def result(ours, control, said, true):
    return {
        "chosen": {"nextpert": ours, "no perturbation": control},
        "correlation": {"nextpert": 0.5},
        "inside": 0.9,
        "kind": "stop",
        "none closer said": said,
        "none closer true": true,
    }


def test_pooled_units_are_targets():
    """Splits are averaged first, screens divided by the mean distance of their control."""
    one = [("A", result(1.0, 4.0, 0.9, 1.0)), ("A", result(3.0, 4.0, 0.7, 0.0))]
    one += [("B", result(6.0, 2.0, np.nan, 0.0))]
    other = [("A", result(30.0, 60.0, 0.6, 0.0))]
    unclear = [("C", result(9.0, -1.0, 0.1, 1.0))]
    text = frozen.all_screens([("x", one), ("y", other), ("z", unclear), ("w", [])])
    assert "Targets: x 2, y 1." in text
    assert "Recommendation: 3 targets" in text
    # Of x, targets leave 2 and 6 of a mean control's distance of 3; of y, a half.
    ours = np.array([2 / 3, 6 / 3, 0.5])
    assert float(rows(text, "Recommendation")["nextpert"]) == pytest.approx(ours.mean(), abs=6e-4)
    difference = ours - np.array([4 / 3, 2 / 3, 1.0])
    assert frozen.with_interval(difference) in text
    assert "stated with 0.70 and holds in 0.25, over 2 targets" in text
    assert "there are no targets" in frozen.all_screens([("w", [])])


@pytest.fixture
def rows_of_table(folder):
    settings = tomllib.loads((folder / "table.toml").read_text())
    return frozen.opened(settings, folder / "table.toml", folder)


def test_replicates_of_a_table_share_nothing(rows_of_table):
    """The row that is seen is not among those that judge it, and halves share none."""
    screen = rows_of_table
    split = screen.split(1, 3)
    assert split.held_out.is_known.all()
    assert split.in_halves.all()
    for k, name in enumerate(split.names):
        mine = screen.effects.to_numpy()[screen.names == name]
        mine = mine[:, screen.effects.columns.get_indexer(split.adata.var_names)]
        seen = np.abs(mine - split.effect[k]).max(axis=1).argmin()
        others = np.delete(mine, seen, axis=0)
        np.testing.assert_allclose(split.held_out.effect[k], others.mean(axis=0))
        by_half = np.array([half.effect[k] for half in split.halves])
        order = np.abs(by_half[0] - others).max(axis=1).argsort()
        np.testing.assert_allclose(by_half, others[order])


def test_a_single_held_out_row_judges_effects_alone(rows_of_table):
    screen = rows_of_table
    is_left = np.arange(len(screen.names)) != np.flatnonzero(screen.names == "P2")[0]
    screen.effects, screen.errors = screen.effects[is_left], screen.errors[is_left]
    screen.names, screen.batch = screen.names[is_left], list(np.array(screen.batch)[is_left])
    split = screen.split(1, 0)
    k = split.names.index("P2")
    assert split.held_out.is_known.all()
    assert not split.in_halves[k]
    assert frozen.targets_of(split) == [j for j in range(6) if j != k]
    npt.tl.fit_dag_blr(split.adata)
    found = frozen.towards(split, frozen.estimates_of(split), 0, np.random.default_rng(0))
    assert "P2" not in split.adata.uns["design"]["ranking"]["perturbation"].tolist()
    assert found["chosen"]["random"] > 0


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
        np.testing.assert_allclose(split.held_out.effect[k], held_out - other, atol=1e-5)
    # 60 cells and 150 controls are held out: halves of equal size that share none make their mean.
    first, last = (half.effect for half in split.halves)
    np.testing.assert_allclose((first + last) / 2, split.held_out.effect, atol=1e-10)
    assert np.abs(first - last).min(axis=1).max() > 0
    ratio = np.mean([half.variance for half in split.halves]) / split.held_out.variance.mean()
    assert ratio == pytest.approx(2.0, rel=0.05)


def test_targets_are_chosen_by_seen_cells(folder):
    screen = frozen.opened({"cells": "usual.h5ad"}, folder / "usual.h5ad", folder)
    split = screen.split(20, 0)
    wanted = []
    for k, effect in enumerate(split.effect):
        far, variance = 0.0, 0.0
        for e, v, v0, own in zip(
            effect, split.variance[k], split.control_variance, split.own[k], strict=True
        ):
            far += 0.0 if own else e**2 - v - v0
            variance += 0.0 if own else 4 * e**2 * (v + v0) + 2 * (v + v0) ** 2
        if far > 2 * np.sqrt(variance):
            wanted.append(k)
    assert wanted
    assert frozen.targets_of(split) == wanted
    assert split.own.any()
    # What is held out does not choose, and of noise alone there is no target.
    out = split.held_out._replace(effect=np.zeros_like(split.held_out.effect))
    halves = (split.halves[0]._replace(effect=out.effect), split.halves[1])
    assert frozen.targets_of(replace(split, held_out=out, halves=halves)) == wanted
    noise = np.random.default_rng(0).normal(size=split.effect.shape)
    noise *= np.sqrt(split.variance + split.control_variance)
    assert not frozen.targets_of(replace(split, effect=noise))


def test_the_nearest_by_the_other_half_is_not_flattered():
    """Of candidates at one distance, the smallest estimate is too small, the crossed is not."""
    rng = np.random.default_rng(0)
    estimates = 1.0 + 0.3 * rng.normal(size=(4000, 2, 6))
    crossed = np.array([frozen.nearest_by_other(x, x) for x in estimates])
    assert abs(crossed.mean() - 1.0) < 4 * crossed.std() / np.sqrt(len(crossed))
    assert estimates.mean(axis=1).min(axis=1).mean() < 0.8
    by_hand = [(x[1, x[0].argmin()] + x[0, x[1].argmin()]) / 2 for x in estimates]
    np.testing.assert_allclose(crossed, by_hand)


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


@pytest.fixture
def dominated(tmp_path):
    """A split in which most of the effect of G0 is in G1, which the candidate G1 targets."""
    rng = np.random.default_rng(0)
    names = ["control", *(f"G{j}" for j in range(6))]
    label = np.repeat(names, [300, *[100] * 6])
    effects = pd.DataFrame(0.0, names, names[1:]) + 0.4 * rng.normal(size=(7, 6))
    effects.loc["control"] = 0.0
    effects.loc["G0", "G1"] = 4.0
    x = 5.0 + effects.loc[label].to_numpy() + rng.normal(size=(len(label), 6))
    obs = pd.DataFrame({"perturbation": label}, [f"c{i}" for i in range(len(label))])
    adata = ad.AnnData(x.astype(np.float32), obs, pd.DataFrame(index=names[1:]))
    adata.write_h5ad(tmp_path / "dominated.h5ad")
    screen = frozen.opened(
        {"cells": "dominated.h5ad", "counts": False}, tmp_path / "dominated.h5ad", tmp_path
    )
    split = screen.split(20, 0)
    npt.tl.learn_dag(split.adata, method="boss", environments="all")
    npt.tl.fit_dag_blr(split.adata)
    return split


def squared_distances(split, k, j=None):
    """Return the unbiased distances of ``j`` (or of the control) to ``k`` by each half."""
    found = []
    for half in split.halves:
        total = 0.0
        for i in range(split.effect.shape[1]):
            other = 0.0 if j is None else half.effect[j, i]
            error = half.control_variance[i] if j is None else half.variance[j, i]
            own = split.own[k, i] or (j is not None and split.own[j, i])
            size = (half.effect[k, i] - other) ** 2 - half.variance[k, i] - error
            total += 0.0 if own else size
        found.append(total)
    return np.array(found)


def chosen_name(split):
    return split.adata.uns["design"]["advice"]["best_known"]


def test_a_candidate_that_is_not_ranked_is_not_chosen(dominated):
    """It has no stated distance; all other estimates may choose it."""
    split = dominated
    k, own = split.names.index("G0"), split.names.index("G1")
    estimates = frozen.estimates_of(split)
    estimates["of one"] = 100.0 + split.effect
    estimates["of one"][own] = estimates["of one"][k]
    found = frozen.towards(split, estimates, k, np.random.default_rng(0))
    assert list(split.adata.uns["design"]["not_ranked"]["perturbation"]) == ["G1"]
    assert np.isfinite([*found["chosen"].values(), *found["correlation"].values()]).all()
    assert 0 <= found["inside"] <= 1
    wanted = squared_distances(split, k, own).mean()
    assert found["chosen"]["of one"] == pytest.approx(wanted)
    assert chosen_name(split) != "G1"


@pytest.mark.parametrize("best", ["G3", "no perturbation", "of no candidate"])
def test_what_is_chosen_is_judged_by_crossed_halves(dominated, monkeypatch, best):
    """As by loops, of what the advice names: a candidate, or the control."""
    split, real = dominated, npt.tl.design_interventions

    def advised(adata, *args, **named):
        adata.uns.pop("design", None)  # which names what is not a result of the package
        real(adata, *args, **named)
        adata.uns["design"]["advice"]["best_known"] = best

    monkeypatch.setattr(npt.tl, "design_interventions", advised)
    holds = []
    for k, target in enumerate(split.names):
        if target == best:
            continue
        found = frozen.towards(split, frozen.estimates_of(split), k, np.random.default_rng(0))
        control = squared_distances(split, k)
        others = {j: squared_distances(split, k, j) for j in range(6) if j != k}
        ours = others[split.names.index(best)] if best in split.names else control
        assert found["chosen"]["nextpert"] == pytest.approx(ours.mean())
        assert found["chosen"]["no perturbation"] == pytest.approx(control.mean())
        assert found["chosen"]["random"] == pytest.approx(np.mean([*others.values()]))
        gaps, nearest = [], []
        for a, b in [(0, 1), (1, 0)]:
            j = min(others, key=lambda j: others[j][a])
            gaps.append(ours[b] - others[j][b])
            nearest.append(others[j][b] if others[j][a] < control[a] else control[b])
        assert found["chosen"][frozen.NEAREST] == pytest.approx(np.mean(nearest))
        holds.append(found["none closer true"])
        assert holds[-1] == (np.mean(gaps) <= control.mean() / 10)
    assert len(holds) >= 5
