"""The table of the theory: entropies, the law of the gap and the information are what they say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from benchmarks import theory
from nextpert.core import Moments

pytestmark = pytest.mark.benchmarks

ROOT = Path(__file__).parents[1]


def test_entropies_of_chi_squares():
    for p in (5, 8):
        found = theory.entropy(np.ones((1, p)), np.zeros((1, p)))[0]
        assert abs(found - stats.chi2(p).entropy()) < 1e-4
    law = stats.ncx2(5, 3.0)
    wanted = integrate.quad(lambda x: -law.pdf(x) * law.logpdf(x), 1e-9, 120, limit=500)[0]
    offset = np.array([[0.0, 1.0, -1.0, 1.0, 0.0]])
    assert abs(theory.entropy(np.ones((1, 5)), offset)[0] - wanted) < 1e-4
    # In other units the entropy differs by the logarithm of the factor.
    scaled = theory.entropy(np.full((1, 5), 0.2), offset * 0.2**0.5)[0]
    assert abs(scaled - wanted - np.log(0.2)) < 1e-4


def test_the_law_of_the_gap():
    _, prior, ideal, target = theory.setting(0, 5, quiet=True)
    cells = np.random.default_rng(0).normal(size=(4, 5))
    posterior = prior.update(Moments.from_array(cells))
    rng, n = np.random.default_rng(1), 60_000
    flat, _ = posterior.sample(n, rng)
    noise = rng.standard_normal((n, 5)) * np.sqrt(0.05)
    shift = np.tile(target, (n, 1))
    for i in range(5):
        own = slice(posterior.vptr[i], posterior.vptr[i + 1])
        shift[:, i] -= flat[:, own] @ target[posterior.dag.parents(i)]
    gap = ((ideal + noise - shift) ** 2).sum(axis=1)
    scale, offset = theory.gap_law(posterior, target, ideal[None])
    mean, variance = (scale + offset**2).sum(), theory.gap_variance(scale, offset)[0]
    assert abs(gap.mean() - mean) < 5 * gap.std() / np.sqrt(n)
    assert abs(gap.var() / variance - 1) < 0.05
    # The entropy of draws in fine bins, in units of a bin.
    edges = np.linspace(0, gap.max(), 400)
    share = np.histogram(gap, edges)[0] / n
    share = share[share > 0]
    binned = -(share * np.log(share)).sum() + np.log(edges[1])
    assert abs(binned - theory.entropy(scale, offset)[0]) < 0.02


def test_information_is_what_cells_take_from_the_entropy():
    _, prior, ideal, target = theory.setting(1, 4, quiet=True)
    others = np.vstack([ideal, -ideal])
    found = theory.information(prior, target, ideal, others, 150, [3])
    again = theory.information(prior, target, ideal, others, 150, [4])
    spread = np.hypot(found["error"], again["error"])
    assert abs(found["information"] - again["information"]) < 5 * spread
    # Cells by dense inverses, and no controls.
    rng, left = np.random.default_rng(5), []
    for _ in range(150):
        weights = np.zeros((4, 4))
        for i in range(4):
            weights[i, :i] = rng.normal(size=i) * np.sqrt(20.0 * 0.05)
        cell = np.linalg.inv(np.eye(4) - weights) @ (ideal + rng.normal(size=4) * 0.05**0.5)
        later = prior.update(Moments.from_array(cell[None]), ideal)
        left.append(theory.entropy(*theory.gap_law(later, target, others)).mean())
    now = theory.entropy(*theory.gap_law(prior, target, others)).mean()
    error = np.std(left) / np.sqrt(150)
    assert abs(now - np.mean(left) - found["information"]) < 5 * np.hypot(error, found["error"])
    assert found["error"] < 0.9 * error
    assert found["bound"] < found["information"]
    assert found["information"] > 0.1


def test_h_and_its_gradient_fall_as_they_should():
    table = theory.decay(0, [30, 300], n_nodes=6)
    slope = np.diff(np.log(table[["h", "gradient"]]), axis=0)[0] / np.log(10)
    assert abs(slope[0] + 1) < 0.3
    assert abs(slope[1] + 2) < 0.6


def test_the_command_prints_the_table(tmp_path):
    command = [sys.executable, "-m", "benchmarks.theory", "--quick", "--draws", "15"]
    shown = subprocess.run(
        [*command, "--instances", "1", "--csv", str(tmp_path / "theory")],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=300,
    ).stdout  # fmt: skip
    assert "theory -2" in shown
    assert "best by CIV" in shown
    assert (tmp_path / "theory-decay.csv").exists()
