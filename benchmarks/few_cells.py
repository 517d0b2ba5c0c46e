"""Effects of perturbations from few cells: cells' means, shrinkage, and the hierarchical model.

The states of all perturbations are estimated from n cells of each and all controls, and scored on
the remaining cells: the squared error summed over genes, less the sampling variance of the means
it is scored on, the mean over perturbations and repeats. Perturbations with fewer than n + 20
cells are left out at that n. The graph is learned from the same cells, with indicators of the
perturbations. "Own genes expected": the change of the perturbed gene is expected by the efficacy of
the screen's perturbations; else all shifts are expected to be 0. The hierarchical model expects own
genes too, and combinations by their members where that is clear, as ``tl.fit_dag_blr`` does.

Intervals are those of effects, from fits without half of the controls (the graph as before). They
have to hold the mean of the remaining cells less that of the other controls, whose sampling
variance is added. With guides: each guide in turn is left out with half of the guides of the
controls, and intervals of the effect have to hold its mean, the spread between guides added or not.

    python -m benchmarks.few_cells                          # all four screens, some minutes
    python -m benchmarks.few_cells --screens norman --repeats 2 --cells 10 25
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from nextpert.core.model.random_shifts import RandomShifts, fit_random_shifts

from benchmarks._screens import SOURCES, add_arguments, screens_of
from benchmarks._shrinkage import ash, james_stein
from benchmarks._table import options, save
from nextpert._adata.members import Naming
from nextpert.core import Dag, DagBlr, ScreenMoments, boss, context_moments
from nextpert.core.model.effects import estimate_effects, learn_efficacy
from nextpert.core.model.hierarchical import Hierarchical, fit_hierarchical
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.screen.guides import PooledGuides, guide_variance, pool_guides
from nextpert.tl._fit_dag_blr.model import learn_together

if TYPE_CHECKING:
    from benchmarks._screens import Screen

CELLS = (10, 25, 50, 100, 200)
LEFT = 20  # cells to score on, at least
SHRUNKEN = "adaptive shrinkage, no graph"
OWN, LEARNED = f"{SHRUNKEN}, own genes expected", "the same, learned graph"
HIERARCHICAL = "hierarchical model, as tl.fit_dag_blr does"
Z = 1.6449  # of a 90% interval


class Shown(NamedTuple):
    """What a model says: states, effects and ends of their intervals, ``(n, n_genes)`` each."""

    state: np.ndarray
    effect: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


class Cells(NamedTuple):
    """Cells of a screen: values, perturbation (0 the control), guide if distinguished."""

    x: np.ndarray
    code: np.ndarray
    names: list[str]
    guide: np.ndarray
    guides: list[str]
    own: list[int]  # column of the gene each perturbation targets, -1 where it has none
    activation: bool


def read_cells(screen: Screen, guide_key: str | None) -> Cells:
    """Return the cells of a screen, and their guides where a column has them."""
    roles = screen.environments.roles
    label = screen.cells.obs[roles.perturbation_key].astype(str).to_numpy()
    names = [screen.control, *sorted(set(label) - {screen.control})]
    code = np.array([names.index(name) for name in label])
    guide, guides = np.full(len(code), -1), []
    if guide_key is not None:
        found = screen.cells.obs[guide_key].astype(str).to_numpy()
        guides, guide = np.unique(found, return_inverse=True)
    own = [screen.targets.get(name, -1) for name in names]
    x = np.asarray(screen.cells.X)
    return Cells(x, code, names, guide, list(guides), own, screen.name == "norman")


def moments(cells: Cells, kept: np.ndarray) -> ScreenMoments:
    """Return the moments of the perturbations, of some cells."""
    return ScreenMoments.from_array(cells.x[kept], cells.code[kept], len(cells.names))


def learn(found: ScreenMoments) -> Dag:
    """Return the graph of cells, with indicators of the perturbations."""
    n = found.n_environments
    joint = context_moments(found, np.eye(n)[:, 1:])
    return boss(joint, n_context=n - 1, rng=0).dag


def fit(dag: Dag, pooled: PooledGuides, cells: Cells | None = None) -> RandomShifts:
    """Fit random shifts that are expected to be 0; own genes by their efficacy with ``cells``."""
    shift = np.zeros_like(pooled.mean[1:])
    own = np.full_like(shift, np.nan)
    if cells is not None:
        pairs = [(j - 1, g) for j, g in enumerate(cells.own) if j and g >= 0]
        rows, genes = np.array(pairs, np.int64).reshape(-1, 2).T
        full = np.ones(len(genes)) if cells.activation else pooled.mean[0, genes]
        noise = pooled.scatter.diagonal() / max(pooled.n_cells.sum() - len(pooled.n), 1)
        error = noise[genes] * (1 / pooled.n[1:][rows] + 1 / pooled.n[0])
        change = pooled.mean[1:][rows, genes] - pooled.mean[0, genes]
        direction = 1 if cells.activation else -1
        found = learn_efficacy(full, change, np.sqrt(error), direction=direction)
        mean, sd = found.expected_change(full)
        shift[rows, genes], own[rows, genes] = mean, sd**2
    return fit_random_shifts(DagBlr(dag), pooled, shift, own=own)


def told(part: Cells, found: ScreenMoments, pooled: PooledGuides) -> tuple[np.ndarray, np.ndarray]:
    """Return expected effects, and the variance of own parts where it is known."""
    alone = fit(Dag.from_edges(found.n_nodes, []), pooled, part)
    expected, own = alone.prior.shift.copy(), alone.prior.own.copy()
    every = np.arange(1, len(part.names))
    seen = Perturbations(found, 0, every, [[g] if g >= 0 else [] for g in part.own[1:]])
    members = [Naming(control=part.names[0]).members(name) for name in part.names[1:]]
    known = learn_together(members, alone, seen)
    if known is not None:
        expected[known[1].rows], own[known[1].rows] = known[1].clear(), np.nan
    return expected, own


def hierarchical(part: Cells, found: ScreenMoments, *, seed: int = 0) -> Hierarchical:
    """Return the hierarchical model, told what a fit expects."""
    expected, own = told(part, found, pool(found))
    return fit_hierarchical(pool(found), expected=expected, own_variance=own, rng=seed)


def of_shifts(found: RandomShifts) -> Shown:
    """Return what random shifts say."""
    effects = estimate_effects([found.posterior], found.prior)
    state = found.prior.given(found.posterior).states(found.posterior)
    return Shown(state, effects.mean, effects.lower, effects.upper)


def fits(dag: Dag, found: ScreenMoments, cells: Cells) -> dict[str, Shown]:
    """Return what models say, by the name of their row."""
    pooled, empty = pool(found), Dag.from_edges(dag.n_nodes, [])
    out = {
        SHRUNKEN: of_shifts(fit(empty, pooled)),
        OWN: of_shifts(fit(empty, pooled, cells)),
        LEARNED: of_shifts(fit(dag, pooled, cells)),
    }
    # A gene that does not vary within perturbations tells of no effect.
    varies = np.flatnonzero(pooled.scatter.diagonal() > 0)
    place = {int(g): k for k, g in enumerate(varies)}
    part = cells._replace(own=[place.get(g, -1) for g in cells.own])
    model = hierarchical(part, found.subset(varies))
    effects = model.effects.summary()
    effect, lower, upper = np.zeros((3, len(found.n) - 1, found.n_nodes))
    effect[:, varies], lower[:, varies], upper[:, varies] = effects[0], *effects[2:4]
    control = found.mean[0].copy()
    control[varies] = model.control.mean(axis=0)
    return out | {HIERARCHICAL: Shown(control + effect, effect, lower, upper)}


def pool(found: ScreenMoments) -> PooledGuides:
    """Return the perturbations, as they are."""
    n = found.n_environments
    return pool_guides(found, np.arange(n), n)


def inside(shown: Shown, truth: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return which intervals cover means of other cells, their sampling variance added."""
    low = shown.effect - np.sqrt((shown.effect - shown.lower) ** 2 + Z**2 * noise)
    high = shown.effect + np.sqrt((shown.upper - shown.effect) ** 2 + Z**2 * noise)
    return (low <= truth) & (truth <= high)


def estimates(found: ScreenMoments, dag: Dag, cells: Cells) -> dict[str, np.ndarray]:
    """Return the states of all perturbations by each way."""
    control, effect = found.mean[0], found.mean[1:] - found.mean[0]
    freedom = np.maximum(found.n - 1, 0).sum()
    variance = found.squares.sum(axis=0) / freedom
    each = variance / found.n[1:, None]
    se = np.sqrt(each + variance / found.n[0])
    out = {
        "means of the cells": effect,
        "no effect": np.zeros_like(effect),
        "James-Stein": james_stein(effect, each),
        "ash as published": np.array([ash(*pair) for pair in zip(effect, se, strict=True)]),
    }
    out = {name: control + value for name, value in out.items()}
    return out | {name: shown.state for name, shown in fits(dag, found, cells).items()}


def few(cells: Cells, n: int, seed: int) -> tuple[dict[str, float], dict[str, np.ndarray], Cells]:
    """Return errors by each way, which intervals cover, and the cells of the perturbations used."""
    rng = np.random.default_rng(seed)
    sizes = np.bincount(cells.code)
    kept = [0, *(j for j in range(1, len(sizes)) if sizes[j] >= n + LEFT)]
    place = np.full(len(sizes), -1)
    place[kept] = np.arange(len(kept))
    names, own = ([each[j] for j in kept] for each in (cells.names, cells.own))
    part = cells._replace(code=place[cells.code], names=names, own=own)
    train = part.code == 0
    half = np.zeros(len(train), bool)  # the controls that a fit for intervals does without
    controls = rng.permutation(np.flatnonzero(train))
    half[controls[: len(controls) // 2]] = True
    for j in range(1, len(kept)):
        train[rng.permutation(np.flatnonzero(part.code == j))[:n]] = True
    found, held = moments(part, train), moments(part, ~train)
    truth, noise = held.mean[1:], held.variance[1:] / held.n[1:, None]
    dag = learn(found)
    errors = {
        name: float(((state - truth) ** 2 - noise).sum(axis=1).mean())
        for name, state in estimates(found, dag, part).items()
    }
    other = moments(part, half)
    noise += other.variance[0] / other.n[0]
    less = moments(part, train & ~half)
    holds = {
        name: inside(shown, truth - other.mean[0], noise)
        for name, shown in fits(dag, less, part).items()
    }
    return errors, holds, part


def left_out_guides(cells: Cells, fold: int) -> dict[str, tuple[np.ndarray, float]]:
    """Return which intervals cover the means of guides left out, and the spread between guides."""
    n_guides = len(cells.guides)
    size = np.bincount(cells.guide, minlength=n_guides)
    owner = np.full(n_guides, -1)
    owner[cells.guide] = cells.code
    held, tested = np.zeros(n_guides, bool), []
    for j in range(len(cells.names)):
        mine = np.flatnonzero((owner == j) & (size >= LEFT))
        if j == 0:
            held[mine[fold % 2 :: 2]] = True
        elif len(mine) > 1:
            out = mine[fold % len(mine)]
            held[out] = True
            tested.append(out)
    every = ScreenMoments.from_array(cells.x, cells.guide, n_guides)
    taken = np.isin(cells.guide, np.flatnonzero(~held))
    found = ScreenMoments.from_array(cells.x[taken], cells.guide[taken], n_guides)
    learned = guide_variance(found, np.flatnonzero((owner == 0) & ~held))
    out = {}
    empty = Dag.from_edges(cells.x.shape[1], [])
    for name, tau2 in (("spread between guides added", learned), ("not", 0.0)):
        pooled = pool_guides(found, owner, len(cells.names), guide_variance=tau2)
        shown = fit(empty, pooled, cells)
        e = shown.posterior.noise_var
        controls = np.flatnonzero((owner == 0) & held)
        count = every.n[controls] / (1.0 + every.n[controls] * tau2)
        zero = np.average(every.mean[controls], axis=0, weights=count)
        noise = every.variance[tested] / every.n[tested, None] + e * (tau2 + 1.0 / count.sum())
        chosen = Shown(*(each[owner[tested] - 1] for each in of_shifts(shown)))
        out[name] = (inside(chosen, every.mean[tested] - zero, noise), tau2)
    return out


def table(head: list[str], rows: dict[str, list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join([name, *row])} |" for name, row in rows.items())])


def run(screen: Screen, guide_key: str | None, sizes: list[int], repeats: int) -> str:
    """Return the section of one screen."""
    start = time.perf_counter()
    cells = read_cells(screen, guide_key)
    errors, coverage, head = defaultdict(list), defaultdict(list), []
    for n in sizes:
        found = [few(cells, n, seed) for seed in range(repeats)]
        used = found[0][2]
        head.append(f"n = {n} ({len(used.names) - 1})")
        for name in found[0][0]:
            errors[name].append(f"{np.mean([each[0][name] for each in found]):.3f}")
        for name in found[0][1]:
            held = np.mean([each[1][name] for each in found], axis=0)
            own = [held[j - 1, gene] for j, gene in enumerate(used.own) if j and gene >= 0]
            shown = f"{held.mean():.1%}, {held.mean(axis=1).min():.0%}"
            coverage[name].append(f"{shown}, {np.mean(own):.0%}" if own else shown)
        print(f"{screen.name}, n = {n}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    parts = [
        f"## {screen.name}: {len(cells.names) - 1} perturbations, {cells.x.shape[1]} genes, "
        f"{int((cells.code == 0).sum()):,} controls, {repeats} repeats",
        "Squared error (number of perturbations with enough cells):",
        table(["", *head], errors),
        "Coverage of 90% intervals of effects: on average, of the least covered perturbation, and "
        "of own genes:",
        table(["", *head], coverage),
    ]
    if cells.guides:
        found = [left_out_guides(cells, fold) for fold in range(4)]
        rows = {
            name: [
                f"{np.mean([each[name][1] for each in found]):.4f}",
                f"{np.concatenate([each[name][0] for each in found]).mean():.1%}",
            ]
            for name in found[0]
        }
        parts += ["Coverage of 90% intervals of the means of guides left out, all other cells:",
                  table(["", "variance between guides / noise", "coverage"], rows)]  # fmt: skip
    print(f"{screen.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the screens asked for and print their tables."""
    parser = options("few_cells", __doc__)
    parser.add_argument("--screens", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--cells", type=int, nargs="+", default=list(CELLS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    add_arguments(parser)
    args = parser.parse_args(arguments)
    sections = []
    for source, screen in screens_of(args):
        largest = screen.cells.obs[source.roles.perturbation_key].astype(str).value_counts()
        largest = largest.drop(screen.control).max()
        sizes = [n for n in args.cells if n + LEFT <= largest]
        sections.append(run(screen, source.guide_key, sizes, args.repeats))
        print(sections[-1], flush=True)
        save(sections, args.save)


if __name__ == "__main__":
    main()
