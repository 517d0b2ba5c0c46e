"""A number that stands on several pages is that of the table it is from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from draw_results import numbers, table, with_errors

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
README, CHOOSER = "README.md", "docs/chooser.md"
RESULTS, TABLES = "docs/results.md", "docs/results_tables.md"
FEW = ("papalexi", "tapseq", "norman")


def untested():
    _, rows = table("unseen_coverage")
    return [float(rows[screen][4]) for screen in ("papalexi", "tapseq", "hill")]


def settings_of_doubles():
    """Rounds by the model, by sums and at random, in four settings."""
    heads = [f"## {singles}, {where}" for singles in ("All singles", "Half of the singles")
             for where in ("target a candidate", "held out")]  # fmt: skip
    every = [table("combinations", head)[1] for head in heads]
    names = ("ours, likely best", "nearest sum", "random")
    return [[numbers(rows[name])[0] for name in names] for rows in every]


def doubles():
    return settings_of_doubles()[0]


def doubles_in_all_settings():
    return [f(each) for each in zip(*settings_of_doubles(), strict=True) for f in (min, max)]


def doubles_and_other_settings():
    first, *others = settings_of_doubles()
    by_model = [each[0] for each in others]
    return [first[0], min(by_model), max(by_model), *first[1:]]


def ten_cells(row="nextpert", other="no effect"):
    rows = [table("few_cells", f"## {name}:")[1] for name in FEW]
    return [numbers(each[row])[0] / numbers(each[other])[0] for each in rows]


def graph_weight():
    head, rows = table("diagnosis", "Parts of the fit")
    cell = rows["papalexi (100 genes)"][head.index("weight of the graph")]
    return [float(number) for number in cell.split(" ± ")]


def informative():
    _, rows = table("side_information", "## Simulated")
    return [with_errors([" ± ".join(rows["informative"][:2])])[0][0]]


def unseen_knockouts():
    text = (ROOT / "benchmarks/results/simulated_screens.md").read_text(encoding="utf-8")
    said = re.search(r"over 24 settings: ([\d.]+) by controls only, ([\d.]+) by all", text)
    return [float(number) for number in said.groups()]


# What was measured, and how pages say it, with a # in place of each number.
CLAIMS = [
    (untested, README, "squared error of their effects is # (Papalexi), # (TAP-seq) and # (Hill) "
                       "times that of \"no effect\""),
    (untested, RESULTS, "squared error on other genes is # (Papalexi), # (TAP-seq) and # (Hill)"),
    (untested, RESULTS, "# (9 perturbations of Papalexi), # (TAP-seq) and # (Hill). They are"),
    (untested, CHOOSER, "is # on Papalexi (9 perturbations; most of the gain depends on two of "
                        "them), # on TAP-seq and # on Hill"),
    (untested, TABLES, "the error is # on Papalexi, # on TAP-seq and # on Hill"),
    (doubles_in_all_settings, README,
     "**In # to # rounds of 8 pairs**, on average over 33 targets, among the 131 pairs of Norman "
     "(all or half of the single effects known, the target a candidate or not). This is not an "
     "independent test: means are taken as exact, and the form of the model was chosen on these "
     "pairs | nearest sum of single effects: # to #; random: at least # to #;"),
    (doubles_and_other_settings, RESULTS,
     "in # rounds of 8, if all single effects are known and the double that defines the target is "
     "a candidate (in the other three settings, in # to #). The nearest sum of single effects "
     "takes # rounds, random choice at least # (7 if not found after 6). Two caveats: the means "
     "of the doubles are taken as exact"),
    (doubles, RESULTS, "in # rounds of 8 (nearest sum of singles #, random at least #) if all "
                       "singles are known and the target is a candidate, with means taken as exact "
                       "and a form of the model that was **chosen on the same doubles**"),
    (doubles, TABLES, "in # rounds of 8 (nearest sum #, random at least #: a double that is not "
                      "found counts as one round more than the 6 or 8 that are allowed). Means are "
                      "taken as exact"),
    (ten_cells, RESULTS, "| **nextpert** | **#** | **#** | **#** |"),
    (lambda: ten_cells(other="means of the cells"), README,
     "the squared error of effects is # (Papalexi), # (TAP-seq) and # (Norman) times that of "
     "differences of means"),
    (lambda: ten_cells(other="means of the cells"), RESULTS,
     "Compared with differences of means, its error is # (Papalexi), # (TAP-seq) and # (Norman)"),
    (lambda: ten_cells("James-Stein"), RESULTS, "| James-Stein shrinkage | # | # | # |"),
    (graph_weight, RESULTS, "on one of four real screens (Papalexi, #), and even there"),
    (graph_weight, RESULTS, "a weight on one** of four real screens (Papalexi, #)"),
    (graph_weight, CHOOSER, "on one (Papalexi, #;"),
    (informative, RESULTS, "lower the error for unseen ones to # ± 0.01"),
    (unseen_knockouts, RESULTS, "of the effects of unseen knockouts falls from # to #"),
    (unseen_knockouts, TABLES, "unseen knockouts falls from # (BOSS on controls) to #"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "page", "quote"), CLAIMS)
def test_page_and_table_agree(source, page, quote):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    pattern = re.escape(" ".join(quote.split())).replace(r"\#", r"(\d[\d,]*(?:\.\d+)?)")
    (shown,) = re.findall(pattern, text)
    shown = (shown,) if isinstance(shown, str) else shown
    for number, measured in zip(shown, source(), strict=True):
        digits = len(number.partition(".")[2])
        assert f"{measured:.{digits}f}" == number, (page, quote, measured)
