"""Simulated screens: what seeing perturbed cells does for graph and predictions. Six tables.

``screens``: 36 genes; 18 are knocked out and 18 are not. The unexplained share of what knockouts
of the unseen ones would do to the other genes (squared, true effects per change of the gene itself)
by controls only and by all environments, one start of each search; weights of all graphs are fitted
to all cells. The last rows have measurement error or a hidden factor, for which no bar is set.

``peers``: every gene knocked out by a shift, so that the graph is identified. SHD to the true
graph (an edge left undirected counts one) and time beside GIES and UT-IGSP (``pip install gies
causaldag``); absent ones are said. GIES is made for targets that are held: its score drops a
target's own cells and centres every environment, so that shifts, which move means alone, tell it
little; "means kept" centres all at the controls instead, which suits shifts.

``batches``: batches with shifts of standard deviation 1 on every gene, crossed with the
perturbations. F1 of the skeleton as fixed effects, centred by hand (on the controls of the
batch), and with batches ignored. ``verdicts``: the same by the public calls, and what
``tl.diagnose`` says in the end.

``pathways``: 10, 30 or 300 perturbations on 100 genes, 25 cells each and 500 controls. The cells
vary by factors of 8 genes, one for every 5 perturbations. With pathways, 5 perturbations lower the
same factor, in part; without, each changes 8 genes at random. Squared errors of effects on the
other genes, by the public calls: of perturbations left out of everything (those of measured
targets, in five folds; of 300 in two of them) relative to "no effect", and of measured ones
relative to the cells' means. The oracle knows the pathways and all variances, and takes the best
linear estimate of mean and deviation of every pathway; the mean perturbation is that of the cells'
means of the others. Weights are those of graph, coexpression and mean perturbation; ``null`` has no
effects but those on target genes.

``starts``: control cells alone, 36 genes in a random graph, and the stand-in of Perturb-CITE-seq
with the preset of Zhang et al. (Poisson counts, so that no search can find the true graph). GSP
from orders that it draws itself (minimum-degree elimination with ties broken at random, as
causaldag's), from uniformly random ones, and from the order of BOSS besides; causaldag's GSP (``pip
install causaldag``); BOSS. All tests at 0.001, depth 4. SHD is that of the equivalence classes; of
the mean over models, the standard error is given. Seconds are of the processor.

    python -m benchmarks.simulated_screens
    python -m benchmarks.simulated_screens --tables peers --models 5
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from itertools import product
from statistics import median
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

import nextpert as npt
from benchmarks._graphs import draw_cells, skeleton_f1
from benchmarks._peer_searches import SEARCHES, distance, is_there
from benchmarks._predictors import fit_weights, search_all, search_controls, total_effects
from benchmarks._quiet import quiet
from benchmarks._simulated import Setting, Simulated, simulate, unexplained
from benchmarks._table import options, save
from nextpert.core import Dag, Moments, boss, causaldag_gsp, gsp
from nextpert.core.graph._equivalence import Pdag

if TYPE_CHECKING:
    from collections.abc import Callable

SCREENS = [
    Setting(degree, efficacy=efficacy, n_control=control, n_cells=cells, unmeasured=unmeasured)
    for degree, efficacy, (control, cells), unmeasured in product(
        (2, 4, 8), ((1.0, 1.0), (0.2, 1.0)), ((5000, 100), (500, 50)), (False, True)
    )
]
SPOILT = [
    replace(setting, **spoilt)
    for setting in SCREENS
    if setting.efficacy == (0.2, 1.0) and setting.unmeasured
    for spoilt in ({"error": 0.3}, {"hidden": 0.5})
]
PEERS = [
    Setting(degree, n_genes=n_genes, n_seen=n_genes, n_control=control, n_cells=cells)
    for n_genes, degree, (control, cells) in product(
        (10, 20), (2, 4), ((5000, 100), (500, 50))
    )
]  # fmt: skip
BATCHES = [
    Setting(degree, n_batches=batches, efficacy=(0.2, 1.0))
    for degree, batches in product((4, 8), (2, 5))
]

STARTS = [(4, 5039), (6, 5039), (6, 500), (None, None)]  # degree, cells; the stand-in


def screens_row(setting: Setting, seed: int) -> list[float]:
    """Return the unexplained share: controls by GSP and BOSS, all cells, all with targets first."""
    found = simulate(setting, seed)
    everything, controls = found.statistics(), found.statistics(only="control")
    graphs = [(search_controls(controls, method=m), None) for m in ("gsp", "boss")]
    graphs += [search_all(everything), search_all(everything, list(found.seen))]
    return [
        unexplained(found, total_effects(fit_weights(everything, *graph, found.targets)))
        for graph in graphs
    ]


def screens(settings: list[Setting], n_models: int, workers: int) -> list[str]:
    """Return the table of unexplained shares; sums up the settings that have a bar."""
    lines = [
        "| degree | efficacy | controls | cells each | unmeasured targets | besides "
        "| controls, GSP | controls, BOSS | all environments | targets first "
        "| all / controls, BOSS |",
        "|---" * 11 + "|",
    ]
    ratios = []
    for setting in settings:
        rows = Parallel(n_jobs=workers)(
            delayed(screens_row)(setting, seed) for seed in range(n_models)
        )
        shares = np.mean(rows, axis=0)
        spoilt = [
            f"error {setting.error:g}" * (setting.error > 0),
            f"factor {setting.hidden:g}" * (setting.hidden > 0),
        ]
        ratio = shares[2] / shares[1]
        if not any(spoilt):
            ratios.append((ratio, shares[1], shares[2]))
        low, high = setting.efficacy
        cells = [
            f"{setting.degree}", "1" if low == high else f"{low:g} to {high:g}",
            f"{setting.n_control:,}", f"{setting.n_cells}", "6" if setting.unmeasured else "none",
            "".join(spoilt) or "-", *(f"{share:.3f}" for share in shares), f"{ratio:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    if ratios:
        ratio, before, after = np.array(ratios).T
        lines += [
            "",
            f"Without error or factor, over {len(ratio)} settings: {before.mean():.3f} by controls "
            f"only, {after.mean():.3f} by all environments, {after.mean() / before.mean():.2f} of "
            f"it; mean of the ratios {ratio.mean():.2f}, largest {ratio.max():.2f} (wanted: at "
            f"most 0.50 on average, at most 1 in every setting).",
        ]
    return lines


def peers(settings: list[Setting], n_models: int) -> list[str]:
    """Return the table of SHD and time."""
    lines = [
        "| genes | degree | controls | cells each | search | SHD (true edges) | median s |",
        "|---" * 7 + "|",
    ]
    for setting in settings:
        drawn = [simulate(setting, seed) for seed in range(n_models)]
        truths = [found.scm.weights.T != 0 for found in drawn]
        edges = np.mean([truth.sum() for truth in truths])
        for name, (search, module) in SEARCHES.items():
            cells = [
                f"{setting.n_genes}", f"{setting.degree}", f"{setting.n_control:,}",
                f"{setting.n_cells}", name,
            ]  # fmt: skip
            if not is_there(module):
                lines.append(f"| {' | '.join(cells)} | absent | - |")
                continue
            search(drawn[0], 0)  # compiles
            distances, seconds = [], []
            for seed, (found, truth) in enumerate(zip(drawn, truths, strict=True)):
                start = time.perf_counter()
                graph = search(found, seed)
                seconds.append(time.perf_counter() - start)
                distances.append(distance(graph, truth))
            cells += [f"{np.mean(distances):.1f} ({edges:.0f})", f"{median(seconds):.3g}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def batches_row(setting: Setting, seed: int) -> list[float]:
    """Return the skeleton's F1: no batches, fixed effects, centred by hand, ignored."""
    found = simulate(setting, seed)
    without = simulate(replace(setting, batch_sd=0.0), seed)  # the same cells but for the shifts
    variants = [
        without.statistics(batches=False), found.statistics(),
        by_hand(found).statistics(batches=False), found.statistics(batches=False),
    ]  # fmt: skip
    return [skeleton_f1(search_all(each)[0], found.scm.dag) for each in variants]


def by_hand(found: Simulated) -> Simulated:
    """Return the screen with the control mean of its batch taken off every cell."""
    cells, control = found.cells.copy(), found.label == "control"
    for batch in np.unique(found.batch):
        here = found.batch == batch
        cells[here] -= cells[here & control].mean(axis=0)
    return replace(found, cells=cells)


def batches(settings: list[Setting], n_models: int, workers: int) -> list[str]:
    """Return the table of skeletons by treatment of batches."""
    lines = [
        "| degree | batches | no batches | fixed effects | centred by hand | ignored |",
        "|---" * 6 + "|",
    ]
    for setting in settings:
        rows = Parallel(n_jobs=workers)(
            delayed(batches_row)(setting, seed) for seed in range(n_models)
        )
        shown = [f"{value:.3f}" for value in np.mean(rows, axis=0)]
        lines.append(f"| {setting.degree} | {setting.n_batches} | {' | '.join(shown)} |")
    return lines


def through_anndata(found: Simulated, batch_key: str | None) -> tuple[float, str]:
    """Return the skeleton's F1 and the verdict of the public calls on a screen."""
    names = np.array([f"G{k}" for k in range(found.scm.n_nodes)])
    label = [f"G{name}" if name.isdigit() else name for name in found.label]
    obs = pd.DataFrame({"perturbation": label, "batch": found.batch.astype(str)})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(found.cells, obs, pd.DataFrame(index=names))
    npt.pp.setup_screen(adata, batch_key=batch_key)
    npt.tl.learn_dag(adata, method="boss", environments="all")
    npt.tl.fit_dag_blr(adata, shift_sd=0)
    npt.tl.diagnose(adata, rng=0)
    f1 = skeleton_f1(Dag.from_matrix(adata.varp["dag"]), found.scm.dag)
    return f1, adata.uns["diagnosis"]["level"]


def verdicts(settings: list[Setting], n_models: int) -> list[str]:
    """Return the table of verdicts by treatment of batches."""
    lines = ["| degree | batches | treated | skeleton F1 | verdicts |", "|---" * 5 + "|"]
    for setting in settings:
        for treated, key in (("none there", None), ("batch_key", "batch"), ("ignored", None)):
            here = replace(setting, batch_sd=0.0) if treated == "none there" else setting
            found = [through_anndata(simulate(here, seed), key) for seed in range(n_models)]
            said = Counter(verdict for _, verdict in found).most_common()
            cells = [
                f"{setting.degree}", f"{setting.n_batches}", treated,
                f"{np.mean([f1 for f1, _ in found]):.3f}",
                "; ".join(f"{verdict} ({count})" for verdict, count in said),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


P, N, N_CONTROL, LOADED, GROUP = 100, 25, 500, 8, 5  # of ``pathways``: genes, cells, factors
KINDS = ("pathways", "none", "null")


def pathway_screen(n: int, kind: str, seed: int) -> tuple[ad.AnnData, np.ndarray, np.ndarray]:
    """Return a screen of ``n`` perturbations, their effects ``(n, P)`` and their pathways."""
    rng = np.random.default_rng(seed)
    pathway = np.arange(n) // GROUP
    loading = np.zeros((n // GROUP, P))
    for row in loading:
        row[rng.choice(P, LOADED, replace=False)] = 0.7 * rng.choice([-1, 1], LOADED)
    measured = np.arange(min(n, P))
    loading[pathway[measured], measured] = 0.7  # a target is a gene of its pathway
    effects = np.zeros((n, P))
    if kind == "pathways":
        effects = -rng.uniform(0.5, 2.0, (n, 1)) * loading[pathway]
        effects += 0.1 * rng.normal(size=(n, P))
    if kind == "none":
        for row in effects:
            row[rng.choice(P, LOADED, replace=False)] = 0.9 * rng.normal(size=LOADED)
    base = rng.uniform(3, 5, P)
    effects[measured, measured] = -rng.uniform(0.4, 0.8, len(measured)) * base[measured]
    group = np.repeat(np.arange(-1, n), [N_CONTROL, *[N] * n])
    x = base + rng.normal(size=(len(group), len(loading))) @ loading
    x += rng.normal(size=x.shape) + np.vstack([effects, np.zeros(P)])[group]
    names = np.array([*(f"G{j}" if j < P else f"U{j}" for j in range(n)), "control"])
    obs = pd.DataFrame({"perturbation": names[group]}, index=[f"c{k}" for k in range(len(x))])
    return ad.AnnData(x, obs, pd.DataFrame(index=[f"G{k}" for k in range(P)])), effects, pathway


def oracle(y: np.ndarray, noise: np.ndarray, truth: np.ndarray, pathway: np.ndarray) -> np.ndarray:
    """Return the best linear estimate of effects; of rows of infinite noise, from the others.

    ``y``, ``noise`` (its variance) and ``truth``, of which only the variances between and within
    pathways are read, have the shape ``(n, P)``, NaN for target genes.
    """
    groups = [np.flatnonzero(pathway == k) for k in range(pathway.max() + 1)]
    centres = np.array([np.nanmean(truth[rows], axis=0) for rows in groups])
    within = np.nanmean((truth - centres[pathway]) ** 2) * GROUP / (GROUP - 1)
    between = max(np.nanmean(centres**2) - within / GROUP, 0.0)
    weight = np.where(np.isnan(y), 0.0, 1 / (within + noise))
    out = np.zeros_like(truth)
    for rows in groups:
        seen = np.where(weight[rows] > 0, y[rows], 0.0)
        total = weight[rows].sum(axis=0)
        centre = between * (weight[rows] * seen).sum(axis=0) / (1 + between * total)
        out[rows] = centre + within * weight[rows] * (seen - centre)
    return out


def fit(adata: ad.AnnData) -> None:
    """Learn graph and model; of many perturbations by controls only, as indicators take minutes."""
    some = adata.obs["perturbation"].nunique() < 100
    npt.pp.setup_screen(adata)
    npt.tl.learn_dag(adata, method="boss", environments="all" if some else "control")
    npt.tl.fit_dag_blr(adata)


def pathways_row(n: int, kind: str, seed: int, n_folds: int) -> np.ndarray:
    """Return the sums of squared errors and weights of one screen.

    Of perturbations left out: no effect, mean perturbation, predicted, oracle. Of measured ones:
    means of the cells, estimated, oracle. And the three weights, means over folds.
    """
    adata, truth, pathway = pathway_screen(n, kind, seed)
    label, x = adata.obs["perturbation"].to_numpy(), np.asarray(adata.X)
    names = [f"G{j}" if j < P else f"U{j}" for j in range(n)]
    control = x[label == "control"]
    y = np.array([x[label == name].mean(axis=0) for name in names]) - control.mean(axis=0)
    noise = np.tile(control.var(axis=0) * (1 / N + 1 / N_CONTROL), (n, 1))
    own = np.arange(P) == np.arange(n)[:, None]
    y[own], hidden = np.nan, np.where(own, np.nan, truth)
    errors, weights = np.zeros(4), []
    folds = np.array_split(np.random.default_rng(seed).permutation(min(n, P)), 5)
    for fold in folds[:n_folds]:
        asked = [names[j] for j in fold]
        some = adata[~np.isin(label, asked)].copy()
        fit(some)
        npt.tl.perturbation_effects(some, candidates=asked)
        table = some.uns["dag_blr"]["predictors"]
        weights.append(table["weights"][:3])
        rest = np.delete(np.arange(n), fold)
        unseen = noise.copy()
        unseen[fold] = np.inf
        guesses = [
            np.zeros((len(fold), P)), np.tile(np.nanmean(y[rest], axis=0), (len(fold), 1)),
            some.uns["perturbation_effects"]["mean"], oracle(y, unseen, hidden, pathway)[fold],
        ]  # fmt: skip
        errors += [np.nansum((guess - hidden[fold]) ** 2) for guess in guesses]
    fit(adata)
    npt.tl.perturbation_effects(adata)
    found = adata.uns["perturbation_effects"]
    order = [list(found["perturbations"]).index(name) for name in names]
    seen = [y, np.asarray(found["mean"])[order], oracle(y, noise, hidden, pathway)]
    sums = [np.nansum((guess - hidden) ** 2) for guess in seen]
    return np.array([*errors, *sums, *np.mean(weights, axis=0)])


def pathways(n_models: int, workers: int, settings: slice) -> list[str]:
    """Return the table of errors by number of perturbations and by what they share."""
    lines = [
        "| perturbations | effects | screens | unseen: mean perturbation | predicted | oracle "
        "| measured: estimated | oracle | weights: graph, coexpression, mean |",
        "|---" * 9 + "|",
    ]
    for n, kind in list(product((10, 30, 300), KINDS))[settings]:
        n_screens, n_folds = (n_models, 5) if n < 100 else (max(n_models // 3, 1), 2)
        rows = Parallel(n_jobs=workers)(
            delayed(pathways_row)(n, kind, seed, n_folds) for seed in range(n_screens)
        )
        total, found = np.sum(rows, axis=0), np.array(rows)[:, 7:]
        unseen = total[1:4] / total[0] if kind != "null" else [np.nan] * 3
        shares = [*unseen, *total[5:7] / total[4]]
        pairs = zip(found.mean(axis=0), found.std(axis=0), strict=True)
        cells = [
            f"{n}", kind, f"{n_screens}", *("-" if np.isnan(s) else f"{s:.2f}" for s in shares),
            ", ".join(f"{mean:.2f} ± {sd:.2f}" for mean, sd in pairs),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr)
    return lines


def standin_cells(seed: int) -> tuple[Dag, np.ndarray]:
    """Return the true graph of the paper's panel, and unperturbed cells of the stand-in."""
    with tempfile.TemporaryDirectory() as folder:
        weights = npt.datasets.perturb_cite_seq_standin(folder, n_cells=12_000, rng=seed)
        adata = npt.datasets.perturb_cite_seq(folder, condition="Control", protein=False)
    npt.pp.perturb_cite_seq(adata, preset="zhang2023")
    truth = weights.loc[adata.var_names, adata.var_names].to_numpy() != 0
    cells = adata[(adata.obs["perturbation"] == "control").to_numpy()].X
    return Dag.from_matrix(truth), np.asarray(cells.todense(), dtype=float)


def of_class(dag: Dag) -> np.ndarray:
    """Return the equivalence class as a matrix; an unoriented edge is both ways."""
    return Pdag.of_class(dag).edges


def from_starts(cells: Moments, seed: int) -> dict[str, Callable[[], Dag]]:
    """Return the searches of ``starts``."""

    def from_boss(n_runs: int) -> Dag:
        order = boss(cells, n_starts=10, rng=0).order
        return gsp(cells, n_runs=n_runs, orders=order, rng=seed).dag

    rng = np.random.default_rng(seed)
    uniform = np.array([rng.permutation(cells.n_nodes) for _ in range(999)])
    found = {
        "GSP, 1,000 uniform orders": lambda: gsp(cells, n_runs=1, orders=uniform, rng=seed).dag,
        "GSP, 100 drawn orders": lambda: gsp(cells, n_runs=100, rng=seed).dag,
        "GSP, 1,000 drawn orders": lambda: gsp(cells, n_runs=1000, rng=seed).dag,
        "GSP, 100 drawn orders and BOSS's": lambda: from_boss(100),
        "GSP, 1,000 drawn orders and BOSS's": lambda: from_boss(1000),
        "BOSS": lambda: boss(cells, n_starts=10, rng=0).dag,
    }
    if is_there("graphical_model_learning"):
        found["causaldag, 100 runs"] = lambda: causaldag_gsp(cells, n_runs=100, rng=seed)
    return found


@quiet()
def starts(settings: list[tuple[int | None, int | None]], n_models: int) -> list[str]:
    """Return the table of edges, SHD and time by the orders that GSP starts from."""
    lines = ["| cells | true edges | search | edges | SHD | s |", "|---" * 6 + "|"]
    few = Moments.from_array(np.random.default_rng(0).normal(size=(50, 4)))
    for search in from_starts(few, 0).values():
        search()  # compiles
    for degree, n_cells in settings:
        rows: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(n_models):
            if degree is None or n_cells is None:
                truth, cells = standin_cells(seed)
            else:
                truth, cells = draw_cells(36, degree, n_cells, seed)
            for name, search in from_starts(Moments.from_array(cells), seed).items():
                start = time.process_time()
                dag = search()
                seconds = time.process_time() - start
                apart = distance(of_class(dag), of_class(truth))
                row = (len(cells), truth.n_edges, dag.n_edges, apart, seconds)
                rows.setdefault(name, []).append(row)
        what = "stand-in, " if degree is None else f"degree {degree}, "
        for name, each in rows.items():
            n, true, edges, apart, seconds = np.mean(each, axis=0)
            error = np.std([row[3] for row in each]) / np.sqrt(max(n_models - 1, 1))
            lines.append(
                f"| {what}{n:,.0f} | {true:.1f} | {name} | {edges:.1f} "
                f"| {apart:.1f} ± {error:.1f} | {seconds:.3g} |"
            )
            print(lines[-1], file=sys.stderr)
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Run the tables asked for."""
    parser = options("simulated_screens", __doc__)
    names = ("screens", "peers", "batches", "verdicts", "pathways", "starts")
    parser.add_argument("--tables", nargs="+", default=list(names), choices=names)
    parser.add_argument("--models", type=int, default=20, help="models of every setting")
    parser.add_argument("--settings", type=int, help="only the first so many of every table")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(arguments)
    some = slice(args.settings)
    run = {
        "screens": lambda: screens([*SCREENS, *SPOILT][some], args.models, args.workers),
        "peers": lambda: peers(PEERS[some], args.models),
        "batches": lambda: batches(BATCHES[some], args.models, args.workers),
        "verdicts": lambda: verdicts(BATCHES[some], args.models),
        "pathways": lambda: pathways(args.models, args.workers, some),
        "starts": lambda: starts(STARTS[some], args.models),
    }
    sections = []
    for name in args.tables:
        head = f"## {name}, means over {args.models} models"
        sections.append("\n".join([head, "", *run[name](), ""]))
        print(sections[-1], flush=True)
    save(sections, args.save)


if __name__ == "__main__":
    main()
