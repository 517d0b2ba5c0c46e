"""The table of the theory: the acquisition and its gradient fall as they should."""

import numpy as np
import pytest

from benchmarks import theory

pytestmark = pytest.mark.benchmarks


def test_h_and_its_gradient_fall_as_they_should(capsys):
    table = theory.decay(0, [30, 300], n_nodes=6)
    slope = np.diff(np.log(table[["h", "gradient"]]), axis=0)[0] / np.log(10)
    assert abs(slope[0] + 1) < 0.3
    assert abs(slope[1] + 2) < 0.6
    theory.main(["--instances", "2", "--rounds", "3", "30"])
    assert "| 30 | " in capsys.readouterr().out
