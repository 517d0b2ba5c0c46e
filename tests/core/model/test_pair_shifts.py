"""Posteriors and shifts that do not fit together are refused, one reason at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nextpert.core.model.shift_posterior import pair_shifts, weights_of

from nextpert.core import Dag, DagBlr, ShiftPosterior

TWO, THREE = (DagBlr(Dag.from_edges(n, []), noise_var=1.0) for n in (2, 3))
KNOWN = ShiftPosterior.exact([[1.0, 0.0], [0.0, 2.0]])
ONE = np.ones((2, 2))


def test_graphs_of_weight_0_are_left_out_and_the_others_add_up():
    pairs = pair_shifts([TWO] * 3, [replace(KNOWN, weight=w) for w in (3.0, 0.0, 1.0)])
    assert [known.weight for _, known in pairs] == [3.0, 1.0]
    assert weights_of(pairs).tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("posterior", "shifts", "words"),
    [
        ([TWO, THREE], KNOWN, "same nodes"),
        ([], KNOWN, "same nodes"),
        ([TWO, TWO], [KNOWN], "each of 2 graphs, but 1"),
        (THREE, KNOWN, r"shape \(2, 2\), but \(2, 3\)"),
        ([TWO, TWO], [KNOWN, ShiftPosterior.exact([[1.0, 0.0]])], r"but \(2, 2\)"),
        (TWO, replace(KNOWN, mean=ONE * np.nan), "mean"),
        (TWO, replace(KNOWN, effect=ONE[:1]), "effect has shape"),
        (TWO, replace(KNOWN, share=-0.1 * ONE), "between 0 and 1"),
        (TWO, replace(KNOWN, share=1.1 * ONE), "between 0 and 1"),
        (TWO, replace(KNOWN, spare=-ONE), "must not be negative"),
        (TWO, replace(KNOWN, weight=-1.0), "must be 0 or more"),
        (TWO, replace(KNOWN, weight=np.inf), "must be 0 or more"),
        (TWO, replace(KNOWN, weight=0.0), "0 on every graph"),
    ],
)
def test_what_does_not_fit_is_refused(posterior, shifts, words):
    with pytest.raises(ValueError, match=words):
        pair_shifts(posterior, shifts)
