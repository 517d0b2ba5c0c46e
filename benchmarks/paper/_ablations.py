"""What gets CIV to the target sooner, on the setting of Fig. 5: priors, starts, look-ahead."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from benchmarks.paper._figures import FIG5
from benchmarks.paper._files import read_csv, write_csv
from benchmarks.paper._run import first_below, mean_and_error
from benchmarks.paper._settings import Setting, instance, task
from benchmarks.paper._tables import markdown, value, verdict
from nextpert.core import DagBlr, LinearScm, Moments, Sphere, build_acquisition, design_loop
from nextpert.core.model import _blocks as learning

Array = np.ndarray
SHOWN = (5, 10, 15, 20, 25, 50)
COMPARED = (10, 20)
LEAST = 0.005  # a difference worth a word


@dataclass(frozen=True)
class Variant:
    """One row: how the posterior is set up, and what the campaign does otherwise."""

    name: str
    prior: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    noise_aware: bool = False
    hyper_sd: float | None = None


FIXED, DATA = {"prior_scale": 1.0}, {"prior_units": "data"}
BASE, PAPER = "scale learned, units of the noise", "M = I (the paper)"
MEAN_VARIANCE = {"acquisition": "target_mean_variance"}
VARIANTS = (
    Variant(PAPER, FIXED),
    Variant(BASE),
    Variant("scale fixed at 3", {"prior_scale": 3.0}),
    Variant("scale fixed at 10", {"prior_scale": 10.0}),
    Variant("scale fixed at 30", {"prior_scale": 30.0}),
    Variant("scale fixed at the true weights' mean square", {"prior_scale": "true"}),
    Variant("scale learned in units of the data", DATA),
    Variant("units of the data, one scale a node", {**DATA, "pooled": False}),
    Variant("M = I in units of the noise", {**FIXED, "prior_units": "noise"}),
    Variant("default, one scale a node (pooled=False)", {"pooled": False}),
    Variant("default, hyperprior sd 1 (default 3)", hyper_sd=1.0),
    Variant("default, hyperprior sd 10", hyper_sd=10.0),
    Variant("default, 2 random starts more", options={"n_random": 2}),
    Variant("default, 10 random starts more", options={"n_random": 10}),
    Variant("default, 5 rounds of warm-up", options={"n_warmup": 5}),
    Variant("default, 10 rounds of warm-up", options={"n_warmup": 10}),
    Variant("default, noise-aware look-ahead", noise_aware=True),
    Variant("M = I, noise-aware look-ahead", FIXED, noise_aware=True),
    Variant("M = I, 10 random starts more", FIXED, options={"n_random": 10}),
    Variant("default, CIV-OW", options={"acquisition": "civ_ow"}),
    Variant("default, greedy", options={"acquisition": "greedy"}),
    Variant("default, target-mean variance", options=MEAN_VARIANCE),
    Variant("units of the data, target-mean variance", DATA, options=MEAN_VARIANCE),
    Variant("default, noise variances unknown", {"noise_var": None}),
    Variant("units of the data, noise variances unknown", {"noise_var": None, **DATA}),
)


def distances(variant: Variant, setting: Setting, seed: int, run: int, rounds: int) -> Array:
    """Return the distance after every round of one campaign."""
    arguments = task(setting, seed, run, "civ", "learned", rounds)
    arguments |= {"posterior": _posterior(variant, setting, seed), **variant.options}
    if "n_warmup" in variant.options:  # a trial may be shorter than the warm-up
        arguments["n_warmup"] = min(variant.options["n_warmup"], rounds)
    before = learning.HYPER_SD
    try:
        learning.HYPER_SD = before if variant.hyper_sd is None else variant.hyper_sd
        if variant.noise_aware:
            return look_ahead_with_noise(**arguments)  # type: ignore[arg-type]
        return np.sqrt(design_loop(**arguments).distance)  # type: ignore[arg-type]
    finally:
        learning.HYPER_SD = before


def _posterior(variant: Variant, setting: Setting, seed: int) -> DagBlr:
    drawn = instance(setting, seed)
    prior = {"prior_scale": "evidence", "noise_var": drawn.scm.noise_var, **variant.prior}
    prior.setdefault("prior_units", "noise" if prior["prior_scale"] == "evidence" else "data")
    if prior["prior_scale"] == "true":
        edges = drawn.scm.weights**2 / drawn.scm.noise_var[:, None]
        prior["prior_scale"] = float(edges.sum() / drawn.scm.dag.n_edges)
    return DagBlr(drawn.dag, intercept=False, **prior)


def look_ahead_with_noise(
    source: LinearScm,
    posterior: DagBlr,
    target_mean: Array,
    acquisition: str,
    n_rounds: int,
    rng: list[int],
    *,
    noise_aware: bool = True,
) -> Array:
    """Run :func:`design_loop` with the noise-aware look-ahead, which it has no option for."""
    domain, p = Sphere(1.0), posterior.n_nodes
    noise, search = np.random.default_rng(rng).spawn(2)
    search.spawn(1)  # the stream of the warm-up
    scale = float((target_mean - source.mean(np.zeros(p))) @ target_mean)
    last: list[Array] = []

    def score() -> float:
        gap = source.mean(posterior.ideal_shift(target_mean)) - target_mean
        return float(np.sqrt(gap @ gap / scale))

    found = [score()]
    for _ in range(n_rounds):
        built = build_acquisition(
            acquisition, posterior, target_mean, domain=domain, n_cells=1, noise_aware=noise_aware,
            rng=search,
        )  # fmt: skip
        last = [domain.minimise(built, starts=last, n_random=0, rng=search).shift]
        cells = Moments.from_array(source.sample(1, last[0], rng=noise))
        posterior = posterior.update(cells, last[0])
        found.append(score())
    return np.array(found)


def run(folder: Path, *, quick: bool, workers: int) -> None:
    """Write one row a variant: distances by round, and rounds to reach the paper's last one."""
    figure = FIG5.quick() if quick else FIG5
    instances, runs, rounds = figure.instances, 2 if quick else 10, figure.rounds
    found: dict[str, Array] = {}
    for variant in VARIANTS:
        values = Parallel(n_jobs=workers)(
            delayed(distances)(variant, figure.settings[0], seed, r, rounds)
            for seed in range(instances)
            for r in range(runs)
        )
        found[variant.name] = np.array(values).reshape(instances, runs, -1).mean(axis=1)
        print(f"{variant.name}: {found[variant.name][:, -1].mean():.3f}", file=sys.stderr)
    end = found[PAPER][:, -1].mean()
    rows = []
    for name, values in found.items():
        mean, error = mean_and_error(values)
        gap, gap_error = mean_and_error(values - found[BASE])
        row: dict[str, Any] = {"variant": name, "rounds": first_below(mean, end)}
        for t in [t for t in SHOWN if t <= rounds] or [rounds]:
            row |= {f"mean_{t}": mean[t], f"sem_{t}": error[t]}
        for t in [t for t in COMPARED if t <= rounds]:
            row |= {f"gap_{t}": gap[t], f"gap_sem_{t}": gap_error[t]}
        rows.append(row)
    write_csv(pd.DataFrame(rows), folder, "ablations")


def table(folder: Path) -> str:
    """Return the variants in markdown."""
    found = read_csv(folder, "ablations")
    ends = [t for t in SHOWN if f"mean_{t}" in found]
    compared = [t for t in COMPARED if f"gap_{t}" in found]
    rows = []
    for _, row in found.iterrows():
        needed = f"{row['rounds']:.0f}" if np.isfinite(row["rounds"]) else "not reached"
        cells = [row["variant"], needed]
        cells += [value(row[f"mean_{t}"], row[f"sem_{t}"]) for t in ends]
        for t in compared:
            gap, error = row[f"gap_{t}"], row[f"gap_sem_{t}"]
            word = "" if row["variant"] == BASE else f" ({verdict(gap, error)})"
            cells.append(f"{gap:+.3f} ± {error:.3f}{word}")
        rows.append(cells)
    less = [f"less the default, round {t}" for t in compared]
    header = ["CIV, unless said", "rounds to M = I's last", *(f"round {t}" for t in ends), *less]
    return markdown(header, rows)


def said(folder: Path) -> str:
    """Say what helped, what hurt and what made no difference, against the default, by round 10."""
    found = read_csv(folder, "ablations")
    first = COMPARED[0]
    if f"gap_{first}" not in found:
        return ""
    words: dict[str, list[str]] = {"closer": [], "farther": [], "not resolved": []}
    for _, row in found[found["variant"] != BASE].iterrows():
        gap, error = row[f"gap_{first}"], row[f"gap_sem_{first}"]
        word = verdict(gap, error) if abs(gap) >= LEAST else "not resolved"
        words[word].append(f"{row['variant']} ({gap:+.3f} ± {error:.3f})")
    none = f"No difference resolved, or one below {LEAST:g}"
    parts = {"Helped": "closer", "Hurt": "farther", none: "not resolved"}
    lines = [f"- {name}: {'; '.join(words[word]) or 'none'}." for name, word in parts.items()]
    return f"Against the default, after round {first}:\n\n" + "\n".join(lines)
