"""Whole campaigns: from ten cells of each perturbation until ``tl.plan_screen`` advises to stop.

A campaign starts with 10 cells of each perturbation and up to 100 controls. In every round, all
cells seen are fitted (``tl.fit_dag_blr`` with an empty graph), ``tl.plan_screen`` plans at most 4
perturbations and 200 cells with controls, and the cells of its round are drawn without replacement.
The campaign ends when the advice is to confirm or to stop; or after 8 rounds (the whole budget).
The recommendation is the best known candidate of the advice, which can be the control.

The other strategies start from the same cells, draw the cells of a perturbation in the same order
and add controls by the same rule. They are judged after as many rounds as the campaign that stopped
("same cells"), after the mean number of rounds of such campaigns in a world ("mean cells"), and
after 8 rounds ("whole budget"):

- ``even, model``: all cells at once, equally many of each candidate; recommended by the same fit.
- ``even, means``: the same cells; the nearest mean, after subtraction of its sampling variance.
- ``even, singular values``: the same cells; the nearest after singular-value shrinkage, then
  James-Stein.
- ``random, model``: rounds of 4 random candidates; recommended by the same fit.
- ``Thompson, means``, ``Thompson, ash`` and ``Thompson, mash``: rounds of 4 by Thompson sampling,
  by normal posteriors of means (as ``"thompson_means"`` in ``tl.replay_design``) and by adaptive
  shrinkage of each perturbation (Stephens 2017) or of all together (a short form of Urbut et al.
  2019), which also recommend. All can recommend the control.

Simulations (``_campaign_pools.py``): 20 candidates, 40 genes, guides that vary; the target is a
candidate, made by two candidates, or unrelated to them, and is given as numbers; truth is known.
New guides have new effects. Real screens: half of the cells of every perturbation are drawn in
campaigns, the other half is the truth. The target is a perturbation that differs from the controls
by more than four standard errors; its cells in the first half are known from the start, and neither
it nor a combination that contains it is a candidate. Genes that perturbations target do not count.
The first 10 cells are of half of the guides, and the next cells of the others, as long as they
last; a perturbation whose cells are exhausted gets those that remain.

Distances are squared, unbiased, and relative to the control's. A stop is right if in truth no
candidate, nor the control, is closer than the recommended one by more than 10% of the control's
distance. On real screens, the truth has an error, and the smallest of many distances is too small
by it, so that too few stops are called right; "shown wrong" are those where the 95% interval of a
difference is above 10%. All means are over targets (the seeds, in simulations), of which repeats
are averaged first; values after ± are standard errors, and 95% intervals are over targets, by the
function that ``tl.replay_design`` calls (exact sign flips up to 16 targets, t above).

    python -m benchmarks.campaigns
    python -m benchmarks.campaigns --worlds among papalexi --targets 4 --seeds 5
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._campaign_pools import WORLDS, Pool, real, simulated
from benchmarks._page import options, quiet, save, show, table, with_error
from benchmarks._screens import SOURCES, read_screen
from benchmarks._shrinkage import shrunken
from nextpert.core import ScreenMoments
from nextpert.core.causal.acquisitions.thompson import DRAWS, thompson_plate
from nextpert.core.design.goal import Goal
from nextpert.core.design.stopping import AT_TARGET, CONFIRM, STOP, TOLERANCE, UNTRUSTED
from nextpert.core.evaluate import BY_MEANS, PoolEnvironments, Task
from nextpert.study.paired import paired_difference
from nextpert.study.plate import split_cells

SCREENS = ("papalexi", "tapseq", "norman")
SIZE, CELLS, MIN_CELLS, PLATES = 4, 200, 20, 8  # perturbations, cells, per perturbation; budget
LIMIT, EXHAUSTED = "the budget ends", "no cells remain"
STOPS = (CONFIRM, STOP, AT_TARGET, UNTRUSTED)
OURS = "advised"
OTHERS = (
    "even, model", "even, means", "even, singular values", "random, model",
    "Thompson, means", "Thompson, ash", "Thompson, mash",
)  # fmt: skip
SAME, MEAN, WHOLE = "same cells", "mean cells", "whole budget"
Seen = dict[str, int]


class End(NamedTuple):
    """The end of a campaign: the index of the recommended candidate, cells, and the last advice."""

    recommended: int
    cells: int  # new cells, with controls
    plates: int
    kind: str
    good_enough: float
    gain: float


def advice_of(pool: Pool, seen: Seen, seed: int) -> tuple[dict[str, Any], Seen]:
    """Return the advice and the plan of ``tl.plan_screen`` after a fit to all cells seen."""
    adata = pool.cells[np.concatenate([pool.rows(seen), pool.given])].copy()
    # Genes that do not vary among the controls seen so far cannot be in a fit.
    is_control = (adata.obs["perturbation"] == pool.control).to_numpy()
    varies = np.asarray(adata.X)[is_control].std(axis=0) > 0
    adata = adata[:, varies].copy()
    target = pool.target
    if isinstance(target, npt.Target) and target.weights is not None:
        target = replace(target, weights=[x for x in target.weights if x in adata.var_names])
    npt.pp.setup_screen(
        adata, control=pool.control, guide_key=pool.guide_key, check_scale=False
    )  # fmt: skip
    npt.tl.learn_dag(adata, method="given", dag=[])
    npt.tl.fit_dag_blr(adata)
    npt.tl.plan_screen(
        adata, target, n_perturbations=SIZE, n_cells=CELLS, rng=seed,
        candidates=pool.not_exhausted(seen) or pool.candidates,
        constraints={"min_cells": MIN_CELLS},
    )  # fmt: skip
    plan = adata.uns["plan"]
    labels = plan["plate"]["perturbation"].astype(str).replace({"control": pool.control})
    return plan["advice"], dict(zip(labels, plan["plate"]["n_cells"].astype(int), strict=True))


def index_of(pool: Pool, advice: dict[str, Any]) -> int:
    """Return the index of the best known candidate; the control's is the last."""
    best = str(advice["best_known"])
    return pool.candidates.index(best) if best in pool.candidates else len(pool.candidates)


def n_new(pool: Pool, seen: Seen) -> int:
    """Return the number of cells after the start."""
    return sum(seen.values()) - sum(pool.start().values())


def advised(pool: Pool, seed: int) -> End:
    """Follow the advice until it is to stop, or the budget ends."""
    seen = pool.start()
    for plates in range(PLATES + 1):
        advice, plate = advice_of(pool, seen, seed)
        kind = str(advice["kind"])
        after = pool.more(seen, plate)
        if kind not in STOPS:
            kind = EXHAUSTED if after == seen else LIMIT
        if kind != LIMIT or plates == PLATES:
            break
        seen = after
    good, gain = (float(advice[name]) for name in ("good_enough", "relative_gain"))
    return End(index_of(pool, advice), n_new(pool, seen), plates, kind, good, gain)


def even(pool: Pool, total: int) -> Seen:
    """Return the cells seen after one round of all candidates with equally many cells."""
    if total < 2 * len(pool.candidates):
        return pool.start()
    plate_size = split_cells(total, len(pool.candidates), 1)
    cells, controls = plate_size.share_out(plate_size.size)
    plate = dict(zip(pool.candidates, cells.tolist(), strict=True)) | {pool.control: controls}
    return pool.more(pool.start(), plate)


def plate_of(pool: Pool, names: list[str]) -> Seen:
    """Return a round of some candidates with the cells and controls of ``tl.plan_screen``."""
    cells, controls = split_cells(CELLS, SIZE, MIN_CELLS).share_out(len(names))
    return dict(zip(names, cells.tolist(), strict=True)) | {pool.control: controls}


def randomly(pool: Pool, rng: np.random.Generator) -> list[Seen]:
    """Return the cells seen after 0, 1, ... rounds of random candidates with cells."""
    every = [pool.start()]
    for _ in range(PLATES):
        ready = pool.not_exhausted(every[-1])
        names = rng.permutation(ready)[:SIZE].tolist()
        every.append(pool.more(every[-1], plate_of(pool, names)) if names else every[-1])
    return every


class Means(NamedTuple):
    """Means of all candidates, recommended and sampled separately for every gene."""

    pool: Pool
    seen: Seen

    def moments(self) -> ScreenMoments:
        """Return the moments of the control and the candidates, of the genes that count."""
        labels = [self.pool.control, *self.pool.candidates]
        rows = [self.pool.orders[name][: self.seen[name]] for name in labels]
        code = np.repeat(np.arange(len(labels)), [len(some) for some in rows])
        x = np.asarray(self.pool.cells.X)[np.concatenate(rows)][:, self.pool.genes]
        return ScreenMoments.from_array(x, code, len(labels))

    def by_means(self, size: int, rng: np.random.Generator) -> tuple[int, list[str]]:
        """Return the recommended candidate or control, and a round by Thompson sampling."""
        n = len(self.pool.candidates)
        screen, goal = self.moments(), Goal.point(self.pool.mean)
        its = PoolEnvironments.plain(0, np.zeros(n, np.int64))
        task = Task(goal, its, np.arange(n), 0, rng)
        ready = self._ready()
        best, plate = BY_MEANS["thompson_means"](task, screen, ready, min(size, len(ready)))
        cell = screen.squares.sum() / (screen.n - 1).sum()  # variance of a cell over all genes
        distance = ((screen.mean - self.pool.mean) ** 2).sum(axis=1) - cell / screen.n
        recommended = best if distance[best + 1] < distance[0] else n
        return recommended, [self.pool.candidates[j] for j in plate]

    def by_shrinkage(self, way: str, size: int, rng: np.random.Generator) -> tuple[int, list[str]]:
        """Return the same by shrunken effects, with the name of the estimate."""
        n, screen = len(self.pool.candidates), self.moments()
        cell = screen.squares.sum(axis=0) / (screen.n - 1).sum()
        origin = screen.mean[0]
        means, variances = shrunken(way, screen.mean[1:] - origin, cell, screen.n)
        apart = origin + means - self.pool.mean
        expected = (apart**2 + variances).sum(axis=1)
        nothing = float(((origin - self.pool.mean) ** 2).sum())
        recommended = int(expected.argmin()) if expected.min() < nothing else n
        ready = self._ready()
        draws = apart + np.sqrt(variances) * rng.standard_normal((DRAWS, *apart.shape))
        distances = (draws**2).sum(axis=2)[:, ready]
        plate = ready[thompson_plate(distances, min(size, len(ready)), rng)]
        return recommended, [self.pool.candidates[j] for j in plate]

    def _ready(self) -> np.ndarray:
        ready = self.pool.not_exhausted(self.seen)
        return np.flatnonzero(np.isin(self.pool.candidates, ready))


def thompson(pool: Pool, way: str, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return the recommended candidate and the new cells after 0, 1, ... rounds."""
    seen, every = pool.start(), []
    for _ in range(PLATES + 1):
        means = Means(pool, seen)
        best, names = (
            means.by_means(SIZE, rng) if way == "means" else means.by_shrinkage(way, SIZE, rng)
        )
        every.append((best, n_new(pool, seen)))
        seen = pool.more(seen, plate_of(pool, names)) if names else seen
    return every


def others(pool: Pool, seed: int, ends: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Return what other strategies recommend; ``ends`` are rounds and cells, by name."""
    rng = np.random.default_rng([seed, 66])
    plates = randomly(pool, rng)
    sampled = {f"Thompson, {way}": thompson(pool, way, rng) for way in ("means", "ash", "mash")}
    fits: dict[tuple[int, ...], int] = {}

    def by_model(seen: Seen) -> tuple[int, int]:
        key = tuple(seen.values())
        if key not in fits:
            fits[key] = index_of(pool, advice_of(pool, seen, seed)[0])
        return fits[key], n_new(pool, seen)

    rows = []
    for end, (n_plates, n_cells) in ends.items():
        spread = even(pool, n_cells)
        found = {
            "even, model": by_model(spread),
            "even, means": (Means(pool, spread).by_means(0, rng)[0], n_new(pool, spread)),
            "even, singular values": (
                Means(pool, spread).by_shrinkage("singular values", 0, rng)[0],
                n_new(pool, spread),
            ),
            "random, model": by_model(plates[n_plates]),
        } | {name: each[n_plates] for name, each in sampled.items()}
        rows += [
            {"strategy": name, "end": end, "recommended": best, "cells": cells}
            for name, (best, cells) in found.items()
        ]
    return rows


def judged(pool: Pool, recommended: int) -> dict[str, float]:
    """Return the true distance of a candidate, and whether to stop with it is right."""
    truth = pool.truth
    gap = truth.relative[recommended] - truth.relative.min()
    is_wrong = truth.gap_low[recommended].max() > TOLERANCE
    return {
        "distance": float(truth.relative[recommended]),
        "right": float(gap <= TOLERANCE), "wrong": float(is_wrong),
    }  # fmt: skip


def pools_of(world: str, args: Any) -> list[tuple[str, int, Pool]]:
    """Return targets, seeds and pools of a simulated world or a screen."""
    if world in WORLDS:
        return [(str(seed), seed, simulated(world, seed)) for seed in range(args.seeds)]
    screen = read_screen(
        args.data, SOURCES[world], name=world, min_seen=0.0 if world == "norman" else 0.1
    )
    return [
        (target, seed, pool)
        for seed in range(args.repeats)
        for target, pool in real(screen, seed, args.targets)
    ]


@quiet()
def run(world: str, pools: list[tuple[str, int, Pool]]) -> pd.DataFrame:
    """Return one row per target, repeat, strategy and end."""
    ends = [advised(pool, seed) for _, seed, pool in pools]
    mean = round(np.mean([end.plates for end in ends])), round(np.mean([e.cells for e in ends]))
    rows = []
    for (target, seed, pool), end in zip(pools, ends, strict=True):
        places = {SAME: (end.plates, end.cells), MEAN: mean, WHOLE: (PLATES, PLATES * CELLS)}
        found = [{"strategy": OURS, "end": OURS} | end._asdict(), *others(pool, seed, places)]
        same = {"world": world, "target": target, "repeat": seed}
        rows += [same | row | judged(pool, row["recommended"]) for row in found]
    return pd.DataFrame(rows)


def by_target(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return the means over repeats."""
    return rows.groupby(["world", "target"], sort=True)[column].mean()


def compared(rows: pd.DataFrame) -> str:
    """Return the table of cells and distances of all strategies."""
    ours = rows[rows["strategy"] == OURS]
    lines = [[OURS, "until the stop", *_cells(ours), "", ""]]
    for end in (SAME, MEAN, WHOLE):
        for name in OTHERS:
            other = rows[(rows["strategy"] == name) & (rows["end"] == end)]
            gaps = [
                by_target(ours, column) - by_target(other, column)
                for column in ("distance", "cells")
            ]
            shown = [paired_difference(gaps[0]).in_words(), with_error(gaps[1], 0)]
            lines.append([name, end, *_cells(other), *shown])
    head = ["strategy", "judged after", "new cells", "distance", "right", "advised minus it"]
    return table([*head, "cells, difference"], lines)


def _cells(rows: pd.DataFrame) -> list[str]:
    cells, distance = (
        with_error(by_target(rows, "cells"), 0),
        with_error(by_target(rows, "distance")),
    )
    return [cells, distance, f"{by_target(rows, 'right').mean():.0%}"]


def stops(rows: pd.DataFrame) -> str:
    """Return the table of stops by the kind of the last advice."""
    ours = rows[rows["strategy"] == OURS]
    even_all = rows[(rows["strategy"] == "even, model") & (rows["end"] == WHOLE)]
    keys = ["world", "target", "repeat"]
    ours = ours.merge(even_all[[*keys, "distance"]], on=keys, suffixes=("", "_whole"))
    lines = []
    for kind in (*STOPS, LIMIT, EXHAUSTED):
        some = ours[ours["kind"] == kind]
        if len(some):
            missed = by_target(some.assign(gap=some["distance"] - some["distance_whole"]), "gap")
            lines.append([
                kind, f"{len(some)} ({(some['plates'] == 0).sum()})",
                f"{some['plates'].mean():.1f}",
                with_error(by_target(some, "distance")), with_error(by_target(some, "right")),
                with_error(by_target(some, "wrong")), with_error(by_target(some, "good_enough")),
                with_error(by_target(some, "gain"), 3), with_error(missed, 3),
            ])  # fmt: skip
    head = [
        "last advice", "campaigns (without any round)", "rounds", "distance", "right",
        "shown wrong", "stated: none closer", "stated gain", "minus even rounds, whole budget",
    ]  # fmt: skip
    return table(head, lines)


def section(title: str, rows: pd.DataFrame) -> str:
    """Return the section of one or several worlds."""
    ours = rows[rows["strategy"] == OURS]
    n, plates = len(by_target(ours, "plates")), with_error(by_target(ours, "plates"), 1)
    head = f"## {title}: {n} targets, {len(ours)} campaigns, {plates} rounds"
    return "\n\n".join([head, compared(rows), "How campaigns end:", stops(rows)])


def draw(rows: pd.DataFrame, path: str) -> None:
    """Draw the distance of recommendations by the cells used, a panel for each world."""
    from matplotlib.figure import Figure

    worlds = list(dict.fromkeys(rows["world"]))
    figure = Figure(figsize=(2.6 * len(worlds) + 1.6, 2.9), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(worlds)))
    markers = dict(zip((OURS, *OTHERS), ("o", "s", "D", "X", "^", "v", "P", "*"), strict=True))
    for panel, world in zip(panels, worlds, strict=True):
        some = rows[rows["world"] == world]
        for name, marker in markers.items():
            ends = [OURS] if name == OURS else [SAME, WHOLE]
            for end in ends:
                part = some[(some["strategy"] == name) & (some["end"] == end)]
                cells, distance = (by_target(part, x) for x in ("cells", "distance"))
                error = distance.std(ddof=1) / np.sqrt(len(distance)) if len(distance) > 1 else 0.0
                panel.errorbar(
                    max(cells.mean(), 1.0), distance.mean(), error, fmt=marker, capsize=2,
                    color="C3" if name == OURS else "0.45", ms=7 if name == OURS else 5,
                    label=name if end in (OURS, WHOLE) else None,
                )  # fmt: skip
        panel.set(title=world, xscale="log", xlabel="new cells", xlim=(20, 3000))
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
    panels[0].set_ylabel("distance of the recommended,\nrelative to the control's")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    """Run the campaigns asked for and print their tables."""
    parser = options("campaigns", __doc__, data=True)
    every = [*WORLDS, *SCREENS]
    parser.add_argument("--worlds", nargs="+", default=every, choices=every)
    parser.add_argument("--seeds", type=int, default=20, help="simulated targets of a world")
    parser.add_argument("--targets", type=int, default=12, help="of a screen; 0 for all")
    parser.add_argument("--repeats", type=int, default=1, help="divisions of a screen's cells")
    parser.add_argument("--rows", help="also write one row per campaign to this csv file")
    parser.add_argument("--picture", help="also draw distances by cells to this png file")
    args = parser.parse_args(arguments)
    found, sections = [], []
    for world in args.worlds:
        found.append(run(world, pools_of(world, args)))
        sections.append(show(section(world, found[-1])))
        if args.rows:
            pd.concat(found).to_csv(args.rows, index=False)
    for title, names in {"simulations": WORLDS, "real screens": SCREENS}.items():
        some = [rows for rows in found if rows["world"].iloc[0] in names]
        if len(some) > 1:
            sections.append(show(section(f"all {title}", pd.concat(some))))
    if args.picture:
        draw(pd.concat(found), args.picture)
    save("campaigns", sections, args.save)


if __name__ == "__main__":
    main()
