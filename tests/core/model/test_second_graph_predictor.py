"""A second predictor on the graph: predictors are skipped by what they draw on, not by name."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

import nextpert as npt
from nextpert.core.model.predictors import base
from nextpert.core.model.predictors.base import Prediction, Predictor, predictor
from nextpert.core.model.predictors.graph import Graph

pytestmark = [pytest.mark.brief_chain, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def registered(monkeypatch):
    """Let the test register predictors, which are gone after it."""
    base.predictors()
    monkeypatch.setattr(base._PREDICTORS, "_known", dict(base._PREDICTORS._known))


def fitted(adata, edges):
    npt.tl.learn_dag(adata, method="given", dag=edges)
    npt.tl.fit_dag_blr(adata)
    npt.tl.design_interventions(adata, "MYC", candidates="genes", n_samples=10)
    return npt.get.ranking_df(adata)


def test_a_second_predictor_on_the_graph_predicts_untested_perturbations(
    registered, small_screen, edges
):
    @predictor("second graph")
    class Second(Graph):
        order: ClassVar[int] = 2
        over_graphs = classmethod(Predictor.over_graphs.__func__)

        def held_out(self, screen):
            return Graph.held_out(self, screen)

    ranking = fitted(small_screen, edges)
    assert "UBR5" in set(ranking["perturbation"])
    assert np.isfinite(ranking["predicted_distance"]).all()
    weights = small_screen.uns["dag_blr"]["predictors"]
    at = [str(name) for name in weights["predictors"]].index("second graph")
    assert weights["weights"][at] > 0
    # Its prediction is that of the graph: the mean over one graph, by two ways.
    fit = npt._adata.posterior_from(small_screen)
    seen, own = fit.expectation.measured, np.zeros((1, len(fit.genes)))
    own[0, 0] = -1.0
    asked = type(seen)(seen.moments, 0, np.full(1, -1), [(0,)], own, names=["MYC"])
    one, two = (kind.over_graphs(fit.posteriors, seen, asked) for kind in (Graph, Second))
    np.testing.assert_allclose(one, np.where(own == 0, two, 0), atol=1e-9)
    assert np.abs(one).max() > 0.1


def test_a_predictor_that_returns_nan_is_an_error(registered, small_screen, edges):
    @predictor("broken")
    class Broken(Predictor):
        def predict(self, screen, candidates):
            shape = len(candidates.targets), candidates.moments.n_nodes
            return Prediction(self.name, np.full(shape, np.nan))

    with pytest.raises(ValueError, match=r"The predictor 'broken' returned NaN.*return 0"):
        fitted(small_screen, edges)


def test_a_prediction_is_finite():
    with pytest.raises(ValueError, match=r"The predictor 'odd' returned NaN.*return 0"):
        Prediction("odd", np.array([[0.0, np.inf]]))


def test_a_graph_predictor_of_another_name_gets_the_results_of_the_graph(
    registered, small_screen, edges, monkeypatch
):
    wanted, renamed = small_screen.copy(), small_screen.copy()
    npt.tl.learn_dag(wanted, method="given", dag=edges)
    npt.tl.fit_dag_blr(wanted)
    npt.tl.diagnose(wanted)
    # The same predictors by other names.
    for kind in base.predictors():
        monkeypatch.setattr(kind, "name", f"the {kind.name}")
    others = {kind.name: kind for kind in base.predictors()}
    monkeypatch.setattr(base._PREDICTORS, "_known", others)
    npt.tl.learn_dag(renamed, method="given", dag=edges)
    npt.tl.fit_dag_blr(renamed)
    npt.tl.diagnose(renamed)
    one, two = (each.uns["dag_blr"]["hierarchical"] for each in (wanted, renamed))
    for name, value in one.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, two[name])
    one, two = (each.uns["diagnosis"]["summary"] for each in (wanted, renamed))
    np.testing.assert_array_equal(one["value"], two["value"])
    assert float(one.set_index(["part", "quantity"]).loc[("graph", "weight"), "value"]) > 0
