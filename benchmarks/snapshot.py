"""The numbers of all main calls in one file, to compare two revisions item by item.

TAP-seq, a subset of Norman and two simulated screens (batches and guides; combinations): graphs,
fits, effects, rankings, plans, numbers of cells, diagnosis, replays and a campaign; a figure of the
paper at a reduced size. The real screens are in the folder ``NEXTPERT_DATA``. Save in one revision,
compare in the other::

    python -m benchmarks.snapshot --save before.npz
    python -m benchmarks.snapshot --compare before.npz
    python -m benchmarks.snapshot --compare before.npz --only tapseq combinations/plans paper/fig5

``--compare`` runs what ``--only`` names and prints a row for each item that is not the same. A
table is compared row by row, by its labels, so that two rows that change places differ in ``order``
alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import nextpert as npt
from benchmarks._page import options, quiet, show, table
from benchmarks._snapshot_screens import CASES, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Items = Iterator[tuple[str, Any]]

TOLERANCE, N_SAMPLES = 1e-8, 200
# What no revision has to keep: how results are stored, options, sentences, times.
SKIPPED = {
    "params", "version", "format", "contents", "cells", "graphs", "pending", "why", "meaning",
    "rule", "verdict", "frequency_key", "target_genes", "shift", "shift_source",
}  # fmt: skip
# Columns that say which row it is: as many of them, in this order, as tell the rows apart.
KEYS = (
    "perturbation", "gene", "parent", "child", "target", "held_out", "acquisition", "strategy",
    "round", "part", "quantity", "predictor", "action", "n_guides", "n_cells", "setting", "prior",
    "well",
)  # fmt: skip


def fitted(case: Case) -> ad.AnnData:
    """Return the screen with its graphs, ``dag`` and ``gsp``, and two fits, the paper's too."""
    adata = case.read()
    npt.tl.learn_dag(adata, method="boss", environments="all", n_graphs=4)
    npt.tl.learn_dag(adata, search_options={"n_runs": 5}, key_added="gsp")
    npt.tl.fit_dag_blr(adata)
    npt.tl.fit_dag_blr(
        adata, dag_key="gsp", shift_sd=0, prior_options={"prior_scale": 1.0}, key_added="exact"
    )
    return adata


def fits(adata: ad.AnnData, case: Case) -> Items:
    """Graphs, weights, and what the fit learned of shifts, predictors and models."""
    for key in ("dag", "gsp", "dag_frequency"):
        yield key, adata.varp[key]
    yield "edges", adata.uns["dag"]
    for key in ("dag_blr", "exact"):
        stored = adata.uns[key]
        names = ("environments", "efficacy", "predictors", "guide_variance", "control_mean")
        yield key, {name: stored[name] for name in names if name in stored}
        yield f"{key}/weights", adata.varp[f"{key}_mean"]


def effects(adata: ad.AnnData, case: Case) -> Items:
    """Effects of all perturbations, measured or not, by the fit and with exact shifts."""
    for key, candidates in (("dag_blr", None), ("dag_blr", case.unseen), ("exact", None)):
        npt.tl.perturbation_effects(adata, posterior_key=key, candidates=candidates)
        yield key if candidates is None else "unseen", adata.uns["perturbation_effects"]
    npt.tl.target_distances(adata, case.target)
    yield "distances", adata.uns["target_distances"]


def rankings(adata: ad.AnnData, case: Case) -> Items:
    """Rankings by each acquisition, by both fits, and for targets of several parts."""
    numbers = goal(adata, case)
    asked: dict[str, tuple[Any, dict[str, Any]]] = {}
    for name in ("probability", "ei", "thompson", "greedy", "civ", "random"):
        asked[name] = case.target, {"acquisition": name}
        asked[f"exact/{name}"] = numbers, {"acquisition": name, "posterior_key": "exact"}
    for name in ("civ_ow", "cv", "maxv", "target_mean_variance"):
        asked[f"exact/{name}"] = numbers, {"acquisition": name, "posterior_key": "exact"}
    first, second, *rest = list(numbers)[:6]
    for name, target in {
        "region": npt.Target(at_least={first: numbers[first] + 0.2}, at_most={second: 0.5}),
        "cosine": npt.Target(state=case.target, distance="cosine"),
        "noise": npt.Target(state=case.target, distance="noise", weights=rest),
        "signature": npt.Target(signature={n: (-0.5) ** k for k, n in enumerate(rest)}),
    }.items():
        asked[name] = target, {}
    named = {"candidates": [case.later, *case.unseen]}
    asked["candidates"] = case.target, named
    for name, (target, more) in asked.items():
        npt.tl.design_interventions(adata, target, n_samples=N_SAMPLES, **more)
        yield name, adata.uns["design"]["ranking"]


def goal(adata: ad.AnnData, case: Case) -> dict[str, float]:
    """Return the mean of the target's cells, gene by gene."""
    layer = adata.uns.get("screen", {}).get("layer")
    cells = adata[(adata.obs["perturbation"] == case.target).to_numpy()].to_df(layer)
    return cells[list(adata.uns["exact"]["genes"])].mean().astype(float).to_dict()


def plans(adata: ad.AnnData, case: Case) -> Items:
    """Plates of each strategy, with constraints, pending perturbations and combinations."""
    asked: dict[str, dict[str, Any]] = {
        strategy: {"strategy": strategy} for strategy in ("exploit", "explore", "both")
    }
    names = adata.uns["dag_blr"]["environments"]["perturbation"]
    first, second, *_ = (n for n in names if "+" not in n and n not in (case.target, case.later))
    asked["constraints"] = {
        "constraints": {"include": [case.later], "exclude": [first], "min_cells": 30},
        "pending": {second: 50}, "n_controls": 100, "n_perturbations": 5,
    }  # fmt: skip
    for name, more in {**asked, **case.plans}.items():
        npt.tl.plan_screen(adata, case.target, **more)
        yield name, adata.uns["plan"]


def cells(adata: ad.AnnData, case: Case) -> Items:
    """How many cells are needed, and when to stop."""
    npt.tl.plan_cells(adata)
    yield "genes", adata.uns["plan_cells"]
    npt.tl.plan_cells(adata, case.target, n_guides=3)
    yield "target", adata.uns["plan_cells"]


def diagnosis(adata: ad.AnnData, case: Case) -> Items:
    """Judgement of fit and graph; and contrastive PCA up to signs."""
    npt.tl.diagnose(adata)
    yield "diagnosis", adata.uns["diagnosis"]
    npt.tl.dag_fit(adata, n_random=20)
    yield "dag_fit", adata.uns["dag_fit"]
    npt.tl.cpca(adata)
    yield "cpca", {**adata.uns["cpca"], "components": np.abs(adata.varm["cPCs"])}


def replays(adata: ad.AnnData, case: Case) -> Items:
    """Replays of the screen by each strategy."""
    for name, held_out in (("real", False), ("held out", True)):
        npt.tl.replay_design(
            adata, [case.target], held_out=held_out, n_rounds=2, n_repeats=2, n_perturbations=3,
            strategies=("exploit", "thompson", "civ", "exact_greedy", "thompson_means", "random"),
        )  # fmt: skip
        yield name, adata.uns["replay"]


def campaign(adata: ad.AnnData, case: Case) -> Items:
    """Plates of a campaign: what is proposed, what comes back, and its summary."""
    screen = case.read()
    back = (screen.obs["perturbation"] == case.later).to_numpy()
    learn = {"method": "boss", "environments": "all", "search_options": {"n_runs": 2}}
    plan = {"candidates": "genes"}
    run = npt.Campaign(screen[~back].copy(), case.target, learn=learn, plan=plan)
    yield "plate 1", run.propose(4, 800)
    run.mark_failed([next(iter(run.pending))], reason="no cells")
    batch = None if "batch_key" in screen.uns.get("screen", {}) else "same"
    run.observe(screen[back].copy(), batch=batch)
    with tempfile.TemporaryDirectory() as folder:
        run.save(f"{folder}/a.h5ad")
        run = npt.Campaign.load(f"{folder}/a.h5ad")
    yield "plate 2", run.propose(4, 800, strategy="both")
    yield "summary", run.summarize()
    yield "history", run.history.drop(columns=["when", "versions", "options"])


def figure(key: str) -> Items:
    """Numbers of one figure of the paper at a reduced size."""
    from benchmarks.paper import _figures, _run

    yield "curves", _run.by_round(_run.curves(_figures.FIGURES[key].quick(), 1))


STEPS: tuple[Callable[[ad.AnnData, Case], Items], ...] = (
    fits, effects, rankings, plans, cells, diagnosis, replays, campaign
)  # fmt: skip
FIGURES = ("fig5", "ed5")
NAMES = [f"{case}/{step.__name__}" for case in CASES for step in STEPS]
NAMES += [f"paper/{key}" for key in FIGURES]


def flat(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a result by name: numbers, or texts of fixed width."""
    if isinstance(value, pd.DataFrame):
        if value.index.name:
            value = value.reset_index()
        rows = np.full(len(value), "", dtype=object)
        for key in KEYS:
            if key in value and len(set(rows)) < len(rows):
                rows = rows + value[key].astype(str).to_numpy(dtype=object) + " "
        places = np.argsort(rows, kind="stable")
        yield f"{name}/order", np.asarray(rows, dtype=str)
        for column in value:
            if column not in SKIPPED:
                yield from flat(value[column].to_numpy()[places], f"{name}/{column}")
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key not in SKIPPED:
                yield from flat(part, f"{name}/{key}")
    elif sp.issparse(value):
        yield name, value.toarray()
    else:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            array = np.asarray(array, dtype=str)
        if not (array.ndim == 0 and array.dtype.kind == "U" and " " in str(array)):
            yield name, array  # a sentence is nobody's number


def chosen(only: Iterable[str]) -> list[str]:
    """Return the steps, ``screen/step``, that begin as one of ``only`` does (or are all)."""
    wanted = tuple(only)
    for word in wanted:
        if not any(name.startswith(word) for name in NAMES):
            raise SystemExit(f"No step is called {word!r}. They are {', '.join(NAMES)}.")
    return [name for name in NAMES if not wanted or name.startswith(wanted)]


@quiet()
def run(names: list[str]) -> dict[str, np.ndarray]:
    """Return the arrays of the steps; a step that fails leaves ``error`` and the others go on."""
    found: dict[str, np.ndarray] = {}
    ready: dict[str, ad.AnnData] = {}
    steps = {step.__name__: step for step in STEPS}
    for name in names:
        start = time.process_time()
        screen, step = name.split("/")
        try:
            if screen != "paper" and screen not in ready:
                ready = {screen: fitted(CASES[screen])}
            items = figure(step) if screen == "paper" else steps[step](ready[screen], CASES[screen])
            for item, value in items:
                found.update(flat(value, f"{name}/{item}"))
        except Exception as error:
            found[f"{name}/error"] = np.asarray(f"{type(error).__name__}: {error}")
            print(f"{name}: {error}", file=sys.stderr)
        print(f"{name}: {time.process_time() - start:.1f} s", file=sys.stderr, flush=True)
    return found


def difference(a: np.ndarray, b: np.ndarray, tolerance: float) -> tuple[float, float, str]:
    """Return the largest absolute and relative difference, and the verdict.

    Relative to the larger of the two numbers. Numbers are the same to a tolerance where they
    differ by no more than that times the larger of 1 and their size. Of texts, the number and the
    share of those that differ.
    """
    if a.shape != b.shape or (a.dtype.kind == "U") != (b.dtype.kind == "U"):
        return np.nan, np.nan, f"SHAPE {a.dtype.kind}{a.shape} -> {b.dtype.kind}{b.shape}"
    if a.size == 0:
        return 0.0, 0.0, "same"
    if a.dtype.kind == "U":
        differ = a != b
        return float(differ.sum()), float(differ.mean()), "DIFFERS" if differ.any() else "same"
    x, y = a.astype(float), b.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.abs(x - y)
        gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, gap)
        gap = np.where(np.isnan(gap), np.inf, gap)
        size = np.maximum(np.abs(x), np.abs(y))
        relative = np.where(gap > 0, gap / size, 0.0)
        within = (gap == 0) | (gap <= tolerance * np.maximum(size, 1))  # size may be NaN
    relative = np.where(np.isnan(relative), np.inf, relative)
    verdict = "same" if not gap.any() else "within" if within.all() else "DIFFERS"
    return float(gap.max()), float(relative.max()), verdict


def compare(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], tolerance: float
) -> dict[str, tuple[float, float, str]]:
    """Return for each item the largest absolute and relative difference, and the verdict."""
    found = {}
    for item in dict.fromkeys([*before, *after]):
        if item in before and item in after:
            found[item] = difference(before[item], after[item], tolerance)
        else:
            found[item] = np.nan, np.nan, "ONLY BEFORE" if item in before else "ONLY AFTER"
    return found


def main(arguments: list[str] | None = None) -> int:
    """Save or compare, as the arguments say."""
    parser = options("snapshot", __doc__)
    parser.add_argument("--compare", metavar="FILE", help="npz saved before")
    parser.add_argument("--only", nargs="+", metavar="STEP", default=(), help="screen or step")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    args = parser.parse_args(arguments)
    names = chosen(args.only)
    after = run(names)
    if args.save:
        np.savez_compressed(args.save, **after)
    if not args.compare:
        return 0
    with np.load(args.compare, allow_pickle=False) as file:
        before = {item: file[item] for item in file.files if item.startswith(tuple(names))}
    rows = compare(before, after, args.tolerance)
    bad = {
        item: [f"{absolute:.1e}", f"{relative:.1e}", verdict]
        for item, (absolute, relative, verdict) in rows.items()
        if verdict not in ("same", "within")
    }
    show(table(("item", "absolute", "relative", "verdict"), bad))
    show(f"{len(bad)} of {len(rows)} items differ by more than {args.tolerance:g}.")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
