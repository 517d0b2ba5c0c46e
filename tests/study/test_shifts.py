"""Shifts by hand: signs, thresholds, what is read from a table, how they are shown."""

import numpy as np
import pandas as pd
import pytest

from nextpert.core.fit.interventions import in_full
from nextpert.study import shifts

GENES = ["A", "B", "C"]
CONTROL = np.array([2.0, -1.0, 0.5])


def test_a_knockout_takes_the_control_mean_away():
    found = in_full(["P", "Q"], [["C", "A"], []], "knockout", GENES, CONTROL)
    assert found.shifts.tolist() == [[-2.0, 0.0, -0.5], [0.0, 0.0, 0.0]]
    assert (found.names, found.targets) == (["P", "Q"], [["C", "A"], []])
    assert found.sources == ["knockout", "knockout"]
    # Whatever its sign: the mean that is reached is nothing.
    every = in_full(["P"], [GENES], "knockout", GENES, CONTROL)
    assert (CONTROL + every.shifts).tolist() == [[0, 0, 0]]


def test_a_table_is_read_by_name():
    frame = pd.DataFrame([[0.0, 1.0], [-2.0, 0.0]], index=["p", "q"], columns=["C", "A"])
    mapping = {"p": {"A": 1}, "q": pd.Series({"C": -2.0, "A": 0.0})}
    for table in (frame, mapping):
        found = shifts.read_table(table, GENES)
        assert found.names == ["p", "q"]
        assert found.shifts.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, -2.0]]
        assert found.targets == [["A"], ["C"]]  # a shift of nothing is no target
        assert found.sources == ["table", "table"]


@pytest.mark.parametrize("text", ["1.0", "x"])
def test_shifts_are_numbers_of_perturbations(text):
    table = {"p": {"A": 1.0}, "control": {"A": text}}
    for given in (table, pd.DataFrame(table).T, pd.DataFrame(table, dtype=str).T):
        with pytest.raises(ValueError, match=r"shifts must contain only real numbers, but"):
            shifts.read_table(given, GENES)
    table["control"]["A"] = 1.0
    with pytest.raises(ValueError, match=r"a row of the controls, 'control': leave it out"):
        shifts.read_table(table, GENES, control="control")


def test_every_name_once():
    frame = pd.DataFrame(np.ones((3, 2)), index=["p", "q", "p"], columns=["A", "B"])
    with pytest.raises(ValueError, match=r"Perturbations given more than once.*: p\."):
        shifts.read_table(frame, GENES)
    frame = pd.DataFrame(np.ones((1, 3)), index=["p"], columns=["A", "B", "A"])
    with pytest.raises(ValueError, match=r"Genes given more than once.*: A\."):
        shifts.read_table(frame, GENES)
    with pytest.raises(ValueError, match="D"):
        shifts.read_table({"p": {"D": 1.0}}, GENES)
    with pytest.raises(ValueError, match=r"the form \{perturbation"):
        shifts.read_table({"p": 1.0}, GENES)
