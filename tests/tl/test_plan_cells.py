"""Plans of cells on an AnnData: noise, tables, words, guides and replicates, what is refused."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core.design.distances import ranked_distance
from nextpert.core.design.stopping import (
    CONFIRM,
    MEASURE,
    ORDER,
    STOP,
    draw_plate,
    stopping,
)
from nextpert.core.screen.departures import USUAL_VARIANCE
from nextpert.study.pool import read_candidates
from tests._screens import screen_of, simulated_fit, with_fit

pytestmark = pytest.mark.brief_chain


@pytest.fixture
def fitted():
    """A simulated screen of one guide and one batch, without a graph."""
    names = ["CDK4", "B2M", "CD58"]
    return simulated_fit([], n_genes=12, n_control=600, n_perturbed=300, perturbed=names, rng=1)


def guided(guide_sd, batch_sd=0.0, *, response=0.0, seed=0):
    """Four perturbations of four guides in two batches, whose guides scatter on every gene."""
    rng = np.random.default_rng(seed)
    rows, cells = [], []
    shift = rng.normal(0, batch_sd, (2, 40))
    for name in ("control", "A", "B", "C", "D"):
        own = rng.normal(0, response, (2, 40)) if name != "control" else np.zeros((2, 40))
        for k in range(4):
            guide = rng.normal(0, guide_sd, 40)
            for batch in range(2):
                n = 60
                rows += [(name, f"{name}-{k}", f"b{batch}")] * n
                mean = 2.0 + 0.3 * (name == "A") + guide + shift[batch] + own[batch]
                cells.append(mean + rng.normal(size=(n, 40)))
    label, guide, batch = zip(*rows, strict=True)
    adata = screen_of(np.concatenate(cells), label, guide=guide, batch=batch)
    npt.pp.setup_screen(adata, guide_key="guide", batch_key="batch")
    return with_fit(adata)


def cells_of(adata, name):
    return np.asarray(adata.X[(adata.obs["perturbation"] == name).to_numpy()], float)


def test_genes_have_the_power_of_the_stated_rule(fitted):
    npt.tl.plan_cells(fitted, effect={"size": 0.3, "power": 0.9})
    found = fitted.uns["plan_cells"]
    table = found["genes"]
    assert table["gene"].tolist() == list(fitted.var_names)
    others = [cells_of(fitted, name) for name in ("CDK4", "B2M", "CD58")]
    within = np.mean([x.var(axis=0, ddof=1) for x in others], axis=0)
    # They are moderated, so they may differ by two sampling errors of a sd by 1,440 cells.
    np.testing.assert_allclose(table["cell_sd"], np.sqrt(within), rtol=0.04)
    assert set(found["screens"]) == {
        "n_guides", "n_cells", "reads", "n_perturbations", "n_controls", "cost", "power",
        "detected", "is_best",
    }  # fmt: skip
    assert found["params"]["effect"] == 0.3
    assert found["params"]["rule"] == "lfsr"
    assert re.search(r"change of 0\.3 with 90% power .*below 0\.05\)", found["verdict"])
    # Genes that vary more need more cells, and have less power now.
    order = np.argsort(table["cell_sd"].to_numpy())
    assert table["power"].iloc[order[0]] > table["power"].iloc[order[-1]]
    assert table["cells_needed"].iloc[order[0]] < table["cells_needed"].iloc[order[-1]]
    npt.tl.plan_cells(fitted, effect={"size": 0.3, "power": 0.9}, rule="fdr")
    other = fitted.uns["plan_cells"]
    assert "false discovery rate of 5%" in other["verdict"]
    assert not np.allclose(other["genes"]["cells_needed"], table["cells_needed"])


def test_guides_that_scatter_ask_for_more_guides():
    adata = guided(0.3)
    npt.tl.plan_cells(adata, effect=0.6)
    found = adata.uns["plan_cells"]
    np.testing.assert_allclose(found["noise"]["guide_variance"], 0.09, rtol=0.4)
    assert found["noise"]["n_guides"] == 4
    assert found["params"]["n_guides"] == 4
    assert sorted(set(found["screens"]["n_guides"])) == [1, 2, 4, 8]
    last = found["screens"].groupby("n_guides")["power"].last()
    assert last.is_monotonic_increasing
    npt.tl.plan_cells(adata, effect=0.6, n_guides=1)
    one = adata.uns["plan_cells"]
    table = one["genes"]
    assert np.isinf(table["cells_needed"]).all()
    assert "genes need more guides, controls or replicates" in one["verdict"]
    # With more guides some number of cells is enough.
    npt.tl.plan_cells(adata, effect=0.6, n_guides=16)
    assert np.isfinite(adata.uns["plan_cells"]["genes"]["cells_needed"]).all()
    npt.tl.plan_screen(adata, "A", candidates=["A", "B"])
    assert adata.uns["plan"]["advice"]["n_new_guides"] >= 1


def test_batches_cancel_but_for_what_perturbations_do_otherwise_in_them():
    alike = guided(0.0, 1.0)
    npt.tl.plan_cells(alike)
    noise = alike.uns["plan_cells"]["noise"]
    assert noise["replicate_variance"] < 0.01
    assert noise["guide_variance"] < 0.01
    assert noise["n_replicates"] == 2
    other = guided(0.0, 1.0, response=0.3)
    npt.tl.plan_cells(other)
    found = other.uns["plan_cells"]
    np.testing.assert_allclose(found["noise"]["replicate_variance"], 0.07, rtol=0.5)


def test_stopping_is_that_of_the_core(fitted):
    wanted = cells_of(fitted, "CDK4").mean(axis=0)
    goal = {gene: float(v) for gene, v in zip(fitted.var_names, wanted, strict=True)}
    npt.tl.plan_cells(fitted, goal, stopping={"tolerance": 0.05, "stop_probability": 0.9}, rng=3)
    found = fitted.uns["plan_cells"]["advice"]
    fit = posterior_from(fitted)
    states = read_candidates(None, fit).states(fit)
    draws = ranked_distance(states, wanted, rng=3)
    noise = np.mean(
        [cells_of(fitted, name).var(axis=0) for name in ("B2M", "CD58", "CDK4")], axis=0
    )
    plate = draw_plate(states, wanted, [0, 1, 2], variance=noise / 422, rng=3)
    said = stopping(draws, [True] * 3, plate, tolerance=0.05, stop_probability=0.9)
    names = ["B2M", "CD58", "CDK4"]
    assert found["candidates"].tolist() == names
    assert found["best_known"] == [*names, "no perturbation"][said.chosen] == "CDK4"
    assert found["good_enough"] == said.good_enough
    assert found["kind"] == CONFIRM
    assert found["n_untested"] == 0
    assert (found["n_perturbations"], found["n_cells"]) == (1, 30)
    words = "probability > 99%, none of the 3 candidates .* than CDK4 by more than 5%"
    assert re.search(words, fitted.uns["plan_cells"]["verdict"])


def test_candidates_never_tried_are_a_reason_to_go_on(fitted):
    gene = next(g for g in fitted.var_names if g not in ("CDK4", "B2M", "CD58"))
    npt.tl.plan_cells(fitted, {gene: 0.1}, candidates="genes")
    found = fitted.uns["plan_cells"]
    assert len(found["advice"]["candidates"]) == fitted.n_vars
    assert found["advice"]["n_untested"] == fitted.n_vars - 3
    assert found["advice"]["kind"] == ORDER
    assert found["advice"]["relative_gain"] > max(0.05, found["advice"]["relative_gain_of_more"])
    assert "Order 8 perturbations (185 cells each)" in found["verdict"]
    npt.tl.plan_cells(fitted, npt.Target(state={gene: 0.1}, others="control"))
    assert fitted.uns["plan_cells"]["advice"]["best_known"] == "no perturbation"


def noise_screen(seed, kind):
    """A simulated screen of nine perturbations, its labels shuffled or its cells pure noise."""
    rng = np.random.default_rng(seed)
    adata = npt.datasets.simulated_screen(
        n_genes=10, n_control=100, n_perturbed=15, perturbed=9, expected_degree=3, rng=seed
    )
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    names = sorted(set(labels) - {"control"})
    wanted = adata[labels == names[0]].X.mean(axis=0)
    if kind == "noise":
        control = adata.X[labels == "control"]
        drawn = rng.normal(control.mean(axis=0), control.std(axis=0), adata.shape)
        adata.X = drawn.astype(np.float32)
    else:
        adata.obs["perturbation"] = rng.permutation(labels)
    with_fit(adata)
    state = dict(zip(adata.var_names, wanted.tolist(), strict=True))
    return adata, {"label": names[0], "state": state}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shuffled", "noise"])
def test_noise_is_no_reason_to_order_and_comes_with_a_warning(kind):
    """It said so, as the smallest of noisy draws is always smaller than the best known."""
    advised = []
    for seed in range(5):
        adata, targets = noise_screen(seed, kind)
        for target in targets.values():
            npt.tl.plan_cells(adata, target)
            advised.append(adata.uns["plan_cells"]["advice"])
    assert ORDER not in [advice["kind"] for advice in advised]
    # At a false discovery rate of 5%, some perturbation of one screen in twenty differs.
    warned = [not (advice["target_differs"] and advice["candidates_differ"]) for advice in advised]
    assert sum(warned) >= len(advised) - 2


def test_nothing_is_stated_of_a_target_at_the_control(fitted):
    control = cells_of(fitted, "control").mean(axis=0)
    target = {fitted.var_names[3]: float(control[3]) + 1e-4}
    npt.tl.plan_cells(fitted, target)
    found = fitted.uns["plan_cells"]
    assert found["advice"]["kind"] in (STOP, MEASURE)
    assert found["advice"]["best_known"] == "no perturbation"
    assert np.isnan(found["advice"]["good_enough"])
    assert "do not show that" in found["verdict"]


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("CDK5", {}, "Close matches: CDK4"),
        ({"NOPE": 1.0}, {}, "NOPE"),
        (None, {"effect": 0.0}, "effect must be a finite number above 0"),
        (None, {"effect": {"power": 0.4}}, "power.* must be a finite number between 0.5 and 1"),
        (None, {"effect": {"sd": 0.4}}, "add 'share'"),
        (None, {"effect": {"share": 1.5}}, "share.* must be a finite number between 0 and 1"),
        (None, {"rule": "p"}, "rule must be 'lfsr' or 'fdr'"),
        (None, {"budget": {"total": 9, "construct": 1}}, "price of a cell"),
        (None, {"budget": {"cells": 9}}, "budget takes total"),
        (None, {"stopping": {"tolerance": -0.1}}, "tolerance"),
        (None, {"n_guides": 0}, "n_guides must be a whole number of at least 1"),
        (None, {"posterior_key": "nope"}, "run tl.fit_dag_blr first"),
    ],
)
def test_errors_write_nothing(fitted, target, options, message):
    before = set(fitted.uns)
    with pytest.raises(ValueError, match=message):
        npt.tl.plan_cells(fitted, target, **options)
    assert set(fitted.uns) == before


def test_a_fit_of_controls_alone_is_refused(fitted):
    npt.tl.fit_dag_blr(fitted, perturbations=[])
    with pytest.raises(ValueError, match="no perturbed cells"):
        npt.tl.plan_cells(fitted)


def controls_of(adata, n_guides=1):
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    controls.uns.clear()
    controls.obs["guide"] = (np.arange(controls.n_obs) % n_guides).astype(str)
    return controls


def test_a_first_screen_is_planned_from_its_controls(fitted):
    controls = controls_of(fitted)
    npt.tl.plan_cells(controls, effect={"size": 0.5, "share": 0.05, "sd": 0.6}, budget=3000)
    found = controls.uns["plan_cells"]
    sd = cells_of(fitted, "control").std(axis=0, ddof=1)
    np.testing.assert_allclose(found["genes"]["cell_sd"], sd, rtol=1e-6)
    assert found["genes"]["power"].isna().all()  # no cell of a perturbation is there
    assert found["params"]["n_guides"] == 4
    assert found["effects"]["source"] == "given"
    assert "5% of the effects are not zero" in found["verdict"]
    # As many perturbations as 3,000 cells suffice for, controls by Dunnett's rule.
    screens = found["screens"]
    for row in screens.itertuples():
        k, n = row.n_perturbations, row.n_cells
        assert k * n + np.sqrt(k) * n <= 3000 < (k + 1) * n + np.sqrt(k + 1) * n
        assert row.n_controls == round(np.sqrt(k) * n)
    assert screens["is_best"].sum() == 1
    best = screens[screens["is_best"]].iloc[0]
    assert best["detected"] == screens["detected"].max()
    assert (
        f"with {best['n_perturbations']} perturbations, {best['n_cells']} cells each"
        in (found["verdict"])
    )
    enough = screens[screens["power"] >= 0.8]["n_perturbations"].max()
    assert f"in up to {enough} perturbations" in found["verdict"]
    npt.tl.plan_cells(controls, effect=0.5)
    usual = controls.uns["plan_cells"]
    assert usual["effects"]["source"] == "four published screens"
    assert "As on four published screens" in usual["verdict"]


def test_prices_weigh_constructs_against_cells(fitted):
    controls, effect = controls_of(fitted), {"size": 0.5, "share": 0.05, "sd": 0.6}
    best = {}
    for construct in (0, 500):
        budget = {"total": 20_000, "cell": 1, "construct": construct, "n_perturbations": 60}
        npt.tl.plan_cells(controls, effect=effect, budget=budget)
        screens = controls.uns["plan_cells"]["screens"]
        assert screens["n_perturbations"].max() <= 60
        assert (screens["cost"] <= 20_000 * 1.001).all()
        best[construct] = screens[screens["is_best"]].iloc[0]
    assert best[500]["n_guides"] < best[0]["n_guides"]
    assert best[500]["n_perturbations"] < best[0]["n_perturbations"]


def counted(n_genes=15, layer=True, seed=0):
    """Log-normalised control cells of Poisson counts, which are a layer or are recovered."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(2.0, 2.0, n_genes) * rng.gamma(5.0, 0.2, (400, 1)))
    total = counts.sum(axis=1, keepdims=True)
    adata = ad.AnnData(np.log1p(counts / np.maximum(total, 1) * 100).astype(np.float32))
    if layer:
        adata.layers["counts"] = counts.astype(np.float32)
    adata.obs["perturbation"] = "control"
    npt.pp.setup_screen(adata)
    return adata


@pytest.mark.parametrize("layer", [True, False])
def test_fewer_reads_have_less_power_and_cost_less(layer):
    adata = counted(layer=layer)
    npt.tl.plan_cells(adata, effect={"size": 0.4, "share": 0.1}, budget={
        "total": 5000, "cell": 0.1, "million_reads": 10, "reads": 20_000})  # fmt: skip
    found = adata.uns["plan_cells"]
    screens = found["screens"]
    assert sorted(set(screens["reads"])) == [0.1, 0.25, 0.5, 1.0]
    npt.tl.plan_cells(adata, effect={"size": 0.4, "share": 0.1})
    screens = adata.uns["plan_cells"]["screens"]
    table = screens[screens["n_guides"] == 4].pivot(
        index="n_cells", columns="reads", values="power"
    )
    assert (table[0.1] <= table[0.5] + 1e-9).all()
    assert (table.loc[50, 1.0] - table.loc[50, 0.25]) > 0.1
    assert "with all reads" in adata.uns["plan_cells"]["verdict"]


def test_reads_are_not_planned_without_counts(fitted):
    npt.tl.plan_cells(fitted)
    found = fitted.uns["plan_cells"]
    assert set(found["screens"]["reads"]) == {1.0}
    assert "counts cannot be recovered" in found["verdict"]


def test_guides_and_batches_of_controls_count_among_their_noise(fitted):
    controls = controls_of(fitted, 6)
    rng, guide = np.random.default_rng(0), controls.obs["guide"].astype(int).to_numpy()
    controls.X = controls.X + 0.1 * rng.normal(size=(6, controls.n_vars))[guide]
    controls.obs["batch"] = (np.arange(controls.n_obs) % 7).astype(str)
    shift = rng.normal(size=(7, controls.n_vars))
    controls.X = controls.X + shift[np.arange(controls.n_obs) % 7]
    npt.pp.setup_screen(controls, guide_key="guide", batch_key="batch")
    npt.tl.plan_cells(controls)
    noise = controls.uns["plan_cells"]["noise"]
    assert noise["control_guide_variance"] > 0.02
    assert noise["guide_variance"] == USUAL_VARIANCE
    table = controls.uns["plan_cells"]["genes"]
    sd = cells_of(fitted, "control").std(axis=0, ddof=1)
    np.testing.assert_allclose(table["cell_sd"], sd, rtol=0.03)
    assert np.isfinite(table["cells_needed"]).any()


def test_neither_a_fit_nor_a_control_names_both_remedies(fitted):
    adata = fitted[fitted.obs["perturbation"] != "control"].copy()
    adata.uns.clear()
    with pytest.raises(ValueError, match=r"run tl.fit_dag_blr first, or plan a first screen from"):
        npt.tl.plan_cells(adata)
    counts = controls_of(fitted)
    counts.X = np.random.default_rng(0).poisson(5, counts.shape).astype(np.float32)
    with pytest.raises(ValueError, match="holds counts"):
        npt.tl.plan_cells(counts)
    with pytest.raises(ValueError, match=r"run tl.fit_dag_blr first"):
        npt.tl.plan_cells(controls_of(fitted), "CDK4")  # a target takes a fit
    assert "plan_cells" not in adata.uns


def test_a_guide_has_a_cell_at_least_in_a_budget(fitted):
    controls = controls_of(fitted)
    npt.tl.plan_cells(controls, effect=5.0, n_guides=8, budget=300)
    screens = controls.uns["plan_cells"]["screens"]
    assert (screens["n_cells"] >= screens["n_guides"]).all()
    assert "It detects a change of 5 with" in controls.uns["plan_cells"]["verdict"]
    npt.tl.plan_cells(controls, effect=0.01, n_guides=8, budget=300)
    words = "None of the screens detects a change of 0.01 with"
    assert words in controls.uns["plan_cells"]["verdict"]
    npt.tl.plan_cells(controls, n_guides=8, budget=2)
    assert controls.uns["plan_cells"]["screens"].empty
    assert "does not pay for one perturbation" in controls.uns["plan_cells"]["verdict"]


def test_joined_guides_are_no_further_guides():
    adata = npt.datasets.simulated_screen(
        n_genes=6, n_control=200, n_perturbed=60, perturbed=["CDK4", "B2M"], rng=1
    )
    label = adata.obs["perturbation"].astype(str)
    guide = label + "_" + (np.arange(adata.n_obs) % 2).astype(str)
    second = np.arange(adata.n_obs) % 10 == 0  # also carry a control guide
    adata.obs["guide"] = np.where(
        second, guide + "|control_" + (np.arange(adata.n_obs) % 2).astype(str), guide
    )
    npt.pp.setup_screen(adata, guide_key="guide")
    with_fit(adata)
    npt.tl.plan_cells(adata)
    assert "2 guides" in adata.uns["plan_cells"]["verdict"]
