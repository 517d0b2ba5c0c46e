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


def doubles():
    _, rows = table("combinations", "## All singles, in the pool")
    return [numbers(rows[name])[0] for name in ("ours, likely best", "nearest sum", "random")]


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
    (doubles, README, "**In # rounds of 8 doubles**, on average, among the 131 doubles of Norman. "
                      "This is not an independent test: means are taken as exact, and the form of "
                      "the model was chosen on these doubles | nearest sum of single effects: #; "
                      "random: #"),
    (doubles, RESULTS, "in # rounds of 8. The nearest sum of single effects takes # rounds, random "
                       "choice #. Two caveats: the means of the doubles are taken as exact"),
    (doubles, RESULTS, "in # rounds of 8 (nearest sum of singles #, random #), with means taken as "
                       "exact and a form of the model that was **chosen on the same doubles**"),
    (doubles, TABLES, "in # rounds of 8 (nearest sum #, random #). Means are taken as exact"),
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
