"""The first use after an installation: what compiling costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks._page import ROOT
from benchmarks._row import Timed, Work

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


def first_use(*, whole: bool) -> Work:
    """Learn, fit and design in a new process: no compiled code on disk, less the same with it."""
    command = [sys.executable, "-W", "ignore", "-c", _FIRST_USE if whole else _FIRST_FIT]

    def ours(_: int) -> Timed:
        seconds = []
        with tempfile.TemporaryDirectory() as cache:
            for _ in range(2):
                start = time.perf_counter()
                env = {**os.environ, "NUMBA_CACHE_DIR": cache}
                subprocess.run(command, env=env, check=True, cwd=ROOT)
                seconds.append(time.perf_counter() - start)
        return Timed(seconds[0] - seconds[1], tuple(seconds))

    def report(found: list[tuple[float, float]], peers: list[None]) -> tuple[str, bool]:
        cold, warm = np.median(np.array(found), axis=0)
        return f"first process {cold:.1f} s, later ones {warm:.1f} s", True

    return Work(ours, None, report)
