"""Arguments of the wrong type or value: one clear sentence that names the thing and the remedy."""

import pickle

import numpy as np
import pytest

from nextpert.core import (
    CycleError,
    Dag,
    Moments,
    gsp,
)
from nextpert.core._checks import MAX_VALUE, as_rng, require_count, require_positive, require_small

CLEAR = (TypeError, ValueError)
NO_NUMBERS = ["a", b"a", None, [1], (), {}, 1j, True, np.True_, np.ones(2), object(), Dag, "1"]
MOMENTS = Moments.from_array(np.random.default_rng(0).normal(size=(50, 4)))


def shown(value):
    """Its words, without an address, which differs from worker to worker."""
    return repr(value).split(" at 0x")[0]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=shown)
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"^n must be a whole number of at least 2, but is "):
        require_count(value, "n", minimum=2)
    with pytest.raises(TypeError, match=r"^x must be a finite number above 0, but is "):
        require_positive(value, "x")


@pytest.mark.parametrize("value", [1, -3, 2.5, np.nan, np.inf, -np.inf, 10**400, 2**63, 1e300])
def test_numbers_that_are_no_count(value):
    with pytest.raises(ValueError, match=r"^n must be a whole number of at least 2, but is "):
        require_count(value, "n", minimum=2)


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, -(10**400), 10**400])
def test_numbers_that_are_not_positive(value):
    with pytest.raises(ValueError, match=r"^x must be a finite number above 0, but is "):
        require_positive(value, "x")


@pytest.mark.parametrize("rng", ["a", 1.5, -1, True, {}, object(), [-1], np.nan, 1j], ids=shown)
def test_seeds_that_are_none(rng):
    with pytest.raises(CLEAR, match=r"^rng must be a whole number of at least 0, a numpy\.random"):
        as_rng(rng)
    with pytest.raises(CLEAR, match=r"^rng must be"):
        gsp(MOMENTS, rng=rng)


@pytest.mark.parametrize("names", [None, ["A", "B"]])
def test_a_cycle_comes_back_from_a_worker(names):
    error = CycleError([0, 1], names)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is CycleError
    assert (again.cycle, str(again)) == (error.cycle, str(error))
    assert str(again.named(["X", "Y"])) == str(error.named(["X", "Y"]))


def test_values_whose_fourth_power_overflows_are_refused():
    for value in (np.zeros(0), np.array([1.0, -MAX_VALUE])):
        require_small(value, "x")
    with pytest.raises(ValueError, match=r"^x contains values above .* rescale"):
        require_small(np.array([1.0, -10 * MAX_VALUE]), "x")
