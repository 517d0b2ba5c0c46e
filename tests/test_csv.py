"""Files that are written: labels in csv are no formulas, and the seal of an h5ad is checked."""

import csv
import hashlib
import io

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nextpert._files import _SEAL, as_csv, is_sealed, whole_file, write_adata, write_xlsx

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


def test_a_spreadsheet_holds_texts_as_texts(tmp_path):
    """Neither formulas nor dates: gene names such as SEPT2 stay as they are."""
    openpyxl = pytest.importorskip("openpyxl")
    names = ["=1+1", "SEPT2", "MARCH1", "1-2", "+A1", "007"]
    table = pd.DataFrame({"perturbation": names, "n_cells": np.arange(6), "is_advised": True})
    write_xlsx(table, tmp_path / "order.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "order.xlsx").active
    rows = [*sheet.iter_rows()]
    assert [cell.value for cell in rows[0]] == [*table]
    assert [row[0].value for row in rows[1:]] == names
    assert {(row[0].data_type, row[0].number_format) for row in rows[1:]} == {("s", "@")}
    assert [row[1].value for row in rows[1:]] == [*range(6)]


def test_without_openpyxl_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'nextpert\[excel\]', or write csv"):
        write_xlsx(pd.DataFrame({"a": [1]}), tmp_path / "order.xlsx")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("gene", ["SEPT2", "MARCH1", "DEC1", "Sep-15", "MARC1", "oct4"])
def test_no_gene_becomes_a_date(gene):
    table = pd.DataFrame({"perturbation": [gene, "MYC", "SEPTIN2", "DECR1", "JUN", "MARCKSL1"]})
    lines = as_csv(table).splitlines()
    assert lines == ["perturbation", f"'{gene}", "MYC", "SEPTIN2", "DECR1", "JUN", "MARCKSL1"]


def test_the_seal_of_a_file_is_the_digest_of_the_bytes_before_it():
    content = b"bytes of a file"
    sealed = content + _SEAL + hashlib.sha256(content).digest()
    assert is_sealed(sealed)
    damaged = (
        content,
        b"",
        b"B" + sealed[1:],
        sealed + b"x",
        sealed[:-1],
        sealed.replace(_SEAL, b""),
    )
    assert not any(map(is_sealed, damaged))


def test_a_file_that_exists_is_replaced_and_a_folder_is_named(tmp_path):
    path = tmp_path / "table.csv"
    for text in ("old", "new"):
        with whole_file(path) as part:
            part.write_text(text)
    assert path.read_text() == "new"
    with pytest.raises(ValueError, match=f"'{tmp_path}' is a folder"), whole_file(tmp_path):
        pass


@pytest.mark.parametrize("sealed", [True, False])
def test_a_sealed_h5ad_is_read_as_any_other(sealed, tmp_path):
    path = tmp_path / "cells.h5ad"
    write_adata(ad.AnnData(np.eye(2)), path, {"stamp": "text"}, sealed=sealed)
    content = path.read_bytes()
    assert is_sealed(content) == sealed
    assert not is_sealed(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    np.testing.assert_array_equal(ad.read_h5ad(path).X, np.eye(2))
