"""Numbers of whole pipelines on small awkward screens stay as they are stored in ``numbers.json``.

Tests of formulas say what is right; these say that nothing has moved that no formula names:
branches for batches, guides, conditions, tables and doses, and what follows from them. Each array
is stored as its size, its sum, a weighted sum and its scale, so that every value counts. After a
change that moves numbers on purpose, write them anew and say in the commit what moved and why::

    python -m pytest tests/test_stored_numbers.py --write-numbers
"""

import json
import logging
import re
import tempfile
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.cli import main
from nextpert.core import (
    Box,
    Civ,
    DagBlr,
    Moments,
    Pool,
    PriorKnowledge,
    Sparse,
    Sphere,
    acquisitions,
    boss,
    design_loop,
    gap_variance,
    gsp,
    minimal_imap,
    random_dag,
    random_scm,
    random_target,
)
from nextpert.core.graph.random_dag import FAMILIES
from tests._screens import screen_of

STORED = Path(__file__).with_name("numbers.json")
# Processors sum in different orders: 1e-7 in single precision. A fault moves much more.
TOLERANCE = 2e-5
# Times and paths differ between runs, and digests of contents between processors.
CHANGING = re.compile(
    r"version|seconds|when|path|digest|\.(cells|contents|fit|options|plan|posterior|cells\.values)$"
)
PIPELINES = {}

GENES = ["STAT1", "IRF1", "MYC", "GATA1", "JUN", "FOS", "EGR1", "CD44"]
EDGES = [(0, 1, 0.8), (2, 3, -0.7), (4, 5, 0.6), (5, 6, 0.5), (1, 7, 0.4), (2, 7, -0.3)]
TARGETS = {"STAT1": 0, "MYC": 2, "JUN": 4, "GATA1": 3, "IRF1": 1}


def pipeline(function):
    PIPELINES[function.__name__] = function
    return function


def screen(seed, *, labels=TARGETS, n_control=120, n_cells=24, batches=2, unequal=False):
    """Cells with an effect that a guide weakens, batch shifts, and one perturbation without any."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((8, 8))
    for parent, child, weight in EDGES:
        weights[child, parent] = weight
    total = np.linalg.inv(np.eye(8) - weights)
    parts, rows = [], []
    batch_shift = rng.normal(0, 0.15, (batches, 8))
    for k, label in enumerate(["control", *labels, "OR5AC2"]):
        for guide in (1, 2):
            n = n_control // 2 if label == "control" else n_cells // 2 + 2 * k * unequal
            shift = np.zeros(8)
            for gene in label.split("+"):
                if gene in TARGETS:
                    shift[TARGETS[gene]] -= (1.2, 0.7)[guide - 1]
            batch = rng.integers(0, batches, n)
            x = 2 + (shift + rng.normal(0, 0.4, (n, 8))) @ total.T + batch_shift[batch]
            parts.append(np.maximum(x, 0))
            rows += [(label, f"{label}_{guide}", f"b{b}") for b in batch]
    perturbation, guides, batch = (pd.Categorical(column) for column in zip(*rows, strict=True))
    adata = screen_of(np.vstack(parts), perturbation, GENES, guides=guides, batch=batch)
    adata.obs_names = "cell" + adata.obs_names
    return adata


def fitted(adata, roles=None, fit=None, **search):
    npt.pp.setup_screen(adata, **(roles or {"guide_key": "guides", "batch_key": "batch"}))
    npt.tl.learn_dag(adata, **({"method": "boss", "environments": "all"} | search))
    npt.tl.fit_dag_blr(adata, **(fit or {}))
    return adata


@pipeline
def guides_in_two_batches():
    adata = fitted(screen(0), n_graphs=3)
    npt.tl.perturbation_effects(adata, level=0.8)
    npt.tl.diagnose(adata)
    npt.tl.design_interventions(adata, "STAT1", n_samples=60, stopping={"tolerance": 0.3})
    npt.tl.plan_cells(adata, "STAT1", effect={"size": 0.3, "power": 0.7}, budget=900)
    npt.tl.plan_screen(adata, "IRF1", n_perturbations=3, n_cells=400, strategy="both")
    npt.tl.plan_loading(adata, lanes=1, costs={"cell": 0.4, "lane": 900, "million_reads": 3})
    yield adata
    yield npt.get.effects_df(adata)
    yield npt.get.order_df(adata)
    yield npt.get.fitted_perturbations(adata)
    yield re.findall(r"[\d.]+", str(npt.summary(adata)))


@pipeline
def batches_that_perturbations_do_not_share():
    adata = screen(1, batches=3, unequal=True)
    batch = adata.obs["batch"].astype(str)
    batch[adata.obs["perturbation"] == "MYC"] = "b0"
    batch[adata.obs["perturbation"] == "JUN"] = "b2"
    batch[(adata.obs["perturbation"] == "control") & (batch == "b2")] = "b1"
    adata.obs["batch"] = pd.Categorical(batch)
    fitted(adata, {"batch_key": "batch"}, method="gsp", environments="control")
    npt.tl.perturbation_effects(adata, candidates=["MYC", "JUN", "MYC+JUN"])
    npt.tl.plan_cells(adata, effect=0.4, rule="fdr", n_guides=3)
    npt.tl.diagnose(adata)
    npt.tl.target_distances(adata, "MYC", confidence=0.8)
    yield adata


@pipeline
def columns_that_are_not_declared():
    adata = screen(2, batches=2)
    adata.obs["lane"] = adata.obs["batch"]
    adata.X[(adata.obs["lane"] == "b1").to_numpy()] += np.linspace(0, 0.6, 8)
    fitted(adata, {"perturbation_key": "perturbation"}, n_graphs=2)
    npt.tl.diagnose(adata)
    npt.tl.plan_screen(adata, {"STAT1": 1.0, "MYC": 2.5}, n_perturbations=2, strategy="thompson")
    yield adata


@pipeline
def combinations_and_a_budget():
    pairs = ["STAT1", "MYC", "JUN", "STAT1+MYC", "MYC+JUN"]
    adata = fitted(screen(3, labels=pairs, n_cells=30))
    npt.tl.perturbation_effects(adata, candidates=["STAT1+JUN", "MYC"])
    constraints = {"max_combination": 2, "include": ["JUN"], "exclude": ["MYC"], "min_cells": 15}
    npt.tl.plan_screen(
        adata, "STAT1+MYC", n_cells=300, strategy="exploit", pending={"STAT1+JUN": 20},
        constraints={**constraints, "costs": {"cell": 0.5, "perturbation": 40, "budget": 400}},
    )  # fmt: skip
    npt.tl.design_interventions(
        adata,
        npt.Target(state={"STAT1": 1.2, "CD44": 2.0}, at_most={"JUN": 1.5}),
        candidates=["STAT1+JUN", "JUN", "IRF1"],
    )
    npt.tl.diagnose(adata)
    yield adata
    yield npt.get.plan_df(adata)


@pipeline
def two_conditions():
    adata = screen(4)
    odd = np.arange(adata.n_obs) % 2 == 1
    adata.obs["condition"] = pd.Categorical(np.where(odd, "IFN", "rest"))
    adata.X[odd] += np.linspace(0, 0.5, 8)
    fitted(adata, {"condition_key": "condition", "batch_key": "batch"})
    npt.tl.perturbation_effects(adata, condition="IFN")
    npt.tl.design_interventions(adata, ("condition", "IFN"), n_samples=50)
    npt.tl.diagnose(adata)
    yield adata


@pipeline
def exact_shifts_of_the_paper():
    adata = screen(5)
    given = [(GENES[i], GENES[j]) for i, j, _ in EDGES]
    fitted(adata, {}, {"shift_sd": 0, "prior_options": {"prior_scale": 1.0}}, method="given",
           environments="control", dag=given)  # fmt: skip
    for rule in ("civ", "civ_ow", "mi", "cv", "maxv", "ucb", "ei", "target_mean_variance"):
        npt.tl.design_interventions(adata, "MYC", acquisition=rule, n_cells=12, key_added=rule)
    npt.tl.dag_fit(adata, n_random=20, n_folds=3)
    npt.tl.plan_screen(adata, "MYC", n_perturbations=2, strategy="civ")
    yield adata


@pipeline
def preset_of_the_paper():
    adata = screen(6)
    npt.tl.learn_dag(adata, preset="zhang2023")
    npt.tl.fit_dag_blr(adata, preset="zhang2023")
    npt.tl.design_interventions(adata, "MYC", preset="zhang2023")
    npt.tl.design_interventions(adata, "JUN", preset="zhang2023")
    npt.tl.cpca(adata)
    npt.tl.dag_fit(adata, n_random=10)
    yield adata


@pipeline
def side_information_and_untested_genes():
    adata = fitted(screen(7), fit={
        "features": pd.DataFrame(np.cos(np.arange(16.0).reshape(8, 2)), GENES, ["f", "g"]),
        "shift": "activation",
    })  # fmt: skip
    npt.tl.perturbation_effects(adata, candidates="genes")
    npt.tl.design_interventions(adata, "JUN", candidates="genes", acquisition="ei")
    npt.tl.diagnose(adata)
    yield adata


@pipeline
def doses_with_their_shifts():
    adata = screen(8, labels=["STAT1", "MYC"])
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    dose = np.where(np.arange(adata.n_obs) % 3 == 0, "_1", "_10")
    adata.obs["perturbation"] = pd.Categorical(
        np.where(labels == "control", labels, np.char.add(labels.astype(str), dose))
    )
    shift = {f"{g}{d}": {g: -s} for g in ("STAT1", "MYC") for d, s in (("_1", 0.5), ("_10", 1))}
    fitted(adata, {"batch_key": "batch"}, {"shift": shift})
    npt.tl.perturbation_effects(adata)
    npt.tl.plan_screen(adata, "MYC_10", n_perturbations=2, n_cells=300)
    yield adata


@pipeline
def tables_of_effects():
    rng = np.random.default_rng(9)
    names = [f"drug{i}" for i in range(9)]
    effect = pd.DataFrame(rng.normal(0, 0.5, (9, 8)) * (rng.random((9, 8)) < 0.4), names, GENES)
    se = pd.DataFrame(rng.uniform(0.05, 0.2, (9, 8)), names, GENES)
    table = npt.pp.effect_table(
        effect + se * rng.normal(size=se.shape), se, n_cells=dict.fromkeys(names, 30.0),
        n_controls=200, control_mean=dict(zip(GENES, np.linspace(1, 2, 8), strict=True)),
    )  # fmt: skip
    npt.tl.learn_dag(table, method="given", dag=[("STAT1", "IRF1"), ("JUN", "FOS")])
    npt.tl.fit_dag_blr(table)
    npt.tl.perturbation_effects(table)
    npt.tl.diagnose(table)
    npt.tl.design_interventions(table, "drug3")
    yield table
    doubled = screen_of(
        np.vstack([effect, effect + 0.1]), [*names, *names], GENES,
        layers={"se": np.vstack([se, se])}, batch=["x"] * 9 + ["y"] * 9,
    )  # fmt: skip
    doubled = npt.pp.effect_table(doubled, control_se=dict.fromkeys(GENES, 0.02))
    npt.tl.fit_dag_blr(doubled)
    npt.tl.perturbation_effects(doubled)
    npt.tl.plan_screen(doubled, "drug3", n_perturbations=2, n_cells=60)
    yield doubled


@pipeline
def counts_and_guide_matrix():
    rng = np.random.default_rng(10)
    adata = screen(10)
    counts = rng.poisson(np.exp(adata.X) * rng.gamma(4, 0.4, (adata.n_obs, 1)))
    adata.X = sp.csr_matrix(counts.astype(float))
    names = [f"{g}_{i}" for g in ("STAT1", "MYC", "NO_SITE") for i in (1, 2)]
    umi = pd.DataFrame(rng.poisson(3, (adata.n_obs, 6)), adata.obs_names, names)
    npt.pp.assign_guides(adata, guides=umi, threshold=4, multiple="combine")
    del adata.obs["batch"]
    npt.pp.perturbation_screen(adata, min_cells=10, combinations="keep", panel=GENES[:6])
    fitted(adata, {"perturbation_key": "perturbation"})
    yield adata


@pipeline
def programs_of_many_perturbations():
    rng = np.random.default_rng(16)
    names = [f"p{i}" for i in range(36)]
    loadings = rng.normal(0, 0.5, (36, 2)) * (np.arange(36) % 3 > 0)[:, None]
    means = loadings @ rng.normal(0, 1, (2, 12)) + (rng.random((36, 12)) < 0.05)
    n_cells = np.where(np.arange(36) % 9 == 0, 1, 8 + np.arange(36) % 5)
    labels = np.repeat(["control", *names], [150, *n_cells])
    x = 3 + rng.normal(0, 0.5, (len(labels), 12))
    x[150:] += np.repeat(means, n_cells, axis=0)
    adata = screen_of(x, pd.Categorical(labels))
    fitted(adata, {"perturbation_key": "perturbation"})
    npt.tl.perturbation_effects(adata)
    npt.tl.target_distances(adata, "p4")
    npt.tl.design_interventions(adata, "p5", n_samples=50)
    budget = {"total": 2000, "cell": 0.3, "construct": 20, "n_perturbations": 30}
    npt.tl.plan_cells(adata, effect={"size": 0.4, "share": 0.1, "sd": 0.5}, budget=budget)
    yield adata


@pipeline
def what_is_to_be_confirmed():
    adata = fitted(screen(19, labels=["STAT1", "MYC", "JUN", "MYC+STAT1"], n_cells=60))
    npt.tl.diagnose(adata)
    npt.tl.plan_screen(adata, {"STAT1": 1.0, "MYC": 2.0}, n_cells=900, n_perturbations=2)
    npt.tl.plan_cells(adata, {"STAT1": 1.0}, stopping={"tolerance": 0.2, "stop_probability": 0.8})
    yield adata
    yield npt.get.plan_df(adata)


@pipeline
def a_panel_for_a_target():
    rng = np.random.default_rng(18)
    adata = screen(18)
    more = rng.normal(1.5, 0.5, (adata.n_obs, 30)) + adata.X[:, [0]] * (np.arange(30) < 4)
    wide = ad.AnnData(
        np.hstack([adata.X, np.maximum(more, 0)]), adata.obs,
        pd.DataFrame(index=[*GENES, *(f"more{i}" for i in range(30))]),
    )  # fmt: skip
    wide.obs["kind"] = pd.Categorical(np.where(np.arange(wide.n_obs) % 5 == 0, "T", "B"))
    npt.pp.perturbation_screen(
        wide, guide_key="guides", batch_key="batch", panel=npt.Target(state="MYC")
    )
    yield wide
    fitted(wide)
    target = npt.Target(state="MYC", away_from="JUN", at_least={"CD44": 2.2})
    npt.tl.design_interventions(wide, target, n_samples=60, key_added="away")
    npt.tl.design_interventions(wide, ("kind", "T"))
    yield wide


@pipeline
def replays():
    adata = fitted(screen(11, n_cells=40))
    npt.tl.replay_design(
        adata, ["STAT1", "IRF1"], n_rounds=2, n_repeats=2, n_perturbations=2, n_cells=6
    )
    yield adata
    npt.tl.replay_design(
        adata, ["MYC"], strategies=["thompson", "thompson_means"], held_out=True, n_rounds=2,
        n_repeats=2, n_perturbations=1, n_cells=8, key_added="held_out",
    )  # fmt: skip
    yield adata.uns["held_out"]


@pipeline
def campaign_of_three_rounds():
    cells = screen(12, labels=["STAT1", "MYC"])
    later = screen(13, labels=["STAT1", "GATA1", "JUN"], n_cells=30)
    later.obs_names = [f"later{i}" for i in range(later.n_obs)]
    fitted(cells, {"guide_key": "guides", "batch_key": "batch"})
    campaign = npt.Campaign(cells, "STAT1")
    yield campaign.propose(2, 200)
    campaign.mark_pending(["GATA1", "JUN"], 30)
    campaign.mark_failed(["JUN"], "no cells")
    yield campaign.summarize()
    campaign.retry(["JUN"])
    later.obs["batch"] = pd.Categorical(["c"] * later.n_obs)
    campaign.observe(later)
    yield campaign.summarize()
    yield campaign.propose(2, 300)
    yield campaign.history


@pipeline
def figures_and_the_report():
    adata = fitted(screen(14, labels=["STAT1", "MYC", "JUN", "STAT1+MYC"]), n_graphs=3)
    npt.tl.perturbation_effects(adata)
    npt.tl.diagnose(adata)
    npt.tl.cpca(adata)
    npt.tl.dag_fit(adata, n_random=10)
    npt.tl.target_distances(adata, "STAT1")
    npt.tl.design_interventions(adata, "STAT1", n_samples=50)
    npt.tl.plan_cells(adata, "STAT1", budget=600)
    npt.tl.plan_screen(adata, "STAT1", n_perturbations=3, n_cells=300, strategy="both",
                       pending={"MYC": 25})  # fmt: skip
    npt.tl.replay_design(adata, ["MYC"], n_rounds=2, n_repeats=2, n_perturbations=1, n_cells=6)
    for name in sorted(npt.pl.__all__):
        options = {"genes": ["STAT1", "JUN"]} if name == "expression_shift" else {}
        yield name
        yield list(drawn(getattr(npt.pl, name)(adata, return_fig=True, **options)))
    with tempfile.TemporaryDirectory() as folder:
        page = npt.report(adata, Path(folder, "report.html")).read_text()
    text = re.sub(
        r"<script.*?</script>|<style.*?</style>|<svg.*?</svg>|base64,[^\"']*", "", page, flags=re.S
    )
    yield re.findall(r">([^<>]*\d[^<>]*)<", text)


def drawn(figure):
    """Yield where a figure has lines, points, bars and texts, and the limits of its axes."""
    for axes in figure.axes:
        yield np.array([*axes.get_xlim(), *axes.get_ylim()])
        for artist in axes.get_children():
            if hasattr(artist, "get_xydata"):
                yield np.asarray(artist.get_xydata(), float)
            elif hasattr(artist, "get_offsets"):
                yield np.ma.filled(np.asarray(artist.get_offsets(), float), 0)
                yield np.asarray(artist.get_array() if artist.get_array() is not None else [0.0])
            elif hasattr(artist, "get_bbox"):
                yield np.asarray(artist.get_bbox().bounds)
            elif hasattr(artist, "get_text"):
                yield str(artist.get_text())
        yield [label.get_text() for label in axes.get_yticklabels()]


@pipeline
def commands():
    adata = screen(15)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.chdir(name)
        adata.write_h5ad("screen.h5ad")
        options = "--target STAT1 --guide-key guides --batch-key batch --out x"
        assert main(["demo", "--data", "screen.h5ad", *options.split()]) == 0
        for path in sorted(Path("x").rglob("*.csv")):
            yield path.name
            yield pd.read_csv(path)


@pipeline
def searches():
    scm = random_scm(9, "erdos_renyi", expected_degree=4, rng=0)
    moments = Moments.from_array(scm.sample(150, rng=1))
    prior = PriorKnowledge(9, before=[(0, 3)], required=[(1, 2)], forbidden=[(4, 5)])
    for options in ({}, {"prior": prior}):
        for search in (boss, gsp):
            found = search(moments, rng=0, **options)
            yield found.dag.indices
            yield np.asarray(found.order)
        yield minimal_imap(moments, np.arange(9), alpha=0.05, **options).indices
    for family in FAMILIES:
        yield random_dag(9, family, rng=3).indices
    yield list(random_target(scm, 3, rng=4))


@pipeline
def simulated_loops():
    scm = random_scm(6, "erdos_renyi", expected_degree=3, rng=5)
    ideal, target = random_target(scm, 2, rng=6)
    yield ideal
    domain = Pool(np.eye(6) - 0.2)  # optima of others differ by less than processors do
    for noise_var in (scm.noise_var, None):
        blr = DagBlr(scm.dag, noise_var=noise_var, intercept=noise_var is None)
        blr = blr.update(Moments.from_array(scm.sample(30, rng=7)))
        yield blr.to_dict()
        for name in acquisitions(on_domain=True):
            yield vars(
                design_loop(scm, blr, target, name, domain=domain, n_rounds=3, n_cells=5, rng=8)
            )
        for other in (Sphere(1.0), Sparse(2, 1.0), Box(-np.ones(6), np.ones(6))):
            yield other.minimise(Civ(blr, target, n_cells=5), n_random=4, rng=0).value
        yield Civ(blr, target, n_cells=10, noise_aware=True).values(np.eye(6))
        civ = Civ(blr, target, n_cells=10)
        yield Pool(np.eye(6), do=np.eye(6) > 0).minimise(civ, rng=0).shift
        yield gap_variance(blr, np.eye(6)[1], target, n_cells=3, do=[1])


def leaves(value, name):
    """Yield the arrays and texts of nested values with their places."""
    if isinstance(value, ad.AnnData):
        for slot in ("X", "obs", "var", "obsm", "varm", "obsp", "varp", "uns"):
            yield from leaves(getattr(value, slot), f"{name}.{slot}")
    elif isinstance(value, pd.DataFrame):
        yield f"{name}.index", np.asarray(value.index.astype(str))
        for column in value:
            yield from leaves(value[column].to_numpy(), f"{name}.{column}")
    elif isinstance(value, Mapping) or hasattr(value, "items"):
        for key in sorted(value, key=str):
            yield from leaves(value[key], f"{name}.{key}")
    elif isinstance(value, list | tuple) and not all(np.isscalar(v) for v in value):
        for i, item in enumerate(value):
            yield from leaves(item, f"{name}.{i}")
    elif sp.issparse(value):
        yield name, value.toarray()
    else:
        yield name, np.asarray(value)


def summary(array):
    """Return size, sum, weighted sum and scale of numbers; of texts a checksum of their numbers."""
    if array.dtype.kind in "biuf":
        flat = array.astype(float).ravel()
        finite = np.where(np.isfinite(flat), flat, 1e3)
        weights = np.cos(1.7 * np.arange(flat.size))
        sums = [finite.sum(), finite @ weights, np.abs(finite).sum()]
        return [flat.size, *(float(f"{number:.9g}") for number in sums)]
    texts = [str(text) for text in array.ravel()]
    shown = [re.findall(r"-?\d+\.?\d*", text) if " " in text else text for text in texts]
    return zlib.crc32(json.dumps(shown).encode())


def numbers_of(name, caplog):
    """Return the summaries of what a pipeline yields, and of its warnings and notes."""
    found = {}
    with caplog.at_level(logging.INFO, "nextpert"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i, value in enumerate(PIPELINES[name]()):
            for place, array in leaves(value, str(i)):
                if not CHANGING.search(place):
                    found[place] = summary(array)
    told = [
        str(w.message) for w in caught if w.category.__module__.startswith(("nextpert", "builtins"))
    ]
    told += [r.getMessage() for r in caplog.records if r.name.startswith("nextpert")]
    found["told"] = [summary(np.asarray(text)) for text in sorted(told) if "/" not in text]
    return found


def differences(found, stored):
    """Return the places whose numbers differ by more than the tolerance of their scale."""
    for place in sorted({*found, *stored}):
        new, old = found.get(place), stored.get(place)
        if isinstance(new, list) and isinstance(old, list) and place != "told":
            if new[0] != old[0] or not np.allclose(
                new[1:], old[1:], rtol=0, atol=TOLERANCE * old[3] + 1e-9
            ):
                yield f"{place}: {old} is now {new}"
        elif new != old:
            yield f"{place}: {old} is now {new}"


def as_text(numbers):
    """Return stored numbers as JSON with one place a line, so that changes are easy to read."""
    parts = []
    for name, places in sorted(numbers.items()):
        lines = (f"{json.dumps(place)}: {json.dumps(places[place])}" for place in sorted(places))
        parts.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


@pytest.mark.parametrize("name", PIPELINES)
def test_numbers_are_those_stored(name, request, caplog):
    found = numbers_of(name, caplog)
    if request.config.getoption("--write-numbers"):
        stored = json.loads(STORED.read_text()) if STORED.exists() else {}
        STORED.write_text(as_text(stored | {name: found}))
        return
    moved = list(differences(found, json.loads(STORED.read_text())[name]))
    assert not moved, f"{len(moved)} places moved: " + "; ".join(moved[:5])
