"""Members of combinations by their labels."""

import pytest

from nextpert._adata.members import members_of, numbered


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
    assert members_of(label, {"A+B"}, separator="+", control="control") == wanted


def test_without_a_separator_no_label_is_split():
    assert members_of("MYC+FOS", set(), separator="", control="control") == ("MYC+FOS",)


def test_members_are_numbered_in_order():
    names, numbers = numbered([("A", "C"), ("B", "C")], ["C"])
    assert names == ["C", "A", "B"]
    assert numbers == [(1, 0), (2, 0)]
