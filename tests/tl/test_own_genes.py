"""Own target genes are left out of distances to the state of a perturbation, against loops."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert._adata.arguments import in_mappings
from nextpert._report.planned import ranking_section
from nextpert.core.design.distances import ranked_distance
from nextpert.core.design.goal import Goal
from nextpert.core.design.stopping import draw_plate
from nextpert.study.panel_target import without_own_genes
from nextpert.study.pool import read_candidates, with_measured
from nextpert.tl._read_target import read_target
from tests._screens import new_copies, screen_of, with_fit

GENES = [*"TABCQS", *(f"G{i}" for i in range(9))]
SHARED = np.array([0.7, -0.5, 0.6, 0.4, -0.6, 0.5, 0.0, 0.3, -0.4])
# What each does to genes, and how much of what T does to others.
EFFECTS = {
    "control": ({}, 0.0), "T": ({"T": -1.5, "Q": -1.6}, 1.0), "A": ({"A": -2.5}, 0.8),
    "B": ({"B": -0.3}, 0.5), "C": ({}, 0.1), "Q": ({"Q": -2.4}, 0.0), "S": ({"S": -2.0}, 0.0),
    "A+B": ({"A": -2.5, "B": -0.3}, 1.0),
}  # fmt: skip


def screen(effects=EFFECTS, n=60):
    rng = np.random.default_rng(0)
    cells, labels = [], []
    for name, (own, share) in effects.items():
        mean = np.full(len(GENES), 3.0)
        mean[-9:] += share * SHARED
        for gene, change in own.items():
            mean[GENES.index(gene)] += change
        count = 300 if name == "control" else n
        cells.append(mean + 0.7 * rng.standard_normal((count, len(GENES))))
        labels += [name] * count
    adata = screen_of(np.concatenate(cells), labels, GENES)
    return with_fit(adata, [("T", "Q")])


@new_copies
def fitted():
    return screen()


def ranking(adata, target="T", **options):
    npt.tl.design_interventions(adata, target, **options)
    return adata.uns["design"]["ranking"].set_index("perturbation")


def by_loops(adata, names, *, n=4000):
    """Return distances, and those of the control on the same genes, in draws of states."""
    fit = posterior_from(adata)
    pool = read_candidates([*names, "T"], fit)
    rng, draws = np.random.default_rng(1), []
    target = read_target(adata, "T", fit).rows_in_fit
    for some in pool.states(fit, target).draws(n, rng):
        draws += [one.states for one in some.sampled(rng)]
    draws = np.array(draws)
    own = [{"T", *name.split("+")} for name in names]
    distance, control = np.zeros((2, len(draws), len(names)))
    first = np.zeros(len(draws))
    for g, gene in enumerate(GENES):
        wanted = draws[:, -2, g]
        first += (gene != "T") * (draws[:, -1, g] - wanted) ** 2
        for j, some in enumerate(own):
            if gene not in some:
                distance[:, j] += (draws[:, j, g] - wanted) ** 2
                control[:, j] += (draws[:, -1, g] - wanted) ** 2
    return distance, control, first


def test_distances_and_probabilities_are_those_of_loops_over_draws(fitted, caplog):
    names = ["A", "B", "C", "S", "A+B", "A+C"]
    with caplog.at_level(logging.INFO, logger="nextpert"):
        table = ranking(fitted, candidates=[*names, "Q"], n_samples=4000)
    distance, control, first = by_loops(fitted, names)
    relative = distance / control.mean(axis=0)
    found = table.loc[names]
    median = np.median(relative, axis=0) / np.median(first) * first.mean()
    np.testing.assert_allclose(found["relative_distance"], median, rtol=0.04)
    mean = relative.mean(axis=0) * first.mean()
    np.testing.assert_allclose(found["mean_distance"], mean, rtol=0.03)
    nearest = np.bincount(relative[:, :-1].argmin(axis=1), minlength=len(names)) / len(relative)
    np.testing.assert_allclose(found["probability_best"], nearest, atol=0.04)
    nearer = (distance < control).mean(axis=0)
    np.testing.assert_allclose(found["probability_better"], nearer, atol=0.04)
    assert np.sort(nearest)[-2] > 0.05
    # A+C is no candidate to find the best: members and best are compared without own genes, too.
    best = int(found["state_distance"].iloc[:5].argmin())  # of the measured
    over = [(relative[:, 5] < relative[:, some].min(axis=1)).mean() for some in ([0, 2], [best])]
    assert min(over) < 0.5
    columns = ["probability_nearer_than_members", "probability_nearer_than_measured"]
    np.testing.assert_allclose(found.loc["A+C", columns].astype(float), over, atol=0.04)
    assert found["genes_left_out"].tolist() == [
        "T, A", "T, B", "T, C", "T, S", "T, A, B", "T, A, C"
    ]  # fmt: skip
    assert table.loc["control", "genes_left_out"] == "T"
    # More than half of the change that T makes is in Q.
    assert "Q" not in table.index
    stored = fitted.uns["design"]["not_ranked"]
    assert stored["perturbation"].tolist() == ["Q"]
    assert "of the control's distance is left" in stored["why"].iloc[0]
    assert "Not ranked: Q (without Q, " in caplog.text
    assert "Not ranked: Q (without Q, " in ranking_section(fitted.uns).words[-1]
    words = "without T and the target genes of each candidate"
    assert f"Distances to T are measured {words}" in caplog.text
    assert fitted.uns["design"]["params"]["genes_left_out"] == words
    # Members that are no candidates.
    alone = (
        ranking(fitted, candidates=["A+C", "S"], n_samples=4000).loc["A+C", columns].astype(float)
    )
    assert alone.iloc[0] == pytest.approx(over[0], abs=0.06)


def test_cells_are_measured_by_the_same_genes(fitted):
    table = ranking(fitted)
    cells = {name: fitted.X[(fitted.obs["perturbation"] == name).to_numpy()] for name in EFFECTS}
    fit = posterior_from(fitted)
    pool = read_candidates(["A"], fit)
    bound = without_own_genes(pool, read_target(fitted, "T", fit), fit)[1]
    kept = [i for i, gene in enumerate(GENES) if gene not in "TA"]

    def unbiased(name):
        some = cells[name], cells["T"]
        error = sum(x.var(axis=0, ddof=1) / len(x) for x in some)
        return (some[0].mean(axis=0) - some[1].mean(axis=0)) ** 2 - error

    control, without = unbiased("control"), [i for i, gene in enumerate(GENES) if gene != "T"]
    wanted = unbiased("A")[kept].sum() * control[without].sum() / control[kept].sum()
    assert bound.left_out[0] == ["T", "A"]
    assert table.loc["A", "measured_distance"] == pytest.approx(wanted, rel=1e-6)
    npt.tl.plan_screen(fitted, "T", n_perturbations=2)  # whose plate_size the next plate has
    npt.tl.plan_cells(fitted, "T")
    assert fitted.uns["plan_cells"]["advice"]["candidates"].tolist() == ["A", "A+B", "B", "C", "S"]


@pytest.mark.parametrize("state", ["T", ["T", "A"]])
def test_include_counts_all_genes(state, fitted, caplog):
    target = npt.Target(state=state, own_genes="include")
    with caplog.at_level(logging.INFO, logger="nextpert"):
        table = ranking(fitted, target, rng=0)
    fit = posterior_from(fitted)
    pool = read_candidates(None, fit, read_target(fitted, target, fit))
    rows = fit.rows_of(state)
    states = pool.states(fit, read_target(fitted, target, fit).rows_in_fit)
    goal = Goal(fit.control_mean, states=[fit.expected_state(row) for row in rows])
    rng = np.random.default_rng([0, 1])
    found = ranked_distance(states, goal, n_samples=400, rng=rng)
    some = table.loc[[*pool.interventions.names, "control"]]
    for name, each in {
        "predicted_distance": found.median, "predicted_low": found.low, "mean_distance": found.mean,
        "state_distance": found.centre,
    }.items():  # fmt: skip
        np.testing.assert_allclose(some[name], np.maximum(each, 0.0), rtol=1e-12)
    assert (some["genes_left_out"] == "").all()
    assert not len(fitted.uns["design"]["not_ranked"])
    assert "measured without" not in caplog.text


def test_exact_fits_and_tables_of_shifts_count_all_genes(fitted):
    table = ranking(fitted, candidates={"A": {"A": -1.0}, "Q": {"Q": -1.0}})
    assert (table["genes_left_out"] == "").all()
    npt.tl.fit_dag_blr(fitted, shift_sd=0)
    assert (ranking(fitted)["genes_left_out"] == "").all()
    assert "Q" in ranking(fitted).index


def test_a_target_that_differs_in_its_own_gene_alone_is_told(fitted, caplog):
    with caplog.at_level(logging.WARNING, logger="nextpert"):
        ranking(fitted, "S")
    assert "do not show that S differs from the control" in caplog.text
    npt.tl.plan_cells(fitted, "S")
    assert not fitted.uns["plan_cells"]["advice"]["target_differs"]
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="nextpert"):
        ranking(fitted, npt.Target(state="S", own_genes="include"))
    assert "do not show" not in caplog.text


def test_a_plan_names_what_is_left_out_and_what_is_not_ranked(fitted):
    def plan(target="T", **options):
        options = {"n_perturbations": 6, "strategy": "exploit", **options}
        npt.tl.plan_screen(fitted, target, **in_mappings(npt.tl.plan_screen, options))
        return fitted.uns["plan"]

    stored = plan(max_combination=2)
    plate = stored["plate"].set_index("perturbation")
    for name, row in plate.drop(index="control").iterrows():
        assert row["genes_left_out"] == ", ".join(["T", *name.split("+")])
    assert "Q" not in {part for name in plate.index for part in name.split("+")}
    assert "A+B" in plate.index
    with pytest.raises(ValueError, match="include names Q, which cannot be ranked, because"):
        plan(include=["Q"])
    assert not len(plan(pending=["Q"])["pending"])
    assert "Q" in plan(npt.Target(state="T", own_genes="include"), include=["Q"])["plate"][
        "perturbation"].tolist()  # fmt: skip


def test_no_candidate_that_can_be_ranked_is_an_error(fitted):
    with pytest.raises(ValueError, match="No candidate can be ranked"):
        ranking(fitted, candidates=["Q"])
    with pytest.raises(ValueError, match=r"All genes with a weight.*own_genes='include'"):
        ranking(fitted, npt.Target(state="T", weights={"T": 1.0}))
    with pytest.raises(ValueError, match="own_genes"):
        npt.Target(state="T", own_genes="some")


def test_the_advice_on_a_plan_with_pairs_is_that_on_those_admitted(fitted):
    npt.tl.plan_screen(fitted, "T", n_perturbations=4, constraints={"max_combination": 2})
    plan = fitted.uns["plan"]
    assert plan["summary"]["n_not_admitted"] > 0
    said = plan["advice"]
    assert len(said["candidates"]) == plan["params"]["n_candidates"]
    npt.tl.design_interventions(fitted, "T", candidates=said["candidates"].tolist())
    other = fitted.uns["design"]["advice"]
    assert other["candidates"].tolist() == said["candidates"].tolist()
    assert (other["kind"], other["best_known"]) == (said["kind"], said["best_known"])
    for name in ("good_enough", "relative_gain", "relative_distance"):
        assert other[name] == pytest.approx(said[name], abs=0.06)
    by_name = fitted.uns["design"]["ranking"].set_index("perturbation")["relative_distance"]
    assert said["relative_distance"] == pytest.approx(by_name[said["best_known"]], abs=0.06)


def test_the_gain_of_a_plan_leaves_the_same_genes_out(fitted, monkeypatch):
    seen, variances = [], []

    def draw(states, goal, candidates, **options):
        seen.append((goal.own_nodes.left_out.toarray(), candidates))
        variances.append(options["variance"])
        return draw_plate(states, goal, candidates, **options)

    monkeypatch.setattr("nextpert.study.next_round.draw_plate", draw)
    npt.tl.plan_screen(fitted, "T", n_perturbations=4, constraints={"max_combination": 2})
    names = fitted.uns["plan"]["advice"]["candidates"].tolist()
    for left_out, candidates in seen:
        for row, j in zip(left_out, [*candidates, None], strict=True):
            own = () if j is None else names[j].split("+")
            assert {GENES[i] for i in np.flatnonzero(row)} == set(own)
    assert seen
    # Sampling errors are those of the cells of the hierarchical model, of a whole number of cells.
    fit = posterior_from(fitted)
    assert fit.replicate_variance == 0.0  # known without batches, too
    n, unit = fit.means.n, fit.hierarchical.effects.unit
    of_cell = unit**2 * [n.sum() / sum(n / ratio) for ratio in fit.means.ratio.T]
    n_cells = of_cell / variances[-1]
    np.testing.assert_allclose(n_cells, np.round(n_cells[0]), rtol=1e-9)


def test_an_advice_compares_the_candidates_with_each_measured_perturbation_once(fitted):
    fit = posterior_from(fitted)
    target = read_target(fitted, "T", fit)
    pool = read_candidates(["B+A", "C"], fit, target)
    measured = with_measured(pool, fit, target, lambda name, targets: name == "S")
    # "T" defines the target, and "S" is excluded.
    assert measured.interventions.names == ["A+B", "C", "A", "B", "Q"]
