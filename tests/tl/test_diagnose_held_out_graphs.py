"""``tl.diagnose`` of graphs that perturbed cells helped to learn: each left out of its graph."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.roles import Roles
from nextpert._adata.screen import read_environments, screen_moments, without_sets
from nextpert.core import PriorKnowledge
from nextpert.study.prior import read_knowledge, stored_knowledge
from nextpert.tl._cells import read_cells
from tests._screens import screen_of
from tests.tl.test_diagnose import diagnosed, levels, values

LEARN = {"method": "boss", "environments": "all"}


def made(parts, genes):
    x = np.concatenate(list(parts.values()))
    labels = np.repeat(list(parts), [len(part) for part in parts.values()])
    return screen_of(x, labels, genes)


def hidden_edges(scatter):
    """Sources whose scatter is so small that cells they were not perturbed in hardly show edges."""
    rng, parts = np.random.default_rng(1), {}
    genes = [f"{kind}{k}" for kind in "SABC" for k in range(8)]
    for label in ("control", *genes[:8]):
        n = 400 if label == "control" else 80
        x = rng.normal(3, 1, (n, len(genes)))
        x[:, :8] = rng.normal(3, scatter, (n, 8))
        if label != "control":
            x[:, genes.index(label)] -= 3
        for kind in (1, 2, 3):
            x[:, 8 * kind : 8 * kind + 8] += x[:, :8] - 3
        parts[label] = x
    return made(parts, genes)


@pytest.mark.slow
def test_a_graph_that_saw_the_perturbations_is_not_praised_for_them():
    adata = hidden_edges(0.06)
    npt.tl.learn_dag(adata, **LEARN)
    held_out = diagnosed(adata)
    # The same graph, as if it had been known before.
    npt.tl.learn_dag(adata, method="given", dag=adata.varp["dag"])
    seen = diagnosed(adata)
    assert levels(held_out)["graph"] == "do not trust"
    assert levels(seen)["graph"] == "trust"
    errors = [values(found)["graph", "error_alone"] for found in (held_out, seen)]
    assert errors[1] < 0.8 < errors[0]


def test_moments_without_some_labels_are_those_of_the_other_cells(small_screen):
    adata = small_screen
    adata.obs["depth"] = np.random.default_rng(0).normal(size=adata.n_obs)
    roles = Roles(guide_key="batch", covariates=("depth",))
    environments = read_environments(adata, roles)
    columns = np.arange(adata.n_vars)
    folds = [["MYC", "HS2"], ["STK3"], ["MYC", "STK3"], []]
    cells = read_cells(
        adata, columns, environments, ["MYC", "HS2", "STK3"], searches=environments, sets=folds
    )
    parts = without_sets(environments, cells.searches, folds)
    for fold, (rest, found) in zip(folds, parts, strict=True):
        others = adata[~adata.obs["perturbation"].isin(fold).to_numpy()].copy()
        expected = read_environments(others, roles)
        pd.testing.assert_frame_equal(rest.table, expected.table)
        moments = screen_moments(others, columns, expected)
        np.testing.assert_array_equal(found.n, moments.n)
        for name in ("mean", "squares", "scatter"):
            np.testing.assert_array_equal(getattr(found, name), getattr(moments, name))


@pytest.mark.full_chain  # as worker processes fit
@pytest.mark.processes
def test_same_bits_for_any_number_of_workers(small_screen, assert_same):
    prior = {"before": [("MYC", "UBR5"), ("STK3", "CPQ")]}
    npt.tl.learn_dag(small_screen, **LEARN, search_options={"prior": prior, "n_runs": 2})
    npt.tl.fit_dag_blr(small_screen)
    one, two = (npt.tl.diagnose(small_screen, n_jobs=n, copy=True).uns["diagnosis"] for n in (1, 2))
    assert_same(one, two)


def test_knowledge_of_before_is_read_as_it_was_stored():
    prior = PriorKnowledge(4, before=[(0, 3)], required=[(1, 2)], forbidden=[(2, 0)])
    known = read_knowledge(stored_knowledge(prior)["prior"], 4)
    for kind in ("before", "required", "forbidden"):
        np.testing.assert_array_equal(getattr(known, kind), getattr(prior, kind))
    assert read_knowledge(stored_knowledge(None).get("prior"), 4) is None
