"""What objects of the core show where they are printed, and in a notebook."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
import scipy.sparse as sp

from nextpert import core
from nextpert.core._shown import Shown, brief, card, lines

RESULTS = {
    "BossResult", "DesignLoopResult", "GspResult", "Moments", "Optimum", "PooledGuides",
    "RankedDistance", "ScreenMoments",
}  # fmt: skip


@pytest.fixture(scope="module")
def posterior():
    scm = core.random_scm(6, "erdos_renyi", expected_degree=3, rng=0)
    prior = core.DagBlr(scm.dag, noise_var=scm.noise_var)
    return prior.update(core.Moments.from_array(scm.sample(50, rng=1)), np.zeros(6))


def test_every_public_class_is_printed_by_its_facts():
    classes = [each for each in vars(core).values() if inspect.isclass(each)]
    without = {each.__name__ for each in classes if not issubclass(each, Shown)}
    assert without == {"CycleError", "Ranked"}  # an error, and a tuple of two arrays
    assert {each.__name__ for each in classes} >= RESULTS


def test_facts_are_few_and_true(posterior):
    assert repr(posterior) == f"DagBlr(dag={posterior.dag!r}, n_cells=50)"
    civ = core.build_acquisition("civ", posterior, np.ones(6), domain=core.Sphere(2.0), n_cells=20)
    assert repr(civ) == "Civ(n_nodes=6, n_cells=20)"
    found = core.Pool(np.eye(6)).minimise(civ)
    assert repr(found) == (f"Optimum(shift=6 values, value={found.value:.4g}, index={found.index})")
    goal = core.Goal(np.zeros(6), states=[np.ones(6)], high=[1.0, *[np.inf] * 5])
    assert repr(goal) == "Goal(n_nodes=6, n_states=1, n_bounded=1)"


def test_a_notebook_shows_the_same(posterior):
    page = posterior._repr_html_()
    rows = re.findall(r"<th[^>]*>(.*?)</th><td[^>]*>(.*?)</td>", page)
    assert rows == [("Dag", repr(posterior.dag)), ("Cells", "50")]
    assert "<strong>DagBlr</strong>" in page


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.nan, ""),
        (np.float64(12.345678), "12.35"),
        (np.int64(3), "3"),
        (True, "True"),
        (np.array([1.0, np.nan]), "[1, nan]"),
        (np.zeros((0, 3)), ""),
        (np.float64(2.0) * np.ones(()), "2"),
        (sp.csr_array(np.eye(3)), "3 x 3 values"),
        ({}, ""),
        (("a",), "1 item"),
        ("bic", "bic"),
    ],
)
def test_values_in_a_few_words(value, said):
    assert brief(value) == said


def test_empty_facts_are_left_out():
    facts = {"Best": "MYC", "Failed": ""}
    assert lines("Campaign", facts, "table") == "Campaign\n  Best  MYC\ntable"
    assert "Failed" not in card("Campaign", facts)


def test_no_name_turns_the_direction_of_a_printed_line():
    assert "\u202e" not in lines("Campaign", {"Best": "MYC\u202e"})
