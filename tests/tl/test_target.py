"""``nextpert.Target`` against the same distances worked out from the cells, and its errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import posterior_from, read_roles
from nextpert.core import Moments
from nextpert.core.design.distances import ranked_distance, states_of
from nextpert.study.pool import read_candidates
from nextpert.study.target import cell_variance
from nextpert.tl._read_target import read_group, read_target

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")


def cells(adata, label):
    return np.asarray(adata.X[(adata.obs["perturbation"] == label).to_numpy()])


def read(adata, **parts):
    return read_target(adata, npt.Target(**parts), posterior_from(adata))


def ranking(adata, target, **options):
    options = {"candidates": posterior_from(adata).names, **options}
    npt.tl.design_interventions(adata, target, **options)
    return adata.uns["design"]["ranking"].set_index("perturbation")


POINTS = np.random.default_rng(0).normal(2, 1, size=(20, 8))


def test_parts_are_read_from_the_cells(fitted):
    genes = list(fitted.var_names)
    myc, stk3, control = (cells(fitted, label) for label in ("MYC", "STK3", "control"))
    c, sd = control.mean(axis=0), control.std(axis=0, ddof=1)
    two = read(fitted, state=["MYC", "STK3"])
    wanted = sum(((POINTS - x.mean(axis=0)) ** 2).sum(axis=1) / 2 for x in (myc, stk3))
    np.testing.assert_allclose(two.cells.distance(POINTS), wanted)
    floor = sum((x.var(axis=0, ddof=1) / len(x)).sum() / 2 for x in (myc, stk3))
    assert two.cells.floor == pytest.approx(floor)
    assert two.name == "MYC, STK3"
    noise = read(fitted, state="MYC", distance="noise")
    wanted = (((POINTS - myc.mean(axis=0)) / sd) ** 2).sum(axis=1)
    np.testing.assert_allclose(noise.cells.distance(POINTS), wanted)
    assert noise.name == "MYC; in units of noise"
    a, b = genes[1], genes[4]
    change = read(fitted, signature={a: -2, b: 1}, distance="noise")
    z = (POINTS - c) / sd
    lacking = np.maximum(np.sqrt(5) - (-2 * z[:, 1] + z[:, 4]) / np.sqrt(5), 0)
    np.testing.assert_allclose(change.goal.distance(POINTS), lacking**2)
    np.testing.assert_allclose((change.mean - c)[[1, 4]], [-2 * sd[1], sd[4]])
    assert change.name == f"change of {a} -2, {b} +1; in units of noise"
    turned = read(fitted, signature={a: -2, b: 1}, distance="cosine", weights=[a, b])
    d = (POINTS - c)[:, [1, 4]]
    wanted = 1 - d @ [-2, 1] / np.sqrt(5) / np.linalg.norm(d, axis=1)
    np.testing.assert_allclose(turned.goal.distance(POINTS), wanted)
    bound = read(fitted, at_least={a: 9, b: 0}, at_most={b: 0.5}, weights={a: 2, b: 1})
    over = np.maximum(np.maximum(POINTS[:, 4] - 0.5, -POINTS[:, 4]), 0) ** 2
    np.testing.assert_allclose(
        bound.goal.distance(POINTS), 2 * np.maximum(9 - POINTS[:, 1], 0) ** 2 + over
    )


def test_states_to_avoid_are_read_from_the_cells_and_change_the_order(fitted):
    genes = list(fitted.var_names)
    myc, stk3, control = (cells(fitted, label) for label in ("MYC", "STK3", "control"))
    c = control.mean(axis=0)
    given = np.where(np.arange(8) == 1, 0, c)
    apart = read(fitted, state="MYC", away_from=["STK3", {genes[1]: 0.0}], away_weight=3)
    points = stk3.mean(axis=0) + 0.05 * (POINTS - 2)
    wanted = ((points - myc.mean(axis=0)) ** 2).sum(axis=1)
    for state in (stk3.mean(axis=0), given):
        near = np.linalg.norm(c - state) - np.linalg.norm(points - state, axis=1)
        wanted += 3 * np.maximum(near, 0) ** 2
    assert (near > 0).any()
    np.testing.assert_allclose(apart.cells.distance(points), wanted)
    assert apart.name == f"MYC; away from STK3, {genes[1]}=0, weight 3"
    # Of what halves MYC, the knockout of MYC itself is to be avoided: the double is left.
    halfway = {"MYC": float((c[genes.index("MYC")] + myc.mean(axis=0)[genes.index("MYC")]) / 2)}
    options = {"acquisition": "ei", "candidates": ["MYC", "MYC+OXR1", "OXR1", "STK3"]}
    plain = ranking(fitted, npt.Target(at_most=halfway), **options)
    table = ranking(fitted, npt.Target(at_most=halfway, away_from="MYC", away_weight=10), **options)
    assert table.loc["MYC", "mean_distance"] > 2 * plain.loc["MYC", "mean_distance"] + 0.1
    drawn = table["mean_distance"] - plain["mean_distance"]
    assert drawn["MYC"] == drawn.max()
    assert table.index[0] != "MYC"
    # The plan and its advice read the same ranking.
    npt.tl.plan_screen(
        fitted, npt.Target(at_most=halfway, away_from="MYC", away_weight=10), n_perturbations=2,
        n_cells=60, candidates=options["candidates"], rng=0,
    )  # fmt: skip
    assert "away from MYC, weight 10" in str(fitted.uns["plan"]["params"]["target"])


def test_the_ranking_measures_as_the_target_says(fitted):
    genes = list(fitted.var_names)
    target = npt.Target(
        state="STK3", weights=genes[:3], distance="noise", own_genes="include"
    )  # fmt: skip
    table = ranking(fitted, target, acquisition="ei")
    stored = fitted.uns["design"]
    assert stored["params"]["distance"] == "noise"
    wanted, x = cells(fitted, "STK3"), cells(fitted, "OXR1")
    scale = (1 / cells(fitted, "control").var(axis=0, ddof=1))[:3]
    apart = (scale * ((x.mean(axis=0) - wanted.mean(axis=0)) ** 2)[:3]).sum()
    for each in (x, wanted):
        apart -= (scale * each.var(axis=0, ddof=1)[:3] / len(each)).sum()
    assert table.loc["OXR1", "measured_distance"] == pytest.approx(apart)
    fit = posterior_from(fitted)
    pool = read_candidates(None, fit)
    wanted = read_target(fitted, target, fit)
    found = ranked_distance(
        pool.states(fit, wanted.rows_in_fit), wanted.goal, n_samples=4000, rng=1
    )
    names = fit.environments["perturbation"].astype(str)
    np.testing.assert_allclose(table.loc[names, "state_distance"], np.maximum(found.centre[:-1], 0))
    near = np.abs(table.loc[names, "mean_distance"] - np.maximum(found.mean[:-1], 0))
    assert (near < 5 * found.draws.std(axis=0)[:-1] / np.sqrt(400) + 1e-9).all()


@pytest.mark.slow
def test_what_is_wanted_decides_what_is_best(fitted):
    low = cells(fitted, "MYC").mean(axis=0)
    genes, c = list(fitted.var_names), cells(fitted, "control").mean(axis=0)
    moved = {g: float(d) for g, d in zip(genes, low - c, strict=True) if abs(d) > 0.2}
    for options in ({}, {"distance": "noise"}, {"distance": "cosine", "weights": genes}):
        for acquisition in ("ei", "greedy"):
            table = ranking(
                fitted, npt.Target(signature=moved, **options), acquisition=acquisition,
                candidates=["MYC", "OXR1", "STK3"],
            )  # fmt: skip
            assert table.index[0] == "MYC"
    halfway = {"MYC": float((c[genes.index("MYC")] + low[genes.index("MYC")]) / 2)}
    table = ranking(fitted, npt.Target(at_most=halfway))
    assert set(table.index[table["probability_best"] > 0.01]) <= {"MYC", "MYC+OXR1"}


def test_only_named_genes_count_unless_others_are_held(fitted):
    genes = list(fitted.var_names)
    c = cells(fitted, "control").mean(axis=0)
    state = {genes[1]: 0.5, genes[4]: 3.0}
    two = read(fitted, state=state)
    wanted = ((POINTS[:, [1, 4]] - [0.5, 3.0]) ** 2).sum(axis=1)
    np.testing.assert_allclose(two.goal.distance(POINTS), wanted)
    held = read(fitted, state=state, others="control")
    mean = c.copy()
    mean[[1, 4]] = 0.5, 3.0
    np.testing.assert_allclose(held.goal.distance(POINTS), ((POINTS - mean) ** 2).sum(axis=1))
    assert held.name.endswith("; other genes as in the controls")
    # Bounds name genes too; a label beside the means counts all genes.
    bound = read(fitted, state={genes[1]: 0.5}, at_most={genes[2]: 1.0})
    assert np.flatnonzero(bound.goal.weights).tolist() == [1, 2]
    assert (read(fitted, state=[state, "MYC"]).goal.weights > 0).all()
    assert (read(fitted, state=np.arange(8.0)).goal.weights > 0).all()
    # The ranking does not see changes of other genes.
    table = ranking(
        fitted, {"STK3": float(cells(fitted, "STK3").mean(axis=0)[genes.index("STK3")])}
    )
    assert table.index[0] == "STK3"


def test_signatures_as_people_have_them(fitted, tmp_path):
    genes = list(fitted.var_names)
    a, b, other = genes[1], genes[4], genes[6]
    same = read(fitted, signature={a: 1.0, b: 1.0, other: -1.0}).goal
    gmt = tmp_path / "sets.gmt"
    gmt.write_text(f"UP\tfrom a test\t{a}\t{b}\nOTHER\t\t{other}\n")
    table = pd.DataFrame(
        {"log2FoldChange": [1.0, 1.0, -1.0, 9.0, np.nan], "padj": [0.01, 0.04, 0.0, 0.5, np.nan]},
        index=[a, b, other, genes[0], genes[2]],
    )
    for given, factor in (
        ({"up": [a, b], "down": [other]}, 1.0),
        ({"down": pd.Index([other]), "up": (a, b)}, 1.0),
        (table, np.log(2)),
        (table.rename_axis("gene").reset_index(), np.log(2)),
        (table["log2FoldChange"].drop(genes[0]), np.log(2)),
    ):
        goal = read(fitted, signature=given).goal
        np.testing.assert_allclose(goal.signature, factor * same.signature)
    up = read(fitted, signature=[a, b]).goal
    assert np.flatnonzero(up.signature).tolist() == [1, 4]
    np.testing.assert_array_equal(read(fitted, signature=f"{gmt}:UP").goal.signature, up.signature)
    for wrong, message in (
        (str(gmt), "has 2 gene sets"), (f"{gmt}:UPP", "none of which is 'UPP'"),
        (table.drop(columns="log2FoldChange"), "without a column of changes"),
        (table.assign(padj=0.9), "without a significant gene"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            npt.Target(signature=wrong)


def test_genes_of_a_signature_outside_the_panel_are_left_out(fitted):
    genes = list(fitted.var_names)
    with pytest.warns(UserWarning, match=r"2 of 5 genes of the signature.*NOPE, WHAT"):
        goal = read(fitted, signature=[*genes[:3], "NOPE", "WHAT"]).goal
    assert np.flatnonzero(goal.signature).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="fewer than 3 remain: to use them, pass the target"):
        read(fitted, signature=[*genes[:2], "NOPE"])
    read(fitted, signature=genes[:1])  # all are on the panel


def test_bad_targets_are_refused_and_nothing_is_written(fitted):
    before = set(fitted.uns)
    fitted.obs["kind"] = ["lonely", *["other"] * (fitted.n_obs - 1)]
    wrong = {
        "needs a part": {},
        "at_most of target names genes outside the panel": {"at_most": {"MYCC": 1}},
        "1 of 2 genes of the signature are outside the panel .NOPE.": {
            "signature": {"NOPE": 1, "MYC": 1}
        },
        "has MYC both up and down": {"signature": {"up": ["MYC"], "down": ["MYC", "STK3"]}},
        "no such gmt file exists": {"signature": "nothing.gmt"},
        "others must be 'ignore' or 'control'": {"state": {"MYC": 1}, "others": "mean"},
        "weights of target names genes outside": {"state": "MYC", "weights": ["MYCC"]},
        "close": {"state": "MYCC"},
        "Genes are not perturbations .RIPK2.": {"state": "RIPK2"},
        "Close matches: squared": {"state": "MYC", "distance": "square"},
        "at_least is above at_most for MYC": {"at_least": {"MYC": 2}, "at_most": {"MYC": 1}},
        "have no weight": {"at_least": {"MYC": 2}, "weights": ["STK3"]},
        "The control cells already reach the target": {"at_least": {"MYC": -9}},
        "control state itself": {"state": "control"},
        "empty list or contains None": {"state": []},
        "takes only state or signature": {"at_least": {"MYC": 2}, "distance": "cosine"},
        "weights are all 0": {"state": "MYC", "weights": {"MYC": 0}},
        "weights.*must be a finite number of at least 0": {"state": "MYC", "weights": {"MYC": -1}},
        "must be a finite number": {"signature": {"MYC": np.nan}},
        "at least one gene": {"signature": {}},
        "asks for no change": {"signature": {"MYC": 0.0}},
        "'kind=lonely' has 1 cell, so the sampling error": {"state": ("kind", "lonely")},
    }
    for message, parts in wrong.items():
        with pytest.raises(ValueError, match=f"(?i){message}"):
            npt.tl.design_interventions(fitted, npt.Target(**parts))
    kinds = {
        "signature must be a mapping": {"signature": [3, "MYC"]},
        r"at_most\['MYC'\] must be a finite number": {"at_most": {"MYC": "high"}},
        "weights must be a list of names": {"state": "MYC", "weights": "MYC"},
        "state must be a string": {"state": 3},
    }
    for message, parts in kinds.items():
        with pytest.raises(TypeError, match=message):
            npt.Target(**parts)
    fitted.X[(fitted.obs["perturbation"] == "control").to_numpy(), 2] = 1.0
    with (
        pytest.warns(UserWarning, match="changed"),
        pytest.raises(ValueError, match="which is 0 in"),
    ):
        npt.tl.design_interventions(fitted, npt.Target(state="MYC", distance="noise"))
    assert set(fitted.uns) == before


def one_by_one(states, n):
    rng = np.random.default_rng(0)
    return (one for some in states.draws(n, rng) for one in some.sampled(rng))


def test_a_label_of_the_screen_joins_the_draws(fitted):
    fit = posterior_from(fitted)
    names = fit.environments["perturbation"].astype(str).tolist()
    wanted = read_target(fitted, "STK3", fit)
    assert wanted.rows_in_fit == (names.index("STK3"),)
    model = fit.hierarchical
    mean = model.control.mean(axis=0) + model.effects.posterior_mean()[names.index("STK3")]
    np.testing.assert_allclose(wanted.goal.states, mean[None])
    assert wanted.goal.floor == 0
    assert wanted.cells.floor > 0
    np.testing.assert_allclose(wanted.cells.states[0], cells(fitted, "STK3").mean(axis=0))
    # Of a candidate that is the target every draw is the target itself.
    pool = read_candidates(None, fit)
    row = pool.interventions.names.index("STK3")
    for drawn in one_by_one(pool.states(fit, wanted.rows_in_fit), 20):
        np.testing.assert_allclose(drawn.states[row] - drawn.target_error[0], mean)
    # Beside it, it is drawn with the controls and programs that it shares with the candidates.
    others = read_candidates(None, fit, wanted)
    states = others.states(fit, wanted.rows_in_fit)
    drawn = list(one_by_one(states, 4000))
    assert {each.states.shape for each in drawn} == {(len(others.interventions.names) + 1, 8)}
    error = np.array([each.target_error[0] for each in drawn])
    sd = model.effects.sd()[names.index("STK3")]
    control = np.array([each.states[-1] for each in drawn])
    assert (np.abs(error.mean(axis=0)) < 5 * error.std(axis=0) / np.sqrt(400)).all()
    effect = error - (control - control.mean(axis=0))
    np.testing.assert_allclose(effect.std(axis=0), sd, rtol=0.1)
    each = [np.corrcoef(error[:, g], control[:, g])[0, 1] for g in range(8)]
    assert np.mean(each) > 0.05


def test_other_targets_are_known_by_their_cells(fitted):
    fit = posterior_from(fitted)
    for state in ({"MYC": 1.0}, ("batch", "a")):
        wanted = read_target(fitted, npt.Target(state=state), fit)
        assert wanted.rows_in_fit == (-1,)
        assert wanted.goal is wanted.cells
    both = read_target(fitted, npt.Target(state=["MYC", {"STK3": 0.0}]), fit)
    assert [row >= 0 for row in both.rows_in_fit] == [True, False]
    assert both.goal.floor == 0
    np.testing.assert_array_equal(both.goal.states[1], both.cells.states[1])
    npt.tl.fit_dag_blr(fitted, shift_sd=0)
    exact = read_target(fitted, "MYC", posterior_from(fitted))
    assert exact.rows_in_fit == ()
    assert exact.goal is exact.cells


@pytest.mark.slow
def test_candidates_whose_shifts_are_told_are_compared_with_the_cells(fitted):
    genes = list(fitted.var_names)
    table = pd.DataFrame(np.eye(8)[:2], ["a", "b"], genes)
    npt.tl.design_interventions(fitted, "MYC", candidates=table)
    stored = fitted.uns["design"]
    np.testing.assert_allclose(stored["target_mean"], cells(fitted, "MYC").mean(axis=0))
    fit = posterior_from(fitted)
    known = states_of(fit.posteriors, read_candidates(table, fit).interventions.shifts)
    wanted = read_target(fitted, "MYC", fit).cells
    found = ranked_distance(known, wanted, n_samples=4000, rng=1)
    ranking = stored["ranking"].set_index("perturbation").loc[["a", "b"]]
    np.testing.assert_allclose(ranking["state_distance"], np.maximum(found.centre[:-1], 0))


@pytest.mark.slow
def test_a_vector_is_the_mapping_of_its_genes(fitted):
    genes = list(fitted.uns["dag_blr"]["genes"])
    vector = np.linspace(0.5, 2.0, len(genes))
    mapping = dict(zip(genes, vector.tolist(), strict=True))
    pairs = [
        (vector, mapping),
        (npt.Target(state=vector.astype(np.float32)), mapping),
        (npt.Target(state=[vector, "MYC"]), npt.Target(state=[mapping, "MYC"])),
    ]
    for one, other in pairs:
        for acquisition in ("probability", "remaining_variance"):
            same = ranking(fitted, one, acquisition=acquisition)
            found = fitted.uns["design"]
            expected = ranking(fitted, other, acquisition=acquisition)
            pd.testing.assert_frame_equal(same, expected, rtol=1e-5)
            np.testing.assert_allclose(
                found["target_mean"], fitted.uns["design"]["target_mean"], rtol=1e-6
            )
    ranking(fitted, vector)
    np.testing.assert_array_equal(fitted.uns["design"]["target_mean"], vector)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[1:], r"vector of 7 means, but there are 8 genes"),
        (lambda v: np.where(np.arange(8) == 3, np.nan, v), r"values that are NaN, infinite"),
        (lambda v: np.where(np.arange(8) < 2, np.inf, v), r"values that are NaN, infinite"),
        (lambda v: v[None], r"array of shape \(1, 8\)"),
        (lambda v: v.astype(str), r"type <U32, or"),
    ],
)
def test_vectors_that_are_no_state_are_refused(fitted, change, message):
    vector = change(np.linspace(0.5, 2.0, 8))
    for name in ("design_interventions", "plan_screen", "plan_cells", "target_distances"):
        with pytest.raises(ValueError, match=message):
            getattr(npt.tl, name)(fitted, vector)
    with pytest.raises(ValueError, match=message):
        npt.tl.design_interventions(fitted, npt.Target(state=["MYC", vector]))
    assert not {"design", "plan_screen", "plan_cells", "target_distances"} & set(fitted.uns)


def test_a_label_is_found_in_any_order_of_its_members_and_only_as_a_perturbation(screen):
    screen.obs["other"] = screen.obs["perturbation"].astype(str)
    roles, cells_of = read_roles(screen), screen.obs["perturbation"] == "MYC+OXR1"
    for state in ("OXR1+MYC", ("perturbation", "OXR1+MYC")):
        found = read_group(screen, state, roles)
        assert np.array_equal(found.codes == 0, cells_of)
        assert found.label == "MYC+OXR1"
    found = read_group(screen, ("other", "MYC+OXR1"), roles)
    assert np.array_equal(found.codes == 0, cells_of)
    assert (found.name, found.label) == ("other=MYC+OXR1", None)
    with pytest.raises(ValueError, match=r"OXR1\+MYC"):
        read_group(screen, ("other", "OXR1+MYC"), roles)


def test_genes_without_a_number_are_said_to_count(fitted, caplog):
    caplog.set_level("INFO")
    gene = posterior_from(fitted).genes[0]
    read(fitted, state={gene: 9.0}, weights=[gene])
    assert "the others count too" not in caplog.text
    read(fitted, state={gene: 9.0})
    assert "names 1 of" in caplog.text


def test_noise_of_constant_genes_counts_only_with_a_weight():
    control = Moments.from_array(np.c_[np.arange(4.0), np.ones(4), np.ones(4)])
    found = cell_variance(control, list("ABC"), np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(found, [np.var(np.arange(4.0), ddof=1), 1.0, 1.0])
    with pytest.raises(ValueError, match="which is 0 in B: leave these genes out of weights"):
        cell_variance(control, list("ABC"), np.array([1.0, 1.0, 0.0]))


def test_the_first_perturbation_of_a_fit_is_a_target_as_others_are(fitted):
    fit = posterior_from(fitted)
    for row, label in enumerate(fit.names[:2]):
        target = read(fitted, state=label)
        expected = fit.expected_state(row)
        np.testing.assert_allclose(target.goal.states[0], expected)
        assert np.abs(expected - target.cells.states[0]).max() > 1e-3
