"""What objects show of themselves in a notebook."""

import re

import pandas as pd
import pytest

import nextpert as npt


def facts(target):
    rows = re.findall(r"<th[^>]*>(.*?)</th><td[^>]*>(.*?)</td>", target._repr_html_())
    return dict(rows)


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        ({"state": "STAT1"}, {"State": "STAT1"}),
        ({"state": ("cell_type", "memory")}, {"State": "cell_type = memory"}),
        (
            {"state": ["STAT1", ("day", "7")], "shares": [1, 0.5]},
            {"State": "STAT1, day = 7", "Shares": "1, 0.5"},
        ),
        (
            {"signature": {"IRF1": -0.5, "MYC": 1}, "weights": ["IRF1", "MYC"], "penalty": 2},
            {"Signature": "IRF1 = -0.5, MYC = 1", "Weights": "IRF1, MYC", "Penalty": "2"},
        ),
        (
            {"at_least": pd.Series({"MYC": 1.0}), "away_from": "TOX", "margin": 0.3},
            {"At least": "MYC = 1", "Away from": "TOX", "Margin": "0.3"},
        ),
    ],
)
def test_a_target_shows_what_was_said_of_it(parts, shown):
    measured = {"Distances": "squared, log-normalised expression²"}
    assert facts(npt.Target(**parts)) == shown | measured


def test_names_are_text():
    page = npt.Target(state="<script>x</script>")._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("code", [0x202E, 0x202B, 0x2067, 0x200F, 0x61C, 0x2069])
def test_no_name_turns_the_direction_of_what_follows(code):
    page = npt.Target(state=f"MYC{chr(code)}")._repr_html_()
    assert chr(code) not in page
    assert f"MYC\\u{code:04x}" in page
