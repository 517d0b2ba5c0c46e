"""Every step: the function's result in the file, its table, and what is told."""

from __future__ import annotations

import json
import logging
import re
import shutil
from functools import wraps
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.arguments import in_mappings
from nextpert.cli import main
from nextpert.cli._options import STEPS
from nextpert.core._text import percent
from nextpert.study.ranking import candidates_of

pytestmark = pytest.mark.brief_chain

# Columns of the table of every step, and options of a quick run.
COLUMNS = {
    "guides": {"guide", "target", "kind", "n_cells"},
    "preprocess": {"perturbation", "n_cells"},
    "learn": {"parent", "child", "frequency"},
    "fit": {"perturbation", "shift", "n_cells"},
    "effects": {"perturbation", "gene", "mean", "lower", "upper", "lfsr"},
    "design": {"rank", "perturbation"},
    "plan": {"perturbation", "n_cells", "why"},
    "cells": {"gene", "power", "cells_needed"},
    "distances": {"perturbation", "distance", "low", "high"},
    "loading": {"quantity", "value", "source"},
    "replay": {"strategy", "plates"},
    "diagnose": {"part", "quantity", "value"},
}
LEARN = "--method boss --environments all --n-runs 2 --n-graphs 2"
PLAN = "--target MYC --n-perturbations 2 --n-cells 200"
CALLS = {
    "guides": (
        "--guides perturbation --targets targets.csv --guide-separator +",
        {"guides": "perturbation", "guide_separator": "+",
         "targets": "targets.csv"},
    ),
    "preprocess": (
        "--min-cells 5 --combinations keep --batch-key batch",
        {"min_cells": 5, "combinations": "keep", "batch_key": "batch"},
    ),
    "learn": (
        f"{LEARN} --seed 4",
        {"method": "boss", "environments": "all", "n_runs": 2, "n_graphs": 2, "rng": 4},
    ),
    "fit": (
        "--perturbations MYC STK3 --prior-scale 2 --noise-var 0.5 --shift-sd 0 --no-intercept "
        "--prior-units noise",
        {"perturbations": ["MYC", "STK3"], "prior_scale": 2.0, "noise_var": 0.5, "shift_sd": 0.0,
         "intercept": False, "prior_units": "noise"},
    ),
    "effects": (
        "--candidates genes --genes all --level 0.8",
        {"candidates": "genes", "genes": "all", "level": 0.8},
    ),
    "design": (
        "--target-mean MYC=1.5 STK3=0 --candidates MYC HS2 HS2+STK3 "
        "--acquisition remaining_variance "
        "--n-cells 7 --n-samples 11 --seed 9 --no-noise-aware",
        {"target": {"MYC": 1.5, "STK3": 0.0}, "candidates": ["MYC", "HS2", "HS2+STK3"],
         "acquisition": "remaining_variance", "n_cells": 7, "n_samples": 11, "rng": 9,
         "noise_aware": False},
    ),
    "plan": (
        "--target-group batch a --candidates genes --n-perturbations 2 --n-cells 200 --exclude CPQ "
        "--pending OXR1=20 --strategy both --costs budget=900 cell=1 perturbation=50",
        {"target": ("batch", "a"), "candidates": "genes", "n_perturbations": 2, "n_cells": 200,
         "pending": {"OXR1": 20}, "exclude": ["CPQ"], "strategy": "both",
         "costs": {"budget": 900.0, "cell": 1.0, "perturbation": 50.0}},
    ),
    "cells": (
        "--target MYC --candidates MYC OXR1 --effect 0.3 --n-guides 2 --budget 900 --power 0.7 "
        "--rule fdr",
        {"target": "MYC", "candidates": ["MYC", "OXR1"], "effect": 0.3, "n_guides": 2,
         "budget": 900, "power": 0.7, "rule": "fdr"},
    ),
    "distances": (
        "--target-group batch a --genes STK3 OXR1 --confidence 0.9",
        {"target": ("batch", "a"), "genes": ["STK3", "OXR1"], "confidence": 0.9},
    ),
    "loading": (
        "--lanes 4 --moi 0.2 --lane 1500 --budget 9000",
        {"lanes": 4, "loading": {"moi": 0.2}, "costs": {"lane": 1500.0, "budget": 9000.0}},
    ),
    "replay": (
        "--targets MYC --n-rounds 1 --n-repeats 2 --strategies random round_robin_means "
        "--held-out",
        {"targets": ["MYC"], "n_rounds": 1, "n_repeats": 2, "held_out": True,
         "strategies": ["random", "round_robin_means"]},
    ),
    "diagnose": ("--seed 2", {"rng": 2}),
}  # fmt: skip
# What is wanted as a file, the example of the guide, and what Python takes for it.
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "command_line.md"
WANTED = npt.Target(
    state=("batch", "a"),
    signature={"STK3": -1, "GATA1": 0.5},
    at_most={"OXR1": 1.5},
    weights={"STK3": 2, "GATA1": 1, "OXR1": 0.5},
    distance="noise",
)
IN_A_FILE = [
    ("design", "--target-file wanted.toml --n-samples 20", {"target": WANTED, "n_samples": 20}),
    ("plan", "--target-file wanted.toml --n-perturbations 2 --n-cells 200",
     {"target": WANTED, "n_perturbations": 2, "n_cells": 200}),
]  # fmt: skip
RUNS = [*((step, *call) for step, call in CALLS.items()), *IN_A_FILE]


@pytest.fixture
def place(fitted, monkeypatch):
    """A folder with the screen and the guide's file of a target, where commands run."""
    monkeypatch.chdir(fitted.parent)
    (text,) = re.findall(r"```toml\n(# wanted.toml\n.*?)```", GUIDE.read_text(), re.S)
    Path("wanted.toml").write_text(text)
    Path("targets.csv").write_text("guide,target\nMYC,MYC\nSTK3,A\nOXR1,OXR1\nHS2,A\ncontrol,NTC\n")
    return fitted.parent


def run(step, *words):
    return main([step, *map(str, words), "--quiet"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Perturbations left out", "ignore:Variances")
@pytest.mark.parametrize(("step", "options", "arguments"), RUNS)
def test_a_run_gives_what_the_function_gives_and_repeats_itself(
    step, options, arguments, fitted, place, capsys, assert_same_adata
):
    """The file of settings alone gives the same bits: the screen, the table, what is printed."""
    assert set(COLUMNS) == set(CALLS) == set(STEPS)
    expected = ad.read_h5ad(fitted)
    if step == "loading":
        npt.tl.plan_screen(expected, "MYC", strategy="exploit")
        expected.write_h5ad(fitted)
    room, name = STEPS[step].function.split(".")
    function = getattr(getattr(npt, room), name)
    function(expected, **in_mappings(function, arguments))
    expected.strings_to_categoricals()
    expected.write_h5ad(place / "expected.h5ad")
    out, table = place / f"{step}.h5ad", place / f"{step}.csv"
    assert run(step, fitted, *options.split(), "--out", out, "--table", table, "--json") == 0
    found = ad.read_h5ad(out)
    (command,) = found.uns.pop("commands").tolist()
    assert command.startswith(f"nextpert {step} {fitted} ")
    assert f" --out {out} " in command
    assert_same_adata(found, ad.read_h5ad(place / "expected.h5ad"))

    printed = capsys.readouterr().out
    first = {path: path.read_bytes() for path in (out, table)}
    assert COLUMNS[step] <= set(pd.read_csv(table).columns)
    found = json.loads(printed)
    assert found["step"] == step
    assert found["verdict"] or step in ("distances", "effects")  # whose tables say all
    assert found["files"] == [str(out), f"{out}.toml", str(table)]
    assert found["nextpert"] == npt.__version__
    settings = place / "settings.toml"
    shutil.copy(f"{out}.toml", settings)
    assert main([step, "--config", str(settings), "--overwrite", "--json", "--quiet"]) == 0
    assert capsys.readouterr().out == printed
    assert {path: path.read_bytes() for path in first} == first
    assert out.with_name(f"{out.name}.toml").read_bytes() == settings.read_bytes()


def test_tables_in_files_reach_the_function(screen, tmp_path, monkeypatch):
    texts = {
        "before": "earlier,later\nMYC,STK3\n", "required": "parent,child\nMYC,GATA1\n",
        "forbidden": "parent,child\nSTK3,MYC\n",
    }  # fmt: skip
    (tmp_path / "genes.txt").write_text("MYC\nSTK3\n\nGATA1\n")
    files = []
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
        files += [f"--{name}", tmp_path / f"{name}.csv"]
    got = {}
    real = npt.tl.learn_dag

    @wraps(real)
    def record(adata, **options):
        got.update(options)
        return real(adata, **options)

    monkeypatch.setattr("nextpert.tl.learn_dag", record, raising=False)
    genes = ["--genes", f"@{tmp_path / 'genes.txt'}", "OXR1"]
    assert run("learn", screen, *files, *LEARN.split(), *genes) == 0
    assert got["genes"] == ["MYC", "STK3", "GATA1", "OXR1"]
    assert got["search_options"]["prior"] == {
        "before": [("MYC", "STK3")], "required": [("MYC", "GATA1")],
        "forbidden": [("STK3", "MYC")],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.formats
def test_shifts_and_effects_in_files(fitted, tmp_path):
    (tmp_path / "shift.csv").write_text("perturbation,MYC,STK3\nMYC,-1,\nSTK3,,-0.5\n")
    other = ad.read_h5ad(fitted)[::2].copy()  # effects of the same cells are refused
    npt.tl.fit_dag_blr(other)
    npt.tl.perturbation_effects(other, as_anndata=True).write_h5ad(tmp_path / "other.h5ad")
    options = ["--shift", tmp_path / "shift.csv", "--features", tmp_path / "other.h5ad"]
    again = tmp_path / "again.h5ad"
    assert run("fit", fitted, *options, "--out", again) == 0
    table = ad.read_h5ad(again).uns["dag_blr"]["environments"].set_index("perturbation")
    assert table.loc[["MYC", "STK3"], "shift_source"].tolist() == ["table", "table"]
    (tmp_path / "means.csv").write_text("gene,mean\nMYC,0.5\n")
    plan = ["--target-file", tmp_path / "means.csv", "--candidates", "MYC", "STK3", "OXR1"]
    few = ["--n-cells", "100", "--n-perturbations", "2"]
    table = tmp_path / "plate.csv"
    order = tmp_path / "order.csv"
    assert run("plan", again, *plan, *few, "--table", table, "--order", order) == 0
    assert pd.read_csv(table)["n_cells"].sum() == pd.read_csv(order)["n_cells"].sum() == 100
    constructs = npt.get.order_df(ad.read_h5ad(tmp_path / "again.plan.h5ad"))
    assert pd.read_csv(order)["perturbation"].tolist() == constructs["perturbation"].tolist()


def test_prices_in_a_file(fitted, tmp_path):
    prices = tmp_path / "prices.csv"
    prices.write_text("perturbation,price\n" + "".join(f"{x},40\n" for x in ("MYC", "OXR1", "HS2")))
    words = ["plan", str(fitted), "--target", "STK3", "--candidates", "MYC", "OXR1", "HS2"]
    words += ["--costs", "budget=300", "cell=1", f"perturbation={prices}", "--strategy", "exploit"]
    out = tmp_path / "plan.h5ad"
    assert main([*words, "--min-cells", "5", "--out", str(out), "--quiet"]) == 0
    plate = ad.read_h5ad(out).uns["plan"]["plate"]
    assert plate["cost"].sum() <= 300
    is_control = plate["perturbation"] == "control"
    expected = plate["n_cells"] + 40.0 * ~is_control
    assert plate["cost"].tolist() == expected.tolist()


def test_a_target_in_a_file_adds_its_genes_to_the_panel(small_screen, tmp_path):
    rare = small_screen[:, ["MYC", "STK3", "OXR1"]].copy()
    rare.X[20:, 2] = 0  # seen in few cells
    rare.write_h5ad(tmp_path / "x.h5ad")
    (tmp_path / "target.toml").write_text("[signature]\nMYC = 1\nOXR1 = -1\n")
    out = tmp_path / "x.preprocess.h5ad"
    for panel, n_genes in (([], 2), (["--panel", tmp_path / "target.toml"], 3)):
        assert run("preprocess", tmp_path / "x.h5ad", *panel, "--overwrite") == 0
        assert ad.read_h5ad(out).n_vars == n_genes


def test_names_of_results_and_repeats_without_one(screen, capsys):
    folder = screen.parent
    assert run("preprocess", screen, "--min-cells", "5") == 0
    out = folder / "screen.preprocess.h5ad"
    first, settings = out.read_bytes(), out.with_name(f"{out.name}.toml")
    assert run("preprocess", "--config", settings, "--overwrite") == 0
    assert out.read_bytes() == first
    command = f"nextpert preprocess {screen} --min-cells 5"
    assert ad.read_h5ad(out).uns["commands"].tolist() == [command]
    assert run("learn", out, *LEARN.split()) == 0  # the name of the last step gives way
    files = f"Written: {folder / 'screen.learn.h5ad'}, {folder / 'screen.learn.h5ad.toml'}"
    assert capsys.readouterr().out.splitlines()[-1] == files
    assert run("learn", folder / "screen.learn.h5ad") == 2
    assert "is the screen itself" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.formats
def test_the_page_joins_the_results_of_files_of_one_fit(fitted, screen, capsys):
    folder = fitted.parent
    assert run("effects", fitted) == 0
    assert run("design", fitted, "--target", "MYC", "--n-samples", "20") == 0
    assert run("plan", fitted, *PLAN.split()) == 0
    assert run("distances", screen, "--target", "MYC") == 0  # needs no fit
    steps = ("plan", "effects", "design", "distances")
    files = [folder / f"screen.{step}.h5ad" for step in steps]
    capsys.readouterr()
    options = ["--also", *files[1:], "--title", "Plate <1>"]
    assert run("report", files[0], *options, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    page = folder / "screen.report.html"
    assert printed["files"] == [str(page), f"{page}.toml"]
    assert "MYC" in printed["verdict"]
    text = page.read_text()
    assert "Plate &lt;1&gt;" in text
    assert "Measured distances" in text
    for step, path in zip(steps, (fitted, fitted, fitted, screen), strict=True):
        assert f"nextpert {step} {path}" in text
    settings = folder / "page.toml"
    page.with_name(f"{page.name}.toml").rename(settings)
    page.unlink()
    assert main(["report", "--config", str(settings), "--quiet"]) == 0
    assert page.read_text() == text


@pytest.mark.slow
def test_the_page_takes_no_other_fit(fitted, screen, capsys):
    folder = fitted.parent
    assert run("effects", fitted) == 0
    assert run("fit", fitted, "--shift-sd", "0", "--out", folder / "fit.h5ad") == 0
    adata = ad.read_h5ad(fitted)
    adata[:-1].copy().write_h5ad(folder / "cells.h5ad")
    capsys.readouterr()
    before = sorted(folder.iterdir())
    for name in ("fit", "cells"):
        other = folder / f"{name}.h5ad"
        assert run("report", folder / "screen.effects.h5ad", "--also", other) == 2
        line = capsys.readouterr().err
        assert f"--also {other} differs from the screen" in line
    assert run("report", screen) == 2
    assert "result" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("target", ["MYC", "STK3"])
def test_commands_give_one_advice_on_their_output(fitted, capsys, target):
    words = {}
    for step in ("design", "cells", "plan"):
        assert run(step, fitted, "--target", target, "--out", fitted.parent / f"{step}.h5ad") == 0
        out, err = capsys.readouterr()
        advice = ad.read_h5ad(fitted.parent / f"{step}.h5ad").uns[STEPS[step].key]["advice"]
        words[step] = str(advice["words"])
        assert words[step] in out.splitlines()
        assert words[step] not in err
    assert run("report", fitted.parent / "plan.h5ad", "--out", fitted.parent / "x.html") == 0
    assert words["plan"] in capsys.readouterr().out
    assert len(set(words.values())) == 1


def test_warnings_and_what_functions_log_take_one_line_each(fitted, monkeypatch, capsys):
    real = npt.tl.fit_dag_blr

    @wraps(real)
    def log(*args, **options):
        for _ in range(2):
            logging.getLogger("nextpert.tl.anything").warning("two\nlines of %s", "it")
        return real(*args, **options)

    monkeypatch.setattr("nextpert.tl.fit_dag_blr", log, raising=False)
    assert run("fit", fitted, "--shift-sd", "0", "--out", fitted.parent / "x.h5ad") == 0
    lines = capsys.readouterr().err.splitlines()
    assert "nextpert: note: two lines of it" in lines
    assert any(line.startswith("nextpert: warning: ") and "HS2" in line for line in lines)
    assert all(line.startswith("nextpert: ") for line in lines)
    assert len(lines) == len(set(lines))
    assert not logging.getLogger("nextpert").handlers


@pytest.mark.slow
def test_the_ranking_in_text(fitted, capsys):
    quick = ["--target", "MYC", "--n-samples", "20", "--acquisition", "remaining_variance"]
    assert run("design", fitted, *quick, "--show", 0) == 0
    assert "perturbation  predicted" not in capsys.readouterr().out
    assert run("design", fitted, *quick, "--show", 2, "--overwrite") == 0
    adata = ad.read_h5ad(fitted.parent / "screen.design.h5ad")
    ranking = candidates_of(adata.uns["design"]["ranking"])
    header, *rows, control, rest, _ = capsys.readouterr().out.splitlines()[-6:]
    assert header.split() == [
        "rank", "perturbation", "predicted_distance", "relative_distance", "probability_best",
        "n_cells_seen",
    ]  # fmt: skip
    assert control.split()[:2] == ["0", "control"]
    n = len(ranking) - 2
    more = rf"{n} more row{'s' * (n != 1)} and \d more columns: --table FILE.csv"
    assert re.match(more, rest)
    for line, (_, row) in zip(rows, ranking[:2].iterrows(), strict=True):
        assert line.split()[:2] == [str(row["rank"]), row["perturbation"]]
        for name in ("predicted_distance", "relative_distance"):
            assert f" {row[name]:.3g} " in line
        assert f" {percent(row['probability_best'])} " in line
        assert line.endswith(f" {row['n_cells_seen']}")
