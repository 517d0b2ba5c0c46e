"""The figures of the results are those that the page shows, and it tells their numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import draw_results as script
from _figures import draw

pytestmark = pytest.mark.docs

DOCS = Path(__file__).parents[2] / "docs"
PAGE = " ".join((DOCS / "results.md").read_text(encoding="utf-8").split())


def test_figures_are_those_of_the_page(tmp_path):
    names = draw(script.FIGURES, script.STYLE, tmp_path)
    assert names == re.findall(r"\{image\} _static/results/(\S+)", PAGE)
    assert sorted(path.name for path in (DOCS / "_static" / "results").iterdir()) == sorted(names)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in names)


def test_every_figure_says_where_it_fails_and_leads_to_tables_and_command():
    sections = re.split(r"## (?=\d\. )", PAGE)[1:]
    assert len(sections) == PAGE.count("{image}")
    for section in sections:
        assert "**Where it fails:**" in section
        assert "[Tables](results_tables.md#" in section
        assert "`python -m benchmarks." in section


def at_ten_cells(row):
    """Return the error of an estimator over that of no effect, by screen."""
    tables = [
        script.table("few_cells", f"## {name}:")[1] for name in ("papalexi", "tapseq", "norman")
    ]
    return [script.numbers(rows[row])[0] / script.numbers(rows["no effect"])[0] for rows in tables]


def test_the_page_tells_what_is_drawn():
    papalexi, tapseq, norman = at_ten_cells("nextpert")
    assert f"is {papalexi:.2f} (Papalexi), {tapseq:.2f} (TAP-seq) and {norman:.2f} (Norman)" in PAGE
    papalexi, tapseq, norman = at_ten_cells("means of the cells")
    assert f"have {papalexi:.1f}, {tapseq:.1f} and {norman:.2f} times" in PAGE
    papalexi, tapseq, norman = at_ten_cells("ash as published")
    assert f"{papalexi:.2f}, {tapseq:.2f} and {norman:.2f} times" in PAGE
    papalexi, tapseq, norman = at_ten_cells("James-Stein")
    assert f"shrinkage {papalexi:.2f}, {tapseq:.2f} and {norman:.2f} times" in PAGE
    _, rows = script.table("combinations", "## All singles, in the pool")
    assert f"is found in {rows['ours, likely best'][0]} rounds of 8" in PAGE
    assert (
        f"takes {rows['nearest sum'][0]} rounds, random choice {float(rows['random'][0]):.1f}"
        in PAGE
    )
    _, rows = script.table("side_information", "## Simulated")
    value, _ = script.with_errors([" ± ".join(rows["informative"][:2])])
    assert f"to {value[0]:.2f} ± 0.01" in PAGE
