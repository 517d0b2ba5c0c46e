"""Words of the command as the functions take them."""

import pytest

from nextpert.cli._read import value_of


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("control", ("non-targeting",), "non-targeting"),
        ("control", ("NTC", "safe"), ["NTC", "safe"]),
        ("genes", ("all",), "all"),
        ("genes", ("MYC",), ["MYC"]),
        ("panel", ("zhang2023",), "zhang2023"),
        ("panel", ("all",), ["all"]),
        ("candidates", ("MYC",), ["MYC"]),
        ("target_group", ("day", "7"), ("day", "7")),
    ],
)
def test_a_single_word_is_a_list_but_where_the_function_takes_one(name, words, expected):
    assert value_of(name, words) == expected


def test_names_in_a_file_follow_each_other(tmp_path):
    (tmp_path / "genes.txt").write_text("MYC\nSTAT1\n")
    assert value_of("genes", (f"@{tmp_path / 'genes.txt'}", "FOS")) == ["MYC", "STAT1", "FOS"]
    with pytest.raises(ValueError, match="--genes @absent"):
        value_of("genes", ("@absent",))
