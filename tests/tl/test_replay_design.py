"""Replays of a screen: scores, pairing, tables, and the same bits for any number of workers."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core.screen.mean_distance import mean_distance
from nextpert.core.screen.moments import Moments
from nextpert.study.replay import in_words, overall_table, plates_until_good
from nextpert.tl import _replay_design as campaigns
from tests._screens import simulated_fit, small_fit

pytestmark = [
    pytest.mark.brief_chain, pytest.mark.filterwarnings("ignore:Perturbations left out"),
]  # fmt: skip
SMALL = {"n_rounds": 3, "n_repeats": 4, "n_perturbations": 2}
EVERY = ["thompson", "exact_greedy", "random", "round_robin_means"]


@pytest.fixture
def screen():
    return small_fit(genes=None)


@pytest.fixture(scope="module")
def both():
    """Replays of two targets in the pool and held out, with what each campaign recommended."""
    found, runs, fitted = [], [], small_fit(genes=None)
    run_all = campaigns.run_all

    def keep(*args, **options):
        runs.append(run_all(*args, **options))
        return runs[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nextpert.tl._replay_design.run_all", keep)
        for held_out in (False, True):
            options = {"strategies": EVERY[:3], "held_out": held_out, **SMALL}
            adata = npt.tl.replay_design(fitted, ["MYC", "STK3"], copy=True, **options)
            found.append(adata.uns["replay"])
    return fitted, found, runs


def cells_of(adata, label):
    return adata[adata.obs["perturbation"] == label, list(adata.uns["dag"]["genes"])].X


def truth_of(adata, target, candidate):
    if target == candidate:
        return 0.0
    x, y = (cells_of(adata, label) for label in (candidate, target))
    noise = sum((z.var(axis=0, ddof=1) / len(z)).sum() for z in (x, y))
    return ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() - noise


@pytest.mark.slow
def test_tables_against_the_true_distances_of_what_is_recommended(both):
    adata, found, runs = both
    names = sorted(set(adata.uns["dag_blr"]["environments"]["perturbation"]))
    assert "HS2" in names  # an enhancer takes part
    for held_out, stored, recommended in zip((False, True), found, runs, strict=True):
        assert list(stored["params"]["strategies"]) == EVERY
        assert recommended.shape == (2, 4, 4, 4)
        table = stored["table"].set_index(["target", "strategy"])
        for i, target in enumerate(["MYC", "STK3"]):
            control = truth_of(adata, target, "control")
            truth = {n: truth_of(adata, target, n) for n in names}
            row = stored["targets"].iloc[i]
            if held_out:
                own = [k for k, n in enumerate(names) if target in n.split("+")]
                assert not np.isin(recommended[i], own).any()
            # Nor a combination that contains it.
            may = {n: x for n, x in truth.items() if not (held_out and target in n.split("+"))}
            assert (row["target"], row["best"]) == (target, min(may, key=may.get))
            assert row["best_distance"] == pytest.approx(min(may.values()), abs=1e-12)
            assert row["pool_distance"] == pytest.approx(np.mean(list(may.values())))
            assert row["control_distance"] == pytest.approx(control)
            relative = np.array(list(truth.values()))[recommended[i]] / control
            for c, strategy in enumerate(EVERY):
                rows = table.loc[(target, strategy)]
                assert rows["round"].tolist() == [0, 1, 2, 3]
                for column, q in (("median", 0.5), ("low", 0.05), ("high", 0.95)):
                    expected = np.quantile(relative[c], q, axis=0)  # over repeats
                    np.testing.assert_allclose(rows[column], expected, rtol=1e-9, atol=1e-12)


def made_up(far, n_targets=7):
    """Runs of some targets, two strategies, five repeats, two plates: the first comes ``far``."""
    rng = np.random.default_rng(0)
    distance = 1.0 + 0.1 * rng.normal(size=(n_targets, 2, 5, 3))
    distance[:, 0] += far
    good = np.zeros(distance.shape, bool)
    good[:, 0, :, 1:] = far < 0
    control = np.linspace(2.0, 4.0, n_targets)
    targets = pd.DataFrame({"best_distance": 0.0, "control_distance": control})
    targets = targets.assign(pool_distance=3.0)
    relative = distance / control[:, None, None, None]
    overall = overall_table(relative, good, ["ours", "round_robin_means"])
    return relative, overall, in_words(overall, targets, 2, held_out=False)


def test_overall_is_paired_by_target():
    relative, overall, _ = made_up(-0.2)
    gaps = np.diff(relative[..., 1:].mean(axis=(2, 3)))[:, 0]  # the baseline minus ours
    ours = overall.iloc[0]
    assert ours["relative_difference"] == pytest.approx(-gaps.mean())
    flips = permutation_test((gaps,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert ours["relative_p_adjusted"] == pytest.approx(flips.pvalue)
    assert ours["relative_low"] < -gaps.mean() < ours["relative_high"] < 0
    assert overall["plates"].tolist() == [1.0, 3.0]
    columns = [f"plates_{x}" for x in ("difference", "low", "high", "p_adjusted")]
    assert ours[columns].tolist() == [-2, -2, -2, 2 / 2**7]  # as many for every target
    assert np.isnan(overall["relative_p_adjusted"][1])
    assert overall["verdict"].tolist() == ["nearer", "no difference seen"]


def test_more_repeats_of_few_targets_are_not_more_evidence():
    relative, _, words = made_up(-0.5, n_targets=4)
    good = np.zeros(np.repeat(relative, 50, axis=2).shape, bool)
    many = overall_table(np.repeat(relative, 50, axis=2), good, ["ours", "round_robin_means"])
    assert many["relative_p_adjusted"][0] == 2 / 2**4
    assert many["verdict"][0] == "no difference seen"
    assert "fewer than 6 targets" in words


def test_words_say_who_is_nearer():
    assert "nearer than round_robin_means: ours -0." in made_up(-0.5)[2]
    assert "in rounds: ours -2.0 (-2.0 to -2.0, p = 0.016)" in made_up(-0.5)[2]
    assert "further than round_robin_means: ours +0." in made_up(0.5)[2]
    assert "not significantly different from round_robin_means: ours" in made_up(0.0)[2]


def test_plates_until_good():
    good = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], bool)
    assert plates_until_good(good).tolist() == [3, 4, 0, 4]


@pytest.mark.slow
def test_a_strategy_does_not_depend_on_its_company(both, screen):
    npt.tl.replay_design(screen, ["MYC"], held_out=True, strategies=["random", "thompson"], **SMALL)
    alone, company = (
        stored["table"].query("target == 'MYC'").set_index("strategy")[["median", "low", "high"]]
        for stored in (screen.uns["replay"], both[1][1])
    )
    for name in ("random", "thompson"):
        assert np.array_equal(alone.loc[name], company.loc[name])


@pytest.mark.full_chain  # as in the processes of workers
@pytest.mark.processes
def test_same_bits_for_any_number_of_workers(screen, assert_same):
    found, few = [], SMALL | {"n_repeats": 2}
    for n_jobs, rng in [(1, 7), (2, np.random.default_rng(7)), (1, 8)]:
        npt.tl.replay_design(
            screen, ["MYC"], strategies=["thompson"], n_jobs=n_jobs, rng=rng, **few
        )
        found.append(screen.uns["replay"])
    assert [result["params"].pop("rng") for result in found] == ["7", "generator", "8"]
    assert_same(*found[:2])
    assert not found[0]["table"].equals(found[2]["table"])


def test_targets_by_themselves_are_those_off_the_controls(screen):
    npt.tl.replay_design(screen, strategies=["round_robin_means"], **SMALL)
    targets = screen.uns["replay"]["targets"]
    control = Moments.from_array(cells_of(screen, "control"))
    for name, distance in zip(targets["target"], targets["control_distance"], strict=True):
        assert distance > 3 * mean_distance(control, Moments.from_array(cells_of(screen, name))).sd
    assert "nothing to compare" in screen.uns["replay"]["summary"]


@pytest.mark.slow
def test_the_best_is_found_where_effects_are_clear():
    adata = simulated_fit(n_genes=12, n_control=500, n_perturbed=160, perturbed=6, rng=1)
    npt.tl.replay_design(adata, strategies=["thompson"], n_repeats=3, n_rounds=4, n_perturbations=2)
    overall = adata.uns["replay"]["overall"].set_index("strategy")
    assert overall.loc["thompson", "share_good_last"] > 0.9
    assert overall.loc["thompson", "plates"] <= overall.loc["round_robin_means", "plates"]


@pytest.mark.slow
def test_a_replay_is_of_the_fit_and_its_options(screen):
    npt.pp.setup_screen(screen, layer="lognorm")
    npt.tl.learn_dag(screen, search_options={"n_runs": 2})
    names, own = ["MYC", "STK3", "HS2"], {"MYC": {"MYC": -1.0}, "STK3": {}, "HS2": {}}
    npt.tl.fit_dag_blr(screen, perturbations=names, shift=own, prior_options={"intercept": False})
    pool, setting = campaigns.read_pool(screen, posterior_from(screen))
    assert setting.spec.plan.names == names
    assert setting.spec.plan.shift.shifts.sum(axis=1).tolist() == [-1, 0, 0]
    assert not setting.spec.posterior(setting.graphs.dag).intercept
    layer = pd.DataFrame(screen.layers["lognorm"], screen.obs_names, screen.var_names)
    cells = layer.loc[screen.obs["perturbation"] == "HS2", list(screen.uns["dag"]["genes"])]
    np.testing.assert_allclose(pool.cells[-len(cells) :], cells)
    options = SMALL | {"strategies": ["random"], "n_perturbations": 10**9}  # all there are
    assert npt.tl.replay_design(screen, ["MYC"], copy=True, **options).uns["replay"]
    assert "replay" not in screen.uns
    npt.tl.replay_design(screen, ["MYC"], key_added="mine", **options)
    assert screen.uns["mine"]["params"]["n_perturbations"] == 3
    assert screen.uns["mine"]["fit"] == screen.uns["dag_blr"]["digest"]


BAD = {
    "unknown strategy": ({"strategies": ["civv"]}, ValueError, "Unknown strategies: civv.*civ"),
    "shifts": ({"strategies": ["civ"]}, ValueError, "need exact.*exact_civ.*'remaining_variance'"),
    "strategies as a string": ({"strategies": "civ"}, TypeError, r"\['civ'\]"),
    "targets as a string": ({"targets": "MYC"}, TypeError, r"\['MYC'\]"),
    "no target": ({"targets": []}, ValueError, "no target: name some"),
    "held out": ({"held_out": "both"}, TypeError, "held_out must be True or False"),
    "repeats": ({"n_repeats": 1}, ValueError, "n_repeats.*at least 2"),
    "key": ({"key_added": "a/b"}, ValueError, "slash"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_written(screen, case, assert_same_adata):
    options, kind, words = BAD[case]
    before = screen.copy()
    with pytest.raises(kind, match=f"(?s){words}"):
        npt.tl.replay_design(screen, **SMALL | options)
    assert_same_adata(screen, before)


def test_perturbations_of_few_cells_and_unclear_ones_are_no_targets(screen, assert_same_adata):
    labels = screen.obs["perturbation"].astype(object)
    few = np.flatnonzero(labels == "MYC")[3:]
    screen.obs["perturbation"] = labels.where(~np.isin(np.arange(screen.n_obs), few))
    npt.tl.fit_dag_blr(screen)
    before = screen.copy()
    with pytest.raises(ValueError, match=r"of the fit with 4 cells or more .*: leave out MYC"):
        npt.tl.replay_design(screen, ["MYC"], **SMALL)
    assert_same_adata(screen, before)
    screen.X = np.random.default_rng(0).normal(3, 1, screen.shape)
    screen.obs["perturbation"] = labels
    npt.tl.fit_dag_blr(screen)
    with pytest.raises(ValueError, match="no target: name some"):
        npt.tl.replay_design(screen, **SMALL)


def test_without_perturbations_of_four_cells_there_is_no_replay(screen, assert_same_adata):
    labels = screen.obs["perturbation"].astype(object)
    place = labels.groupby(labels).cumcount()
    screen.obs["perturbation"] = labels.where((labels == "control") | (place < 3))
    npt.tl.fit_dag_blr(screen)
    before = screen.copy()
    with pytest.raises(ValueError, match=r"two perturbations with 4 cells.*has 0: fit more"):
        npt.tl.replay_design(screen, **SMALL)
    assert_same_adata(screen, before)


@pytest.mark.slow
def test_one_perturbation_is_no_replay_and_a_fit_is_needed(screen):
    npt.tl.fit_dag_blr(screen, perturbations=["MYC"])
    with pytest.raises(ValueError, match=r"at least two perturbations with 4 cells.*has 1"):
        npt.tl.replay_design(screen, ["MYC"], **SMALL)
    del screen.uns["dag_blr"]
    with pytest.raises(ValueError, match=r"run tl\.fit_dag_blr first"):
        npt.tl.replay_design(screen, **SMALL)
