"""Run the campaigns of a figure and sum them up over instances."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from benchmarks.paper._figures import PAIRS, Figure
from benchmarks.paper._settings import PRIORS, Setting, instance, task
from nextpert.core import design_loop

Array = np.ndarray
COMPARED = (10, 25, 50)


class Curve(NamedTuple):
    """Distances by instance and round, averaged over runs, each ``(instances, rounds + 1)``."""

    distance: Array  # |mu_t - mu*| / |mu*|
    shift: Array  # |a_t - a*|^2
    seconds: float  # of the processor, all campaigns


Curves = dict[tuple[str, str, str], Curve]  # by setting, prior and acquisition
_DONE: dict[Any, Curve] = {}  # panels that several figures share are run once


def campaign(
    setting: Setting, seed: int, run: int, acquisition: str, prior: str, rounds: int
) -> Array:
    """Return distance and squared distance of a* after every round of one campaign."""
    result = design_loop(**task(setting, seed, run, acquisition, prior, rounds))  # type: ignore[arg-type]
    gap = result.recommended - instance(setting, seed).shift
    return np.stack([np.sqrt(result.distance), (gap**2).sum(axis=1)])


def _timed(*arguments: Any) -> tuple[Array, float]:
    start = time.process_time()
    return campaign(*arguments), time.process_time() - start


def curve(setting: Setting, prior: str, acquisition: str, figure: Figure, workers: int) -> Curve:
    """Run all campaigns of one line, the same for any number of workers."""
    runs = figure.runs if prior == "fixed" else figure.learned_runs
    key = (replace(setting, name=""), prior, acquisition, figure.instances, runs, figure.rounds)
    if key in _DONE:
        return _DONE[key]._replace(seconds=0.0)
    values, seconds = zip(
        *Parallel(n_jobs=workers)(
            delayed(_timed)(setting, seed, run, acquisition, prior, figure.rounds)
            for seed in range(figure.instances)
            for run in range(runs)
        ),
        strict=True,
    )
    by_run = np.array(values).reshape(figure.instances, runs, 2, -1).mean(axis=1)
    _DONE[key] = Curve(by_run[:, 0], by_run[:, 1], sum(seconds))
    return _DONE[key]


def lines(figure: Figure) -> list[tuple[Setting, str, str]]:
    """Return setting, prior and acquisition of every line of a figure, the paper's prior first."""
    of_prior = {"fixed": figure.acquisitions, "learned": figure.learned}
    return [
        (setting, prior, acquisition)
        for prior in PRIORS
        for setting in figure.settings
        for acquisition in of_prior[prior]
    ]


def curves(figure: Figure, workers: int) -> Curves:
    """Run all campaigns of a figure."""
    found: Curves = {}
    for setting, prior, acquisition in lines(figure):
        found[setting.name, prior, acquisition] = curve(
            setting, prior, acquisition, figure, workers
        )
        print(f"\r{figure.key}: {len(found)}/{len(lines(figure))}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


def mean_and_error(values: Array) -> tuple[Array, Array]:
    """Return mean and standard error over instances, the first axis."""
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


def by_round(found: Curves) -> pd.DataFrame:
    """Return means and standard deviations over instances: rounds 0 to 10, then every fifth."""
    rows = []
    for key, line in found.items():
        parts = [f(x, axis=0) for x in (line.distance, line.shift) for f in (np.mean, _sd)]
        rounds = [t for t in range(len(parts[0])) if t <= 10 or t % 5 == 0]
        rows += [(*key, t, *(part[t] for part in parts)) for t in rounds]
    names = ["mean", "sd", "shift_mean", "shift_sd"]
    return pd.DataFrame(rows, columns=["setting", "prior", "acquisition", "round", *names])


def _sd(values: Array, axis: int) -> Array:
    return values.std(axis=axis, ddof=1)


def last(found: Curves) -> pd.DataFrame:
    """Return the distance of every instance after the last round."""
    rows = [
        (*key, seed, value)
        for key, line in found.items()
        for seed, value in enumerate(line.distance[:, -1])
    ]
    return pd.DataFrame(rows, columns=["setting", "prior", "acquisition", "instance", "distance"])


def paired(found: Curves) -> pd.DataFrame:
    """Return differences of acquisitions, paired by instance: same model, target and noise."""
    columns = ["setting", "prior", "pair", "round", "difference", "sem", "instances"]
    rows = []
    for setting, prior in dict.fromkeys(key[:2] for key in found):
        for one, two in PAIRS:
            if (setting, prior, one) in found and (setting, prior, two) in found:
                gap = found[setting, prior, one].distance - found[setting, prior, two].distance
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


def priors(found: Curves) -> pd.DataFrame:
    """Return learned less fixed prior after the last round, paired by instance.

    ``rounds`` is the first round in which the learned prior's mean is at or below the last mean
    of the fixed prior.
    """
    rows = []
    for setting, prior, acquisition in found:
        if prior != "fixed" or (setting, "learned", acquisition) not in found:
            continue
        fixed, learned = (found[setting, name, acquisition].distance for name in PRIORS)
        end, needed = fixed[:, -1].mean(), first_below(learned.mean(axis=0), fixed[:, -1].mean())
        gap, error = mean_and_error(learned[:, -1] - fixed[:, -1])
        rows.append((setting, acquisition, end, learned[:, -1].mean(), gap, error, len(fixed)))
        rows[-1] += (needed,)
    columns = ["setting", "acquisition", "fixed", "learned", "difference", "sem", "instances"]
    return pd.DataFrame(rows, columns=[*columns, "rounds"])


def runtime(setting: Setting, figure: Figure, *, repeats: int = 5) -> pd.DataFrame:
    """Return CPU seconds per round (propose, draw, update, score), one thread, no workers.

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
                spent.append((time.process_time() - start) / figure.rounds)
        rows.append((prior, acquisition, np.median(spent), min(spent), max(spent)))
    return pd.DataFrame(rows, columns=["prior", "acquisition", "seconds", "min", "max"])
