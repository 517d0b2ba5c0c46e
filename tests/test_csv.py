"""Tables in csv: labels that a spreadsheet could run are text, and come back as they were."""

import csv
import io

import numpy as np
import pandas as pd
import pytest

from nextpert._files import as_csv

EVIL = ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "a\r=1", "a;=1"]


@pytest.mark.parametrize("kind", [object, "category", "string"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("text", EVIL)
def test_no_text_is_a_formula(text, ending, kind):
    table = pd.DataFrame({"label": pd.Series([text, "MYC"], dtype=kind), text: [-1.5, np.nan]})
    written = as_csv(table, lineterminator=ending)
    rows = list(csv.reader(io.StringIO(written, newline=""), strict=True))
    begins = f"'{text}" if text[0] != "a" else text
    assert rows == [["label", begins], [begins, "-1.5"], ["MYC", ""]]
    assert begins[0] not in "=+-@\t\r\n ＝"
    # A cell that another separator or a line's end would part is in quotes.
    assert text[0] != "a" or f'"{text}"' in written


def test_numbers_stay_numbers():
    table = pd.DataFrame({"x": [-1.0, 2.5], "shift": ["-1.20, -0.33", "+0.5"], "n": ["-1e-05", ""]})
    assert as_csv(table) == table.to_csv(index=False, lineterminator="\n")
