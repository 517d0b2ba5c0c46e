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

import re
import sys
import time
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import stats

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table
from benchmarks._screens import Source, read_screen
from benchmarks._shrinkage import ash, james_stein, singular_values
from nextpert._adata.roles import Roles

if TYPE_CHECKING:
    from collections.abc import Iterator

    Array = np.ndarray

OURS, NOTHING, MEANS, THOMPSON = "nextpert", "no effect", "means", "Thompson sampling on means"
MIN_HELD_OUT = 40  # cells of a perturbation that judge it
Z90 = 1.6449
MIN_Z = 4.0  # standard errors of a target's distance to the control
SAME = "the target does not differ from the control"
MAX_LFSR = 0.05  # of a called effect
NEARER = 0.1  # of the control's distance, in "none closer"
N_DRAWS = 200  # of Thompson sampling
CELL_KEYS = ("perturbation_key", "control", "guide_key", "layer")


@dataclass(frozen=True)
class Split:
    """What is seen of a screen, and what judges it.

    Arrays are perturbations x genes of the panel: ``effect`` and ``variance`` of the means that are
    seen, ``truth`` and ``noise`` of those held out (NaN for perturbations that are not judged). The
    variances of the controls' means, ``(n_genes,)``, come on top in effects (in tables, errors hold
    them). ``own`` marks target genes, ``sd`` is that of a gene within cells (its error in a table).
    """

    adata: ad.AnnData
    names: list[str]
    effect: Array
    variance: Array
    truth: Array
    noise: Array
    control_variance: Array
    control_noise: Array
    own: Array
    sd: Array
    shift: str
    has_cells: bool

    @property
    def is_judged(self) -> Array:
        """Perturbations with held-out effects."""
        return np.isfinite(self.truth).all(axis=1)


class CellScreen:
    """A screen of cells."""

    def __init__(self, settings: dict[str, Any], path: Path, data: Path) -> None:
        named = {key: settings[key] for key in CELL_KEYS if key in settings}
        roles = Roles(batch_key=tuple(settings.get("batch_key", ())), **named)
        whole = roles.layer is None and has_counts(path, roles)
        counts = bool(settings.get("counts", whole))
        source = Source(str(path), roles, counts=counts, depth_key=settings.get("depth_key"))
        self.screen = read_screen(data, source, n_variable=int(settings.get("n_genes", 100)))
        self.roles, self.shift = roles, str(settings.get("shift", "knockout"))
        self.label = self.screen.labels()
        self.x = np.asarray(self.screen.cells.X, float)

    def size(self) -> str:
        """Describe the screen."""
        n = len(set(self.label)) - 1
        return f"{len(self.x):,} cells, {n} perturbations, {self.x.shape[1]} genes in the panel"

    def split(self, n_cells: int, seed: int) -> Split:
        """Return a random split with ``n_cells`` cells seen of each perturbation."""
        rng, control = np.random.default_rng(seed), self.roles.control
        sizes = Counter(self.label)
        names = sorted(
            name for name, n in sizes.items() if name != control and n >= n_cells + MIN_HELD_OUT
        )
        is_seen = np.zeros(len(self.label), bool)
        rows = {name: rng.permutation(np.flatnonzero(self.label == name)) for name in names}
        controls = rng.permutation(np.flatnonzero(self.label == control))
        is_seen[controls[: len(controls) // 2]] = True
        for cells in rows.values():
            is_seen[cells[:n_cells]] = True
        seen_control = self.x[controls[: len(controls) // 2]]
        genes = seen_control.std(axis=0) > 0
        adata = self.screen.cells[is_seen][:, genes].copy()
        roles: dict[str, Any] = {"guide_key": self.roles.guide_key}
        roles |= {"batch_key": [*self.roles.batch_key]} if self.roles.batch_key else {}
        npt.pp.setup_screen(
            adata,
            perturbation_key=self.roles.perturbation_key,
            control=control,
            check_scale=False,
            **roles,
        )
        x = self.x[:, genes]
        effect, truth, noise = np.zeros((3, len(names), x.shape[1]))
        control_parts = np.array_split(controls, [len(controls) // 2])
        seen = [control_parts[0], *(cells[:n_cells] for cells in rows.values())]
        within = np.concatenate([x[cells] - x[cells].mean(axis=0) for cells in seen])
        sd = np.sqrt((within**2).sum(axis=0) / (len(within) - len(seen)))
        for k, name in enumerate(names):
            part = rows[name][n_cells:]
            effect[k] = x[seen[k + 1]].mean(axis=0) - x[seen[0]].mean(axis=0)
            truth[k] = x[part].mean(axis=0) - x[control_parts[1]].mean(axis=0)
            noise[k] = x[part].var(axis=0, ddof=1) / len(part)
        variance = np.tile(sd**2 / n_cells, (len(names), 1))
        control_noise = x[control_parts[1]].var(axis=0, ddof=1) / len(control_parts[1])
        control_variance = sd**2 / len(seen[0])
        own = np.array([
            [gene == self.target(name) for gene in adata.var_names] for name in names
        ])  # fmt: skip
        return Split(
            adata, names, effect, variance, truth, noise, control_variance, control_noise, own, sd,
            self.shift, has_cells=True,
        )  # fmt: skip

    def target(self, name: str) -> str | None:
        """Return the gene that a perturbation targets, if it is measured."""
        column = self.screen.targets.get(name)
        return None if column is None else str(self.screen.cells.var_names[column])


def has_counts(path: Path, roles: Roles) -> bool:
    """Return whether the values are whole numbers, by the first cells of a file."""
    adata = ad.read_h5ad(path, backed="r")
    try:
        if roles.perturbation_key not in adata.obs:
            message = f"{path.name} has no obs[{roles.perturbation_key!r}]: name perturbation_key."
            raise ValueError(message)
        first: Any = adata[:200].to_memory().X
        values = np.asarray(first.toarray() if hasattr(first, "toarray") else first)
        return bool((values == np.round(values)).all())
    finally:
        adata.file.close()


class TableScreen:
    """A screen of effects and standard errors, with replicates as rows."""

    def __init__(self, settings: dict[str, Any], path: Path, data: Path) -> None:
        scale = np.log(float(settings.get("base", np.e)))
        files = (found_file(settings[key], path, data) for key in ("effects", "errors"))
        self.effects, self.errors = (
            scale * pd.read_csv(file, sep="\t" if ".tsv" in file.name else ",", index_col=0)
            for file in files
        )
        matches = [re.fullmatch(settings["row"], str(row)) for row in self.effects.index]
        if None in matches:
            row = self.effects.index[matches.index(None)]
            raise ValueError(f"Row {row!r} does not match {settings['row']!r}.")
        groups = [match.groupdict() for match in matches if match]
        self.names = np.array([group["perturbation"] for group in groups])
        self.batch = [group.get("batch") for group in groups]
        self.n_genes = int(settings.get("n_genes", 300))
        self.shift = str(settings.get("shift", "knockout"))

    def size(self) -> str:
        """Describe the screen."""
        n, several = len(set(self.names)), sum(c > 1 for c in Counter(self.names).values())
        return f"a table of {len(self.names)} rows, {n} perturbations, {several} with replicates"

    def split(self, n_cells: int, seed: int) -> Split:
        """Return a split with one row of every perturbation."""
        rng, names = np.random.default_rng([seed, n_cells]), sorted(set(self.names))
        rows = [rng.permutation(np.flatnonzero(self.names == name)) for name in names]
        seen = np.array([row[0] for row in rows])
        variance_of_gene = self.effects.iloc[seen].var(axis=0).to_numpy()
        complete = np.isfinite(self.effects.iloc[seen]).all(axis=0).to_numpy()
        order = np.argsort(-np.where(complete, variance_of_gene, -1.0), kind="stable")
        genes = np.sort(order[: min(self.n_genes, int(complete.sum()))])
        effects, errors = (x.to_numpy()[:, genes] for x in (self.effects, self.errors))
        parts = []
        for x in (effects, errors):
            parts.append(pd.DataFrame(x[seen], index=names, columns=self.effects.columns[genes]))
        batch = {name: str(self.batch[row]) for name, row in zip(names, seen, strict=True)}
        told = {} if None in self.batch else {"batch": batch}
        adata = npt.pp.effect_table(parts[0], parts[1], control_se="conservative", **told)
        truth, noise = np.full((2, len(names), len(genes)), np.nan)
        for k, row in enumerate(rows):
            if len(others := row[1:]):
                truth[k] = effects[others].mean(axis=0)
                between = effects[others].var(axis=0, ddof=1) if len(others) > 1 else 0.0
                noise[k] = np.maximum(between / len(others), (errors[others] ** 2).mean(axis=0))
        own = np.array([[gene == name for gene in adata.var_names] for name in names])
        sd = np.sqrt((errors[seen] ** 2).mean(axis=0))
        none = np.zeros(len(genes))
        return Split(
            adata, names, effects[seen], errors[seen] ** 2, truth, noise, none, none, own, sd,
            self.shift, has_cells=False,
        )  # fmt: skip


def found_file(name: str, path: Path, data: Path) -> Path:
    """Return a file that is named relative to a TOML file or to the folder of the data."""
    for folder in (path.parent, data):
        if (folder / name).is_file():
            return (folder / name).resolve()
    raise FileNotFoundError(f"There is no file {name!r} beside {path.name} or in {data}.")


def screens_in(folder: Path, data: Path) -> Iterator[tuple[str, dict[str, Any], Path]]:
    """Yield the name, the settings and the path of every screen."""
    named = set()
    for path in sorted(folder.rglob("*.toml")):
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        if "cells" in settings:
            try:
                named.add(found_file(settings["cells"], path, data))
            except FileNotFoundError as error:
                settings["missing"] = str(error)
        yield path.stem, settings, path
    for path in sorted(folder.rglob("*.h5ad")):
        if path.resolve() not in named:
            yield path.stem, {"cells": path.name}, path


def opened(settings: dict[str, Any], path: Path, data: Path) -> CellScreen | TableScreen:
    """Read a screen."""
    if "cells" in settings:
        return CellScreen(settings, found_file(settings["cells"], path, data), data)
    if {"effects", "errors", "row"} <= set(settings):
        return TableScreen(settings, path, data)
    raise ValueError(f"{path.name} needs the key cells, or the keys effects, errors and row.")


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
