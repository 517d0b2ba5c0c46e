"""``nextpert effects TABLE.csv``: a screen from effects and standard errors, and what follows."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nextpert.cli import main

SAFE = "--control-se", "conservative"
NAMES, GENES = [f"g{i}" for i in range(5)], [f"g{i}" for i in range(8)]


def run(*words):
    return main([str(word) for word in (*words, "--quiet")])


@pytest.fixture
def table(tmp_path):
    pairs = pd.MultiIndex.from_product([NAMES, GENES], names=["perturbation", "gene"])
    frame = pairs.to_frame(index=False)
    frame["log2FoldChange"] = np.random.default_rng(0).normal(size=len(frame))
    frame["lfcSE"] = 0.1
    path = tmp_path / "screen.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.mark.slow
def test_a_table_leads_to_a_report(table, capsys):
    folder = table.parent
    assert run("effects", table, "--table", folder / "rows.csv", "--n-cells", 80, *SAFE) == 0
    rows = pd.read_csv(folder / "rows.csv").set_index(["perturbation", "gene"])["mean"]
    assert len(rows) == 40
    given = pd.read_csv(table).set_index(["perturbation", "gene"])["log2FoldChange"] * np.log(2)
    assert np.abs(rows - given[rows.index]).max() < 0.1
    made = folder / "screen.effects.h5ad"
    assert ad.read_h5ad(made).obs["n_cells"].tolist()[1:] == [80] * 5
    assert run("plan", made, "--target", "g1", "--n-perturbations", 2, "--n-cells", 100) == 0
    capsys.readouterr()
    assert run("diagnose", made) == 0
    assert "a table has no control cells" in capsys.readouterr().out
    plan, other = folder / "screen.plan.h5ad", folder / "screen.diagnose.h5ad"
    assert run("report", plan, "--also", other) == 0
    page = (folder / "screen.report.html").read_text()
    assert "A table of effects and standard errors in place of cells" in page
    assert f"nextpert effects {table}" in page
    assert run("effects", made, "--n-cells", 9, "--out", folder / "again.h5ad") == 2
    assert "--n-cells are for a csv file of effects" in capsys.readouterr().err
    assert run("cells", made, "--target", "g1") == 2
    assert "needs the cells of a screen" in capsys.readouterr().err


def test_what_wrote_a_table_is_told_by_its_columns_or_given(table, capsys):
    assert run("effects", table) == 2
    assert "does not tell the error of the controls" in capsys.readouterr().err
    frame = pd.read_csv(table).rename(columns={"log2FoldChange": "effect", "lfcSE": "se"})
    frame.to_csv(table, index=False)
    assert run("effects", table, *SAFE) == 0
    assert run("effects", table, "--source", "edger", "--overwrite") == 2
    assert "has no column 'logFC' of effects" in capsys.readouterr().err
    frame.rename(columns={"effect": "score"}).to_csv(table, index=False)
    assert run("effects", table, "--overwrite") == 2
    assert "has no column 'effect' of effects" in capsys.readouterr().err
