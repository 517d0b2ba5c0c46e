"""A small screen with every result that a report shows, and its page."""

from __future__ import annotations

import numpy as np
import pytest

import nextpert as npt
from tests._screens import with_fit


def with_results(adata, target):
    """Write every result that a report shows."""
    state, target = target, npt.Target(state=target, own_genes="include")  # else little is left
    weights = adata.uns["truth"]["weights"].T
    with_fit(adata, weights, genes=None)
    npt.tl.perturbation_effects(adata)
    npt.tl.target_distances(adata, state)
    npt.tl.design_interventions(adata, target, candidates="genes", n_samples=200)
    npt.tl.plan_screen(adata, target, candidates="genes", n_perturbations=3, n_cells=400)
    npt.tl.plan_cells(adata, target)
    npt.tl.diagnose(adata)
    npt.tl.replay_design(
        adata, strategies=["exploit"], n_perturbations=2, n_rounds=2, n_repeats=2, targets=[state]
    )
    return adata


@pytest.fixture(scope="session")
def _adata():
    screen = npt.datasets.simulated_screen(
        n_genes=10, n_control=300, n_perturbed=40, perturbed=4, expected_degree=3, rng=1
    )
    return with_results(screen, screen.obs["perturbation"].unique()[1])


@pytest.fixture
def adata(_adata):
    """The screen; a new copy for every test."""
    return _adata.copy()


@pytest.fixture
def with_long_ranking(adata, described_anew):
    """The screen after a ranking in which every candidate is repeated some times."""

    def repeated(n_times):
        design = adata.uns["design"]
        n = len(design["ranking"]) - 1
        rows = [*np.tile(np.arange(n), n_times), n]
        ranking = design["ranking"].iloc[rows].reset_index(drop=True)
        ranking["rank"] = [*range(1, len(rows)), 0]
        ranking.loc[: len(rows) - 2, "perturbation"] = [f"KO{i}" for i in range(len(rows) - 1)]
        as_near = design["as_near"]
        as_near["probabilities"] = as_near["probabilities"][rows]
        design["ranking"] = ranking
        described_anew(design)
        return adata

    return repeated


@pytest.fixture(scope="session")
def page(_adata, tmp_path_factory):
    """The file of its report."""
    return npt.report(
        _adata, tmp_path_factory.mktemp("page") / "report.html", command="nextpert demo --seed 0"
    )
