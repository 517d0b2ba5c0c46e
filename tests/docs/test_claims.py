"""A number that stands on several pages is the same on each, and that of the table it is from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from draw_results import numbers, table

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
README, START, RESULTS = "README.md", "docs/start.md", "docs/results.md"
TABLES, CHOOSER = "docs/results_tables.md", "docs/chooser.md"
PAPER, MACHINES = "docs/guides/the_paper.md", "docs/guides/many_machines.md"


def untested():
    _, rows = table("unseen_coverage")
    return [float(rows[screen][4]) for screen in ("papalexi", "tapseq", "hill")]


def doubles():
    _, rows = table("combinations", "## All singles, in the pool")
    return [numbers(rows[name])[0] for name in ("ours, likely best", "nearest sum", "random")]


def ten_cells():
    rows = [table("few_cells", f"## {name}:")[1] for name in ("papalexi", "tapseq", "norman")]
    ours, means = "nextpert", "means of the cells"
    return [numbers(each[ours])[0] / numbers(each[means])[0] for each in rows]


def graph_weight():
    head, rows = table("diagnosis", "Parts of the fit")
    return numbers([rows["papalexi (100 genes)"][head.index("weight of the graph")]])


# Each claim once: the numbers of its table, and how pages say them and their caveat, with a # in
# place of each number.
CLAIMS = {
    "effects of untested genes": (
        untested,
        (README, "effects is # (Papalexi), # (TAP-seq) and # (Hill) of that of"),
        (RESULTS, "squared error on other genes is # (Papalexi), # (TAP-seq) and # (Hill)"),
        (RESULTS, "# (9 perturbations of Papalexi), # (TAP-seq) and # (Hill). They are"),
        (CHOOSER, "is # on Papalexi (9 perturbations; most of the gain depends on two of them), "
                  "# on TAP-seq and # on Hill"),
        (TABLES, "the error is # on Papalexi, # on TAP-seq and # on Hill"),
    ),
    "combinations": (
        doubles,
        (README, "in # rounds of 8, by the nearest sum of single effects in #, and by random "
                 "choice in #. Means are taken as exact there, and the form of the model was "
                 "chosen on the same doubles"),
        (RESULTS, "in # rounds of 8. The nearest sum of single effects takes # rounds, random "
                  "choice #. Two caveats: the means of the doubles are taken as exact"),
        (RESULTS, "in # rounds of 8 (nearest sum of singles #, random #), with means taken as "
                  "exact and a form of the model that was **chosen on the same doubles**"),
        (TABLES, "in # rounds of 8 (nearest sum #, random #), with means taken as exact and a form "
                 "of the model that was chosen on the same doubles"),
    ),
    "effects from ten cells": (
        ten_cells,
        (README, "effects is # (Papalexi), # (TAP-seq) and # (Norman) of that of differences"),
        (RESULTS, "Relative to differences of means, it is # (Papalexi), # (TAP-seq) and # "
                  "(Norman)"),
    ),
    "weight of the graph": (
        graph_weight,
        (RESULTS, "on one of four real screens (Papalexi, # ± 0.26), and even there"),
        (RESULTS, "a weight on one** of four real screens (Papalexi, # ± 0.26)"),
        (CHOOSER, "on one (Papalexi, # ± 0.26;"),
    ),
    "strong effects": (
        None,
        (README, "first towards the state that they produce, differences of means #% (33 cells"),
        (CHOOSER, "and #% by differences of means, which is not distinguished"),
    ),
    "efficacy": (
        None,
        (START, "lowers its target gene by # ± # of the mean"),
        (PAPER, "lowers its target gene by # ± # of the mean"),
    ),
    "10,000 perturbations": (
        None,
        (CHOOSER, "takes # s and # GB on two cores"),
        (RESULTS, "take # s and # GB on two cores ([tables]"),
        (RESULTS, "take # s and # GB on two cores |"),
        (MACHINES, "(# s on two cores) | # GB"),
    ),
    "a step of CIV": (
        None,
        (RESULTS, "a CIV step of 30 genes takes # ms"),
        (RESULTS, "A CIV step of 30 genes takes # ms"),
        (TABLES, "CIV step, 30 genes, complete graph | # ms"),
    ),
    "learning from perturbed cells": (
        None,
        (RESULTS, "the unexplained share of the effects of unseen knockouts falls from # to #"),
        (TABLES, "unseen knockouts falls from # (BOSS on controls) to #"),
        (PAPER, "the unexplained share of the effects of unseen knockouts falls from # to #"),
    ),
    "the paper's prior": (
        None,
        (TABLES, "fixed | CIV | 0.334 ± 0.117 | 0.169 ± 0.078 | # ±"),
        (PAPER, "the distance after 50 rounds of CIV falls from #"),
    ),
    "a learned prior": (
        None,
        (TABLES, "noise | CIV | 0.058 ± 0.046 | 0.022 ± 0.014 | # ±"),
        (PAPER, "after 50 rounds of CIV falls from 0.106 to #"),
    ),
}  # fmt: skip


def text_of(page):
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def found(text, quote):
    """The numbers that a text has in the places of a quote; each place of it is compared."""
    pattern = re.escape(quote).replace(r"\#", r"(\d[\d,]*(?:\.\d+)?)")
    return [match.groups() for match in re.finditer(pattern, text)]


def agree(one, other):
    """Whether two numbers are the same to the digits of the one that is printed with fewer."""
    digits = min(len(number.partition(".")[2]) for number in (one, other))
    return f"{float(one):.{digits}f}" == f"{float(other):.{digits}f}"


@pytest.mark.parametrize("claim", CLAIMS)
def test_pages_and_table_agree(claim):
    source, *places = CLAIMS[claim]
    assert len(places) > 1
    told = {(page, quote): found(text_of(page), quote) for page, quote in places}
    assert all(len(each) == 1 for each in told.values()), told
    (first,) = next(iter(told.values()))
    measured = first if source is None else [f"{number:.4f}" for number in source()]
    for place, (numbers_told,) in told.items():
        pairs = zip(numbers_told, measured, strict=True)
        assert all(agree(one, other) for one, other in pairs), (place, measured)


def test_numbers_are_compared_as_they_are_printed():
    assert found("is 0.79 (A), 1.01 (B)", "is # (A), # (B)") == [("0.79", "1.01")]
    assert found("is 0.79 (A)", "was # (A)") == []
    assert agree("1.3", "1.29")
    assert not agree("0.79", "0.81")
    assert not agree("6.0", "6.06")
