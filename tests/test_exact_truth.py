"""Worlds of exact truth: the truth is in the cells, choices and their sums are counted right."""

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from benchmarks import _residual_worlds as worlds
from benchmarks import exact_truth, frozen

pytestmark = [pytest.mark.benchmarks, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A screen of cells with guides and batches, and a table with replicates."""
    path = tmp_path_factory.mktemp("screens")
    screen = npt.datasets.simulated_screen(
        n_genes=12, n_control=200, n_perturbed=40, perturbed=5, rng=0
    )
    label = screen.obs["perturbation"].astype(str).to_numpy()
    few = np.flatnonzero(label == label[-1])[15:]  # of the last one, too few cells
    screen = screen[np.delete(np.arange(len(label)), few)].copy()
    label = screen.obs["perturbation"].astype(str)
    screen.obs["guide"] = label + np.where(np.arange(len(label)) % 2, "_1", "_2")
    screen.obs["day"] = np.where(np.arange(len(label)) % 3, "one", "two")
    screen.write_h5ad(path / "cells.h5ad")
    (path / "tiny.toml").write_text(
        'cells = "cells.h5ad"\nguide_key = "guide"\nbatch_key = ["day"]\n'
    )
    rng = np.random.default_rng(0)
    n_rows = [3, 3, 2, 1, 1, 1]
    names = [f"P{k}" for k, n in enumerate(n_rows) for _ in range(n)]
    true = np.repeat(rng.normal(size=(6, 30)), n_rows, axis=0)
    rows = [f"b{i % 2}|{name}_{i}" for i, name in enumerate(names)]
    effects = pd.DataFrame(true + 0.4 * rng.normal(size=true.shape), rows).add_prefix("G")
    effects.to_csv(path / "effects.csv")
    errors = effects.copy()
    errors[:] = rng.uniform(0.1, 0.3, size=true.shape)
    errors.to_csv(path / "errors.csv")
    (path / "table.toml").write_text(
        'effects = "effects.csv"\nerrors = "errors.csv"\n'
        "row = '(?P<batch>.+)\\|(?P<perturbation>.+)_.+'\n"
    )
    return path


@pytest.fixture(scope="module")
def screens(folder):
    """Both screens, read."""
    return {name: frozen.opened(*rest, folder) for name, *rest in frozen.screens_in(folder, folder)}


@pytest.mark.parametrize("way", worlds.WAYS)
def test_all_cells_together_have_the_known_effects(screens, way):
    screen = screens["tiny"]
    truth = worlds.truth_of(screen, way)
    every = npt.datasets.simulated_screen(n_genes=12, n_control=200, n_perturbed=40, perturbed=5)
    names = set(every.obs["perturbation"].astype(str)) - {"control"}
    assert len(names) == 5
    assert set(truth.names) < names  # without the one of 15 cells
    assert len(truth.names) == 4
    assert np.abs(truth.effect).max() > 0.1
    split = truth.world(1000, 0)  # more than there are, so that all cells are taken
    values, label = np.asarray(split.adata.X), split.adata.obs["perturbation"].astype(str)
    columns = screen.screen.cells.var_names.get_indexer(split.adata.var_names)
    control = screen.x[screen.label == "control"].mean(axis=0)[columns]
    for k, name in enumerate(truth.names):
        mean = values[label == name].mean(axis=0)
        np.testing.assert_allclose(mean - control, split.held_out.effect[k], atol=1e-10)
        np.testing.assert_allclose(split.held_out.effect[k], truth.effect[k][columns])


def test_guides_batches_and_residuals_stay(screens):
    screen = screens["tiny"]
    truth = worlds.truth_of(screen, "ash")
    split = truth.world(25, 3)
    obs = split.adata.obs
    sizes = obs["perturbation"].value_counts()
    assert set(sizes.drop("control")) == {25}
    assert sizes["control"] == 100
    origin = screen.screen.cells.obs.loc[obs.index]
    for column in ("perturbation", "guide", "day"):
        assert (obs[column].astype(str) == origin[column].astype(str)).all()
    name = truth.names[0]
    columns = screen.screen.cells.var_names.get_indexer(split.adata.var_names)
    real = screen.x[screen.screen.cells.obs_names.get_indexer(obs.index)][:, columns]
    is_in = (obs["perturbation"] == name).to_numpy()
    moved = np.asarray(split.adata.X)[is_in] - real[is_in]
    np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-10)
    # Effects and variances that are seen are those of the cells that are seen.
    x, label = np.asarray(split.adata.X), obs["perturbation"].astype(str)
    seen = x[is_in].mean(axis=0) - x[label == "control"].mean(axis=0)
    np.testing.assert_allclose(split.effect[0], seen)
    within = x - pd.DataFrame(x).groupby(label.to_numpy()).transform("mean").to_numpy()
    variance = (within**2).sum(axis=0) / (len(x) - label.nunique())
    np.testing.assert_allclose(split.variance[0], variance / 25)
    np.testing.assert_allclose(split.control_variance, variance / 100)
    others = truth.world(25, 4).adata.obs_names
    assert set(others) != set(obs.index)


def test_rows_of_a_table_are_the_truth_and_a_residual(screens):
    screen = screens["table"]
    truth = worlds.truth_of(screen, "svd")
    effects, errors = screen.effects.to_numpy(), screen.errors.to_numpy()
    residuals = {}
    for name in ("P0", "P1", "P2"):
        own = effects[screen.names == name]
        n = len(own)
        residuals[name] = (own - own.mean(axis=0)) * np.sqrt(n / (n - 1))
    every = np.concatenate([*residuals.values()])
    lent = set()
    for seed in range(20):
        split = truth.world(1, seed)
        for k, name in enumerate(split.names):
            residual = split.effect[k] - truth.effect[k]
            allowed = residuals.get(name, every)
            gap = np.abs(allowed - residual).max(axis=1)
            assert gap.min() < 1e-10
            se = np.sqrt(split.variance[k])
            own = np.flatnonzero(screen.names == name)
            seen = np.abs(errors[own] - se).max(axis=1)
            assert seen.min() < 1e-10
            if name in residuals:  # errors and residual are of the same row
                assert seen.argmin() == gap.argmin()
            else:
                lent.add(int(gap.argmin()))
    assert len(lent) > 4


def test_a_table_without_replicates_has_no_residuals(screens):
    screen = screens["table"]
    alone = object.__new__(frozen.TableScreen)
    alone.__dict__ |= screen.__dict__
    keep = np.unique(screen.names, return_index=True)[1]
    alone.effects, alone.errors = screen.effects.iloc[keep], screen.errors.iloc[keep]
    alone.names = screen.names[keep]
    with pytest.raises(ValueError, match="no perturbation with two rows"):
        worlds.truth_of(alone, "ash")


def by_hand(effect, own, k, noise, control_noise):
    """Distances one by one."""
    found = []
    counted = [g for g in range(effect.shape[1]) if not own[k, g]]
    part = [effect[k, g] ** 2 - noise[k, g] - control_noise[g] for g in range(effect.shape[1])]
    total = sum(part[g] for g in counted)
    for j in range(len(effect)):
        genes = [g for g in counted if not own[j, g]]
        d = sum((effect[j, g] - effect[k, g]) ** 2 - noise[j, g] - noise[k, g] for g in genes)
        left = sum(part[g] for g in genes)
        if total > 0:
            d = d * total / left if left >= total / 2 else np.inf
        found.append(np.inf if j == k else d)
    return np.array(found), total


def test_distances_leave_out_own_genes():
    rng = np.random.default_rng(1)
    n_left_out = 0
    for _ in range(30):
        effect, own = rng.normal(size=(5, 4)), rng.random((5, 4)) < 0.25
        noise, control = rng.uniform(0, 0.3, size=(5, 4)), rng.uniform(0, 0.3, size=4)
        k = int(rng.integers(5))
        wanted = by_hand(effect, own, k, noise, control)
        found = exact_truth.distances(effect, own, k, noise, control)
        np.testing.assert_allclose(found[0], wanted[0])
        assert found[1] == pytest.approx(wanted[1])
        n_left_out += np.isinf(found[0]).sum() > 1
        both = exact_truth.distances(np.stack([effect, 2 * effect]), own, k)
        np.testing.assert_allclose(both[0][1], 4 * both[0][0])
        np.testing.assert_allclose(both[0][0], exact_truth.distances(effect, own, k)[0])
    assert n_left_out > 3
    none = np.zeros((5, 4), bool)
    found = exact_truth.distances(effect, none, 2, noise)[0]
    same = frozen.distance(effect, noise, 2, ~none)
    np.testing.assert_allclose(np.delete(found, 2), np.delete(same, 2))


def test_rankings_leave_out_the_same_genes(screens):
    split = worlds.truth_of(screens["tiny"], "svd").world(25, 0)
    npt.tl.learn_dag(split.adata, method="boss", environments="all")
    npt.tl.fit_dag_blr(split.adata)
    found = exact_truth.by_advice(split, 0)
    ranking = split.adata.uns["design"]["ranking"].set_index("perturbation")
    genes = split.adata.var_names
    assert split.own.any(axis=1).all()
    for k, name in enumerate(split.names[1:], start=1):
        left_out = set(ranking["genes_left_out"][name].split(", "))
        assert left_out == set(genes[split.own[0] | split.own[k]])
    # What is stated is that of the ranking, and judged by the distances of this page.
    true, control = exact_truth.distances(split.held_out.effect, split.own, 0)
    true = pd.Series([*true[1:], control], [*split.names[1:], "control"])
    rows = ranking.loc[true.index]
    inside = (rows["predicted_low"] <= true) & (true <= rows["predicted_high"])
    assert found["inside"] == pytest.approx(inside.mean())
    assert found["control said"] == ranking["mean_distance"]["control"]
    assert found["nearest said"] == ranking["probability_best"].max()
    likely = ranking["probability_best"].idxmax()
    assert found["nearest true"] == float(true[:-1].idxmin() == likely)
    best = str(split.adata.uns["design"]["advice"]["best_known"])
    assert found["nextpert"] == pytest.approx(true.get(best, control))
    assert found["first of the ranking"] == pytest.approx(true[ranking.index[0]])


def test_the_control_is_a_choice():
    left = np.array([5.0, 6.0, 7.0])
    found = np.array([3.0, 2.0, np.inf])
    assert exact_truth.chosen_by(found, np.array(2.5), left, 9.0) == 6.0
    assert exact_truth.chosen_by(found, np.array(1.5), left, 9.0) == 9.0
    draws = np.array([[3.0, 2.0, np.inf], [1.0, 2.0, np.inf]])
    assert exact_truth.chosen_by(draws, np.array([1.5, 4.0]), left, 9.0) == (9.0 + 5.0) / 2


def some_results(n_targets=8, seed=0):
    """Two screens, two truths in the first, two seeds: targets of a screen are the same."""
    rng = np.random.default_rng(seed)
    rows = []
    for screen, ways in (("a", ("ash", "svd")), ("b", ("ash",))):
        for t in range(n_targets):
            of_target = rng.normal()
            for way in ways:
                for s in range(2):
                    control = float(np.exp(rng.normal()))
                    left = control * (0.5 + 0.1 * of_target + 0.05 * rng.normal())
                    rows.append((screen, way, s, f"T{t}", control, left))
    return pd.DataFrame(rows, columns=["screen", "truth", "seed", "target", "control", "left"])


def test_a_pooled_ratio_is_that_of_sums():
    found = some_results()
    wanted = 0.0
    for _, world in found.groupby(["screen", "truth"]):
        wanted += world["left"].sum() / world["control"].sum()
    assert exact_truth.pooled(found, found["left"])[0] == pytest.approx(wanted)
    # A single world: the usual error of a ratio of means, and the t distribution.
    world = found[found["screen"] == "b"]
    x = world.groupby("target")[["left", "control"]].mean().to_numpy()
    share = x[:, 0].sum() / x[:, 1].sum()
    error = (x[:, 0] - share * x[:, 1]).std(ddof=1) / np.sqrt(8) / x[:, 1].mean()
    value, half = exact_truth.pooled(world, world["left"])
    assert (value, half) == pytest.approx((share, 2.364624 * error), rel=1e-6)
    assert exact_truth.with_interval(0.5, 0.25) == "0.500 (0.250 to 0.750)"
    assert exact_truth.pooled(found, 2 * found["control"]) == pytest.approx((6.0, 0.0), abs=1e-9)


def test_the_interval_over_worlds_is_that_of_resampled_targets():
    found = some_results(n_targets=60, seed=3)
    half = exact_truth.pooled(found, found["left"])[1]
    rng = np.random.default_rng(0)
    means = found.groupby(["screen", "truth", "target"])[["left", "control"]].mean().unstack()
    sums = []
    for _ in range(2000):
        drawn = {screen: rng.integers(60, size=60) for screen in ("a", "b")}
        total = 0.0
        for (screen, _), row in means.iterrows():
            take = drawn[screen]
            left, control = (row[c].to_numpy()[take].sum() for c in ("left", "control"))
            total += left / control
        sums.append(total)
    assert half == pytest.approx(1.96 * np.std(sums), rel=0.1)


def test_worlds_without_a_rule_are_not_counted():
    found = some_results()
    left = found["left"].where(found["screen"] == "b")
    world = found[found["screen"] == "b"]
    alone = exact_truth.with_interval(*exact_truth.pooled(world, world["left"]))
    assert exact_truth.result_of(found, left) == f"{alone}, of 1 worlds"
    assert exact_truth.result_of(found[found["screen"] == "a"], left[found["screen"] == "a"]) == "-"


def test_statements_in_bins():
    found = pd.DataFrame({
        "screen": "a", "target": ["T1", "T1", "T2", "T2", "T3", "T3"],
        "none closer said": [0.1, 0.2, 0.3, 1.0, 0.95, np.nan],
        "none closer true": [0.0, 1.0, 0.0, 1.0, 1.0, 1.0],
    })  # fmt: skip
    every, *bins = exact_truth.in_bins(found, "none closer")
    # Deviations from 0.6 by target: -0.2, -0.2, 0.4.
    error = np.sqrt((0.2**2 + 0.2**2 + 0.4**2) * 3 / 2) / 5
    assert every == f"0.51/0.60 ± {error:.2f} (5)"
    assert bins[0] == "0.10/0.00 (1)"
    assert bins[1].startswith("0.25/0.50 ± 0.50 (2)")
    assert bins[2:4] == ["-", "-"]
    assert bins[4].startswith("0.97/1.00 ± 0.00 (2)")


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("page")
    exact_truth.main([
        "--folder", str(folder), "--data", str(folder), "--truths", "ash", "--cells", "20",
        "--seeds", "2", "--first", "5", "--raw", str(path / "raw.csv"), "--save",
        str(path / "page.md"),
    ])  # fmt: skip
    return (path / "page.md").read_text(), pd.read_csv(path / "raw.csv")


def test_the_command_judges_every_target(page):
    text, raw = page
    assert "## 20 cells of each perturbation, and one row in tables" in text
    assert "| tiny, ash (4 targets) |" in text
    assert "| table, ash (6 targets) |" in text
    assert "| **sum of 2 worlds** |" in text
    assert "nan" not in text
    assert len(raw) == 2 * (4 + 6)
    assert set(raw["seed"]) == {5, 6}
    lines = {line.count("|") for line in text.split("\n\n")[3].splitlines()}
    assert len(lines) == 1


def test_no_rule_is_nearer_than_the_nearest(page):
    raw = page[1]
    best = raw[exact_truth.BEST]
    assert (best <= raw["control"] + 1e-9).all()
    for rule in exact_truth.RULES:
        known = raw[rule].notna()
        assert (raw[rule] >= best - 1e-9)[known].all(), rule
    assert raw["mash"].isna().eq(raw["screen"] == "table").all()
    for said in ("none closer", "nearest"):
        assert raw[f"{said} said"].dropna().between(0, 1).all()
        assert raw[f"{said} true"].dropna().isin([0, 1]).all()
    assert raw[exact_truth.OURS].sum() < raw["control"].sum()


def test_an_unknown_screen_is_said(folder, capsys):
    with pytest.raises(SystemExit):
        exact_truth.main(["--folder", str(folder), "--screens", "nowhere"])
    assert "there is no screen 'nowhere'" in capsys.readouterr().err
