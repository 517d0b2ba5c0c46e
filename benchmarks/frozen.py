"""One analysis plan for every screen of a folder, written down before any of its results.

A screen is a TOML file, or an h5ad file that no TOML file names (with the columns ``perturbation``
and ``control`` as in ``pp.setup_screen``). Paths in a TOML file are relative to it, or to
``--data``. For cells::

    cells = "screen.h5ad"            # counts (whole numbers), or log-normalised values
    perturbation_key = "perturbation"
    control = "control"
    guide_key = "guide"              # this key and those below may be absent
    batch_key = ["replicate"]
    layer = "lognorm"
    depth_key = "total_counts"       # total of a cell, if X holds a part of its genes
    n_genes = 100                    # in the panel: those that vary most in control cells
    shift = "knockout"               # or "activation"
    chose = "nothing"                # what of the package was chosen by looking at this screen

For a table, ``effects`` and ``errors`` are files of rows x genes, ``base`` is that of their
logarithm, and ``row`` is a regular expression with the group ``perturbation`` and, if known,
``batch``, that each row name matches. Rows of one perturbation are its replicates.

**The plan.** Seen are ``--cells`` cells of every perturbation that has 40 more, and half of the
controls; of a table one row of every perturbation. All else is held out, and judges. This is
repeated ``--splits`` times. All calls are those of the start page (``tl.learn_dag`` with ``boss``
and all cells; tables have no graph), with their defaults, on the cells that are seen.

1. *Effects*: squared error on held-out cells, less their sampling variance, of ``nextpert`` and of
   no effect, means, the mean perturbation, James-Stein, ash and singular-value shrinkage with
   James-Stein. Units are perturbations: the difference to each of them is averaged over splits,
   divided by the mean size of an effect, and has a 95% interval over perturbations and the p-value
   of Wilcoxon's test.
2. *Coverage* of 90% intervals, widened by the error of the held-out means: all effects, called ones
   (local false sign rate below 0.05), and estimates above half a standard deviation within cells.
   The standard error is over perturbations.
3. *Distances*: targets are the perturbations whose held-out squared distance to the control is
   above four times its standard error, named by their label; candidates are all others. Coverage of
   the 90% intervals of the ranking, widened by the error of the held-out distance, and the rank
   correlation of mean distances with those held out, beside that of each other estimate.
4. *Recommendation*: the held-out distance of what is chosen over that of the control: the
   ``best_known`` of the advice, the nearest by each estimate, by a draw of the means (Thompson
   sampling), a random candidate, and the nearest in the held-out cells. All but the random one may
   choose the control, so that nothing is done; an advice that the target does not differ from the
   control does. Differences as in 1, over targets.
5. *Advice*: how often each kind is given; "none closer by a tenth of the control's distance", as
   stated and in the held-out cells, whose error makes the latter too rare.

Target genes of the target and of the candidate are left out of a distance, of all estimates alike.
Held-out replicates of a table have the variance between them as their error, and the square of the
standard error if there is one. A screen that fails, or has too few replicates, is listed with its
error.

Amended after a first run on the five screens at hand, and before any other: the control is a
choice, and targets are four standard errors away (two before), because ratios to a control's
distance near 0 (up to 140 on TAP-seq) hid all others.

    python -m benchmarks.frozen FOLDER --save frozen.md
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

import nextpert as npt
from benchmarks._frozen_splits import CellScreen, TableScreen, opened, screens_in
from benchmarks._page import options, quiet, save, show, table
from benchmarks._shrinkage import ash, james_stein, singular_values

if TYPE_CHECKING:
    from benchmarks._frozen_splits import Split

    Array = np.ndarray

OURS, NOTHING, MEANS, THOMPSON = "nextpert", "no effect", "means", "Thompson sampling on means"
Z90 = 1.6449
MIN_Z = 4.0  # standard errors of a target's distance to the control
SAME = "the target does not differ from the control"
MAX_LFSR = 0.05  # of a called effect
NEARER = 0.1  # of the control's distance, in "none closer"
N_DRAWS = 200  # of Thompson sampling


def estimates_of(split: Split) -> dict[str, Array]:
    """Return effects by the other estimates, from means and variances that are seen."""
    effect = split.effect
    variance = np.maximum(split.variance + split.control_variance, np.finfo(float).tiny)
    se = np.sqrt(variance)
    others = (effect.sum(axis=0) - effect) / max(len(effect) - 1, 1)
    return {
        NOTHING: np.zeros_like(effect),
        MEANS: effect,
        "mean perturbation": others,
        "James-Stein": james_stein(effect, variance),
        "ash": np.array([ash(*pair) for pair in zip(effect, se, strict=True)]),
        "singular values and James-Stein": singular_values(effect, variance),
    }


def judged_effects(
    split: Split, estimates: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """Return errors by perturbation, coverage by kind and perturbation, and sizes of effects."""
    found = npt.tl.perturbation_effects(split.adata, as_anndata=True)
    found = found[split.names, list(split.adata.var_names)]
    mean, lower, upper = np.asarray(found.X), found.layers["lower"], found.layers["upper"]
    judged = split.is_judged
    truth, noise = split.truth[judged], split.noise[judged] + split.control_noise
    errors = {
        name: ((effect[judged] - truth) ** 2 - noise).sum(axis=1)
        for name, effect in {OURS: mean, **estimates}.items()
    }
    wide = Z90**2 * noise
    low = mean[judged] - np.sqrt((mean - lower)[judged] ** 2 + wide)
    high = mean[judged] + np.sqrt((upper - mean)[judged] ** 2 + wide)
    inside = (low <= truth) & (truth <= high)
    kinds = {
        "all effects": np.ones_like(inside),
        "called effects": found.layers["lfsr"][judged] < MAX_LFSR,
        "large estimates": np.abs(mean[judged]) > split.sd / 2,
    }
    counts = {
        kind: np.stack([(inside & chosen).sum(axis=1), chosen.sum(axis=1)], axis=1)
        for kind, chosen in kinds.items()
    }
    return errors, counts, (truth**2 - noise).sum(axis=1)


def distance(effect: Array, noise: Array, target: int, used: Array) -> Array:
    """Return unbiased squared distances of all rows to one, on the genes used by each."""
    difference = (effect - effect[target]) ** 2 - noise - noise[target]
    return np.where(used, difference, 0.0).sum(axis=1)


def distance_sd(effect: Array, noise: Array, target: int, used: Array) -> Array:
    """Return the standard errors of unbiased squared distances."""
    both = noise + noise[target]
    variance = 4 * (effect - effect[target]) ** 2 * both + 2 * both**2
    return np.sqrt(np.where(used, variance, 0.0).sum(axis=1))


def targets_of(split: Split) -> list[int]:
    """Return the targets: perturbations that are clearly away from the control, held out."""
    zero = np.zeros((1, split.truth.shape[1]))
    chosen = []
    for k in np.flatnonzero(split.is_judged):
        used = ~split.own[[k]]
        pair = np.vstack([split.truth[[k]], zero])
        noise = np.vstack([split.noise[[k]], split.control_noise])
        used = np.vstack([used, used])
        far, sd = (f(pair, noise, 0, used)[1] for f in (distance, distance_sd))
        if far > MIN_Z * sd:
            chosen.append(int(k))
    return chosen


def towards(
    split: Split, estimates: dict[str, Array], k: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return what is chosen and stated towards one target, and how it is judged."""
    judged = np.flatnonzero(split.is_judged & (np.arange(len(split.names)) != k))
    candidates = [split.names[j] for j in judged]
    npt.tl.design_interventions(split.adata, split.names[k], candidates=candidates)
    design = split.adata.uns["design"]
    ranking, advice = design["ranking"].set_index("perturbation"), design["advice"]
    used = ~(split.own | split.own[k])
    truth = distance(split.truth, split.noise, k, used)[judged]
    truth_sd = distance_sd(split.truth, split.noise, k, used)[judged]
    here = ~split.own[k]
    control = float((split.truth[k] ** 2 - split.noise[k] - split.control_noise)[here].sum())
    stated = ranking.loc[candidates]
    mean = stated["mean_distance"].to_numpy(float)
    low, high = (stated[name].to_numpy(float) for name in ("predicted_low", "predicted_high"))
    low = mean - np.sqrt((mean - low) ** 2 + (Z90 * truth_sd) ** 2)
    high = mean + np.sqrt((high - mean) ** 2 + (Z90 * truth_sd) ** 2)
    by_estimate = {OURS: mean}
    to_control: dict[str, float] = {}
    for name, effect in estimates.items():
        noise = split.variance if name == MEANS else np.zeros_like(effect)
        if name not in (NOTHING, "mean perturbation"):
            by_estimate[name] = distance(effect, noise, k, used)[judged]
            above = noise[k] + split.control_variance * (name == MEANS)
            to_control[name] = float((effect[k] ** 2 - above)[here].sum())
    reached = dict(zip(candidates, truth, strict=True))
    # ``best_known`` is the control, or empty, if no candidate is nearer.
    best = "" if str(advice["kind"]) == SAME else str(advice["best_known"])
    chosen = {OURS: reached.get(best, control)}
    for name, found in by_estimate.items():
        if name != OURS:
            chosen[name] = truth[found.argmin()] if found.min() < to_control[name] else control
    shape = (N_DRAWS, *split.effect.shape)
    drawn = split.effect + np.sqrt(split.variance) * rng.standard_normal(shape)
    gaps = np.where(used, (drawn - drawn[:, [k]]) ** 2, 0.0).sum(axis=2)[:, judged]
    is_nearer = gaps.min(axis=1) < np.where(here, drawn[:, k] ** 2, 0.0).sum(axis=1)
    chosen[THOMPSON] = np.where(is_nearer, truth[gaps.argmin(axis=1)], control).mean()
    chosen |= {"random": truth.mean(), "the nearest held out": min(truth.min(), control)}
    return {
        "chosen": {name: float(value) / control for name, value in chosen.items()},
        "correlation": {
            name: float(stats.spearmanr(found, truth).statistic)
            for name, found in by_estimate.items()
        },
        "inside": float(((low <= truth) & (truth <= high)).mean()),
        "kind": str(advice["kind"]),
        "none closer said": float(advice["good_enough"]),
        "none closer true": float(chosen[OURS] - truth.min() <= NEARER * control),
    }


def with_interval(values: Array) -> str:
    """Return a mean over units, its 95% interval, and Wilcoxon's p-value."""
    n, mean = len(values), values.mean()
    if n < 3:
        return f"{mean:.3f} ({n} unit{'s' * (n > 1)})"
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    p = stats.wilcoxon(values).pvalue if np.any(values) else 1.0
    return f"{mean:.3f} ({mean - half:.3f} to {mean + half:.3f}), p = {p:.2g}"


def compared(scores: dict[str, dict[str, list[float]]], scale: float = 1.0) -> list[list[str]]:
    """Return rows of methods: mean score, and the difference of ours, paired by unit."""
    means = {
        name: np.array([np.mean(values) for values in by_unit.values()]) / scale
        for name, by_unit in scores.items()
    }
    rows = []
    for name, values in means.items():
        difference = "-" if name == OURS else with_interval(means[OURS] - values)
        rows.append([name, f"{values.mean():.3f}", difference])
    return rows


def judge(screen: CellScreen | TableScreen, n_cells: int, n_splits: int) -> str:
    """Return the section of one screen and number of cells."""
    errors: Any = defaultdict(lambda: defaultdict(list))
    chosen: Any = defaultdict(lambda: defaultdict(list))
    correlation: Any = defaultdict(lambda: defaultdict(list))
    counts: Any = defaultdict(lambda: defaultdict(list))
    sizes, inside, stated, kinds = defaultdict(list), defaultdict(list), [], Counter()
    for seed in range(n_splits):
        with quiet():
            split = screen.split(n_cells, seed)
            names = [
                name for name, is_in in zip(split.names, split.is_judged, strict=True) if is_in
            ]
            if len(names) < 4:
                raise ValueError(f"{len(names)} perturbations can be judged, 4 are needed.")
            if split.has_cells:
                npt.tl.learn_dag(split.adata, method="boss", environments="all")
            npt.tl.fit_dag_blr(split.adata, shift=split.shift)
            estimates = estimates_of(split)
            found, covered, size = judged_effects(split, estimates)
            for i, name in enumerate(names):
                sizes[name].append(size[i])
                for method, values in found.items():
                    errors[method][name].append(values[i])
                for kind, pairs in covered.items():
                    counts[kind][name].append(pairs[i])
            rng = np.random.default_rng([seed, 1])
            for k in targets_of(split):
                name, result = split.names[k], towards(split, estimates, k, rng)
                inside[name].append(result["inside"])
                stated.append((result["none closer said"], result["none closer true"]))
                kinds[result["kind"]] += 1
                for method, value in result["chosen"].items():
                    chosen[method][name].append(value)
                for method, value in result["correlation"].items():
                    correlation[method][name].append(value)
        print(f"split {seed}: {time.process_time() - START:.0f} s", file=sys.stderr)
    size = float(np.mean([np.mean(values) for values in sizes.values()]))
    head = ["", "mean", "nextpert minus it (95% interval over units), Wilcoxon's p"]
    parts = [
        f"### Effects: {len(sizes)} perturbations, errors over the mean size of an effect",
        table(head, compared(errors, size)),
        f"### Coverage of 90% intervals, {len(sizes)} perturbations",
        table(["", "covered", "effects in a split"], covered_rows(counts, n_splits)),
    ]
    if chosen:
        n = len(inside)
        parts += [
            f"### Recommendation: {n} targets, distance of the chosen over the control's",
            table(head, compared(chosen)),
            f"### Distances: {n} targets, rank correlation with the held-out distances",
            table(head, compared(correlation)),
            advice_words(kinds, stated, [float(np.mean(v)) for v in inside.values()]),
        ]
    else:
        parts.append("No perturbation is clearly away from the control: there are no targets.")
    return "\n\n".join(parts)


def covered_rows(counts: Any, n_splits: int) -> list[list[str]]:
    """Return the coverage by kind with a standard error over perturbations."""
    rows = []
    for kind, by_name in counts.items():
        pairs = np.array([np.sum(values, axis=0) for values in by_name.values()], float)
        n = pairs[:, 1].sum()
        if not n:
            rows.append([kind, "-", "0"])
            continue
        share = pairs[:, 0].sum() / n
        used = pairs[:, 1] > 0
        error = np.sqrt((((pairs[:, 0] - share * pairs[:, 1])[used]) ** 2).sum()) / n
        rows.append([kind, f"{share:.3f} ± {error:.3f}", f"{n / n_splits:.0f}"])
    return rows


def advice_words(
    kinds: Counter[str], stated: list[tuple[float, float]], inside: list[float]
) -> str:
    """Return sentences on intervals and advice."""
    pairs = np.array(stated)
    known = pairs[np.isfinite(pairs[:, 0])]
    none = (
        f'"None closer" is stated with {known[:, 0].mean():.2f} and holds in '
        f"{known[:, 1].mean():.2f} of {len(known)} statements."
        if len(known)
        else '"None closer" is never stated.'
    )
    given = ", ".join(f"{kind!r} {n}" for kind, n in kinds.most_common())
    return (
        f"90% intervals of distances cover {np.mean(inside):.2f} of those held out. {none} "
        f"Advice over targets and splits: {given}."
    )


def section(name: str, settings: dict[str, Any], path: Path, args: Any) -> str:
    """Return the section of a screen, or of its failure."""
    start = time.process_time()
    lines = [f"Chosen by looking at this screen: {settings.get('chose', 'not stated')}."]
    try:
        screen = opened(settings, path, args.data)
        lines.insert(0, f"{screen.size()[0].upper()}{screen.size()[1:]}.")
        sizes = args.cells if isinstance(screen, CellScreen) else [1]
        for n_cells in sizes:
            seen = f"{n_cells} cells" if isinstance(screen, CellScreen) else "one row"
            lines.append(f"**{seen} of each perturbation, {args.splits} splits**")
            lines.append(judge(screen, n_cells, args.splits))
    except Exception as error:  # a failure is a result of this page
        lines.append(f"**Failed**: {type(error).__name__}: {error}")
    lines.append(f"{time.process_time() - start:.0f} s of CPU time.")
    return "\n\n".join([f"## {name}", *lines])


START = time.process_time()


def main(arguments: list[str] | None = None) -> None:
    """Judge all screens of a folder and print one page."""
    parser = options("frozen", __doc__, data=True)
    parser.add_argument("folder", type=Path, help="with h5ad files, TOML files, or both")
    parser.add_argument("--cells", type=int, nargs="+", default=[20])
    parser.add_argument("--splits", type=int, default=3)
    args = parser.parse_args(arguments)
    args.data = Path(args.data)
    if not args.folder.is_dir():
        parser.error(f"there is no folder {str(args.folder)!r}")
    found = list(screens_in(args.folder, args.data))
    if not found:
        parser.error(f"{str(args.folder)!r} has no file *.toml or *.h5ad")
    sections = [show(section(name, settings, path, args)) for name, settings, path in found]
    save("frozen", sections, args.save)


if __name__ == "__main__":
    main()
