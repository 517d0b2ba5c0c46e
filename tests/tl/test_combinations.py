"""Combinations of a screen: what their members do together, learned by the fit."""

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core.fit import learn
from nextpert.core.fit.candidates import as_fitted, fitted_candidates
from nextpert.core.model.interactions import learn_interactions
from tests._screens import new_copies, screen_of, with_fit, with_graph

SINGLES, GENES = ["A", "B", "C", "D", "E", "F"], 30
PAIRS = ["A+B", "D+C", "E+F", "A+C", "B+D", "E+G"]


@cache
def true_effects():
    """Effects alone, and by pair: saturated by .6, and departures of members."""
    rng = np.random.default_rng(0)
    alone = dict(zip([*SINGLES, "G"], rng.normal(size=(7, GENES)), strict=True))
    does = dict(alone)
    member = dict(zip(alone, 0.3 * rng.normal(size=(7, GENES)), strict=True))
    for a, b in itertools.permutations(alone, 2):
        does[f"{a}+{b}"] = 0.6 * (alone[a] + alone[b]) + member[a] + member[b]
    return does


@pytest.fixture
def truth():
    return true_effects()


@new_copies
def fitted():
    """A screen of singles and pairs, one member of which has no cells of its own."""
    rng, names = np.random.default_rng(1), [*SINGLES, *PAIRS]
    label = np.repeat(["control", *names], [600, *[150] * len(names)])
    zero = {"control": np.zeros(GENES)}
    x = (
        3
        + np.array([(true_effects() | zero)[name] for name in label])
        + rng.normal(size=(len(label), GENES))
    )
    adata = screen_of(x, label)
    return with_fit(adata, [("g0", "g1")])


def effects(adata, candidates):
    npt.tl.perturbation_effects(adata, candidates=candidates, key_added="found")
    return adata.uns["found"]


def test_unseen_combinations_are_better_and_surer_than_sums(fitted, truth):
    unseen = ["A+D", "C+B", "F+A", "G+A"]
    found = effects(fitted, unseen)
    assert found["n_cells"].tolist() == [0] * 4
    wanted = np.array([truth[name] for name in unseen])
    error = ((found["mean"] - wanted) ** 2).mean(axis=1)
    sums = np.array([truth[a] + truth[b] for a, b in (name.split("+") for name in unseen)])
    assert (error < 0.3 * ((sums - wanted) ** 2).mean(axis=1)).all()
    assert 0.8 < ((found["lower"] <= wanted) & (wanted <= found["upper"])).mean() < 0.98
    record = fitted.uns["dag_blr"]["predictors"]["interactions"]
    assert record["strength"] == pytest.approx(0.6, abs=0.1)
    assert record["n_combinations"] == 6
    # Surer than a perturbation of which nothing is known.
    assert found["sd"].mean() < 0.5 * np.std([truth[name] for name in SINGLES])


def test_pairs_of_few_members_keep_the_effects_of_the_members():
    # Effects are sparse, and all pairs share a member: too few effects to learn the prior from.
    rng, n_genes = np.random.default_rng(0), 150
    names = [f"P{k:02}" for k in range(20)]
    alone = np.where(rng.random((20, n_genes)) < 0.06, rng.normal(0, 0.35, (20, n_genes)), 0.0)
    truth = dict(zip(names, alone, strict=True)) | {
        f"P00+{names[k]}": alone[0] + alone[k] for k in (3, 6, 13, 17)
    }
    label = np.repeat(["control", *truth], [500, *[80] * len(truth)])
    x = 2 + rng.normal(size=(len(label), n_genes))
    for name, effect in truth.items():
        x[label == name] += effect
    adata = screen_of(x, label)
    npt.pp.setup_screen(adata, check_scale=False)
    with_fit(adata)
    pairs = list(truth)[20:]
    found = effects(adata, pairs)
    wanted = np.array([truth[pair] for pair in pairs])
    changed = wanted != 0
    raw = np.array([x[label == pair].mean(axis=0) for pair in pairs])
    raw -= x[label == "control"].mean(axis=0)

    def error(of):
        return ((of - wanted)[changed] ** 2).sum()

    assert error(found["mean"]) < error(raw)
    assert ((found["lfsr"] < 0.05) & ~changed).sum() <= 1


def test_unseen_combinations_are_those_of_the_core(fitted):
    fit, names = posterior_from(fitted), [*SINGLES, "G"]
    alone = np.zeros((2, 7, GENES))
    alone[:, 6] = np.nan  # G
    row = {str(name): i for i, name in enumerate(fit.environments["perturbation"])}
    screen = fit.expectation.measured.moments
    within = screen.scatter.diagonal() / (screen.n.sum() - len(screen.n))
    learned = fit.hierarchical.effects
    for k, name in enumerate(SINGLES):
        alone[0, k] = learned.posterior_mean()[row[name]]
        alone[1, k] = learned.sd()[row[name]] ** 2
    mean = screen.mean[1:] - screen.mean[0]
    rows = [row[name] for name in PAIRS]
    noise = (screen.squares[1:][rows] + 10 * within) / (149 + 10) / 150
    noise = noise + screen.squares[0] / 599 / 600
    members = [[names.index(part) for part in name.split("+")] for name in PAIRS]
    stored = fit.expectation.interactions
    wanted = learn_interactions(*alone, members, mean[rows], noise, learned=stored)
    wanted = wanted.predict([(0, 3), (6, 0)])
    found = effects(fitted, ["A+D", "A+G"])
    np.testing.assert_allclose(found["mean"], wanted[0], atol=1e-8)
    some = [g for g in range(GENES) if g > 1]  # no edge
    np.testing.assert_allclose(found["sd"][:, some] ** 2, wanted[1][:, some], rtol=0.15)


def test_where_no_combination_was_measured_singles_tell_the_scale(truth):
    """Effects add up, give or take 0.3 of the root of E s^2 of all singles (equation 12)."""
    adata = labelled(truth, SINGLES)
    npt.tl.fit_dag_blr(adata)
    fit, genes = posterior_from(adata), list(adata.var_names)
    learned = fit.hierarchical.effects
    mean, variance = learned.posterior_mean(), learned.sd() ** 2
    screen = fit.expectation.measured.moments
    within = screen.scatter.diagonal() / (screen.n.sum() - len(screen.n))
    square = (mean**2 + variance) / within
    # Random effects of genes: a mean of six squares, of which a part is chance.
    chance = np.mean([np.var(square[:, g], ddof=1) for g in range(len(genes))]) / len(SINGLES)
    between = np.var(square.mean(axis=0)) - chance
    scale = np.sqrt(within * (
        between * square.mean(axis=0) + chance * square.mean()
    ) / (between + chance))  # fmt: skip
    none = np.zeros((0, len(genes)))
    wanted = learn_interactions(mean, variance, [], none, none, scale=scale)
    rows = [fit.names.index(name) for name in ("A", "D")]
    prior = fitted_candidates(as_fitted(["A+D"], [[]], fit), fit).without_cells
    for found, expected in zip(prior[:2], wanted.predict([rows]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_singles_tell_the_scale_of_pairs_of_others_too(truth):
    adata = labelled(truth, SINGLES)
    npt.tl.fit_dag_blr(adata)
    fit, found = posterior_from(adata), []
    for names in (["g3+g4"], ["A+D", "g3+g4"]):
        inside = [[each for each in name.split("+") if each in fit.genes] for name in names]
        pool = fitted_candidates(as_fitted(names, inside, fit), fit)
        found.append([part[-1] for part in pool.without_cells[:2]])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_combinations_do_not_depend_on_the_units_of_genes(truth):
    """One single and four pairs: the size of effects is that of few singles and of all genes."""
    adata = labelled(truth, ["A", "A+B", "D+C", "E+F", "A+C"])
    # Powers of 2 change no bits but those of the exponent.
    unit = 2.0 ** np.random.default_rng(0).integers(-6, 3, GENES)
    turned = adata.copy()
    turned.X = adata.X * unit
    strength, ends = [], []
    for each, by in ((adata, np.ones(GENES)), (turned, unit)):
        npt.tl.fit_dag_blr(each)
        strength.append(each.uns["dag_blr"]["predictors"]["interactions"]["strength"])
        found = effects(each, ["A+D"])
        ends.append([found[name][0] / by for name in ("lower", "upper")])
    assert strength[1] == pytest.approx(strength[0])
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)


def test_before_any_cells_a_pair_is_as_uncertain_as_two_singles(truth):
    """Strength 1 ± 0.3, and departures of 0.3 of each member and of the pair (equation 12)."""
    adata = labelled(truth, [])
    npt.tl.fit_dag_blr(adata)
    others = [g for g in range(GENES) if g not in (0, 1, 3, 4)]
    single, pair = (effects(adata, ["g3", "g3+g4"])["sd"][:, others] ** 2).mean(axis=1)
    assert pair / single == pytest.approx(2 * (1 + 0.3**2) + 3 * 0.3**2, rel=0.1)


def test_measured_combinations_are_expected_without_their_own_cells(fitted, monkeypatch):
    expected, plain = [], learn.expect_combinations

    def recorded(*arguments):
        expected.append(plain(*arguments))
        return expected[-1]

    monkeypatch.setattr(learn, "expect_combinations", recorded)
    npt.tl.fit_dag_blr(fitted)
    fitted.X[fitted.obs["perturbation"] == "A+B"] += 5.0
    npt.tl.fit_dag_blr(fitted)
    (_, before), (_, after) = expected
    moved = np.abs(after.mean - before.mean).mean(axis=1)
    place = before.rows.tolist().index(posterior_from(fitted).names.index("A+B"))
    assert 0.0 < moved[place] < 1.0  # by what it says of strength and spreads alone


def test_a_member_without_cells_of_its_own_is_not_fitted_alone(fitted, monkeypatch):
    class Stop(Exception):
        pass

    given, plain = [], learn.expect_combinations

    def stop(*arguments, **_):
        given[:] = arguments
        raise Stop

    monkeypatch.setattr(learn, "expect_combinations", stop)
    with pytest.raises(Stop):
        npt.tl.fit_dag_blr(fitted)
    members, cells, *rest = given
    n = cells.pooled.n.copy()
    n[1 + members.index(("B",))] = 0
    cells = replace(cells, pooled=replace(cells.pooled, n=n))
    monkeypatch.setattr(learn, "fit_hierarchical", stop)
    with pytest.raises(Stop):
        plain(members, cells, *rest)
    assert given[0].n.tolist() == [600, *[150] * (len(SINGLES) - 1)]


def test_of_a_member_that_nothing_tells_of_the_mean_is_expected(fitted):
    """No target of this screen is on the panel, so that no label is taken for misspelled."""
    with pytest.warns(UserWarning, match="Nothing is known about .*H"):
        found = effects(fitted, ["A+H", "H", "K"])
    assert found["n_cells"].tolist() == [0, 0, 0]
    np.testing.assert_allclose(found["mean"][1], found["mean"][2], atol=1e-12)
    width = (found["upper"] - found["lower"]).mean(axis=1)
    assert (
        width[1:] > (effects(fitted, ["A"])["upper"] - effects(fitted, ["A"])["lower"]).mean()
    ).all()


def test_distances_rank_an_unseen_combination_towards_its_state(fitted, truth):
    goal = dict(zip(fitted.var_names, 3 + truth["A+D"], strict=True))
    npt.tl.design_interventions(fitted, goal, candidates=[*SINGLES, *PAIRS, "A+D", "C+F"])
    ranking = fitted.uns["design"]["ranking"]
    nearest = ranking.sort_values("predicted_distance")["perturbation"].iloc[0]
    assert nearest == "A+D"


def test_a_plan_takes_interactions_as_the_fit_learned_them(fitted, truth, monkeypatch):
    def learns(data):
        pytest.fail("learned again")

    monkeypatch.setattr("nextpert.core.model.interactions.by_evidence", learns)
    goal = dict(zip(fitted.var_names, 3 + truth["A+D"], strict=True))
    npt.tl.plan_screen(
        fitted, goal, n_perturbations=4, n_cells=200, constraints={"max_combination": 2}
    )
    plan = fitted.uns["plan"]
    assert "A+D" in set(plan["plate"]["perturbation"])


def labelled(truth, names, genes=GENES, rng=1):
    """Return a screen of cells of some labels; 'A+A' and 'A+control' do what A does."""
    rng = np.random.default_rng(rng)
    label = np.repeat(["control", *names], [600, *[150] * len(names)])

    def does(name):
        parts = sorted(set(name.split("+")) - {"control"})
        return truth["+".join(parts)] if parts else np.zeros(genes)

    x = 3 + np.array([does(name) for name in label]) + rng.normal(size=(len(label), genes))
    adata = screen_of(x, label)
    return with_graph(adata, [("g0", "g1")])


@pytest.mark.slow
def test_a_member_without_cells_of_its_own_is_known_by_combinations(truth):
    company = ["E+G", "A+G", "C+G", "F+G"]
    adata = labelled(truth, [*SINGLES, "A+B", "C+D", *company])
    npt.tl.fit_dag_blr(adata)
    found = effects(adata, ["G", "G+B"])
    assert found["n_cells"].tolist() == [0, 0]
    assert ((found["mean"][0] - truth["G"]) ** 2).mean() < 0.5 * (truth["G"] ** 2).mean()
    inside = (found["lower"][0] <= truth["G"]) & (truth["G"] <= found["upper"][0])
    assert inside.mean() > 0.75
    npt.tl.design_interventions(adata, "E+G", candidates=["G", "A", "E+G"])
    assert "G" in set(adata.uns["design"]["ranking"]["perturbation"])
    with pytest.warns(UserWarning, match="Nothing is known about H"):
        effects(adata, ["H"])


@pytest.mark.parametrize(
    "names",
    [
        [*SINGLES, "A+B"],  # one combination
        PAIRS,  # no singles
        ["A+B"],
        ["A+A", "B+B+B", "C", "A+B", "A+C"],  # members repeated
        ["A+control", "control+B", "A", "B", "C", "A+B"],
        [*SINGLES, "A+B", "A+B+C", "B+D+E", "C+D+E"],
    ],
)
def test_unusual_sets_of_combinations_are_fitted(truth, names):
    does = dict(truth)
    for some in itertools.combinations(SINGLES, 3):
        does["+".join(some)] = 0.5 * sum(truth[name] for name in some)
    adata = labelled(does, names)
    npt.tl.fit_dag_blr(adata)
    asked = ["A+C+D"] if len(names) > 9 else ["A+B"]
    found = effects(adata, asked)
    wanted = does[asked[0]]
    assert ((found["mean"][0] - wanted) ** 2).mean() < 0.3 * (wanted**2).mean()
    assert np.isfinite(found["sd"]).all()
