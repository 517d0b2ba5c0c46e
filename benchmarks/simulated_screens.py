"""Simulated screens: the gain from perturbed cells for graphs and predictions. Four tables.

``screens``: 36 genes; 18 are knocked out and 18 are not. The table has the unexplained share of the
effects that knockouts of the unseen genes have on the other genes (squared, true effects per change
of the gene itself), with graphs from controls only and from all environments, with one start of
each search; weights of all graphs are fitted to all cells. The last rows have measurement error or
a hidden factor.

``peers``: every gene knocked out by a shift, so that the graph is identified. Structural Hamming
distance (SHD) to the true graph (an unoriented edge counts as one) and time are compared with those
of GIES and UT-IGSP (``pip install gies causaldag``). GIES assumes targets at fixed values: its
score drops a target's own cells and centres every environment, so that it gains little from shifts,
which change only means; "means kept" centres all at the controls instead.

``batches``: batches with shifts of standard deviation 1 on every gene, crossed with the
perturbations. F1 of the skeleton without batches, with batches as fixed effects, and ignored.

``targets``: SHD with targets of perturbations learned, known, and known with 20 or 40% of them
wrong (drawn among the other genes); 500 controls. *Strong*: all genes knocked out by 20 to 100% of
their control means, 50 cells each; *weak*: by 10% (0.3 to 0.5 SD of a cell), 20 cells each.

    python -m benchmarks.simulated_screens
    python -m benchmarks.simulated_screens --tables peers --models 5
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, delayed

from benchmarks._graphs import skeleton_f1
from benchmarks._page import options, save, show, table, with_error
from benchmarks._peer_searches import SEARCHES, distance, is_there
from benchmarks._predictors import fit_weights, search_all, search_controls, total_effects
from benchmarks._simulated import Setting, simulate, unexplained
from nextpert.core.search._classes import OPEN, oriented_by

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
STRONG, WEAK = ((0.2, 1.0), 50), ((0.1, 0.1), 20)
TARGETS = [
    Setting(2, n_genes=p, n_seen=p, n_control=500, efficacy=efficacy, n_cells=cells)
    for p, (efficacy, cells) in product((20, 50), (STRONG, WEAK))
]
WRONG = (0.0, 0.2, 0.4)  # shares of known targets


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


def batches_row(setting: Setting, seed: int) -> list[float]:
    """Return the skeleton's F1: no batches, batches as fixed effects, batches ignored."""
    found = simulate(setting, seed)
    without = simulate(replace(setting, batch_sd=0.0), seed)  # the same cells but for the shifts
    variants = (
        without.statistics(batches=False), found.statistics(), found.statistics(batches=False)
    )  # fmt: skip
    return [skeleton_f1(search_all(each)[0], found.scm.dag) for each in variants]


def targets_row(setting: Setting, seed: int) -> list[float]:
    """Return edges of the truth, and SHD with targets learned and known."""
    found = simulate(setting, seed)
    truth, everything = found.scm.weights.T != 0, found.statistics()
    asked = [None, *(mistaken(found.targets, share, setting.n_genes, seed) for share in WRONG)]
    row = [float(truth.sum())]
    for targets in asked:
        edges = np.zeros_like(truth)
        found_by = search_all(everything, targets=targets, n_starts=10)
        for parent, child, how in oriented_by(*found_by):
            edges[parent, child] = True
            edges[child, parent] |= how == OPEN
        row.append(distance(edges, truth))
    return row


def mistaken(targets: dict[str, int], share: float, p: int, seed: int) -> dict[str, int]:
    """Return targets of which a share is another gene."""
    rng, out = np.random.default_rng(seed), dict(targets)
    for name in rng.choice(sorted(targets), round(share * len(targets)), replace=False):
        out[name] = int(rng.choice(np.delete(np.arange(p), targets[name])))
    return out


def over_models(
    row: Callable[[Setting, int], list[float]], setting: Setting, n_models: int, workers: int
) -> np.ndarray:
    """Return a row for each of the models of a setting."""
    return np.array(Parallel(n_jobs=workers)(delayed(row)(setting, k) for k in range(n_models)))


def range_of(efficacy: tuple[float, float]) -> str:
    """Return an efficacy in words."""
    low, high = efficacy
    return f"{high:g}" if low == high else f"{low:g} to {high:g}"


def screens(settings: list[Setting], n_models: int, workers: int) -> str:
    """Return the table of unexplained shares, and what holds over all settings without error."""
    rows, clean = [], []
    for setting in settings:
        shares = over_models(screens_row, setting, n_models, workers).mean(axis=0)
        spoilt = f"error {setting.error:g}" * (setting.error > 0)
        spoilt += f"factor {setting.hidden:g}" * (setting.hidden > 0)
        if not spoilt:
            clean.append(shares)
        rows.append([
            setting.degree, range_of(setting.efficacy), f"{setting.n_control:,}", setting.n_cells,
            "6" if setting.unmeasured else "none", spoilt or "-",
            *(f"{share:.3f}" for share in shares), f"{shares[2] / shares[1]:.2f}",
        ])  # fmt: skip
    _, before, after, _ = np.mean(clean, axis=0)
    largest = max(shares[2] / shares[1] for shares in clean)
    head = (
        "degree", "efficacy", "controls", "cells each", "unmeasured targets", "error or factor",
        "controls, GSP", "controls, BOSS", "all environments", "targets first",
        "all / controls, BOSS",
    )  # fmt: skip
    return (
        f"{table(head, rows)}\n\nWithout error or factor, over {len(clean)} settings: "
        f"{before:.3f} by controls only, {after:.3f} by all environments; the largest ratio of a "
        f"setting is {largest:.2f}."
    )


def peers(settings: list[Setting], n_models: int, workers: int) -> str:
    """Return the table of SHD and time; one search at a time, whatever the workers."""
    rows = []
    for setting in settings:
        drawn = [simulate(setting, seed) for seed in range(n_models)]
        truths = [found.scm.weights.T != 0 for found in drawn]
        edges = np.mean([truth.sum() for truth in truths])
        for name, (search, module) in SEARCHES.items():
            row = [setting.n_genes, setting.degree, f"{setting.n_control:,}", setting.n_cells, name]
            if not is_there(module):
                rows.append([*row, "absent", "-"])
                continue
            search(drawn[0], 0)  # compiles
            distances, seconds = [], []
            for seed, (found, truth) in enumerate(zip(drawn, truths, strict=True)):
                start = time.perf_counter()
                graph = search(found, seed)
                seconds.append(time.perf_counter() - start)
                distances.append(distance(graph, truth))
            shd = f"{np.mean(distances):.1f} ({edges:.0f})"
            rows.append([*row, shd, f"{median(seconds):.3g}"])
    head = "genes", "degree", "controls", "cells each", "search", "SHD (true edges)", "median s"
    return table(head, rows)


def batches(settings: list[Setting], n_models: int, workers: int) -> str:
    """Return the table of skeletons by treatment of batches."""
    rows = [
        [s.degree, s.n_batches,
         *(f"{f1:.3f}" for f1 in over_models(batches_row, s, n_models, workers).mean(axis=0))]
        for s in settings
    ]  # fmt: skip
    return table(["degree", "batches", "no batches", "fixed effects", "ignored"], rows)


def targets(settings: list[Setting], n_models: int, workers: int) -> str:
    """Return the table of SHD by what is known of the targets."""
    rows = []
    for setting in settings:
        found = over_models(targets_row, setting, n_models, workers)
        edges, *shd = found.mean(axis=0)
        rows.append([
            setting.n_genes, range_of(setting.efficacy), setting.n_cells, f"{edges:.0f}",
            *(f"{value:.2f}" for value in shd), with_error(found[:, 2] - found[:, 1]),
        ])  # fmt: skip
    head = (
        "genes", "efficacy", "cells each", "true edges", "learned", "known", "20% wrong",
        "40% wrong", "known - learned",
    )  # fmt: skip
    return table(head, rows)


def main(arguments: list[str] | None = None) -> None:
    """Run the tables asked for."""
    run = {
        "screens": (screens, [*SCREENS, *SPOILT]), "peers": (peers, PEERS),
        "batches": (batches, BATCHES), "targets": (targets, TARGETS),
    }  # fmt: skip
    parser = options("simulated_screens", __doc__)
    parser.add_argument("--tables", nargs="+", default=list(run), choices=list(run))
    parser.add_argument("--models", type=int, default=20, help="models of every setting")
    parser.add_argument("--settings", type=int, help="only the first so many of every table")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(arguments)
    sections = []
    for name in args.tables:
        made, settings = run[name]
        text = made(settings[: args.settings], args.models, args.workers)
        sections.append(show(f"## {name}, means over {args.models} models\n\n{text}"))
    save("simulated_screens", sections, args.save)


if __name__ == "__main__":
    main()
