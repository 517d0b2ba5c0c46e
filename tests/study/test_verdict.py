"""The sentences of a diagnosis state what the numbers say, and do not contradict one another."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.undeclared_batches import Undeclared
from nextpert._report.results import verdict_of
from nextpert.core.design.stopping import differing
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.study import quantities as q
from nextpert.study.controls import NOT_JUDGED, NegativeControls
from nextpert.study.quantities import Quantity
from nextpert.study.verdict import _graph, _left_out, _positive, _shrinkage, _unseen, judge
from tests._screens import with_fit

NAN = float("nan")


def rows(part, **values):
    """Quantities of a part: a value and its standard error, by name; others are usual."""
    usual = {
        "coverage_90": (0.9, 0.01), "coverage_90_large": (0.9, 0.05, 20), "n_by_guides": (0, NAN),
        "error_to_raw_means": (0.5, 0.1), "error_to_no_effect": (0.5, 0.1),
        "error_to_mean": (0.5, 0.1), "weight": (0.5, NAN), "error_alone": (0.5, 0.1),
        "error_to_no_graph": (0.5, 0.1),
    } | values  # fmt: skip
    return {
        name: Quantity(part, name, rule[0], *(*usual[name], 9)[:3])
        for name, rule in q.ROWS[part].items()
    }


def shrinkage(**values):
    return _shrinkage(rows(q.SHRINKAGE, **values), None)


def test_raw_means_are_advised_only_if_they_are_known_to_be_more_accurate():
    assert "use raw means" in shrinkage(error_to_raw_means=(1.5, 0.1)).verdict
    unknown = shrinkage(error_to_raw_means=(NAN, NAN))
    assert "use raw means" not in unknown.verdict
    assert "unknown" not in unknown.verdict
    assert "cannot be compared with raw means (no error beyond sampling)" in unknown.verdict
    assert unknown.level == "care"
    assert "use raw means" not in shrinkage(error_to_raw_means=(0.5, NAN)).verdict


def test_without_effects_beyond_sampling_no_comparison_is_claimed():
    for part in (
        shrinkage(error_to_no_effect=(NAN, NAN)),
        _unseen(rows(q.UNSEEN, error_to_no_effect=(NAN, NAN)), {}, 9),
    ):
        assert part.level == "do not trust"
        assert "as accurate" not in part.verdict
        assert "no larger than their sampling error" in part.verdict
    left_out = _left_out(q.GUIDES, rows(q.GUIDES, error_to_no_effect=(NAN, NAN)))
    assert "disagree" not in left_out.verdict
    assert left_out.level == "care"


@pytest.mark.parametrize(("error", "disagree"), [(0.5, False), (1.5, True)])
def test_guides_disagree_if_their_effects_are_better_predicted_by_none(error, disagree):
    part = _left_out(q.GUIDES, rows(q.GUIDES, error_to_no_effect=(error, 0.1)))
    assert ("disagree" in part.verdict) is disagree
    assert part.level == ("do not trust" if disagree else "trust")


def test_squared_errors_below_0_are_said_to_be_0():
    words = shrinkage(error_to_no_effect=(-0.07, 0.1)).verdict
    assert "of 0.00 ± 0.10 relative to no effect" in words
    assert "-0" not in words
    graph = _graph(rows(q.GRAPH_PART, error_alone=(-0.2, 0.1))).verdict
    assert "a squared error of 0.00 ± 0.10" in graph


def test_a_graph_helps_only_if_the_gain_exceeds_its_error():
    assert "it helps a little" in _graph(rows(q.GRAPH_PART, error_to_no_graph=(0.97, 0.01))).verdict
    unsure = _graph(rows(q.GRAPH_PART, error_to_no_graph=(0.99, 0.02)))
    assert "not certain that it helps" in unsure.verdict
    assert "0.99 ± 0.02" in unsure.verdict


def test_the_error_that_decides_is_stated():
    part = _unseen(rows(q.UNSEEN, error_to_mean=(0.97, 0.1)), {}, 9)
    assert "because the mean perturbation is as accurate" in part.verdict
    assert "of 0.97 ± 0.10 relative to the mean perturbation" in part.verdict


def test_the_summary_repeats_the_advice_of_the_diagnosis():
    """It said to use the means of measured cells, also if raw means are less accurate."""
    parts = pd.DataFrame({"part": ["shrinkage", "graph"], "level": ["do not trust", "care"]})
    words = "Do not trust the model here: do not rely on its effects.\nEffects: do not use them."
    found = {"diagnosis": {"level": "do not trust", "parts": parts, "verdict": words}}
    trust = verdict_of(found).trust
    assert trust.startswith("Do not trust the model here: ")
    assert "means" not in trust


@pytest.mark.parametrize("unseen", ["trust", "do not trust"])
def test_random_choice_is_advised_only_if_predictions_are_not_trusted(unseen):
    """It was advised as soon as intervals covered too few of the strong effects."""
    error = (0.5, 0.05) if unseen == "trust" else (1.1, 0.05)
    parts = {
        q.SHRINKAGE: rows(q.SHRINKAGE, coverage_90_large=(0.3, 0.1, 20)),
        q.UNSEEN: rows(q.UNSEEN, error_to_no_effect=error),
        q.GRAPH_PART: rows(q.GRAPH_PART),
        q.CELLS: rows(q.CELLS, n_significant=(5, NAN), n_distinct=(5, NAN)),
        q.POSITIVE: rows(q.POSITIVE, n_found=(5, NAN), n_opposite=(0, NAN)),
        q.NEGATIVE: rows(q.NEGATIVE, **dict.fromkeys(q.ROWS[q.NEGATIVE], (1.0, NAN))),
    }
    halves = SimpleNamespace(scored=np.arange(10), n_groups=10, has_replicates=True)
    nulls = NegativeControls(NOT_JUDGED, pd.DataFrame(), np.zeros((0, 2)), 1.0, {})
    flat = [row for part in parts.values() for row in part.values()]
    flat = [row for row in flat if row.name != "perturbations_width"]
    level, verdict, table = judge(flat, {}, nulls, halves, Undeclared(), None, {"guides": "of x"})
    assert level == "do not trust"
    assert verdict.startswith("Do not trust the model here: ")
    assert ("at random" in verdict) == (unseen == "do not trust")
    assert table["part"].tolist()[-1] == "guides"
    assert "Guides: could not be judged, because of x." in verdict


@pytest.mark.parametrize(("own", "others", "differs"), [
    (0.049, 0.049, True), (0.051, 0.001, False), (0.001, 0.051, False), (0.01, NAN, True),
    (NAN, NAN, False),
])  # fmt: skip
def test_advice_and_diagnosis_have_one_level_of_significance(own, others, differs):
    assert SIGNIFICANCE == 0.05
    assert differing([own], [others]).tolist() == [differs]


@pytest.fixture(scope="module")
def weak():
    """Perturbations with weak effects, some of which differ with q-values between 0.1% and 5%."""
    adata = npt.datasets.simulated_screen(
        n_genes=12, n_control=400, n_perturbed=25, perturbed=9, rng=1
    )
    rng = np.random.default_rng(3)
    adata.X = 0.25 * np.asarray(adata.X) + rng.normal(size=adata.shape)
    adata.X -= adata.X.min() - 0.1
    adata.obs["batch"] = np.where(np.arange(adata.n_obs) % 40 == 0, "small", "large")
    with warnings.catch_warnings(action="ignore"):
        npt.pp.setup_screen(adata, batch_key="batch")
        with_fit(adata)
        npt.tl.diagnose(adata)
    return adata


@pytest.mark.slow
@pytest.mark.brief_chain
def test_advice_counts_the_perturbations_that_the_diagnosis_counts(weak):
    tests = weak.uns["diagnosis"]["perturbations"]
    counted = weak.uns["diagnosis"]["summary"].set_index("quantity")["value"]["n_distinct"]
    assert counted == differing(tests["q_value"], tests["q_value_from_others"]).sum()
    strict = (tests["q_value"] < 0.001) & (tests["q_value_from_others"] < 0.001)
    assert counted > 0 == strict.sum()
    npt.tl.plan_screen(weak, {weak.var_names[0]: 5.0})
    assert weak.uns["plan"]["advice"]["kind"] != "no perturbation differs from the others"


@pytest.mark.slow
@pytest.mark.brief_chain
def test_batches_that_cannot_be_left_out_are_said_to_be(weak):
    parts = weak.uns["diagnosis"]["parts"].set_index("part")
    assert "could not be judged, because no batch can" in parts.loc["batches", "verdict"]
    assert parts.loc["batches", "level"] == "care"
    assert parts.loc["batches", "verdict"] in weak.uns["diagnosis"]["verdict"]
    one = weak.copy()
    one.obs["batch"] = one.obs["guide"] = "one"
    with warnings.catch_warnings(action="ignore"):
        npt.pp.setup_screen(one, batch_key="batch", guide_key="guide")
        npt.tl.fit_dag_blr(one)
        npt.tl.diagnose(one)
    parts = one.uns["diagnosis"]["parts"].set_index("part")["verdict"]
    assert "could not be judged, because all cells are in one batch" in parts["batches"]
    assert "could not be judged, because fewer than two guides of the controls" in parts["guides"]


@pytest.mark.parametrize(
    ("found", "opposite", "n", "level", "words"),
    [
        (0, 0, 0, "care", "no target gene is on the panel"), (6, 0, 6, "trust", "in 6 of 6"),
        (6, 1, 8, "care", "in 6 of 8"), (1, 3, 8, "do not trust", "check labels and guides"),
        (0, 0, 8, "do not trust", "check labels and guides"),
    ],
)  # fmt: skip
def test_positive_controls_are_judged_only_if_target_genes_are_measured(
    found, opposite, n, level, words
):
    counts = {"n_found": found, "n_opposite": opposite}
    part = _positive(
        {
            name: Quantity(q.POSITIVE, name, rule[0], counts[name], NAN, n)
            for name, rule in q.ROWS[q.POSITIVE].items()
        }
    )
    assert part.level == level
    assert words in part.verdict
    assert ("could not be judged" in part.verdict) == (n == 0)


@pytest.mark.parametrize(("n_judged", "says"), [(9, False), (12, True)])
def test_perturbations_that_cannot_be_judged_are_counted(n_judged, says):
    verdict = _unseen(rows(q.UNSEEN), {}, n_judged).verdict
    assert (f"9 of {n_judged} were judged" in verdict) == says
