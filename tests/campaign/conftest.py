"""A small screen to run campaigns on, and one campaign that is ready."""

from __future__ import annotations

import copy

import pytest

import nextpert as npt


@pytest.fixture(scope="session")
def screen():
    """600 control cells and 40 of each of four knockouts."""
    return npt.datasets.simulated_screen(
        n_genes=8, n_control=600, n_perturbed=40, perturbed=["CDK4", "B2M", "CD59", "CD58"],
        expected_degree=2, rng=1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def given(screen):
    """Options that give the true graph, so that fits are quick."""
    weights = screen.uns["truth"]["weights"].T
    weights = weights.toarray() if hasattr(weights, "toarray") else weights
    return {"method": "given", "dag": weights}


@pytest.fixture(scope="session")
def parts(screen):
    """The cells to start from (CDK4 hidden), and those that come later."""
    later = (screen.obs["perturbation"] == "CDK4").to_numpy()
    return screen[~later].copy(), screen[later].copy()


@pytest.fixture(scope="session")
def target(screen):
    """The state under CDK4, by gene."""
    cells = screen[screen.obs["perturbation"] == "CDK4"]
    return dict(zip(screen.var_names, cells.X.mean(axis=0).tolist(), strict=True))


@pytest.fixture(scope="session")
def _campaign(parts, target, given):
    return npt.Campaign(parts[0], target, learn=given, plan={"candidates": "genes"})


@pytest.fixture
def campaign(_campaign):
    """A campaign towards the state of a hidden knockout; a new copy for every test."""
    return copy.deepcopy(_campaign)
