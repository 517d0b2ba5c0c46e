"""Steps of the model of effects before and after a change, measured alternately in one run.

The package of another commit is unpacked into a temporary folder. Each step runs in processes of
both versions in turn, on the same simulated screens, and its results are compared: differences of
posterior means in units of their standard deviation, and effects that are significant (lfsr below
0.05) in one version only.

    python -m benchmarks.speed --before 7c60cf95 --save speed.md
    python -m benchmarks.speed --before HEAD~1 --steps programs threads
"""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._page import ROOT, options, save, show, table
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.programs import find_programs
from nextpert.core.model.sampler import Chain, threads
from nextpert.core.screen.guides import PooledGuides

if TYPE_CHECKING:
    from collections.abc import Callable

    Times = tuple[float, float]  # CPU and wall seconds

LFSR = 0.05
# Name, what is measured, perturbations, genes, and repeats.
STEPS = {
    "chain": ("fit of 804 x 500 effects, one core", 804, 500, 1),
    "block": ("fit of a block of 600 x 500 of 10,000 x 8,000 effects, one core", 600, 500, 1),
    "programs": ("programs of 1,000 x 100 effects", 1_000, 100, 3),
    "threads": ("fit of 300 x 100 effects, all cores that it uses", 300, 100, 3),
}


def main(arguments: list[str] | None = None) -> None:
    """Print one row for every step."""
    parser = options("speed", __doc__)
    parser.add_argument("--before", metavar="COMMIT", default="HEAD~1", help="the other version")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--worker", nargs=2, help="a step, and the file of its results")
    args = parser.parse_args(arguments)
    if args.worker:
        print(json.dumps(_run(*args.worker)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        archive = ["git", "archive", args.before, "src"]
        packed = subprocess.run(archive, cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(folder, filter="data")
        sources = {"before": Path(folder) / "src", "after": ROOT / "src"}
        for step in args.steps:
            rows.append(_row(step, sources, Path(folder)))
            show(" | ".join(rows[-1]))
    head = ["step", "CPU s before", "after", "wall s before", "after", "wall ratio", "difference"]
    cores = len(os.sched_getaffinity(0))
    where = f"Before: commit `{args.before}`. {_processor()}, {cores} cores."
    save("speed", [where, show(table(head, rows))], args.save)


def _row(step: str, sources: dict[str, Path], folder: Path) -> list[str]:
    """Return the row of a step: medians of times, and the difference of results."""
    times: dict[str, list[Times]] = {"before": [], "after": []}
    for _ in range(STEPS[step][3]):
        for version, source in sources.items():
            command = [sys.executable, "-m", "benchmarks.speed", "--worker", step]
            out = subprocess.run(
                [*command, str(folder / f"{version}.npz")], cwd=ROOT, check=True, text=True,
                capture_output=True, env={**os.environ, "PYTHONPATH": f"{source}:{ROOT}"},
            ).stdout  # fmt: skip
            times[version].append(json.loads(out.splitlines()[-1]))
    (cpu, wall), (new_cpu, new_wall) = (np.median(x, axis=0) for x in times.values())
    before, after = (np.load(folder / f"{version}.npz") for version in times)
    numbers = [f"{x:.2f}" for x in (cpu, new_cpu, wall, new_wall, wall / new_wall)]
    return [STEPS[step][0], *numbers, _difference(before, after)]


def _difference(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> str:
    """Return how results differ, in words."""
    if all(np.array_equal(before[name], after[name]) for name in before):
        return "none (to the bit)"
    off = (after["mean"] - before["mean"]) / before["sd"]
    if "lfsr" not in before:
        return f"at most {np.abs(off).max():.0e} SD"
    calls, new = before["lfsr"] < LFSR, after["lfsr"] < LFSR
    return (
        f"{np.sqrt((off**2).mean()):.3f} SD (root mean square); {(calls != new).sum():,} of "
        f"{calls.sum():,} significant effects; error of means {_error(before):.4f}, then "
        f"{_error(after):.4f}"
    )


def _error(found: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(((found["mean"] - found["truth"]) ** 2).mean()))


def _run(step: str, file: str) -> Times:
    """Run a step, write its results, and return its CPU and wall seconds."""
    _, n, p, _ = STEPS[step]
    fit_hierarchical(screen(20, 20)[1], rng=0, chain=Chain(2, 2)).effects.summary()  # compiles
    effect, cells = screen(n, p)
    if step == "programs":
        fit = fit_hierarchical(cells, rng=0, chain=Chain(20, 100))
        targets = np.zeros((n, p), bool)
        programs, times = _timed(lambda: find_programs(fit, targets))
        np.savez(file, mean=programs.genes, sd=programs.genes_sd)
        return times
    chain = Chain.of_size(n * p)
    if step == "block":
        # Before, the chain of a block of 500 genes; now, that of all genes.
        is_new = hasattr(chain, "unthinned")
        chain = Chain.of_size(10_000 * 8_000).unthinned() if is_new else Chain.of_size(10_000 * 500)
    n_jobs = threads(n * p) if step == "threads" else 1
    fit, times = _timed(lambda: fit_hierarchical(cells, rng=0, chain=chain, n_jobs=n_jobs))
    found = fit.effects.summary()
    np.savez(file, mean=found.mean, sd=found.sd, lfsr=found.lfsr, truth=effect)
    return times


def _timed(work: Callable[[], Any]) -> tuple[Any, Times]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, (time.process_time() - cpu, time.perf_counter() - wall)


def screen(n: int, p: int, cells: float = 200.0) -> tuple[np.ndarray, PooledGuides]:
    """Return effects, one in twenty of them large, and means of cells with four factors."""
    rng = np.random.default_rng(0)
    effect = rng.standard_normal((n, p)) * np.where(rng.random((n, p)) < 0.05, 0.6, 0.05)
    effect += np.outer(rng.standard_normal(n) * (rng.random(n) < 0.3), rng.standard_normal(p) / 5)
    gamma = rng.standard_normal((p, 4)) * 0.3
    psi = 1.0 - np.minimum((gamma**2).sum(axis=1), 0.7)
    gamma *= np.sqrt((1.0 - psi) / (gamma**2).sum(axis=1))[:, None]
    n_cells = np.append(16 * cells, np.full(n, cells))
    noise = rng.standard_normal((n + 1, p)) * np.sqrt(psi)
    noise += rng.standard_normal((n + 1, 4)) @ gamma.T
    mean = np.vstack([np.zeros(p), effect]) + noise / np.sqrt(n_cells)[:, None]
    scatter = (np.diag(psi) + gamma @ gamma.T) * (n_cells.sum() - n - 1)
    return effect, PooledGuides(n_cells.astype(int), n_cells, mean, scatter, np.ones((n + 1, p)))


def _processor() -> str:
    """Return the name of the processor, and its instruction set."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = {line.split(":")[0].strip(): line.split(":")[-1].strip() for line in lines}
    return f"{named.get('model name', platform.processor())} ({platform.machine()})"


if __name__ == "__main__":
    main()
