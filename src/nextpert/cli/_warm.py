"""The first run compiles: what the fit and the design need, while the search compiles its own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def compiling_ahead() -> Iterator[None]:
    """Compile on a second core, in a process that ends with the block, where nothing is kept yet.

    Processes share compiled code through the files on disk; threads of one would wait for each
    other.
    """
    if not _is_first() or (os.cpu_count() or 1) < 2:
        yield
        return
    code = "from nextpert.cli._warm import fit_and_design; fit_and_design()"
    silent: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    try:
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], **silent)
    except OSError:  # no process to be had: compile one after the other
        yield
        return
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _is_first() -> bool:
    """Whether compiled code can be kept and none of the fit and design is kept so far."""
    from nextpert.core.acquisition._lookahead import w_of_pool
    from nextpert.core.posterior._kernels import posterior_blocks

    files = [
        getattr(getattr(kernel, "_cache", None), "_cache_file", None)
        for kernel in (posterior_blocks, w_of_pool)
    ]
    return all(f is not None and not os.path.exists(f._index_path) for f in files)


def fit_and_design() -> None:
    """Fit and rank on a few cells, for the compiled code that this leaves on disk."""
    from nextpert import datasets, tl

    adata = datasets.simulated_screen(n_genes=4, n_control=50, n_perturbed=20, rng=0)
    tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    tl.fit_dag_blr(adata)
    tl.design_interventions(adata, adata.obs["perturbation"].iloc[-1], n_samples=20)
