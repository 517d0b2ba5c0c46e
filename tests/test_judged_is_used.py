"""What users get is what was judged: the diagnosis scores the predictions that are handed out."""

from functools import cache

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.study.effects import panel_effects, read_requested
from nextpert.study.scores import judge_unseen, predictors, read_sides
from nextpert.tl._read_halves import read_refit

N_PERTURBED, N_GENES = 10, 24
GENES = [f"G{k}" for k in range(N_GENES)]
SINGLE = GENES[:N_PERTURBED]
DOUBLE = ["G0+G1", "G2+G3", "G0+G4", "G5+G6", "G7+G8"]
TABLES = ("mean", "sd", "lower", "upper")


def common_response(rng):
    """Return effects of ten knockdowns that do much the same to genes beside their own."""
    response = np.zeros(N_GENES)
    response[N_PERTURBED:] = rng.normal(size=N_GENES - N_PERTURBED)
    effects = response + 0.2 * rng.normal(size=(N_PERTURBED, N_GENES))
    effects[np.arange(N_PERTURBED), np.arange(N_PERTURBED)] -= 1.5
    return dict(zip(SINGLE, effects, strict=True))


@cache
def _screen(doubles):
    """Two guides a perturbation and three batches, which hold unlike shares of them."""
    rng = np.random.default_rng(7)
    effects = common_response(rng)
    for name in doubles:
        one, two = name.split("+")
        effects[name] = 0.8 * (effects[one] + effects[two])
    names = ["control", *effects]
    label = np.repeat(names, [600, *[60] * len(effects)])
    x = 3.0 + 0.6 * rng.normal(size=(len(label), N_GENES)) @ (
        np.eye(N_GENES) + 0.4 * np.eye(N_GENES, k=1)
    )
    guide = np.array([f"{name}_{rng.integers(6 if name == 'control' else 2)}" for name in label])
    batch = rng.choice(["a", "b", "c"], size=len(label), p=[0.5, 0.3, 0.2])
    batch[np.isin(label, ["G2", "G7"])] = "b"  # the fold of both holds most of a batch's weight
    for name, effect in effects.items():
        x[label == name] += effect
    for column, sd in ((guide, 0.05), (batch, 0.3)):
        levels, codes = np.unique(column, return_inverse=True)
        x += sd * rng.normal(size=(len(levels), N_GENES))[codes]
    obs = pd.DataFrame({"perturbation": label, "guide": guide, "batch": batch})
    obs.index = [f"cell{i}" for i in range(len(label))]
    return ad.AnnData(x, obs, pd.DataFrame(index=GENES)), effects


ROLES = {"guide_key": "guide", "batch_key": "batch"}
LEARNED = {"method": "boss", "environments": "all", "search_options": {"n_runs": 2}, "rng": 3}


def fitted(adata, without=(), *, roles=ROLES, graph=LEARNED, features=None):
    adata = adata[~adata.obs["perturbation"].isin(without)].copy()
    npt.pp.setup_screen(adata, **roles)
    npt.tl.learn_dag(adata, **graph)
    npt.tl.fit_dag_blr(adata, features=features)
    return adata


@cache
def _table():
    """Effects of the same kind with unlike standard errors, some of which are missing."""
    rng = np.random.default_rng(8)
    seen = pd.DataFrame(common_response(rng), GENES).T
    se = seen * 0 + 0.1 * rng.uniform(0.7, 1.5, seen.shape)
    seen += se * rng.normal(size=seen.shape)
    seen = seen.mask(rng.random(seen.shape) < 0.1)
    cells = dict(zip(SINGLE, range(40, 140, 10), strict=True))
    return npt.pp.effect_table(seen, se, n_cells=cells, n_controls=600)


@cache
def _elsewhere():
    """Effects of most of these perturbations in another screen, with standard errors."""
    rng, effects = np.random.default_rng(9), _screen(())[1]
    seen = np.array([effects[name] for name in SINGLE[:8]])
    other = ad.AnnData(seen + 0.1 * rng.normal(size=seen.shape), pd.DataFrame(index=SINGLE[:8]))
    other.var_names = GENES
    other.layers["se"] = np.full(seen.shape, 0.1)
    return other


def folds(adata):
    names = list(adata.uns["dag_blr"]["environments"]["perturbation"])
    return [names[k::5] for k in range(5)]


def unseen_of(adata):
    """Return the fits without a fold, and what is scored of perturbations without their fold."""
    fit = posterior_from(adata)
    refit, halves, _ = read_refit(adata, fit, "dag_blr", np.random.default_rng(0))
    cells = halves.pool(halves.all_cells, by_guide=halves.declared)
    sides = read_sides(refit, halves, cells)
    return refit, judge_unseen(refit, halves, cells, sides)[0]


def same(found, wanted):
    scale = np.abs(wanted).max()
    assert scale > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * scale)


@pytest.fixture(
    scope="module",
    params=[
        "guides and batches", "combinations", "table", "another screen, no perturbed cells",
    ],
)  # fmt: skip
def judged(request):
    """A screen, its fit with a diagnosis, and fits without the first and third fold, options alike.

    The third holds most of a batch's weight.
    """
    given = {"method": "given", "dag": [("G0", "G12"), ("G3", "G14"), ("G12", "G20")]}
    given["genes"] = GENES
    options = {
        "guides and batches": {},
        "combinations": {"roles": {"guide_key": "guide"}},
        "table": {"roles": {}, "graph": given},
        "another screen, no perturbed cells": {
            "features": _elsewhere(), "graph": {"method": "boss", "search_options": {"n_runs": 2}},
        },
    }[request.param]  # fmt: skip
    adata, _ = _screen(tuple(DOUBLE if request.param == "combinations" else ()))
    if request.param == "table":
        adata = _table()
    whole = fitted(adata, **options)
    assert (whole.uns["dag_blr"]["predictors"]["scales"] < 0.9).any()  # so they are judged, too
    reduced = {k: (folds(whole)[k], fitted(adata, folds(whole)[k], **options)) for k in (0, 2)}
    return whole, reduced, *unseen_of(whole)


@pytest.mark.brief_chain
@pytest.mark.slow
def test_what_is_scored_is_what_is_handed_out(judged):
    """A fold left out of the data, its labels are told what the diagnosis scored of them."""
    _, reduced, refit, effects = judged
    row = {name: j for j, name in enumerate(refit.spec.plan.names)}
    for fold, adata in reduced.values():
        npt.tl.perturbation_effects(adata, candidates=fold)
        told = adata.uns["perturbation_effects"]
        assert sorted(told["perturbations"]) == sorted(fold)
        for name in TABLES:
            scored = getattr(effects, name)
            same(told[name], scored[[row[label] for label in told["perturbations"]]])


@pytest.mark.brief_chain
@pytest.mark.slow
def test_each_predictor_is_scored_by_what_it_is_used_for(judged):
    """By itself, at weight 1, a predictor hands out what the diagnosis scores of it."""
    whole, reduced, refit, _ = judged
    weights = list(refit.fit.expectation.weights)
    names = refit.spec.plan.names
    assert ("members together" in weights) == any("+" in label for label in names)
    spoke = set()
    for k, (fold, adata) in reduced.items():
        left_out = refit.as_stored(refit.without_fold(k))
        wanted = read_requested(fold, left_out)
        scored = predictors(wanted, left_out, panel_effects(left_out, wanted))
        npt.tl.perturbation_effects(adata, candidates=fold)
        every = adata.uns["perturbation_effects"]["mean"]
        others = np.array([[gene not in label.split("+") for gene in GENES] for label in fold])
        doubles = [x for x in adata.uns["dag_blr"]["environments"]["perturbation"] if "+" in x]
        company = {member for label in doubles for member in label.split("+")}
        # A gene of which combinations tell is predicted by these, and by no other predictor.
        single = np.array(["+" not in label and label not in company for label in fold])
        together = scored["members together"][0]
        np.testing.assert_allclose(
            np.where(others, every, 0)[~single], together[~single], rtol=0, atol=1e-10
        )
        assert not together[single].any()
        stored = adata.uns["dag_blr"]["predictors"]
        for name in set(weights) - {"members together"}:
            stored["weights"] = np.array([float(each == name) for each in stored["predictors"]])
            npt.tl.perturbation_effects(adata, candidates=fold)
            alone = adata.uns["perturbation_effects"]["mean"]
            said = scored[name][0]
            if np.abs(said).max() > 0.1:
                spoke.add(name)
            np.testing.assert_allclose(
                np.where(others, alone, 0)[single], said[single], rtol=0, atol=1e-10
            )
    of_cells = set() if "effect_table" in whole.uns else {"coexpression", "graph"}
    assert {"mean perturbation", *of_cells} <= spoke


def renamed(names):
    """Return the diagnosis of a screen with other labels; ``None`` leaves a perturbation out."""
    adata, _ = _screen(())
    label = adata.obs["perturbation"].astype(str)
    adata = adata[~label.isin([old for old, new in names.items() if new is None])].copy()
    adata.obs["perturbation"] = adata.obs["perturbation"].replace(names)
    npt.tl.learn_dag(adata, method="given", dag=[("G0", "G1"), ("G2", "G3")], genes=GENES)
    npt.pp.setup_screen(adata, guide_key="guide")
    npt.tl.fit_dag_blr(adata)
    npt.tl.diagnose(adata)
    return adata.uns["diagnosis"]


@pytest.mark.slow
def test_what_cannot_be_a_candidate_is_not_judged():
    """A label without a target on the panel is refused as a candidate, so nothing is scored."""
    found = renamed({"G3": "enhancer"})
    table = found["perturbations"].set_index("perturbation")
    assert np.isnan(table.loc["enhancer", "r_all"])
    others = table.drop(index="enhancer")
    assert others["r_all"].notna().all()
    words = "9 of 10 were judged: the others have a target that is not on the panel"
    assert words in found["verdict"]
    assert np.isfinite(table.loc["enhancer", "error_half"])  # its cells are judged all the same


@pytest.mark.slow
def test_labels_without_targets_are_judged_by_what_is_said_of_them():
    found = renamed({name: f"drug {name[1:]}" for name in SINGLE})
    parts = found["parts"].set_index("part")
    assert parts.loc["unseen perturbations", "level"] == "do not trust"
    assert "mean perturbation" in parts.loc["unseen perturbations", "verdict"]
    assert found["perturbations"]["r_all"].notna().all()
    assert parts.loc["graph", "level"] == "do not trust"
    assert "use the shrunken effects" in parts.loc["shrinkage", "verdict"]
    assert parts.loc["positive controls", "level"] == "care"
    assert "no target gene is on the panel" in parts.loc["positive controls", "verdict"]
    assert found["perturbations"]["target_gene_found"].eq("").all()
