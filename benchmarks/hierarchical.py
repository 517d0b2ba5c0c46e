"""The hierarchical model of effects (equations 19 to 26) beside other estimates.

The model's parts were chosen on TAP-seq and Papalexi; Norman and the simulated screens judge it.

From n cells of each perturbation and half of the controls, effects are estimated and scored on all
other cells: the squared error summed over genes, less the sampling variance of what it is scored
on, over that of the means of the cells. Perturbations with fewer than n + 20 cells are left out.
All methods see the same cells, so that differences are paired by split; ± is the standard error
over splits, of the same cells, so too small for another screen.

90% intervals have to hold effects of the cells held out, whose sampling variance is added: of all
effects, of the strongest tenth of perturbations by the squared size of their estimate, of effects
whose estimate is above half a standard deviation of the gene within cells, and of effects above 4
standard errors of the cells held out (which are selected by the truth: no interval of constant
average coverage holds them).

*Hierarchical*: told what a fit expects of target genes by the efficacy of the screen, with its
variance, and of combinations by their members where that is clear. *Hierarchical, told nothing*:
without these.
*Mixture*: adaptive shrinkage with a mixture for each perturbation, without a graph, told nothing.
*As handed out*: `tl.perturbation_effects` after `tl.learn_dag` and `tl.fit_dag_blr`, all by
default; none where the cells are too few for `tl.learn_dag`. Seconds are of the processor, for one
fit.

"Between perturbations" is the error of effects less their mean over perturbations, on which the
controls that are held out have no say: where controls are few (50 and 50 of Norman), their sampling
error, the same in all perturbations and splits, is a good part of all errors.

Distances: squared distances of all perturbations to each of the four strongest, whose state is
known from its n cells. The hierarchical model has the target in the screen and takes both from one
draw, and so does `tl.design_interventions` ("as handed out", from the intervals of its ranking);
the mixture is given its mean and the variance of that. Intervals have to hold the
unbiased distance of the cells held out, with its sampling error added to the draws.

    python -m benchmarks.hierarchical                       # 8 minutes
    python -m benchmarks.hierarchical --screens norman --cells 25 --splits 2
    python -m benchmarks.hierarchical --cost 10000 1000 2   # what a fit takes
    python -m benchmarks.hierarchical --programs            # labels as they are, and shuffled
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._measure import _peak
from benchmarks._screens import SOURCES, add_arguments, screens_of
from benchmarks._shrinkage import ash
from benchmarks._table import options, save
from benchmarks.few_cells import (
    LEFT,
    Cells,
    Z,
    fit,
    hierarchical,
    moments,
    pool,
    read_cells,
    table,
)
from nextpert.core import Dag, Moments
from nextpert.core.design.distances import ranked_distance
from nextpert.core.design.joint_draws import states_by_effects
from nextpert.core.model.effects import estimate_effects
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.programs import alike, find_programs
from nextpert.core.screen.guides import PooledGuides
from nextpert.core.screen.mean_distance import mean_distance

if TYPE_CHECKING:
    from collections.abc import Iterator

RAW, ASH = "means of the cells", "ash as published"
MIXTURE = "mixture"
HIERARCHICAL, TOLD_NOTHING = "hierarchical", "hierarchical, told nothing"
HANDED_OUT, FIRST = "as handed out", "stated and right"
SIZES = (10, 25, 50)
TARGETS, DRAWS = 4, 400
BINS = (0.0, 0.3, 0.6, 0.8, 0.95, 1.0)  # of the probability of being the nearest
WHAT = ("all", "strongest", "large estimates", "large truth", "distances", "predicted / true",
        "seconds")  # fmt: skip
LARGE = 0.5  # of a gene's standard deviation within cells
SIMULATED = {
    "sparse": {"sparse": 0.05},
    "pathways": {"sparse": 0.03, "pathways": 6},
    "dense": {"dense": 0.3},
    "hardly any": {"sparse": 0.002},
}


def simulate(seed: int, *, sparse: float = 0.0, pathways: int = 0, dense: float = 0.0) -> Cells:
    """Return cells of 30 perturbations x 100 genes with four factors of coexpression.

    ``sparse`` is the share of genes that a perturbation moves by itself, by a standard deviation
    of 0.7 within cells; five perturbations each do what one of ``pathways`` does, to a tenth of
    the genes; ``dense`` is the standard deviation of small effects on all genes.
    """
    rng, n, p = np.random.default_rng(seed), 30, 100
    effect = 0.7 * rng.normal(size=(n, p)) * (rng.random((n, p)) < sparse)
    effect += dense * rng.normal(size=(n, p))
    for k in range(pathways):
        genes = 0.7 * rng.normal(size=p) * (rng.random(p) < 0.1)
        effect[5 * k : 5 * k + 5] += np.outer(rng.uniform(0.5, 1.5, 5), genes)
    code = np.repeat(np.arange(n + 1), [1000, *[350] * n])
    gamma = 0.35 * rng.normal(size=(4, p))
    x = np.vstack([np.zeros(p), effect])[code] + rng.normal(size=(len(code), 4)) @ gamma
    x += rng.normal(size=x.shape) * rng.uniform(0.5, 1.0, p)
    names = ["control", *(f"p{j}" for j in range(n))]
    return Cells(2.0 + x, code, names, np.full(len(code), -1), [], [-1] * (n + 1), False)


def split(cells: Cells, n: int, seed: int) -> tuple[Cells, np.ndarray]:
    """Return perturbations with enough cells and genes that vary, and which cells are known."""
    rng, sizes = np.random.default_rng(seed), np.bincount(cells.code)
    kept = [0, *(j for j in range(1, len(sizes)) if sizes[j] >= n + LEFT)]
    place = np.full(len(sizes), -1)
    place[kept] = np.arange(len(kept))
    names, own = ([each[j] for j in kept] for each in (cells.names, cells.own))
    part = cells._replace(code=place[cells.code], names=names, own=own)
    known = np.zeros(len(part.code), bool)
    for j in range(len(kept)):
        mine = rng.permutation(np.flatnonzero(part.code == j))
        known[mine[: n if j else len(mine) // 2]] = True
    # A gene that does not vary among the cells that are known cannot be fitted.
    varies = np.ptp(part.x[known & (part.code > 0)], axis=0) > 0
    varies &= np.ptp(part.x[known & (part.code == 0)], axis=0) > 0
    column = np.where(varies, np.cumsum(varies) - 1, -1)
    own = [int(column[g]) if g >= 0 else -1 for g in part.own]
    return part._replace(x=part.x[:, varies], own=own), known


def handed_out(part: Cells, known: np.ndarray) -> ad.AnnData | None:
    """Return the cells fitted by the public functions; ``None`` where no graph can be learned."""
    kept = known & (part.code >= 0)
    obs = pd.DataFrame({"perturbation": np.array(part.names)[part.code[kept]]}, dtype=object)
    genes = [f"gene {i}" for i in range(part.x.shape[1])]
    for name, gene in zip(part.names, part.own, strict=True):
        if gene >= 0:
            genes[gene] = name
    x = part.x[kept].astype(np.float64)
    adata = ad.AnnData(x, obs.set_index(obs.index.astype(str)), pd.DataFrame(index=genes))
    npt.pp.setup_screen(adata, control=part.names[0], check_scale=False)
    try:
        npt.tl.learn_dag(adata)
    except ValueError:  # too few cells for so many genes
        return None
    npt.tl.fit_dag_blr(adata, shift="activation" if part.activation else "knockout")
    return adata


def trial(cells: Cells, n: int, seed: int) -> dict[str, dict[str, Any]]:
    """Return what each method scores on one split, by its name."""
    part, known = split(cells, n, seed)
    found, held = moments(part, known), moments(part, ~known)
    pooled = pool(found)
    sd = np.sqrt(pooled.covariance.diagonal())
    truth = held.mean[1:] - held.mean[0]
    noise = held.variance[1:] / held.n[1:, None] + held.variance[0] / held.n[0]
    raw, error = pooled.to_controls()
    se = sd * np.sqrt(error)
    groups = [
        [Moments.from_array(part.x[(part.code == j) & side]) for j in range(len(part.names))]
        for side in (known, ~known)
    ]
    targets = 1 + np.argsort(-((raw / sd) ** 2).sum(axis=1))[:TARGETS]
    out: dict[str, dict[str, Any]] = {}

    each = held.variance[1:] / held.n[1:, None]
    apart = each * (1 - 2 / len(each)) + each.mean(axis=0) / len(each)

    def score(name: str, mean: np.ndarray, ends: tuple[np.ndarray, np.ndarray] | None) -> None:
        off = mean - truth
        out[name] = {
            "error": float((off**2 - noise).sum(axis=1).mean()),
            "apart": float(((off - off.mean(axis=0)) ** 2 - apart).sum(axis=1).mean()),
        }
        if ends is None:
            return
        low = mean - np.sqrt((mean - ends[0]) ** 2 + Z**2 * noise)
        high = mean + np.sqrt((ends[1] - mean) ** 2 + Z**2 * noise)
        inside = (low <= truth) & (truth <= high)
        strong = np.argsort(-((mean / sd) ** 2).sum(axis=1))[: max(1, len(mean) // 10)]
        large, clear = np.abs(mean) > LARGE * sd, np.abs(truth) > 4 * np.sqrt(noise)
        out[name] |= {
            "all": inside.mean(), "strongest": inside[strong].mean(),
            "large estimates": inside[large].mean() if large.any() else np.nan,
            "large truth": inside[clear].mean() if clear.any() else np.nan,
        }  # fmt: skip

    others = {t: [j for j in range(1, len(groups[1])) if j != t] for t in targets.tolist()}
    pairs = {
        t: [(j - 1, mean_distance(groups[1][j], groups[1][t])) for j in those]
        for t, those in others.items()
    }

    def distances(name: str, drawn: Iterator[np.ndarray]) -> None:
        # Draws of the distances of all perturbations to a target; what is held out scatters too.
        rng, inside, predicted, true = np.random.default_rng(seed), [], 0.0, 0.0
        for each, seen in zip(drawn, pairs.values(), strict=True):
            for j, one in seen:
                values = each[:, j] + one.sd * rng.standard_normal(len(each))
                low, high = np.quantile(values, [0.05, 0.95])
                inside.append(low <= one.estimate <= high)
                predicted, true = predicted + each[:, j].mean(), true + one.estimate
        out[name] |= {"distances": float(np.mean(inside)), "predicted / true": predicted / true}

    score(RAW, raw, (raw - Z * se, raw + Z * se))
    score(ASH, np.array([ash(*pair) for pair in zip(raw, se, strict=True)]), None)

    effects = fit_hierarchical(pooled, rng=seed).effects.summary()
    score(TOLD_NOTHING, effects.mean, (effects.lower, effects.upper))
    start = time.process_time()
    fitted = hierarchical(part, found, seed=seed)
    effects = fitted.effects.summary()
    seconds = time.process_time() - start
    score(HIERARCHICAL, effects.mean, (effects.lower, effects.upper))
    rng, reached = np.random.default_rng(seed), states_by_effects(fitted.effects, fitted.control)
    drawn = (one.states for some in reached.draws(DRAWS, rng) for one in some.sampled(rng))
    states = np.array(list(drawn))[:, :-1]
    distances(HIERARCHICAL, (((states - states[:, t - 1 : t]) ** 2).sum(axis=2) for t in pairs))
    out[HIERARCHICAL]["seconds"] = seconds

    start = time.process_time()
    alone = fit(Dag.from_edges(len(sd), []), pooled)
    shown = estimate_effects([alone.posterior], alone.prior)
    seconds = time.process_time() - start
    score(MIXTURE, shown.mean, (shown.lower, shown.upper))
    shifts = alone.prior.given(alone.posterior)
    distances(MIXTURE, (
        ranked_distance(
            alone.posterior, shifts, found.mean[t], target_variance=sd**2 / found.n[t],
            n_samples=DRAWS, rng=seed,
        ).draws
        for t in pairs
    ))  # fmt: skip
    out[MIXTURE]["seconds"] = seconds
    start = time.process_time()
    public = handed_out(part, known)
    if public is not None:
        effects = npt.tl.perturbation_effects(public, as_anndata=True)[part.names[1:]]
        effects = effects[:, list(public.var_names)]
        ends = np.asarray(effects.layers["lower"]), np.asarray(effects.layers["upper"])
        score(HANDED_OUT, np.asarray(effects.X), ends)
        inside, predicted, true, first = [], 0.0, 0.0, []
        for t, seen in pairs.items():
            npt.tl.design_interventions(public, part.names[t])
            table = public.uns["design"]["ranking"].set_index("perturbation")
            for j, one in seen:
                middle, low, high = table.loc[
                    part.names[j + 1], ["predicted_distance", "predicted_low", "predicted_high"]
                ].astype(float)
                low = middle - np.hypot(middle - low, Z * one.sd)
                high = middle + np.hypot(high - middle, Z * one.sd)
                inside.append(low <= one.estimate <= high)
                predicted, true = predicted + middle, true + one.estimate
            nearest = min(seen, key=lambda pair: pair[1].estimate)[0]
            said = table["probability_best"].astype(float)
            first.append((said.max(), float(said.idxmax() == part.names[nearest + 1])))
        out[HANDED_OUT] |= {
            "distances": float(np.mean(inside)),
            "predicted / true": predicted / true,
        }
        out[HANDED_OUT] |= {"seconds": time.process_time() - start, FIRST: np.array(first)}
    return out


ROWS = (RAW, ASH, HIERARCHICAL, TOLD_NOTHING, MIXTURE, HANDED_OUT)
RATIOS = "*hierarchical over {}*", "*the same between perturbations, {}*"


def over(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Return the ratio of mean errors and its standard error, paired by split."""
    ratio = ours.mean() / theirs.mean()
    spread = (ours - ratio * theirs).std(ddof=1) if len(ours) > 1 else np.nan
    return f"{ratio:.2f} ± {spread / (np.sqrt(len(ours)) * abs(theirs.mean())):.2f}"


def section(title: str, trials: dict[int, list[dict[str, dict[str, Any]]]]) -> str:
    """Return the tables of one screen, from the trials of every n."""
    head = [f"n = {n}" for n in trials]
    errors, coverage = defaultdict(list), defaultdict(list)
    for n, found in trials.items():
        raw = np.array([each[RAW]["error"] for each in found])
        ours = np.array([each[HIERARCHICAL]["error"] for each in found])
        for name in (*ROWS[:-1], *(ROWS[-1:] if HANDED_OUT in trials[max(trials)][0] else ())):
            if any(name not in each for each in found):
                for row in (name, *(row.format(name) for row in RATIOS)):
                    errors[row].append("")
                for what in WHAT:
                    coverage[what, name].append("")
                continue
            theirs = np.array([each[name]["error"] for each in found])
            errors[name].append(f"{(theirs / raw).mean():.3f}")
            if name not in (RAW, HIERARCHICAL):
                errors[RATIOS[0].format(name)].append(over(ours, theirs))
                parts = ([each[x]["apart"] for each in found] for x in (HIERARCHICAL, name))
                errors[RATIOS[1].format(name)].append(over(*map(np.array, parts)))
            if "all" not in found[0][name]:
                continue
            for what in WHAT:
                values = [each[name].get(what, np.nan) for each in found]
                if what in found[0][name]:
                    coverage[what, name].append(f"{np.nanmean(values):.2f}")
        print(f"{title}, n = {n}", file=sys.stderr, flush=True)
    rows = {f"{what}: {name}": coverage[what, name] for what in WHAT for name in errors
            if (what, name) in coverage}  # fmt: skip
    first = np.array([pair for each in trials.values() for one in each
                      for pair in one.get(HANDED_OUT, {}).get(FIRST, ())])  # fmt: skip
    stated: dict[str, list[str]] = {}
    for low, high in pairwise(BINS):
        some = first[(first[:, 0] > low) & (first[:, 0] <= high)] if len(first) else first
        if len(some):
            said, right = some.mean(axis=0)
            stated[f"{low:g} to {high:g}"] = [f"{said:.2f}", f"{right:.2f}", str(len(some))]
    return "\n\n".join([
        f"## {title}", "Error over that of the means of the cells, and paired ratios:",
        table(["", *head], errors), "Coverage of 90% intervals, and mean distances:",
        table(["", *head], rows),
        "Probability of being the nearest to a target, of the candidate that has the largest, as "
        "handed out:", table(["", "stated", "right", "targets"], stated),
    ]) + "\n"  # fmt: skip


def cost(n: int, p: int, n_jobs: int) -> str:
    """Return what a fit to simulated sums of ``n`` perturbations x ``p`` genes takes."""
    rng = np.random.default_rng(0)
    gamma, psi = 0.4 * rng.normal(size=(p, 3)), rng.uniform(0.5, 1.0, p)
    counted = np.append(500.0, np.full(n, 25.0))
    mean = np.outer(np.append(0.0, rng.normal(size=n)), 0.3 * rng.normal(size=p))
    mean[1:] += rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.05)
    noise = rng.normal(size=(n + 1, 3)) @ gamma.T + rng.normal(size=mean.shape) * np.sqrt(psi)
    mean += noise / np.sqrt(counted)[:, None]
    scatter = (gamma @ gamma.T + np.diag(psi)) * (counted.sum() - n - 1)
    cells = PooledGuides(counted.astype(np.int64), counted, mean, scatter, np.ones_like(mean))
    del noise
    start = time.perf_counter(), time.process_time()
    effects = fit_hierarchical(cells, rng=0, n_jobs=n_jobs).effects
    effects.summary(n_jobs=n_jobs)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    peak = _peak() * 2**20 / 1e9
    size = f"{n:,} perturbations x {p:,} genes, {n_jobs} threads, {effects.n_draws} draws"
    return f"{size}: {wall:.0f} s, {cpu:.0f} s of the processor, {peak:.1f} GB"


def programs(cells: Cells) -> str:
    """Return calls, programs and what is alike, with labels as they are and shuffled."""
    lines = []
    for what, code in (
        ("as they are", cells.code), ("shuffled", np.random.default_rng(0).permutation(cells.code))
    ):  # fmt: skip
        part = cells._replace(code=code)
        found = moments(part, np.ones(len(code), bool))
        fitted = hierarchical(part, found)
        lfsr = fitted.effects.summary().lfsr
        targets = np.array(part.own[1:])[:, None] == np.arange(lfsr.shape[1])
        shared = find_programs(fitted, targets=targets)
        called = f"{(lfsr < 0.05).sum()} of {lfsr.size:,} below 0.05"
        lines.append(f"labels {what}: {called}, programs' share {shared.share.sum():.3f}")
        for share, score in zip(shared.share, shared.scores.T, strict=True):
            first = np.argsort(-np.abs(score))[:4]
            names = ", ".join(f"{part.names[1 + j]} {score[j]:.2f}" for j in first)
            lines.append(f"    share {share:.3f}: {names}")
        probability, _ = alike(fitted.effects, targets=targets)
        same = np.argwhere(np.triu(probability, 1) > 0.95)
        shown = ", ".join(f"{part.names[1 + i]} - {part.names[1 + j]}" for i, j in same[:8])
        lines.append(f"    {len(same)} pairs alike: {shown}")
    return "\n".join(lines)


def pathways(n: int, seed: int) -> list[float]:
    """Return how well the genes of two simulated pathways are distinguished from others, by AUC."""
    cells = simulate(seed, sparse=0.03, pathways=2)
    part, known = split(cells, n, seed)
    shared = find_programs(fit_hierarchical(pool(moments(part, known)), rng=seed))
    found = []
    for k in range(2):
        rows = slice(5 * k, 5 * k + 5)
        true = np.array([part.x[part.code == 1 + j].mean(axis=0) for j in range(30)][rows])
        size = np.abs(true - part.x[part.code == 0].mean(axis=0)).min(axis=0)
        genes = size > 0.15  # moved by all five: cells of the whole screen, off by 0.05
        mine = np.abs(shared.scores[rows]).mean(axis=0).argmax() if len(shared.share) else None
        score = np.zeros(len(genes)) if mine is None else np.abs(shared.genes[mine])
        above = score[genes][:, None] - score[~genes]
        found.append(float(((above > 0) + 0.5 * (above == 0)).mean()))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run the screens asked for and print their tables."""
    parser = options("hierarchical", __doc__)
    known = [name for name in SOURCES if name != "hill"]
    parser.add_argument("--screens", nargs="*", default=known, choices=list(SOURCES))
    parser.add_argument("--simulated", nargs="*", default=list(SIMULATED), choices=list(SIMULATED))
    parser.add_argument("--cells", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    add_arguments(parser)
    parser.add_argument("--cost", type=int, nargs=3, metavar=("N", "P", "THREADS"),
                        help="only time a fit of N perturbations x P genes")  # fmt: skip
    parser.add_argument("--programs", action="store_true",
                        help="only programs, labels as they are and shuffled")  # fmt: skip
    args = parser.parse_args(arguments)
    if args.programs:
        for source, screen in screens_of(args):
            print(screen.name, programs(read_cells(screen, source.guide_key)), sep="\n", flush=True)
        for n in args.cells:
            each = np.array([pathways(n, seed) for seed in range(args.splits)])
            print(f"two simulated pathways, n = {n}: AUC {each.mean():.2f}, least {each.min():.2f}")
        return
    if args.cost:
        print(cost(*args.cost))
        return

    def every() -> Iterator[tuple[str, list[Cells]]]:
        for source, screen in screens_of(args):
            one = read_cells(screen, source.guide_key)
            role = "chosen on it" if screen.name in ("papalexi", "tapseq") else "judges"
            shape = f"{len(one.names) - 1} perturbations, {one.x.shape[1]} genes"
            yield f"{screen.name} ({role}): {shape}", [one] * args.splits
        for name in args.simulated:
            drawn = [simulate(seed, **SIMULATED[name]) for seed in range(args.splits)]
            yield f"simulated, {name} (judges)", drawn

    sections = []
    for title, screens in every():
        trials = {
            n: [trial(cells, n, seed) for seed, cells in enumerate(screens)] for n in args.cells
        }
        sections.append(section(title, trials))
        print(sections[-1], flush=True)
        save(sections, args.save)


if __name__ == "__main__":
    main()
