"""What objects of the core show where they are printed, and in a notebook."""

import inspect

import numpy as np
import pytest
import scipy.sparse as sp

from nextpert import core
from nextpert.core._shown import Shown, brief, card, lines

RESULTS = {
    "BossResult", "DesignLoopResult", "GspResult", "Moments", "Optimum", "PooledGuides",
    "RankedDistance", "ScreenMoments",
}  # fmt: skip


def test_every_public_class_is_printed_by_its_facts():
    classes = [each for each in vars(core).values() if inspect.isclass(each)]
    without = {each.__name__ for each in classes if not issubclass(each, Shown)}
    assert without <= {"CycleError", "Ranked", "PriorKnowledge"}  # an error, tuples, lists
    assert {each.__name__ for each in classes} >= RESULTS


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.float64(12.345678), "12.35"),
        (np.int64(3), "3"),
        (True, "True"),
        (np.float64(2.0) * np.ones(()), "2"),
        (sp.csr_array(np.eye(3)), "3 x 3 values"),
        (("a",), "1 items"),
        ("bic", "bic"),
    ],
)
def test_values_in_a_few_words(value, words):
    assert brief(value) == words


def test_empty_facts_are_left_out():
    facts = {"Best": "MYC", "Failed": ""}
    assert lines("Campaign", facts, "table") == "Campaign\n  Best  MYC\ntable"
    assert "Failed" not in card("Campaign", facts)


def test_no_name_turns_the_direction_of_a_printed_line():
    assert "\u202e" not in lines("Campaign", {"Best": "MYC\u202e"})
