"""Screens and calls of the snapshot: what is frozen, step by step, by public functions alone."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import nextpert as npt
from benchmarks._screens import SOURCES
from nextpert import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Found = Iterator[tuple[str, Any]]

N_GENES = 60  # the most variable of a real screen, so that all of it takes minutes
N_SAMPLES = 200
ON_DRAWS = ("probability", "ei", "thompson", "greedy", "civ", "random")
OF_EXACT_SHIFTS = ("civ_ow", "cv", "maxv", "target_mean_variance")


@dataclass(frozen=True)
class Case:
    """One screen and what is asked of it.

    Parameters
    ----------
    read
        Returns the cells, normalised, with roles of columns declared.
    target
        Label of the perturbation whose state is wanted.
    unseen
        Candidates without cells.
    plans
        Further options of ``tl.plan_screen`` by a name.
    later
        Label of the cells that come back in the campaign.
    learn
        Options of ``tl.learn_dag``.
    """

    read: Callable[[], ad.AnnData]
    target: str
    unseen: list[str]
    later: str
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    learn: dict[str, Any] = field(default_factory=dict)


def _folder() -> Path:
    return Path(os.environ.get("NEXTPERT_DATA", "../shared/data"))


def _most_variable(adata: ad.AnnData, x: Any) -> ad.AnnData:
    """Return the cells with the most variable genes and all perturbed ones."""
    x = sp.csr_array(x, dtype=float)
    mean = np.asarray(x.mean(axis=0)).ravel()
    variance = np.asarray(x.multiply(x).mean(axis=0)).ravel() - mean**2
    kept = np.zeros(adata.n_vars, bool)
    kept[np.argsort(-variance, kind="stable")[:N_GENES]] = True
    kept |= adata.var_names.isin(adata.obs["perturbation"].unique())
    return adata[:, kept].copy()


def _tapseq() -> ad.AnnData:
    adata = ad.read_h5ad(_folder() / SOURCES["tapseq"].path)
    unassigned = ("unassigned", "multi")
    npt.pp.perturbation_screen(
        adata, control="non-targeting", guide_key="guides", label_options={"unassigned": unassigned}
    )
    return adata


def _papalexi() -> ad.AnnData:
    adata = ad.read_h5ad(_folder() / SOURCES["papalexi"].path)
    npt.pp.perturbation_screen(adata, guide_key="grna")
    return _most_variable(adata, adata.X)


def _norman() -> ad.AnnData:
    adata = ad.read_h5ad(_folder() / SOURCES["norman"].path)
    adata = _most_variable(adata, adata.layers["lognorm"])
    npt.pp.setup_screen(adata, layer="lognorm")
    return adata


def _batches() -> ad.AnnData:
    """Return 20 genes, 8 knockouts, three batches with their controls, guides and covariates.

    Half of the cells of CTSA are called HS2: a target off the panel that does the same.
    """
    rng = np.random.default_rng(3)
    adata = npt.datasets.simulated_screen(
        n_genes=20, n_control=900, n_perturbed=90, perturbed=8, expected_degree=4, rng=2
    )
    label = adata.obs["perturbation"].astype(str).to_numpy()
    label[np.flatnonzero(label == "CTSA")[::2]] = "HS2"
    adata.obs["perturbation"] = pd.Categorical(label)
    batch, guide = rng.integers(3, size=adata.n_obs), rng.integers(4, size=adata.n_obs)
    names = np.array([f"{one}-{k}" for one, k in zip(label, guide, strict=True)])
    codes = np.unique(names, return_inverse=True)[1]
    depth = rng.normal(size=adata.n_obs)
    x = adata.X + 0.3 * rng.normal(size=(3, 20))[batch] + np.outer(depth, np.linspace(0, 0.2, 20))
    adata.X = x + 0.1 * rng.normal(size=(codes.max() + 1, 20))[codes]
    adata.obs["batch"], adata.obs["guide"] = pd.Categorical(batch.astype(str)), names
    adata.obs["depth"] = depth
    adata.obs["day"] = pd.Categorical(np.where(rng.random(adata.n_obs) < 0.3, "d7", "d3"))
    npt.pp.setup_screen(adata, batch_key="batch", guide_key="guide", covariates=["depth", "day"])
    return adata


def _combinations() -> ad.AnnData:
    """Return 24 genes: singles, pairs, two combinations of three and a target off the panel."""
    rng, singles = np.random.default_rng(5), 10
    base = npt.datasets.simulated_screen(
        n_genes=24, n_control=600, n_perturbed=1, perturbed=0, expected_degree=4, rng=4
    )
    truth = base.uns["truth"]
    scm = core.LinearScm(truth["weights"].toarray(), truth["noise_var"], truth["intercept"])
    genes = [str(gene) for gene in base.var_names]
    labels = [
        *genes[:singles], *(f"{genes[i]}+{genes[(i + 3) % singles]}" for i in range(6)),
        "+".join(genes[:3]), "+".join(genes[4:7]),
    ]  # fmt: skip
    cells, names = [base.X], ["control"] * base.n_obs
    for label in labels:
        members = label.split("+")
        shift = np.zeros(24)
        for gene in members:  # effects in company are 0.8 of those alone
            shift[genes.index(gene)] = -truth["control_mean"][genes.index(gene)]
        cells.append(scm.sample(50, 0.8 ** (len(members) > 1) * shift, rng=rng))
        names += [label] * 50
    cells.append(scm.sample(50, rng.normal(size=24) * (rng.random(24) < 0.2), rng=rng))
    names += ["HS2"] * 50
    obs = pd.DataFrame({"perturbation": names}, index=[f"cell_{i}" for i in range(len(names))])
    adata = ad.AnnData(np.concatenate(cells).astype(np.float32), obs, base.var.copy())
    adata.uns["truth"] = truth
    return adata


COSTS = {"budget": 90.0, "perturbation": 5.0, "cell": 0.05}
PAIRS = {"pairs": {"constraints": {"max_combination": 2}}}
CASES = {
    "tapseq": Case(
        _tapseq, "UBR5", ["MYC+OXR1", "MYC+STK3"], "MYC", PAIRS
    ),
    "papalexi": Case(_papalexi, "IFNGR1", ["JAK2+STAT1"], "STAT1"),
    "norman": Case(
        _norman, "KLF1+MAP2K6", ["KLF1+SGK1", "HK2+MAPK1"], "KLF1", PAIRS
    ),
    "batches": Case(
        _batches, "CTSA", ["FOS", "CTSB+FOS"], "CXCR4",
        {"genes": {
            "candidates": "genes", "n_guides": 3,
            "constraints": {"max_new": 2, "plate_format": 384},
        }},
        {"prior": {"tiers": [
            ["CCR10", "CD59", "CDH19", "CTSA", "CTSB", "CXCR4", "HLA-A", "IFNGR2"],
            ["B2M", "CD58", "CDK4", "CDK6", "CTSD", "DNMT1", "EIF3K", "FOS", "HLA-B", "HLA-C",
             "HLA-E", "IFNGR1"],
        ]}},
    ),
    "combinations": Case(
        _combinations, "B2M+CD59", ["B2M+CDH19", "B2M+CCR10+CD59"], "CTSD",
        {"triples": {"constraints": {"max_combination": 3}}, "costs": {
            "constraints": {"costs": COSTS}, "n_cells": 1000,
        }},
    ),
}  # fmt: skip


def fitted(case: Case) -> ad.AnnData:
    """Return the screen with its graphs, ``dag`` and ``gsp``, and two fits, the paper's too."""
    adata = case.read()
    npt.tl.learn_dag(
        adata, method="boss", environments="all", n_graphs=4, search_options=case.learn
    )
    npt.tl.learn_dag(adata, search_options={"n_runs": 5}, key_added="gsp")
    npt.tl.fit_dag_blr(adata)
    npt.tl.fit_dag_blr(
        adata, dag_key="gsp", shift_sd=0, prior_options={"prior_scale": 1.0}, key_added="exact"
    )
    return adata


def graphs(adata: ad.AnnData, case: Case) -> Found:
    """Graphs of BOSS with resamples and of GSP, and those of prior knowledge."""
    for key in ("dag", "gsp"):
        yield f"{key}/matrix", adata.varp[key]
        yield key, adata.uns[key]
    yield "dag/frequency_of_resamples", adata.varp["dag_frequency"]
    genes = adata.uns["dag"]["genes"]
    known = {"forbidden": [(genes[0], genes[1])], "tiers": [list(genes[:5]), list(genes[5:])]}
    options = {"n_runs": 2, "prior": known}
    npt.tl.learn_dag(adata, method="boss", search_options=options, key_added="prior")
    yield "prior/matrix", adata.varp["prior"]
    yield "prior", adata.uns["prior"]
    npt.tl.dag_fit(adata, n_random=20)
    yield "dag_fit", adata.uns["dag_fit"]


def fits(adata: ad.AnnData, case: Case) -> Found:
    """Weights, and what the fit learned of shifts, predictors and models."""
    for key in ("dag_blr", "exact"):
        yield f"{key}/weights", adata.varp[f"{key}_mean"]
        yield key, {k: v for k, v in adata.uns[key].items() if k in FITTED}


FITTED = (
    "environments", "left_out", "log_evidence", "efficacy", "predictors", "guide_variance",
    "control_mean",
)  # fmt: skip


def effects(adata: ad.AnnData, case: Case) -> Found:
    """Effects of all perturbations, measured or not, by the fit and with exact shifts."""
    for key, candidates in (("dag_blr", None), ("dag_blr", case.unseen), ("exact", None)):
        found = npt.tl.perturbation_effects(
            adata, posterior_key=key, candidates=candidates, copy=True
        ).uns["perturbation_effects"]
        name = key if candidates is None else "unseen"
        yield name, {k: v for k, v in found.items() if k not in ("lower", "upper")}


def intervals(adata: ad.AnnData, case: Case) -> Found:
    """Bounds of effects at two levels, and of distances of the cells' means."""
    for level, candidates in ((0.9, None), (0.5, None), (0.9, case.unseen)):
        found = npt.tl.perturbation_effects(adata, level=level, candidates=candidates, copy=True)
        name = f"{level}" if candidates is None else "unseen"
        yield name, {k: found.uns["perturbation_effects"][k] for k in ("lower", "upper")}
    npt.tl.target_distances(adata, case.target)
    yield "distances", adata.uns["target_distances"]


def rankings(adata: ad.AnnData, case: Case) -> Found:
    """Rankings by each acquisition, by both fits, and for targets of several parts."""
    for name in (*ON_DRAWS, *OF_EXACT_SHIFTS):
        for key in ("dag_blr", "exact") if name in ON_DRAWS else ("exact",):
            options = {"acquisition": name, "posterior_key": key, "n_samples": N_SAMPLES}
            target = case.target if key == "dag_blr" else goal(adata, case)
            npt.tl.design_interventions(adata, target, key_added="ranked", **options)
            yield f"{key}/{name}", adata.uns.pop("ranked")["ranking"]
    names = [str(n) for n in adata.var_names[:6]]
    mean = dict(zip(adata.var_names, adata.uns["dag_blr"]["control_mean"], strict=False))
    for name, target in {
        "region": npt.Target(at_least={names[0]: mean[names[0]] + 0.2}, at_most={names[1]: 0.5}),
        "avoid": npt.Target(state=case.target, away_from=case.later, penalty=0.5),
        "cosine": npt.Target(state=case.target, distance="cosine"),
        "noise": npt.Target(state=case.target, distance="noise", weights=names),
        "signature": npt.Target(signature={n: (-0.5) ** k for k, n in enumerate(names)}),
    }.items():
        npt.tl.design_interventions(adata, target, n_samples=N_SAMPLES, key_added="ranked")
        yield name, adata.uns.pop("ranked")["ranking"]
    shown = {"candidates": [case.later, *case.unseen], "target_is_candidate": True}
    npt.tl.design_interventions(
        adata, case.target, n_samples=N_SAMPLES, key_added="ranked", **shown
    )
    yield "candidates", adata.uns.pop("ranked")["ranking"]


def goal(adata: ad.AnnData, case: Case) -> dict[str, float]:
    """Return the mean of the target's cells, gene by gene."""
    layer = adata.uns.get("screen", {}).get("layer")
    x = adata.layers[layer] if layer else adata.X
    cells = (adata.obs["perturbation"] == case.target).to_numpy()
    genes = adata.uns["exact"]["genes"]
    mean = dict(zip(adata.var_names, np.asarray(x[cells].mean(axis=0)).ravel(), strict=True))
    return {str(gene): float(mean[gene]) for gene in genes}


def plans(adata: ad.AnnData, case: Case) -> Found:
    """Plates of each strategy, with constraints, pending perturbations and combinations."""
    asked: dict[str, dict[str, Any]] = {
        strategy: {"strategy": strategy} for strategy in ("exploit", "explore", "both")
    }
    asked["constraints"] = {
        "constraints": {
            "include": [case.later], "exclude": [label(adata, case, 0)], "min_cells": 30,
        },
        "pending": {label(adata, case, 1): 50}, "n_controls": 100, "n_perturbations": 5,
    }  # fmt: skip
    # The draws of plan_screen are a constant there; fewer, so that five screens take minutes.
    planning = import_module("nextpert.tl._plan_screen.plan_screen")
    for name, options in {**asked, **case.plans}.items():
        with mock.patch.object(planning, "N_SAMPLES", N_SAMPLES):
            npt.tl.plan_screen(adata, case.target, key_added="made", **options)
        yield name, adata.uns.pop("made")


def label(adata: ad.AnnData, case: Case, k: int) -> str:
    """Return a perturbation of one target, neither the wanted one nor the later one."""
    names = adata.uns["dag_blr"]["environments"]["perturbation"]
    return str([n for n in names if "+" not in n and n not in (case.target, case.later)][k])


def cells(adata: ad.AnnData, case: Case) -> Found:
    """How many cells are needed, and when to stop."""
    npt.tl.plan_cells(adata, n_samples=N_SAMPLES)
    yield "genes", adata.uns["plan_cells"]
    npt.tl.plan_cells(adata, case.target, n_samples=N_SAMPLES, n_guides=3, n_replicates=2)
    yield "target", adata.uns["plan_cells"]


def diagnosis(adata: ad.AnnData, case: Case) -> Found:
    """Judgement of the fit; and contrastive PCA up to signs."""
    npt.tl.diagnose(adata)
    yield "diagnosis", adata.uns["diagnosis"]
    npt.tl.cpca(adata)
    yield "cpca", adata.uns["cpca"]
    yield "cpca/components", np.abs(adata.varm["cPCs"])


def replays(adata: ad.AnnData, case: Case) -> Found:
    """Replays of the screen, real and simulated, by each strategy."""
    every = ("exploit", "thompson", "ei", "civ", "exact_greedy", "exact_civ", "thompson_means")
    options: dict[str, Any] = {"n_rounds": 3, "n_repeats": 2, "n_perturbations": 3}
    options["campaign_options"] = {"n_warmup": 80}
    for name, more in {
        "real": {"strategies": (*every, "random"), "held_out": "both"},
        "simulated": {"campaign_options": {"n_warmup": 80, "simulated": True}},
    }.items():
        npt.tl.replay_design(adata, [case.target], key_added="replayed", **options | more)
        yield name, adata.uns.pop("replayed")


def campaign(adata: ad.AnnData, case: Case) -> Found:
    """Plates of a campaign: what is proposed, what comes back, and its summary."""
    cells = case.read()
    back = (cells.obs["perturbation"] == case.later).to_numpy()
    learn = {"method": "boss", "environments": "all", "search_options": {"n_runs": 2}}
    batch = None if "batch_key" in cells.uns.get("screen", {}) else "same"
    run = npt.Campaign(
        cells[~back].copy(),
        case.target,
        learn=learn,
        plan={"candidates": "genes"},
    )
    yield "plate 1", run.propose(4, 800)
    run.mark_failed([next(iter(run.pending))], reason="no cells")
    run.observe(cells[back].copy(), batch=batch)
    yield "plate 2", run.propose(4, 800, strategy="explore")
    with tempfile.TemporaryDirectory() as folder:
        run.save(f"{folder}/a.h5ad")
        run = npt.Campaign.load(f"{folder}/a.h5ad")
    yield "plate 3", run.propose(4, 800, strategy="both")
    yield "summary", run.summarize()
    yield "history", run.history.drop(columns=["when", "versions", "options"])
    yield "pending", run.pending


STEPS = {
    step.__name__: step
    for step in (
        graphs, fits, effects, intervals, rankings, plans, cells, diagnosis, replays, campaign
    )
}  # fmt: skip


def figure(key: str) -> Found:
    """Numbers of one figure of the paper at a reduced size."""
    from benchmarks.paper._files import read_csv

    if key in ("fig3", "fig4"):
        from benchmarks.paper import _fig3, _fig4

        with tempfile.TemporaryDirectory() as folder:
            if key == "fig3":
                _fig3.run(Path(folder), quick=True)
            else:
                _fig4.run(Path(folder), quick=True, workers=1)
            for path in sorted(Path(folder).glob("*.csv")):
                yield path.stem, read_csv(Path(folder), path.stem)
    else:
        from benchmarks.paper import _figures, _run

        whole = _figures.FIGURES[key]
        small = [replace(whole, settings=(one,)).quick().settings[0] for one in whole.settings]
        with contextlib.redirect_stderr(io.StringIO()):
            found = _run.curves(replace(whole.quick(), settings=tuple(small)), 1)
        yield key, _run.by_round(found)


def acquisitions(domain: str) -> Found:
    """Values, gradients and optima of each acquisition in one domain, one graph, exact shifts."""
    p, rng = 8, np.random.default_rng(0)
    scm = core.random_scm(p, "erdos_renyi", expected_degree=4, rng=0)
    blr = core.DagBlr(scm.dag).update(core.Moments.from_array(scm.sample(60, rng=1)))
    shift, target = core.random_target(scm, 3, rng=2)
    blr = blr.update(core.Moments.from_array(scm.sample(20, shift, rng=3)), shift)
    where = {
        "sphere": core.Sphere(1.0), "box": core.Box(-np.ones(p), np.ones(p)),
        "sparse": core.Sparse(2), "pool": core.Pool(core.Sphere(1.0).sample(12, p, rng=4)),
    }[domain]  # fmt: skip
    shifts = where.sample(12, p, rng=rng)
    names = ("random", "greedy", "maxv", "cv", "civ", "civ_ow", "target_mean_variance", "ei",
             "mi", "ucb")  # fmt: skip
    for name in names:
        for aware in (False, True):
            if name == "civ_ow" and domain in ("box", "sparse"):
                continue  # no output weights there
            built = core.build_acquisition(
                name, blr, target, domain=where, n_cells=10, noise_aware=aware, best=1.0, rng=5
            )
            found = {"values": built.values(shifts)}
            if name != "random":
                found["gradient"] = built.value_and_grad(shifts[0])[1]
            best = where.minimise(built, rng=6)
            yield f"{name}{'/noise_aware' * aware}", found | {"best": best.shift, "at": best.value}


FIGURES = ("fig3", "fig4", "fig5", "ed1", "ed2", "ed3", "ed4", "ed5", "ed6")
PAPER: dict[str, Callable[[], Found]] = {
    **{f"figures/{key}": partial(figure, key) for key in FIGURES},
    **{
        f"acquisitions/{name}": partial(acquisitions, name)
        for name in ("sphere", "box", "sparse", "pool")
    },
}
