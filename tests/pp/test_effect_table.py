"""A table of effects and standard errors is a screen: it agrees with its own cells."""

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata.roles import read_roles
from nextpert._adata.screen import coding, read_environments, read_screens
from nextpert.core.model import within_cells
from nextpert.core.screen.guides import pool_guides
from tests._screens import screen_of

GENES = [f"g{i}" for i in range(30)]
NAMES = [*GENES[:6], "HS1", "HS2"]


def effects(seed=0, scale=0.4):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(scale * rng.normal(size=(len(NAMES), len(GENES))), NAMES, GENES)
    return table, table * 0 + 0.1


@pytest.fixture
def plain():
    """Effects, standard errors, and what is given beside them."""
    told = {"n_cells": 100, "n_controls": 500, "control_mean": dict.fromkeys(GENES, 2.0)}
    return *effects(), told


def cells_and_table(seed=0, spread=0.5):
    """Cells whose variance does not depend on the perturbation, and the table of their effects."""
    rng = np.random.default_rng(seed)
    n = {"control": 600, **{name: 40 + 10 * j for j, name in enumerate(NAMES)}}
    mean = 2 + rng.random(len(GENES))
    true = {name: spread * rng.normal(size=len(GENES)) * (rng.random(len(GENES)) < 0.3)
            for name in n}  # fmt: skip
    x, labels = [], []
    for name, count in n.items():
        noise = rng.normal(size=(count, len(GENES)))
        noise -= noise.mean(axis=0)
        noise /= noise.std(axis=0, ddof=1)  # the same variance in every environment
        shift = 0.0 if name == "control" else true[name]
        x.append(mean + shift + noise + rng.normal(size=len(GENES)) / np.sqrt(count))
        labels += [name] * count
    cells = screen_of(np.vstack(x), labels, GENES)
    means = pd.DataFrame(cells.X, columns=GENES).groupby(np.array(labels)).mean()
    one = pd.DataFrame({name: np.full(len(GENES), np.sqrt(1 / n[name] + 1 / 600))
                        for name in NAMES}, GENES).T  # fmt: skip
    table = npt.pp.effect_table(
        means.loc[NAMES] - means.loc["control"], one, n_cells={k: n[k] for k in NAMES},
        n_controls=600, control_mean=means.loc["control"].to_dict(),
    )  # fmt: skip
    npt.tl.learn_dag(cells, method="given", dag=[])
    return cells, table


@pytest.fixture
def without_coexpression(monkeypatch):
    def none(matrix, n):
        return np.zeros((len(matrix), 0)), np.ones(len(matrix))

    monkeypatch.setattr(within_cells, "factors", none)


def through(adata, target="g1"):
    npt.tl.fit_dag_blr(adata)
    found = npt.tl.perturbation_effects(adata, as_anndata=True)
    npt.tl.design_interventions(adata, target, acquisition="probability")
    npt.tl.plan_screen(adata, target, n_perturbations=3, n_cells=300)
    ranking, plate = adata.uns["design"]["ranking"], adata.uns["plan"]["plate"]
    chosen = dict(zip(plate["perturbation"], plate["n_cells"], strict=True))
    return found, ranking["perturbation"].tolist(), chosen


@pytest.mark.slow
@pytest.mark.usefixtures("without_coexpression")
def test_a_table_agrees_with_its_own_cells():
    cells, table = cells_and_table()
    (one, ranking, plate), (two, ranked, planned) = through(cells), through(table)
    se = np.asarray(table[two.obs_names].layers["se"])
    assert np.abs(one.to_df() - two.to_df().loc[one.obs_names]).to_numpy().max() < 0.02 * se.min()
    assert np.allclose(one.layers["raw_mean"], two.layers["raw_mean"])
    assert np.allclose(one.layers["sd"], two.layers["sd"], rtol=0.02)
    assert ranking == ranked
    assert plate == planned


def moments_of(table, genes=None):
    roles = read_roles(table)
    found = read_environments(table, roles)
    columns = np.arange(table.n_vars) if genes is None else genes
    (screen,) = read_screens(table, columns, [coding({"environment": found.codes})])
    return screen.moments(), found.groups(["control", *found.perturbations()])


def test_means_have_the_standard_errors_of_the_table():
    """Equation 25: the variance of a difference of means is the squared standard error."""
    table, se = effects()
    rng = np.random.default_rng(3)
    se *= rng.uniform(0.8, 1.2, size=se.shape)
    for told in (
        {"n_cells": 100, "n_controls": 300},
        {"n_cells": 80, "n_controls": 300, "control_se": dict.fromkeys(GENES, 0.03)},
        {"control_se": dict.fromkeys(GENES, 0.03)},
    ):
        moments, group = moments_of(npt.pp.effect_table(table, se, **told))
        pooled = pool_guides(moments, group, 1 + len(NAMES))
        change, error = pooled.to_controls()
        order = sorted(NAMES)
        assert np.allclose(change, table.loc[order])
        assert np.allclose(error * pooled.covariance.diagonal(), se.loc[order] ** 2)
        assert not pooled.are_cells
    moments, group = moments_of(npt.pp.effect_table(table, se, control_se="conservative"))
    pooled = pool_guides(moments, group, 1 + len(NAMES))
    square, within = se.loc[sorted(NAMES)] ** 2, pooled.covariance.diagonal()
    assert np.allclose(within / pooled.counted[0], 0.9 * square.min())
    assert np.allclose(within / pooled.counted[1:], square)


def test_the_error_of_the_controls_is_shared():
    table, se = effects(scale=3.0)  # large effects are hardly shrunk
    screen = npt.pp.effect_table(table, se, n_cells=100, n_controls=100)
    npt.tl.fit_dag_blr(screen)
    drawn = np.array(list(npt._adata.posterior_from(screen).hierarchical.effects.draws(400, rng=0)))
    away = drawn - drawn.mean(axis=0)
    between = np.mean([away[:, j] * away[:, k] for j in range(8) for k in range(j)], axis=(0, 1, 2))
    # Half of the squared standard error is that of as many controls as cells.
    assert between == pytest.approx(0.1**2 / 2, rel=0.25)
    assert (away**2).mean() == pytest.approx(0.1**2, rel=0.15)


def test_batches_have_controls_of_their_own(caplog):
    table, se = effects()
    batch = {name: "ab"[j % 2] for j, name in enumerate(NAMES)}
    told = {"n_cells": 100, "n_controls": {"a": 400, "b": 50}, "batch": batch}
    se = se * np.sqrt(np.where([[batch[name] == "b"] for name in NAMES], 1 / 100 + 1 / 50,
                               1 / 100 + 1 / 400) * 100)  # fmt: skip
    with caplog.at_level("WARNING", logger="nextpert"):
        screen = npt.pp.effect_table(table, se, **told)
    assert "variation between clones or replicates" in caplog.text
    assert screen.obs["batch"].tolist()[:2] == ["a", "b"]
    assert screen.obs_names[:2].tolist() == ["control (a)", "control (b)"]
    assert screen.obs["n_cells"].tolist()[:2] == [400, 50]
    npt.tl.fit_dag_blr(screen)
    npt.tl.perturbation_effects(screen)
    found = screen.uns["perturbation_effects"]
    rows = {name: j for j, name in enumerate(found["perturbations"])}
    order = [rows[name] for name in NAMES]
    assert np.allclose(found["raw_mean"][order], table, atol=1e-6)


def test_a_perturbation_of_two_batches_is_one(caplog):
    table, _ = effects()
    both = pd.concat([table, table.iloc[:2] + 0.2])
    obs = pd.DataFrame({"perturbation": both.index, "batch": ["a"] * 8 + ["b"] * 2},
                       index=[str(i) for i in range(10)])  # fmt: skip
    adata = ad.AnnData(both.to_numpy(copy=True), obs, pd.DataFrame(index=GENES))
    adata.layers["se"] = np.full(adata.shape, 0.1)
    with caplog.at_level("WARNING", logger="nextpert"):
        screen = npt.pp.effect_table(adata, n_cells=100, n_controls=1000)
    assert "variation between clones" not in caplog.text
    # They differ by twice their standard errors: by the root of 2 times what these expect.
    np.testing.assert_allclose(screen.layers["se"][2:], 0.1 * np.sqrt(2), rtol=1e-6)
    npt.tl.fit_dag_blr(screen)
    npt.tl.perturbation_effects(screen)
    found = screen.uns["perturbation_effects"]
    assert sorted(found["perturbations"]) == sorted(NAMES)
    row = found["perturbations"].tolist().index("g0")
    assert found["n_cells"][row] == 200
    adata.X[9, 0] = np.nan
    with pytest.raises(ValueError, match=r"not all, of the batches of g1: set"):
        npt.pp.effect_table(adata)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_differences_between_batches_are_weighted_in_any_unit(unit):
    rng = np.random.default_rng(5)
    x, se = rng.normal(size=(4, len(GENES))), rng.uniform(0.05, 0.4, size=(4, len(GENES)))
    table = screen_of(
        unit * x, ["g0", "g0", "g0", "g1"], GENES, batch=[*"abca"], layers={"se": unit * se}
    )
    screen = npt.pp.effect_table(table, control_se="conservative")
    total = 0.0
    for y, error in zip(x[:3].T, se[:3].T, strict=True):
        middle = np.average(y, weights=1 / error**2)
        total += (((y - middle) / error) ** 2).sum()
    factor = np.sqrt(total / (2 * len(GENES)))
    np.testing.assert_allclose(screen.layers["se"][-4:], unit * factor * se, rtol=1e-6)


def test_a_missing_entry_says_nothing(plain):
    table, se, told = plain
    gone = table.copy()
    gone.iloc[3, 5] = np.nan
    hidden = se.copy()
    hidden.iloc[4, 6] = np.nan
    hidden.iloc[4, 7] = np.inf
    screen = npt.pp.effect_table(gone, hidden, **told)
    assert screen.uns["effect_table"]["n_missing"] == 3
    npt.tl.fit_dag_blr(screen)
    npt.tl.perturbation_effects(screen)
    found = screen.uns["perturbation_effects"]
    rows = {name: j for j, name in enumerate(found["perturbations"])}
    for name, i in (("g3", 5), ("g4", 6), ("g4", 7)):
        j = rows[name]
        assert np.isnan(found["raw_mean"][j, i])
        assert found["lfsr"][j, i] == 1
        assert found["data_weight"][j, i] < 1e-3
        # As uncertain as an effect of this screen, not as one that was measured.
        assert found["sd"][j, i] > 2 * np.median(found["sd"])
    assert np.isnan(found["raw_mean"]).sum() == 3
    # As a standard error that is very large.
    far = se.mask(se.index.to_series().eq("g3").to_numpy()[:, None] & (table.columns == "g5"), 1e4)
    other = npt.pp.effect_table(table, far, **told)
    npt.tl.fit_dag_blr(other)
    npt.tl.perturbation_effects(other)
    again = other.uns["perturbation_effects"]
    j = rows["g3"]
    assert abs(again["mean"][j, 5] - found["mean"][j, 5]) < 0.5 * found["sd"][j, 5]


@pytest.mark.parametrize("lost", ["n_cells", "se"])
def test_a_table_that_lost_a_part_says_so(plain, lost):
    table, se, told = plain
    screen = npt.pp.effect_table(table, se, **told)
    del (screen.obs if lost == "n_cells" else screen.layers)[lost]
    for call in (npt.tl.fit_dag_blr, npt.pp.setup_screen, lambda a: npt.Campaign(a, "g1")):
        with pytest.raises(ValueError, match=r"needs obs\['n_cells'\] and layers"):
            call(screen)


def test_target_genes_are_expected_to_lose_what_the_controls_have(plain):
    table, se, told = plain
    for name in GENES[:6]:
        table.loc[name, name] = -1.5
    screen = npt.pp.effect_table(table, se, **told)
    npt.tl.fit_dag_blr(screen)
    assert screen.uns["dag_blr"]["efficacy"]["mean"] == pytest.approx(0.75, abs=0.1)
    npt.tl.design_interventions(screen, {"g1": 0.5}, candidates="genes")
    assert screen.uns["design"]["ranking"]["perturbation"][0] == "g1"
    alone = npt.pp.effect_table(table, se, n_cells=100, n_controls=500)
    npt.tl.fit_dag_blr(alone)
    assert alone.uns["dag_blr"]["efficacy"]["n_measured"] == 0
    npt.tl.design_interventions(alone, {"g1": -1.5})  # relative to the controls
    assert alone.uns["design"]["ranking"]["perturbation"][0] == "g1"


def test_an_anndata_and_two_tables_are_one_screen(plain, assert_same_adata):
    table, se, told = plain
    var = pd.DataFrame({"control_mean": 2.0}, index=GENES)
    obs = pd.DataFrame({"n_cells": 100}, index=NAMES)
    one = npt.pp.effect_table(table, se, **told)
    for matrix in (np.asarray, sp.csr_matrix):
        adata = ad.AnnData(matrix(table.to_numpy()), obs, var)
        adata.layers["se"] = se.to_numpy()
        two = npt.pp.effect_table(adata, n_controls=500)
        two.var = two.var[[]]
        assert_same_adata(one, two)
    adata.obs["perturbation"] = [f"p{name}" for name in NAMES]
    labels = npt.pp.effect_table(adata, n_controls=500).obs["perturbation"]
    assert labels.tolist() == ["control", *adata.obs["perturbation"]]


def controls(n=60, seed=0, names=GENES):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)) @ rng.normal(size=(2, len(names)))
    return pd.DataFrame(x + rng.normal(size=x.shape), columns=names)


def test_correlations_are_those_of_controls_shrunk(plain):
    table, se, told = plain
    cells = controls()
    screen = npt.pp.effect_table(table, se, correlation=cells, **told)
    r, off = np.corrcoef(cells.to_numpy().T), ~np.eye(len(GENES), dtype=bool)
    shrunk = screen.varp["correlation"][off] / r[off]  # one share of all
    assert np.allclose(shrunk, shrunk[0], atol=1e-4)
    rate = ((1 - r[off] ** 2) ** 2).sum() / 59 / (r[off] ** 2).sum()
    assert shrunk[0] == pytest.approx(1 - rate, abs=1e-4)
    moments, _ = moments_of(screen, np.arange(5, 15))
    sd, some = np.sqrt(moments.scatter.diagonal()), np.ix_(range(5, 15), range(5, 15))
    assert np.allclose(moments.scatter / np.outer(sd, sd), screen.varp["correlation"][some])
    npt.tl.fit_dag_blr(screen)
    assert screen.uns["dag_blr"]["hierarchical"]["factors"].shape == (30, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (controls(names=GENES[1:]), r"correlation lacks these genes: g0"),
        (controls(49), r"correlation needs at least 50 rows .* it has 49 rows"),
    ],
)
def test_correlations_that_are_none_are_refused(plain, given, message):
    table, se, told = plain
    with pytest.raises(ValueError, match=message):
        npt.pp.effect_table(table, se, correlation=given, **told)


def test_many_perturbations_have_a_program_only_if_correlations_are_known(caplog):
    x = np.random.default_rng(2).normal(size=(40, len(GENES)))
    table = pd.DataFrame(x, [f"p{j:02}" for j in range(40)], GENES)
    told = {"n_cells": 100, "n_controls": 400}
    for correlation, has_program in ((None, False), (controls(), True)):
        caplog.clear()
        screen = npt.pp.effect_table(table, table * 0 + 0.1, correlation=correlation, **told)
        assert ("No programs are modelled" in caplog.text) != has_program
        npt.tl.fit_dag_blr(screen)
        assert screen.uns["dag_blr"]["hierarchical"]["program"].any() == has_program
    few = npt.pp.effect_table(table.iloc[:30], table.iloc[:30] * 0 + 0.1, **told)
    npt.tl.fit_dag_blr(few)
    assert few.uns["dag_blr"]["hierarchical"]["program"].any()


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda t: npt.tl.learn_dag(t), "learn_dag with method='gsp'"),
        (lambda t: npt.tl.plan_cells(t), "plan_cells"),
        (lambda t: npt.tl.cpca(t), "cpca"),
        (lambda t: npt.tl.replay_design(t), "replay_design"),
        (lambda t: npt.tl.target_distances(t, "g1"), "target_distances"),
        (lambda t: npt.tl.dag_fit(t), "dag_fit"),
        (lambda t: npt.pp.setup_screen(t, covariates="n_cells"), "The role covariates"),
        (lambda t: npt.pl.expression_shift(t, show=False), "This call"),
    ],
)
def test_what_needs_cells_says_so(plain, call, what):
    table, se, told = plain
    screen = npt.pp.effect_table(table, se, **told)
    npt.tl.fit_dag_blr(screen)
    before = screen.copy()
    with pytest.raises(ValueError, match=f"^{what} needs the cells of a screen, but this AnnData"):
        call(screen)
    assert sorted(before.uns) == sorted(screen.uns)


def at(table, value):
    """Put a value in the place of g1 on g2."""
    return table.astype(object).mask(table == table.iloc[1, 2], value)


BAD = {
    "no layer of errors": (lambda t, s: (ad.AnnData(t),), r"no layer 'se'"),
    "no errors": (lambda t, s: (t,), r"needs a table of standard errors"),
    "zero": (lambda t, s: (t, s.mask(t == t.iloc[1, 2], 0.0)),
             r"above a billionth of their median.* g1 on g2: "),
    "next to nothing": (lambda t, s: (t, s.mask(t == t.iloc[1, 2], 1e-12)),
                        r"billionth of their median.*g1 on g2: set them to NaN"),
    "too large": (lambda t, s: (at(t, 1e80), s),
                  r"Effects are above 1e\+70, too large .* for g1 on g2: "),
    "10**400": (lambda t, s: (at(t, 10**400), s), r"real numbers, but those of g2 are not"),
    "a gene without any": (lambda t, s: (t.assign(g2=np.nan), s),
                           r"No effect is known for the genes g2: leave"),
    "a perturbation without any": (
        lambda t, s: (t, s.mask(np.outer(t.index == "HS1", t.columns != ""))),
        r"No effect is known for the perturbations HS1",
    ),
    "rows twice": (lambda t, s: (pd.concat([t, t]), s), r"Perturbations given more than once: g0"),
    "other genes": (lambda t, s: (t, s.rename(columns={"g1": "G1"})), r"differ in their genes: G1"),
    "the controls": (lambda t, s: (t.rename(index={"HS1": "control"}),
                                   s.rename(index={"HS1": "control"})),
                     r"has a row for the controls, 'control'"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_bad_tables_are_refused(case):
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        npt.pp.effect_table(*make(*effects()))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, r"error of its controls.*n_controls with n_cells, or control_se.*conservative"),
        ({"n_cells": 100}, r"standard error of its controls"),
        ({"n_controls": 100}, r"n_controls with n_cells"),
        ({"n_controls": 100, "control_se": "conservative"}, r"n_controls with n_cells"),
        ({"n_cells": {"g0": 100}}, r"n_cells has no value for HS1, HS2, g1"),
        ({"n_cells": 0}, r"n_cells must be between 1 and 1e\+12; one value is 0"),
        ({"n_cells": dict.fromkeys(NAMES, np.nan)}, r"n_cells\['g0'\] must be a finite"),
        ({"n_cells": 9, "batch": dict.fromkeys(NAMES, "a"), "n_controls": {"b": 9}},
         r"n_controls has no value for a"),
        ({"control_se": dict.fromkeys(GENES, 0.0)}, r"control_se must be between 1e-100 and"),
        ({"control_mean": dict.fromkeys(GENES[1:], 0.0)}, r"control_mean has no value for g0"),
    ],
)  # fmt: skip
def test_bad_additions_are_refused(told, message):
    with pytest.raises(ValueError, match=message):
        npt.pp.effect_table(*effects(), **told)


def test_groups_of_rows_are_weighted_by_what_they_count_for():
    moments, _ = moments_of(npt.pp.effect_table(*effects(), n_cells=100, n_controls=500))
    counted = np.array(moments.counted)
    counted[1, 0], counted[2, 0] = 300.0, 0.0
    one = type(moments)(moments.n, moments.mean, moments.squares, moments.scatter, counted)
    codes = np.array([0, 1, 1, *range(2, len(moments.n) - 1)])
    pooled = one.pool(codes, len(moments.n) - 1)
    assert pooled.mean[1, 0] == pytest.approx(moments.mean[1, 0])
    want = np.average(moments.mean[1:3, 1], weights=counted[1:3, 1])
    assert pooled.mean[1, 1] == pytest.approx(want)
    assert pooled.counted[1].tolist() == counted[1:3].sum(axis=0).tolist()
    variance = [each.scatter.diagonal() / (each.n.sum() - len(each.n)) for each in (one, pooled)]
    assert np.allclose(*variance)


@pytest.mark.parametrize("missing", [np.nan, None, " ", pd.NA], ids=repr)
@pytest.mark.parametrize("what", ["row", "gene", "batch", "label"])
def test_rows_without_a_name_are_left_out_with_a_count(what, missing, caplog):
    rows, genes, held = list("ABCD"), list("ghi"), list("ABCD")
    (genes if "gene" in what else rows)[-1] = missing
    values, told = np.arange(1.0, 13.0).reshape(4, 3), {"control_se": "conservative"}
    if what == "label":
        given = ad.AnnData(values, pd.DataFrame({"perturbation": rows}, held))
        given.layers["se"], given.var_names = values, genes
    else:
        if what == "batch":
            told["batch"], rows = dict(zip(held, ["x", "x", "x", missing], strict=True)), held
        given, told["se"] = (pd.DataFrame(values, rows, genes) for _ in range(2))
    table = npt.pp.effect_table(given, **told)
    assert table.obs["perturbation"].tolist() == ["control", *("ABCD" if "gene" in what else "ABC")]
    assert table.var_names.tolist() == list("gh" if "gene" in what else "ghi")
    assert re.search(r"\b1 without a name", caplog.text)
