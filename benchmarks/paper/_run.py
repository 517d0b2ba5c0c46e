"""Run the campaigns of a figure and sum them up over instances."""

from __future__ import annotations

import sys
import time
from itertools import product

import numpy as np
import pandas as pd

from benchmarks.paper._figures import PAIRS, Figure
from benchmarks.paper._settings import PRIORS, Setting, instance, task
from nextpert.core import design_loop, design_loops

Array = np.ndarray
Curves = dict[
    tuple[str, str, str], Array
]  # (setting, prior, acquisition) -> (instances, rounds + 1)
COMPARED = (10, 25, 50)


def curves(figure: Figure, workers: int) -> Curves:
    """Return distances ``|mu_t - mu*| / |mu*|`` by instance and round, runs averaged."""
    found: Curves = {}
    start, keys = time.perf_counter(), list(product(figure.settings, PRIORS, figure.acquisitions))
    for done, (setting, prior, acquisition) in enumerate(keys, start=1):
        tasks = [
            task(setting, seed, run, acquisition, prior, figure.rounds)
            for seed in range(figure.instances)
            for run in range(figure.runs)
        ]
        # One acquisition at a time: results carry their posteriors, and only distances are kept.
        distance = np.array([r.distance for r in design_loops(tasks, n_jobs=workers)])
        by_run = np.sqrt(distance).reshape(figure.instances, figure.runs, -1)
        found[setting.name, prior, acquisition] = by_run.mean(axis=1)
        took = time.perf_counter() - start
        print(f"\r{figure.key}: {done}/{len(keys)}, {took:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


def mean_and_error(values: Array) -> tuple[Array, Array]:
    """Return mean and standard error over instances, the first axis."""
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


def by_round(found: Curves, *, every: int = 1) -> pd.DataFrame:
    """Return one row a setting, prior, acquisition and round."""
    rows = []
    for (setting, prior, acquisition), values in found.items():
        mean, error = mean_and_error(values)
        rows += [
            (setting, prior, acquisition, t, mean[t], error[t]) for t in range(0, len(mean), every)
        ]
    return pd.DataFrame(rows, columns=["setting", "prior", "acquisition", "round", "mean", "sem"])


def paired(found: Curves) -> pd.DataFrame:
    """Return differences of acquisitions, paired by instance: same model, target and noise."""
    columns = ["setting", "prior", "pair", "round", "difference", "sem", "instances"]
    rows = []
    for setting, prior in dict.fromkeys(key[:2] for key in found):
        for one, two in PAIRS:
            if (setting, prior, one) in found and (setting, prior, two) in found:
                gap = found[setting, prior, one] - found[setting, prior, two]
                mean, error = mean_and_error(gap)
                ends = [t for t in COMPARED if t < len(mean)] or [len(mean) - 1]
                rows += [
                    (setting, prior, f"{one} - {two}", t, mean[t], error[t], len(gap)) for t in ends
                ]
    return pd.DataFrame(rows, columns=columns)


def first_below(curve: Array, level: float) -> float:
    """Return the first round whose value is at or below the level; infinity if there is none."""
    below = np.flatnonzero(curve <= level * (1 + 1e-9))  # means may differ in their last bits
    return float(below[0]) if len(below) else np.inf


def rounds_to_reach(found: Curves) -> pd.DataFrame:
    """Return how many rounds the learned prior needs for the fixed prior's last distance.

    ``rounds`` compares the means over instances; ``by_instance`` is the mean over instances of
    each one's own number, where one that never gets there counts as the last round
    (``reached`` says how many do).
    """
    rows = []
    for setting, prior, acquisition in found:
        if prior != "fixed":
            continue
        fixed, learned = (
            found[setting, "fixed", acquisition],
            found[setting, "learned", acquisition],
        )
        own = np.array([first_below(a, b[-1]) for a, b in zip(learned, fixed, strict=True)])
        kept = np.minimum(own, fixed.shape[1] - 1)
        mean, error = mean_and_error(kept)
        end = fixed[:, -1].mean()
        reached, needed = int(np.isfinite(own).sum()), first_below(learned.mean(axis=0), end)
        rows.append((setting, acquisition, end, needed, mean, error, reached, len(own)))
    columns = ["setting", "acquisition", "fixed_last", "rounds", "by_instance", "sem"]
    return pd.DataFrame(rows, columns=[*columns, "reached", "instances"])


def runtime(setting: Setting, figure: Figure, *, repeats: int = 5) -> pd.DataFrame:
    """Return CPU milliseconds a round (propose, draw, update, score), one thread, no workers.

    CPU time, so that other programs on the machine do not count; median over instances.
    """
    rows = []
    for prior, acquisition in product(PRIORS, figure.acquisitions):
        spent = []
        for seed in range(-1, min(repeats, figure.instances)):
            arguments = task(setting, max(seed, 0), 0, acquisition, prior, figure.rounds)
            instance(setting, max(seed, 0))
            start = time.process_time()
            design_loop(**arguments)  # type: ignore[arg-type]
            if seed >= 0:  # the first one compiles
                spent.append(1e3 * (time.process_time() - start) / figure.rounds)
        rows.append((prior, acquisition, np.median(spent), min(spent), max(spent)))
    return pd.DataFrame(rows, columns=["prior", "acquisition", "ms", "least", "largest"])
