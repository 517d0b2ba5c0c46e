"""Names given as a set: the same results for any seed of Python's hashes."""

import pytest

import nextpert as npt

pytestmark = pytest.mark.slow


class AnyOrder(frozenset):
    """A set whose order is the one wanted, as another hash seed could have it."""

    def __new__(cls, values):
        made = super().__new__(cls, values)
        made.values = list(values)
        return made

    def __iter__(self):
        return iter(self.values)


PANEL = ["MYC", "UBR5", "RIPK2", "STK3", "OXR1", "HLA-A", "GATA1"]
LABELS = ["MYC", "STK3", "OXR1"]
EDGES = [("MYC", "STK3"), ("UBR5", "OXR1"), ("STK3", "HLA-A"), ("GATA1", "RIPK2")]


def learn(adata, order):
    npt.tl.learn_dag(adata, genes=order(PANEL), method="boss", search_options={"n_runs": 2})


def knowing(adata, order):
    prior = {
        "before": order([("MYC", "UBR5"), ("STK3", "RIPK2")]),
    }
    npt.tl.learn_dag(adata, method="boss", search_options={"n_runs": 2, "prior": prior})


def given(adata, order):
    npt.tl.learn_dag(adata, method="given", dag=order(EDGES))


def fit(adata, order):
    npt.tl.learn_dag(adata, method="given", dag=EDGES)
    npt.tl.fit_dag_blr(adata, perturbations=order(LABELS))


def design(adata, order):
    npt.tl.learn_dag(adata, method="given", dag=EDGES)
    npt.tl.fit_dag_blr(adata)
    npt.tl.design_interventions(adata, "MYC", candidates=order(PANEL))


def replay(adata, order):
    npt.tl.learn_dag(adata, method="given", dag=EDGES)
    npt.tl.fit_dag_blr(adata)
    npt.tl.replay_design(
        adata, targets=order(LABELS), strategies=order(["exact_greedy", "thompson_means"]),
        n_repeats=2, n_rounds=1,
    )  # fmt: skip


def distances(adata, order):
    npt.tl.target_distances(adata, "MYC", perturbations=order(LABELS[1:]))


def cpca(adata, order):
    npt.tl.cpca(adata, genes=order(PANEL), groups=order(LABELS))


def screen(adata, order):
    options = {"panel": order(PANEL), "min_cells": 0}
    npt.pp.perturbation_screen(adata, **options)
    npt.pp.setup_screen(adata, batch_key=order(["batch", "half"]))


@pytest.mark.parametrize(
    "call",
    [learn, knowing, given, fit, design, replay, distances, cpca, screen],
    ids=lambda c: c.__name__,
)
def test_the_order_of_a_set_changes_nothing(call, small_screen, assert_same_adata):
    small_screen.obs["half"] = ["a", "b"] * (small_screen.n_obs // 2)
    other = small_screen.copy()
    call(small_screen, lambda values: AnyOrder(sorted(values)))
    call(other, lambda values: AnyOrder(sorted(values, reverse=True)))
    assert_same_adata(small_screen, other)
