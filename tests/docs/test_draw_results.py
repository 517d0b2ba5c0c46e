"""The figures of the results are those that the page shows, drawn from the tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import draw_results as script
from _figures import draw

pytestmark = pytest.mark.docs

DOCS = Path(__file__).parents[2] / "docs"


def test_figures_are_those_of_the_page(tmp_path):
    names = draw(script.FIGURES, script.STYLE, tmp_path)
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    assert names == re.findall(r"\{image\} _static/results/(\S+)", page)
    assert sorted(path.name for path in (DOCS / "_static" / "results").iterdir()) == sorted(names)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in names)
