"""Targets in TOML files: every kind of state is read as the same target of Python."""

from __future__ import annotations

import pytest

import nextpert as npt
from nextpert.cli._read import read_target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('state = "MYC"', {"state": "MYC"}),
        ('state = ["day", 7]', {"state": ("day", "7")}),
        ('state = ["A", "B", "C"]',
         {"state": list("ABC")}),
        ('state = [["A"], ["B"]]', {"state": ["A", "B"]}),
        ('state = "B"\naway_from = [["A"], ["day", "7"]]\naway_weight = 2.0',
         {"state": "B", "away_from": ["A", ("day", "7")], "away_weight": 2.0}),
        ('state = [["day", "7"], {A = 1.5}]', {"state": [("day", "7"), {"A": 1.5}]}),
        ("[state]\nA = 1.5\nB = 0", {"state": {"A": 1.5, "B": 0}}),
        ('state = [["A"], ["day", "7"]]\n[at_least]\nA = 1',
         {"state": ["A", ("day", "7")], "at_least": {"A": 1}}),
        ('weights = ["A", "B"]\n[signature]\nA = -1',
         {"weights": ["A", "B"], "signature": {"A": -1}}),
    ],
)  # fmt: skip
def test_targets_in_files(text, expected, tmp_path):
    (tmp_path / "x.toml").write_text(text)
    assert repr(read_target(tmp_path / "x.toml")) == repr(npt.Target(**expected))
