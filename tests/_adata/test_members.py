"""Members of combinations by their labels."""

import numpy as np
import pytest

from nextpert.core.fit.naming import Naming, numbered, pooled


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("MYC", ("MYC",)),
        ("MYC+FOS", ("FOS", "MYC")),
        ("FOS + MYC + FOS", ("FOS", "MYC")),
        ("MYC+control", ("MYC",)),
        ("A+B", ("A+B",)),
        ("control", ()),
    ],
)
def test_members_are_those_named(label, wanted):
    assert Naming({"A+B"}).members(label) == wanted


def test_without_a_separator_no_label_is_split():
    assert Naming(separator="").members("MYC+FOS") == ("MYC+FOS",)


def test_members_are_numbered_in_order():
    names, numbers = numbered([("A", "C"), ("B", "C")], ["C"])
    assert names == ["C", "A", "B"]
    assert numbers == [(1, 0), (2, 0)]


def test_labels_of_the_same_members_are_pooled_by_precision():
    effects = np.array([[1.0, 2.0], [5.0, 6.0], [3.0, 4.0]])
    variance = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 1.0]])
    unique, mean, noise, place = pooled([(0, 1), (1, 2), (0, 1)], effects, variance)
    assert (unique, place.tolist()) == ([(0, 1), (1, 2)], [0, 1, 0])
    np.testing.assert_allclose(mean, [[1.5, 3.0], [5.0, 6.0]])
    np.testing.assert_allclose(noise, [[0.75, 0.5], [2.0, 2.0]])
