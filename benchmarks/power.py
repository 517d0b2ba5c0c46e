"""Plans of cells against simulation: power, precision, the right choice, and stopping too early.

*Power*: the share of simulated tests that find an effect, beside that planned from the same noise,
with one and several guides; without guides also beside the textbook's formula (two-sample t test,
noncentral t). *Real cells*: n control cells of a screen, moved by an effect up or down, tested by
Welch's test against the other controls, gene by gene; planned from the variance of as many controls
more. *Distances*: standard deviation of the unbiased squared distance and how often the nearer of
two comes out nearer.

*Stopping*: campaigns in plates of 4 perturbations x 10 cells after 100 controls, towards the true
state of a perturbation that is one of the candidates, or is held out. After each plate the rule of
``tl.plan_cells`` is asked, and that of version 0.2 on the same draws; it stops too early where a
candidate is closer than the best known by more than the tolerance (a share of the control's
distance). Simulated: 36 genes, 24 candidates with off-target effects besides their own gene, as the
model has it (independent, weak and strong) or not (programs of genes that move together). Real:
every perturbation above noise is the target; half of its cells give the state, plates are drawn
from the others, and what is true is taken from all cells: too early is a stop with a perturbation
that these distinguish from the best (95%). *Noise*: ``tl.plan_cells`` on simulated screens of nine
perturbations with labels shuffled or cells drawn like controls.

    python -m benchmarks.power                            # half an hour; data: NEXTPERT_DATA
    python -m benchmarks.power --tables power distances   # half a minute
    python -m benchmarks.power --tables noise             # three minutes
    python -m benchmarks.power --tables stopping --worlds modelled_in --campaigns 100
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import nct, ttest_ind_from_stats
from scipy.stats import t as student

from benchmarks._cells import read_cells, table
from benchmarks._screens import SOURCES, read_screen
from benchmarks._stopping import (
    FIRST_SEED,
    N_PLATES,
    TOLERANCES,
    advised,
    drawn,
    noise_screen,
    rule_rows,
    said_rows,
    simulated,
)
from benchmarks._table import options, save
from benchmarks.own_state import above_noise
from benchmarks.replays import as_pool, full_shift
from nextpert.core.design.cell_numbers import Layout
from nextpert.core.design.power import DistancePrecision, EffectPrecision, NearerChance, draw_noise
from nextpert.core.design.stopping import KINDS

TABLES = ("power", "real", "distances", "noise", "stopping", "stopping_real")
# World, and whether the target's own perturbation is held out.
WORLDS = {
    "modelled_in": ("as modelled", False),
    "modelled_out": ("as modelled", True),
    "programs_in": ("programs", False),
    "programs_out": ("programs", True),
}
DRAWS, PAIRS = 40000, 20000
HOW = (
    "stopped too early (% ± SE of all) of those stopped; median of plates until then (13: never); "
    "plates sooner than before (mean ± SE, median)"
)


def simulated_share(
    rng: np.random.Generator, n: int, n_control: int, guides: int, tau2: float, effect: float
) -> float:
    """Return how often Welch's test finds an effect; guides' spread known, cells' estimated."""
    means, squares = [], []
    for size, g, shift in ((n, guides, effect), (n_control, 4 * guides, 0.0)):
        own = shift + np.sqrt(tau2 + g / size) * rng.normal(size=(DRAWS, g))
        within = rng.chisquare(size - g, DRAWS) if size > g else np.zeros(DRAWS)
        total = within + size / g * ((own - own.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        of_cell = total / (size - 1 + tau2 * (size - size / g))
        means.append(own.mean(axis=1))
        squares.append(of_cell * (1 / size + tau2 / g))
    a, b = squares
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (n_control - 1))
    statistic = np.abs(means[0] - means[1]) / np.sqrt(a + b)
    return float((statistic > student.ppf(0.975, freedom)).mean())


def textbook(n: int, n_control: int, effect: float) -> float:
    """Return the power of the two-sample t test, variances alike and pooled."""
    freedom, away = n + n_control - 2, effect / np.sqrt(1 / n + 1 / n_control)
    reach = student.ppf(0.975, freedom)
    return float(nct.sf(reach, freedom, away) + nct.cdf(-reach, freedom, away))


def power_table() -> str:
    """Return planned and simulated power, by cells, guides and their spread."""
    rng, rows, worst, off_book = np.random.default_rng(0), {}, 0.0, 0.0
    for n, (guides, tau2), effect in product(
        (8, 16, 48, 96, 200), ((1, 0.0), (1, 0.02), (4, 0.02), (4, 0.1)), (0.2, 0.5, 1.0)
    ):
        layouts = (Layout(guides, guide_variance=tau2), Layout(4 * guides, guide_variance=tau2))
        plan = EffectPrecision([1.0], [1.0], 500, *layouts)
        planned = float(plan.power([n], effect)[0, 0])
        found = simulated_share(rng, n, 500, guides, tau2, effect)
        worst = max(worst, abs(planned - found))
        name = f"{n} cells, {guides} guide{'s' * (guides > 1)}, tau2 {tau2:g}"
        rows.setdefault(name, []).append(f"{100 * planned:.1f} / {100 * found:.1f}")
    for n, effect in product((5, 20, 64, 394), (0.2, 0.5, 0.8)):
        same = float(EffectPrecision([1.0], [1.0], n).power([n], effect)[0, 0])
        off_book = max(off_book, abs(same - textbook(n, n, effect)))
    return "\n\n".join([
        f"## Power, planned / simulated in %, 500 controls, {DRAWS:,} draws",
        table(["", "effect .2 sd", ".5", "1"], rows),
        f"Largest difference {100 * worst:.2f} points. With as many controls as cells and no "
        f"guides, {100 * off_book:.4f} points at most off the textbook's two-sample formula.",
    ])  # fmt: skip


def real_table(folder: Path, n_draws: int) -> str:
    """Return planned power and that on control cells of real screens moved by an effect."""
    rng, rows = np.random.default_rng(1), {}
    for name in ("papalexi", "tapseq"):
        screen = read_screen(folder, SOURCES[name], name=name)
        label = screen.cells.obs[screen.environments.roles.perturbation_key].astype(str)
        x = rng.permutation(np.asarray(screen.cells.X)[(label == screen.control).to_numpy()])
        known, x = x[::2], x[1::2]
        variance = known.var(axis=0, ddof=1)
        for n, effect in product((10, 30, 100), (0.2, 0.4)):
            hits = np.zeros((2, x.shape[1]))
            for draw in range(n_draws):
                order, up = rng.permutation(len(x)), draw % 2
                own, other = x[order[:n]] + (effect if up else -effect), x[order[n:]]
                stats = [f(part) for part in (own, other) for f in (_mean, _sd)]
                p = ttest_ind_from_stats(
                    stats[0], stats[1], n, stats[2], stats[3], len(other), equal_var=False
                ).pvalue
                hits[up] += p < 0.05
            found, up = hits.sum(axis=0) / n_draws, hits[1] / (n_draws // 2)
            plan = EffectPrecision(variance, variance, len(x) - n)
            planned = plan.power([n], effect)[0]
            gap = np.abs(planned - found)
            row = [planned, found, up, hits[0] / (n_draws // 2)]
            row = [f"{100 * share.mean():.1f}" for share in row]
            row += [f"{100 * np.median(gap):.1f}", f"{100 * gap.max():.1f}"]
            rows[f"{name}, {n} cells, effect {effect:g}"] = row
    heads = ["planned", "found", "of rises", "of falls", "median difference of a gene", "largest"]
    return "\n\n".join([
        f"## Power on real control cells in %, {n_draws:,} tests, rises and falls by turns: means "
        "over genes; differences of planned to found",
        table(["", *heads], rows),
    ])  # fmt: skip


def _mean(x: np.ndarray) -> np.ndarray:
    return np.mean(x, axis=0)


def _sd(x: np.ndarray) -> np.ndarray:
    return np.std(x, axis=0, ddof=1)


def distances_table() -> str:
    """Return planned and simulated precision of distances and chance of the right choice."""
    rng, rows = np.random.default_rng(2), {}
    p = 50
    root = rng.normal(size=(p, 3))
    cell = np.eye(p) + root @ root.T / 3  # three programs besides each gene's own noise
    a, b = 0.25 * rng.normal(size=p), 0.3 * rng.normal(size=p)
    half, noise = np.linalg.cholesky(cell), draw_noise(cell, rng)
    for n, guides, tau2 in product((10, 30, 100, 300), (1, 4), (0.0, 0.02)):
        layout = Layout(guides, guide_variance=tau2)
        k = float(layout.spread(n))
        goal = cell / 400
        draws = rng.normal(size=(3, PAIRS, p)) @ half.T
        wanted = draws[2] / 20
        to = [m + np.sqrt(k) * x - wanted for m, x in zip((a, b), draws, strict=False)]
        size = [(d**2).sum(axis=1) - np.trace(cell) * k - np.trace(goal) for d in to]
        one = DistancePrecision.of_distance(a, cell, target_covariance=goal, layout=layout)
        pair = NearerChance.of_draws((a, b), noise, scales=(1.0, 1.0, 1 / 20), layout=layout)
        right = float(pair.chance(n))
        rows[f"{n} cells, {guides} guide{'s' * (guides > 1)}, tau2 {tau2:g}"] = [
            f"{float(one.sd(n)):.3f} / {size[0].std():.3f}",
            f"{100 * right:.1f} / {100 * (size[0] < size[1]).mean():.1f}",
        ]
    return "\n\n".join([
        f"## Distances, planned / simulated: 50 genes, target of 400 cells, {PAIRS:,} draws",
        table(["", "sd of the squared distance", "nearer one found, %"], rows),
    ])  # fmt: skip


def noise_table(n_screens: int) -> str:
    """Return how often noise is a reason to go on, beside screens of real effects."""
    rows: dict[str, list[str]] = {}
    for kind in ("shuffled", "noise", "effects"):
        said: dict[str, list[tuple[str, bool]]] = {}
        for seed in range(n_screens):
            adata, targets = noise_screen(seed, kind)
            for name, target in targets.items():
                said.setdefault(name, []).append(advised(adata, target))
        for name, each in said.items():
            counts = [[one for one, _ in each].count(kind) for kind in KINDS]
            before = f"{sum(old for _, old in each)} of {len(each)}"
            rows[f"{kind}, towards {name}"] = [before, *map(str, counts)]
    return "\n\n".join([
        f"## Advice on noise, {n_screens} screens of each kind, 9 perturbations x 20 cells",
        table(["", "go on, by the rule before", *KINDS], rows),
        "Shuffled: labels of all cells; noise: cells drawn like controls, gene by gene; effects: "
        "as simulated.",
    ])  # fmt: skip


def stopping_table(n_campaigns: int, first: int, worlds: list[str]) -> str:
    """Return how often the rule stops, when, and how often too early, in simulated worlds."""
    parts = [
        f"## Stopping, {n_campaigns} simulated campaigns of at most {N_PLATES} plates, seeds from "
        f"{first}: {HOW}"
    ]
    for name in worlds:
        world, held_out = WORLDS[name]
        where = "The target's own perturbation held out" if held_out else "In the pool"
        found = np.array([
            simulated(world, seed, held_out=held_out) for seed in range(first, first + n_campaigns)
        ])  # fmt: skip
        parts += _rules(f"{where}; {world}", found)
        heads = ["probability before", "probability", "true share", "gain", "gained"]
        parts += [
            "What is said after so many plates, tolerance 0.1: the probability that the best known "
            "is good enough, and the expected gain of the next plate, a share of the control's "
            "distance; beside what is true, means ± SE:",
            table(["plates", *heads], said_rows(found)),
        ]
    return "\n\n".join(parts)


def stopping_real_table(folder: Path, n_repeats: int) -> str:
    """Return the same of campaigns that draw the cells of real screens."""
    parts = [
        f"## Stopping on real screens, {n_repeats} repeats of every target above noise, at most "
        f"{N_PLATES} plates: {HOW}"
    ]
    for name in ("papalexi", "tapseq"):
        cells = read_cells(read_screen(folder, SOURCES[name], name=name))
        pool, targets = as_pool(cells), [j - 1 for j in above_noise(cells)]
        for held_out in (False, True):
            where = "held out" if held_out else "in the pool"
            found = np.array([
                drawn(pool, target, repeat, held_out=held_out, full=full_shift(cells))
                for target, repeat in product(targets, range(n_repeats))
            ])  # fmt: skip
            parts += _rules(f"{name}, {len(targets)} targets, {where}", found)
    return "\n\n".join(parts)


def _rules(title: str, found: np.ndarray) -> list[str]:
    print(f"{title}: done", file=sys.stderr, flush=True)
    heads = [f"tolerance {tolerance:g}" for tolerance in TOLERANCES]
    return [f"{title}:", table(["rule", *heads], rule_rows(found))]


def main(arguments: list[str] | None = None) -> None:
    """Print the tables asked for."""
    parser = options("power", __doc__, data=True)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--campaigns", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=WORLDS)
    parser.add_argument("--screens", type=int, default=40, help="of every kind of noise")
    parser.add_argument("--repeats", type=int, default=2, help="of every target of a real screen")
    parser.add_argument("--draws", type=int, default=1000, help="of real cells")
    args = parser.parse_args(arguments)
    made = {
        "power": power_table,
        "real": lambda: real_table(Path(args.data), args.draws),
        "distances": distances_table,
        "noise": lambda: noise_table(args.screens),
        "stopping": lambda: stopping_table(args.campaigns, args.first_seed, args.worlds),
        "stopping_real": lambda: stopping_real_table(Path(args.data), args.repeats),
    }
    sections = []
    for name in args.tables:
        sections.append(made[name]())
        print(sections[-1] + "\n", flush=True)
        save(["\n\n".join(sections)], args.save)


if __name__ == "__main__":
    main()
