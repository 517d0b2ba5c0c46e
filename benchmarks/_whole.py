"""Whole jobs: many campaigns on two workers, and the first use after an installation."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import joblib
import numpy as np

from benchmarks._row import Timed, Work
from nextpert.core import DagBlr, LinearScm, design_loop, random_scm

ACQUISITIONS = ("random", "greedy", "maxv", "cv", "civ", "civ_ow")

_FIRST_USE = """
import nextpert as npt
adata = npt.datasets.simulated_screen(n_genes=8, n_control=300, n_perturbed=20, perturbed=4)
npt.tl.learn_dag(adata, search_options={"n_runs": 5})
npt.tl.fit_dag_blr(adata)
npt.tl.design_interventions(adata, str(adata.obs["perturbation"].iloc[-1]))
"""
_FIRST_FIT = """
import numpy as np
from nextpert.core import Dag, DagBlr, Moments
cells = Moments.from_array(np.random.default_rng(0).normal(size=(50, 3)))
DagBlr(Dag.complete(range(3)), prior_scale=1.0).update(cells).mean()
"""


@cache
def _instance(seed: int, n_genes: int, n_targets: int) -> tuple[LinearScm, np.ndarray]:
    """Draw a complete model and the target mean of an ideal shift on its most downstream genes."""
    rng = np.random.default_rng(seed)
    scm = random_scm(n_genes, "complete", rng=rng)
    entries = rng.uniform(0.25, 1, n_targets) * rng.choice([-1, 1], n_targets)
    shift = np.zeros(n_genes)
    shift[-n_targets:] = entries / np.linalg.norm(entries)
    return scm, scm.mean(shift)


def _campaign(seed: int, run: int, acquisition: str, n_genes: int, n_rounds: int) -> float:
    scm, target = _instance(seed, n_genes, min(10, n_genes))
    prior = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=1.0)
    rng = np.random.default_rng([seed, run])
    return float(
        design_loop(scm, prior, target, acquisition, n_rounds=n_rounds, rng=rng).distance[-1]
    )


def campaigns(*, n_genes: int, n_rounds: int, n_instances: int, n_runs: int, n_jobs: int) -> Work:
    """Run the paper's synthetic comparison: every acquisition, instance and run."""
    tasks = [
        (seed, run, acquisition, n_genes, n_rounds)
        for acquisition in ACQUISITIONS
        for seed in range(n_instances)
        for run in range(n_runs)
    ]

    def ours(_: int) -> np.ndarray:
        workers = joblib.Parallel(n_jobs=n_jobs)
        return np.array(workers(joblib.delayed(_campaign)(*task) for task in tasks))

    def report(found: list[np.ndarray], peers: list[None]) -> tuple[str, bool]:
        steps = len(tasks) * n_rounds
        last = found[0].reshape(len(ACQUISITIONS), -1).mean(axis=1)
        ends = ", ".join(f"{c} {x:.2f}" for c, x in zip(ACQUISITIONS, np.sqrt(last), strict=True))
        return f"{steps:,} steps; relative distance at the end: {ends}", True

    return Work(ours, None, report)


def first_use(*, whole: bool) -> Work:
    """Learn, fit and design in a new process: no compiled code on disk, less the same with it."""
    script = _FIRST_USE if whole else _FIRST_FIT

    def ours(_: int) -> Timed:
        with tempfile.TemporaryDirectory() as cache:
            env = {**os.environ, "NUMBA_CACHE_DIR": cache}
            seconds = []
            for _ in range(2):
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-W", "ignore", "-c", script], env=env, check=True, cwd=_ROOT
                )
                seconds.append(time.perf_counter() - start)
        return Timed(seconds[0] - seconds[1], tuple(seconds))

    def report(found: list[tuple[float, float]], peers: list[None]) -> tuple[str, bool]:
        cold, warm = np.median(np.array(found), axis=0)
        return f"first process {cold:.1f} s, later ones {warm:.1f} s", True

    return Work(ours, None, report)


_ROOT = Path(__file__).resolve().parents[1]
