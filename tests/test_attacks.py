"""The attacks run, and each gets an answer that names the thing."""

import pytest

from benchmarks import attacks
from nextpert.core.model.sampler import Chain

pytestmark = pytest.mark.benchmarks


def test_no_case_is_unclear_or_silent(capsys, monkeypatch):
    monkeypatch.setattr(Chain, "of_size", Chain.of_size)  # put back afterwards
    attacks.main(["--n", "60", "--seed", "7", "--show"])
    table = capsys.readouterr().out
    rows = [line.split("|")[2:-1] for line in table.splitlines() if line.startswith("| ")][1:]
    counts = [dict(zip(attacks.OUTCOMES, map(int, row), strict=True)) for row in rows]
    assert sum(sum(count.values()) for count in counts) == 60
    assert not any(count["unclear"] + count["silent"] + count["hang"] for count in counts), table


def test_an_error_from_below_and_a_word_about_something_else_are_seen():
    def below():
        return {}["nothing"]

    def quiet():
        return None

    assert attacks.outcome(("", below, ("nothing",), None), [])[0] == "unclear"
    assert attacks.outcome(("", quiet, ("nothing",), None), [])[0] == "silent"
