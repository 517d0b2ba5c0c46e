"""Choices and statements where the truth is exact: real residuals, moved to known effects.

A world is a screen of ``benchmarks/frozen_screens`` and a truth: the effects that ash, or singular
values with James-Stein, estimate from all its cells. The residuals of cells around the mean of
their perturbation are moved to the mean of the controls plus these effects; guides, batches and
correlations between genes stay real. Seen are ``--cells`` random cells of each perturbation (all,
if it has fewer; those with less than 20 are left out) and half of the controls. Of a table, one row
of each perturbation is seen: its truth plus the residual of a replicate, with the standard errors
as they are given.

All calls are public, with their defaults, as in ``benchmarks.frozen``. Every perturbation is a
target, named by its label, whatever its truth; candidates are all others. Distances are squared. As
in the ranking, the genes that the target or the candidate targets are left out, and the distance is
multiplied by the control's on all genes that count for the target over that on the genes that are
left (equation 28, here with the true effects). What keeps less than half of the control's true
distance is no candidate; choosing it, or what the ranking leaves out, counts as the control.

``nextpert`` uses the ``best_known`` of the advice, which can be the control. All other rules may
also choose the control, except the first of the ranking and a random candidate.

Targets are the unit: of each, seeds are averaged first. The result of a rule is the sum over
targets of the true distance that is left by what it chooses, over the sum of the controls'
distances. Intervals are those of a ratio of two means over targets, by the t distribution. In the
sum over worlds, screens are independent, and the truths of one screen share its targets.

    python -m benchmarks.exact_truth --cells 20 --save exact_truth.md
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

import nextpert as npt
from benchmarks._frozen_splits import CellScreen, opened, screens_in
from benchmarks._page import ROOT, options, quiet, ratio, save, show, table, with_error
from benchmarks._residual_worlds import WAYS, truth_of
from benchmarks._shrinkage import mash_posterior
from benchmarks.frozen import estimates_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks._frozen_splits import Split, TableScreen

    Array = np.ndarray

OURS, FIRST = "nextpert", "first of the ranking"
CONTROL, THOMPSON, RANDOM, BEST = "control", "Thompson on means", "random", "nearest of all"
MEANS = "means"
# Estimates of effects of which the nearest is chosen, as ``frozen.estimates_of`` names them.
ESTIMATES = (MEANS, "James-Stein", "ash", "singular values and James-Stein")
RULES = (OURS, FIRST, CONTROL, *ESTIMATES, "mash", THOMPSON, RANDOM, BEST)
CONTROL_ROW = ""  # its label in rankings by name, as no perturbation is called
N_DRAWS = 200  # of Thompson sampling, as in frozen
NEARER = 0.1  # of the control's distance, in "none closer": the default of the advice
MIN_LEFT = 0.5  # share of the control's distance that is left without own genes, as in rankings
BINS = (0.0, 0.2, 0.5, 0.8, 0.95, 1.0)
FOLDER = ROOT / "benchmarks" / "frozen_screens"
WORLD = ["screen", "truth"]


def distances(
    effect: Array, own: Array, k: int, noise: Any = 0.0, control_noise: Any = 0.0
) -> tuple[Array, Array]:
    """Return squared distances of all perturbations to one, and that of the control.

    ``effect`` is ``(..., perturbations, genes)``, ``own`` marks target genes, and ``noise`` and
    ``control_noise`` are variances to subtract. Distances without own genes are scaled as in
    rankings; they are infinite for the target itself, and if less than half is left.
    """
    noise = np.broadcast_to(noise, own.shape)
    used = ~(own | own[k])
    of_control = effect[..., k, :] ** 2 - noise[k] - control_noise
    total = of_control[..., ~own[k]].sum(axis=-1)
    left, whole = of_control @ used.T.astype(float), total[..., None]
    gaps = (effect - effect[..., [k], :]) ** 2 - noise - noise[k]
    found = np.where(used, gaps, 0.0).sum(axis=-1)
    # An unbiased distance of the control that is not above 0 scales nothing.
    is_scaled = (whole > 0) & (left >= MIN_LEFT * whole)
    found *= np.divide(whole, left, out=np.ones_like(left), where=is_scaled)
    found = np.where(is_scaled | (whole <= 0), found, np.inf)
    found[..., k] = np.inf
    return found, total


def chosen_by(found: Array, to_control: Array, left: Array, control: float) -> float:
    """Return the true distance left by the smallest of some distances and the control's.

    Over several draws, ``(..., perturbations)``, it is the mean.
    """
    is_nearer = found.min(axis=-1) < to_control
    return float(np.where(is_nearer, left[found.argmin(axis=-1)], control).mean())


def by_estimates(split: Split, rng: np.random.Generator) -> Iterator[dict[str, float]]:
    """Yield of each target what is left by the choice of each rule but ours."""
    estimates = {name: x for name, x in estimates_of(split).items() if name in ESTIMATES}
    if split.has_cells:
        n, n_control = (split.sd**2 / v for v in (split.variance, split.control_variance))
        estimates["mash"] = mash_posterior(split.effect, split.sd, n[:, 0], n_control[0])[0]
    shape = (N_DRAWS, *split.effect.shape)
    drawn = split.effect + np.sqrt(split.variance) * rng.standard_normal(shape)
    for k in range(len(split.names)):
        left, control = reached(split, k)
        result = {CONTROL: control}
        for name, effect in estimates.items():
            noise = (split.variance, split.control_variance) if name == MEANS else ()
            result[name] = chosen_by(*distances(effect, split.own, k, *noise), left, control)
        result[THOMPSON] = chosen_by(*distances(drawn, split.own, k), left, control)
        result[RANDOM] = float(np.delete(left, k).mean())
        result[BEST] = min(float(np.delete(left, k).min()), control)
        yield result


def reached(split: Split, k: int) -> tuple[Array, float]:
    """Return true distances to a target of all perturbations, and of the control.

    What is no candidate leaves the control's distance.
    """
    truth, control = distances(split.held_out.effect, split.own, k)
    return np.where(np.isfinite(truth), truth, control), float(control)


def by_advice(split: Split, k: int) -> dict[str, Any]:
    """Return what is left by following the ranking and the advice, and what they state.

    Without a ranking, nothing is chosen or stated.
    """
    true, control = distances(split.held_out.effect, split.own, k)
    control = float(control)
    candidates = [name for name in split.names if name != split.names[k]]
    try:
        npt.tl.design_interventions(split.adata, split.names[k], candidates=candidates)
    except ValueError as error:  # no candidate can be ranked
        return {OURS: control, FIRST: control, "kind": str(error)}
    ranking, advice = (split.adata.uns["design"][name] for name in ("ranking", "advice"))
    true = pd.Series([*true, control], [*split.names, CONTROL_ROW])
    true = true[np.isfinite(true)]
    ranking = ranking.set_index(ranking["perturbation"].where(~ranking["is_control"], CONTROL_ROW))
    stated = ranking.loc[ranking.index.isin(true.index)]
    known = true[stated.index]
    inside = (stated["predicted_low"] <= known) & (known <= stated["predicted_high"])
    likely = str(ranking["probability_best"].idxmax())
    nearest = true.drop(CONTROL_ROW).min()
    ours = float(true.get(str(advice["best_known"]), control))
    said = float(ranking["mean_distance"][CONTROL_ROW])
    return {
        OURS: ours,
        FIRST: float(true.get(ranking.index[0], control)),
        "kind": str(advice["kind"]),
        "target differs": float(advice["target_differs"]),
        "none closer said": float(advice["good_enough"]),
        "none closer true": float(ours - true.min() <= NEARER * control),
        "nearest said": float(ranking["probability_best"][likely]),
        "nearest true": float(likely in true and true[likely] <= nearest),
        "inside": float(inside.mean()),
        "control said": said,
        "gain said": float(advice["relative_gain"]) * said,
    }


def run(screen: CellScreen | TableScreen, way: str, n_cells: int, seeds: Sequence[int]) -> Any:
    """Return the results of all targets and seeds in a world, one row each."""
    seen = f"{n_cells} cells" if isinstance(screen, CellScreen) else "one row"
    truth, rows = truth_of(screen, way), []
    for seed in seeds:
        start = time.process_time()
        with quiet():
            split = truth.world(n_cells, seed)
            if split.has_cells:
                npt.tl.learn_dag(split.adata, method="boss", environments="all")
            npt.tl.fit_dag_blr(split.adata, shift=split.shift)
            others = by_estimates(split, np.random.default_rng([seed, n_cells, 1]))
            for k, found in enumerate(others):
                row = {"seed": seed, "target": split.names[k], **found, **by_advice(split, k)}
                rows.append(row)
        seconds = time.process_time() - start
        print(f"{way}, {seen}, seed {seed}: {seconds:.1f} s", file=sys.stderr)
    return pd.DataFrame(rows)


def pooled(found: pd.DataFrame, left: pd.Series) -> tuple[float, float]:
    """Return the sum over worlds of a ratio to the control's distance, and half its 95% interval.

    ``left`` has a value for each row of ``found``. The ratio of a world is that of sums over
    targets of means over seeds.
    """
    by = [*WORLD, "target"]
    means = found[by].assign(left=left, control=found[CONTROL]).groupby(by).mean()
    total, variances = 0.0, []
    for _, of_screen in means.groupby("screen"):
        departure = pd.Series(dtype=float)  # of each target, over the truths of the screen
        for _, world in of_screen.groupby("truth"):
            world = world.droplevel(WORLD)
            share = world["left"].sum() / world["control"].sum()
            each = (world["left"] - share * world["control"]) / world["control"].mean()
            total, departure = total + share, departure.add(each, fill_value=0.0)
        n = len(departure)
        variances.append((departure.var() / n, n - 1))
    variance = sum(v for v, _ in variances)
    if not variance > 0:
        return total, np.nan if np.isnan(variance) else 0.0
    # Degrees of freedom of a sum of variances (Welch and Satterthwaite).
    freedom = variance**2 / sum(v**2 / n for v, n in variances)
    return total, float(stats.t.ppf(0.975, freedom) * np.sqrt(variance))


def with_interval(value: float, half: float) -> str:
    """Return a value and its interval."""
    low, high = value - half, value + half
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if np.isfinite(half) else "")


def by_world(found: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the name and the rows of every world, in the order of the rows."""
    for (screen, way), rows in found.groupby(WORLD, sort=False):
        yield f"{screen}, {way}", rows


def result_of(found: pd.DataFrame, left: pd.Series, *, interval: bool = True) -> str:
    """Return the :func:`pooled` ratio of the worlds that have a rule; the others have NaN."""
    has = left.notna()
    n, n_all = (len(rows.groupby(WORLD)) for rows in (found[has], found))
    if not n:
        return "-"
    value, half = pooled(found[has], left[has])
    text = with_interval(value, half) if interval else f"{value:.3f}"
    return text if n == n_all else f"{text}, of {n} worlds"


def choices(found: pd.DataFrame) -> list[str]:
    """Return the tables of what is left by each rule, and of the differences of ours to it."""
    rules = [name for name in RULES if name in found]
    shown = [rule for rule in rules if rule != CONTROL]  # the control leaves 1
    rows, differences = {}, {}
    for name, world in [*by_world(found), (f"sum of {len(found.groupby(WORLD))} worlds", found)]:
        is_sum = world is found
        name = f"**{name}**" if is_sum else f"{name} ({world['target'].nunique()} targets)"
        rows[name] = [result_of(world, world[rule], interval=is_sum) for rule in shown]
        differences[name] = [result_of(world, world[OURS] - world[rule]) for rule in rules[1:]]
    return [
        "True distance left by what is chosen, sum over targets, over the sum of the controls'; in "
        "the last row with 95% intervals over targets:\n\n" + table(["world", *shown], rows),
        f"{OURS} minus each other rule, paired by target (95% interval over targets); below 0, "
        f"{OURS} is nearer:\n\n" + table(["world", *rules[1:]], differences),
    ]


def shared(found: pd.DataFrame, said: str) -> str:
    """Return mean stated and true values, the latter's standard error over targets, and rows."""
    pair = found[["screen", "target", f"{said} said", f"{said} true"]].dropna()
    if not len(pair):
        return "-"
    stated, true = pair[f"{said} said"], pair[f"{said} true"]
    sums = (true - true.mean()).groupby([pair["screen"], pair["target"]]).sum()
    n, text = len(sums), f"{stated.mean():.2f}/{true.mean():.2f}"
    if n > 1:
        text += f" ± {np.sqrt((sums**2).sum() * n / (n - 1)) / len(pair):.2f}"
    return f"{text} ({len(pair)})"


def in_bins(found: pd.DataFrame, said: str) -> list[str]:
    """Return :func:`shared` of all rows, and by the stated probability."""
    stated, cells = found[f"{said} said"], [shared(found, said)]
    for low, high in pairwise(BINS):
        is_in = (stated >= low) & ((stated < high) | ((high == BINS[-1]) & (stated <= high)))
        cells.append(shared(found[is_in], said))
    return cells


def over_targets(found: pd.DataFrame, *columns: str) -> list[pd.Series]:
    """Return means over seeds of columns, by target."""
    means = found.groupby("target")[[*columns]].mean()
    return [means[name] for name in columns]


def stated(found: pd.DataFrame) -> list[str]:
    """Return the tables of statements."""
    parts = []
    head = ["world", "all", *(f"{a:g} to {b:g}" for a, b in pairwise(BINS))]
    names = {
        "none closer": "that no candidate is closer than the best known by a tenth of the "
        "control's distance",
        "nearest": "that the candidate most likely to be nearest is the nearest of all candidates",
    }
    for said, words in names.items():
        rows = {name: in_bins(world, said) for name, world in by_world(found)}
        rows["**all worlds**"] = in_bins(found, said)
        parts.append(
            f"Probability {words}, as stated/true share ± standard error over targets (number of "
            f"targets and seeds), by the stated probability:\n\n" + table(head, rows)
        )
    rows = {}
    for name, world in by_world(found):
        gains = world.assign(most=world[OURS] - world[BEST]).dropna(subset=["gain said"])
        rows[name] = [
            with_error(*over_targets(world, "inside")),
            ratio(*over_targets(world, "control said", CONTROL)),
            ratio(*over_targets(gains, "gain said", CONTROL)) if len(gains) else "-",
            ratio(*over_targets(gains, "most", CONTROL)) if len(gains) else "-",
            f"{1 - world['target differs'].mean():.2f}",
        ]
    head = [
        "world", "90% intervals of distances cover", "control's distance, stated over true",
        "gain of a round as stated", "at most to gain", "target not shown to differ",
    ]  # fmt: skip
    parts.append(
        "Distances and gains; values after ± are standard errors over targets. Gains are sums over "
        "targets, over that of the controls' true distances; at most to gain is what the nearest "
        "of all candidates and the control would gain:\n\n" + table(head, rows)
    )
    return parts


def main(arguments: list[str] | None = None) -> None:
    """Judge choices and statements in all worlds, and print one page."""
    parser = options("exact_truth", __doc__, data=True)
    parser.add_argument("--screens", nargs="+", metavar="NAME", help="by default all of the folder")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="with a TOML file per screen")
    parser.add_argument("--truths", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--cells", type=int, nargs="+", default=[10, 20, 40, 100])
    parser.add_argument("--seeds", type=int, default=6, help="of each world")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--raw", metavar="FILE", help="write the results of all targets (csv)")
    args = parser.parse_args(arguments)
    data = Path(args.data)
    files = {name: (settings, path) for name, settings, path in screens_in(args.folder, data)}
    for name in args.screens or ():
        if name not in files:
            parser.error(f"there is no screen {name!r} in {args.folder}: use {', '.join(files)}")
    seeds, of_tables, results = range(args.first, args.first + args.seeds), [], []
    for name in args.screens or files:
        print(name, file=sys.stderr)
        screen = opened(*files[name], data)
        is_cells = isinstance(screen, CellScreen)
        for n_cells in args.cells if is_cells else [1]:
            for way in args.truths:
                rows = run(screen, way, n_cells, seeds)
                rows.insert(0, "truth", way)
                rows.insert(0, "n_cells", n_cells)
                rows.insert(0, "screen", name)
                (results if is_cells else of_tables).append(rows)
    if args.raw:
        pd.concat([*results, *of_tables]).to_csv(args.raw, index=False)
    parts = []
    for n_cells in args.cells if results else [1]:
        some = [rows for rows in results if (rows["n_cells"] == n_cells).all()]
        found = pd.concat([*some, *of_tables], ignore_index=True)
        title = f"## {n_cells} cells of each perturbation" if results else "## Tables"
        title += ", and one row in tables" if results and of_tables else ""
        parts += [show(part) for part in (title, *choices(found), *stated(found))]
    save("exact_truth", parts, args.save)


if __name__ == "__main__":
    main()
