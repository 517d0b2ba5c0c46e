"""Bad usage and bad input of the command: one line that names the option, and nothing written."""

from __future__ import annotations

import numpy as np
import pytest

import nextpert as npt
from nextpert.cli import main
from nextpert.cli._options import ACQUISITIONS
from nextpert.cli._words import as_options

MYC = ("SCREEN", "--target", "MYC")
# Arguments of ``design``, and what its one line must hold. A word in capitals stands for a file.
EARLY = [
    (("absent.h5ad", "--target", "MYC"), "no file 'absent.h5ad'"),
    ((".", "--target", "MYC"), "no file '.'"),
    (("THREE", "--target", "MYC"), "cannot be read as h5ad"),
    (("CUT", "--target", "MYC"), "is it whole?"),
    (("TWICE", "--target", "MYC"), "are not unique"),
    (("SCREEN", "--target", "MYCC"), "--target not found", "MYCC", "matches: MYC"),
    (("SCREEN", "--target", "control"), "--target control is the control state"),
    (("SCREEN", "--target-group", "bach", "a"), "--target-group", "'bach'", "batch"),
    (("SCREEN", "--target-group", "batch", "c"), "--target-group", "c", "a, b"),
    (("SCREEN", "--target-mean", "MYC"), "GENE=MEAN"),
    (("SCREEN", "--target-mean", "=1"), "GENE=MEAN"),
    (("SCREEN", "--target-mean", "MYC=high"), "--target-mean MYC", "'high' is not a number"),
    (("SCREEN", "--target-mean", "MYC=inf"), "--target-mean MYC", "'inf' is not a number"),
    (("SCREEN", "--target-mean", "MYC=1", "MYC=2"), "--target-mean names MYC more than once"),
    (("SCREEN", "--target-mean", "MYD=1"), "--target-mean", "MYD", "matches: MYC"),
    (("SCREEN", "--target-mean", "CPQ=1", "--genes", "MYC", "STK3"), "--target-mean", "CPQ"),
    (("SCREEN", "--target-file", "absent.csv"), "--target-file", "no file 'absent.csv'"),
    (("SCREEN", "--target-file", "THREE"), "--target-file", "two columns, but has 3"),
    (("SCREEN", "--target-file", "EMPTY"), "--target-file", "header and two columns"),
    (("SCREEN", "--target-file", "HEADER"), "--target-file", "names no gene"),
    (("SCREEN", "--target-file", "PAIRS"), "--target-file MYC", "'STK3' is not a number"),
    (("SCREEN", "--target-file", "AGAIN"), "--target-file names MYC more than once"),
    (("SCREEN", "--target-file", "ABSENT"), "--target-file", "NOPE"),
    ((*MYC, "--control", "ctrl"), "No control cells", "with --control.", "'ctrl'"),
    ((*MYC, "--perturbation-key", "guide"), "'guide'", "with --perturbation-key"),
    ((*MYC, "--layer", "lognrom"), "'lognrom'", "matches: lognorm"),
    ((*MYC, "--genes", "MYC", "NOPE"), "NOPE", "leave these genes out"),
    ((*MYC, "--genes", "MYC", "MYC"), "more than once: MYC"),
    ((*MYC, "--genes", "MYC", "--min-fraction", "0.5"), "Only 1", "--min-fraction"),
    ((*MYC, "--log-normalise"), "no raw counts", "--log-normalise"),
    (("COUNTS", "--target", "MYC", "--log-normalise", "--depth-key", "x"), "'x'", "--depth-key."),
    (("COUNTS", "--target", "MYC", "--log-normalise", "--depth-key", "batch"), "total counts"),
    (("ZEROS", "--target", "MYC", "--log-normalise"), "no counts at all", "--depth-key"),
    ((*MYC, "--perturbations", "MYC", "NOPE"), "--perturbations not found", "NOPE"),
    ((*MYC, "--candidates", "NOPE"), "--candidates", "NOPE"),
    ((*MYC, "--candidates", "MYC", "HS3"), "--candidates", "'HS3'"),
    ((*MYC, "--shift-sd", "0", "--candidates", "MYC", "HS2"), "--candidates", "'HS2'"),
    ((*MYC, "--candidates", "MYC+NOPE"), "--candidates", "NOPE"),
    ((*MYC, "--candidates", "control"), "--candidates", "control"),
    ((*MYC, "--candidates", "absent.csv"), "--candidates", "no file 'absent.csv'"),
    ((*MYC, "--candidates", "WORDS"), "--candidates", "no table of shifts"),
    ((*MYC, "--candidates", "FOREIGN"), "--candidates", "NOPE"),
    ((*MYC, "--shift", "absent.csv"), "--shift", "no file 'absent.csv'"),
    ((*MYC, "--shift", "WORDS"), "--shift", "no table of shifts"),
    ((*MYC, "--shift", "FOREIGN"), "--shift", "NOPE"),
    ((*MYC, "--shift", "INFINITE"), "--shift", "infinite", "STK3"),
    ((*MYC, "--shift", "ROWTWICE"), "--shift", "more than once", "STK3"),
    ((*MYC, "--candidate-shift", "absent.csv"), "--candidate-shift", "no file"),
    ((*MYC, "--candidate-shift", "FOREIGN"), "--candidate-shift", "NOPE"),
    ((*MYC, "--before", "THREE"), "--before", "two columns, but has 3"),
    ((*MYC, "--before", "absent.csv"), "--before", "no file 'absent.csv'"),
    ((*MYC, "--required", "absent.csv"), "--required", "no file"),
    ((*MYC, "--forbidden", "EMPTY"), "--forbidden", "header and two columns"),
    ((*MYC, "--tiers", "absent.csv"), "--tiers", "no file"),
    ((*MYC, "--prior-network", "absent.csv"), "--prior-network", "no file"),
    ((*MYC, "--prior-network", "PAIRS"), "--prior-network", "no column source"),
    ((*MYC, "--tiers", "PAIRS"), "--tiers MYC", "'STK3' is not a number"),
    ((*MYC, "--tiers", "AGAIN"), "--tiers names MYC more than once"),
    ((*MYC, "--dag", "absent.csv", "--method", "given"), "--dag", "no file 'absent.csv'"),
    (("ROUNDS", "--target", "MYC", "--genes", "MYC", "CPQ"), "earlier rounds", "--genes"),
]
# Found by the functions themselves, before any search.
LATE = [
    ((*MYC, "--before", "FOREIGNPAIRS"), "--before names genes outside the panel: NOPE"),
    ((*MYC, "--required", "FOREIGNPAIRS"), "--required names genes outside the panel: NOPE"),
    ((*MYC, "--tiers", "ABSENT"), "--tiers names genes outside the panel: NOPE"),
    ((*MYC, "--required", "PAIRS", "--forbidden", "PAIRS"), "MYC -> STK3", "Drop one"),
    ((*MYC, "--before", "CIRCLE"), "MYC", "STK3", "->"),
    ((*MYC, "--method", "given", "--dag", "FOREIGNPAIRS"), "NOPE"),
    ((*MYC, "--method", "given", "--dag", "CIRCLE"), "MYC", "STK3", "->"),
    ((*MYC, "--genes", "MYC"), "at least 2"),
    (("CONSTANT", "--target", "MYC"), "constant", "UBR5"),
    (("NAN", "--target", "MYC"), "NaN", "UBR5"),
]
USAGE = [
    ([], "demo | design"),
    (["dessign"], "dessign"),
    (["design", "x.h5ad"], "--target"),
    (["demo", "--target", "MYC"], "--data"),
    (["design", *MYC, "--target-group", "a", "b"], "not allowed"),
    (["design", *MYC, "--genes", "@absent.txt"], "absent.txt"),
    (["design", *MYC, "--method", "given"], "--dag"),
    (["design", *MYC, "--dag", "x.csv"], "--method given"),
    (["design", *MYC, "--alpha", "0.1"], "--alpha is for --method gsp, not boss"),
    (["design", *MYC, "--method", "gsp", "--penalty", "3"], "--penalty is for --method boss"),
    (["design", *MYC, "--method", "gsp", "--targets-first"], "--targets-first is for"),
    (["design", *MYC, "--depth-key", "n"], "--log-normalise"),
    (["design", *MYC, "--method", "boss", "--backend", "causaldag"], "--backend"),
    (
        ["design", *MYC, "--method", "given", "--dag", "x.csv", "--n-bootstraps", "2"],
        "--n-bootstraps",
    ),
    *(
        (["design", *MYC, option, value], option)
        for option, values in {
            "--min-fraction": ("2", "-1", "half"),
            "--show": ("-1", "x"),
            "--alpha": ("0", "1", "nan", "x"),
            "--depth": ("-1", "1.5"),
            "--score": ("aic",),
            "--penalty": ("0", "inf"),
            "--n-runs": ("0", "many"),
            "--n-bootstraps": ("-1",),
            "--n-jobs": ("0", "-2", "two"),
            "--method": ("pc",),
            "--backend": ("r",),
            "--prior-scale": ("0", "-1", "learned"),
            "--prior-units": ("cells",),
            "--noise-var": ("0", "nan"),
            "--shift": ("half",),
            "--candidate-shift": ("half",),
            "--acquisition": ("best",),
            "--n-cells": ("0", "2.5"),
            "--n-samples": ("1", "x"),
            "--seed": ("-1", "now"),
        }.items()
        for value in values
    ),
]


@pytest.fixture
def files(screen, small_screen, tmp_path):
    """Every word in capitals, and the file it stands for."""
    texts = {
        "THREE": "a,b,c\nx,y,z\n",
        "EMPTY": "",
        "HEADER": "gene,mean\n",
        "PAIRS": "parent,child\nMYC,STK3\n",
        "AGAIN": "gene,mean\nMYC,1\nMYC,2\n",
        "ABSENT": "gene,mean\nNOPE,1\n",
        "FOREIGNPAIRS": "a,b\nNOPE,MYC\n",
        "CIRCLE": "a,b\nMYC,STK3\nSTK3,MYC\n",
        "WORDS": "p,MYC\nMYC,low\n",
        "FOREIGN": "p,NOPE\nMYC,-1\n",
        "INFINITE": "p,MYC\nSTK3,-inf\n",
        "ROWTWICE": "p,MYC\nSTK3,-1\nSTK3,-2\n",
    }
    places = {"SCREEN": screen}
    for word, text in texts.items():
        places[word] = tmp_path / f"{word.lower()}.csv"
        places[word].write_text(text)
    places["CUT"] = tmp_path / "cut.h5ad"
    places["CUT"].write_bytes(screen.read_bytes()[:3000])
    return places


def _write(word, adata, path):
    """Write the screens that few cases need."""
    if word == "TWICE":
        adata.var_names = ["MYC", *adata.var_names[:-1]]
    elif word == "CONSTANT":
        adata.X[:, list(adata.var_names).index("UBR5")] = 1.5
    elif word in ("COUNTS", "ZEROS"):
        adata.X = np.round(np.abs(adata.X)) * (word == "COUNTS")
    elif word == "NAN":
        adata.X[3, list(adata.var_names).index("UBR5")] = np.nan
    else:
        npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STK3")])
        npt.tl.fit_dag_blr(adata)
        npt.tl.design_interventions(adata, "MYC", acquisition="random", n_samples=2)
    adata.write_h5ad(path)
    return path


def _places(files, words, adata, tmp_path):
    for word in {"TWICE", "CONSTANT", "NAN", "ROUNDS", "COUNTS", "ZEROS"} & set(words):
        files[word] = _write(word, adata, tmp_path / "another.h5ad")
    return [str(files.get(word, word)) for word in words]


def _one_error(capsys):
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert errors[0].startswith("nextpert: error: ")
    assert "Traceback" not in printed.err
    assert printed.out == ""
    return errors[0]


@pytest.mark.bad_input
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("case", EARLY, ids=lambda case: " ".join(case[0][-3:]))
def test_errors_are_found_before_the_graph_is_learned(
    case, files, small_screen, tmp_path, capsys, monkeypatch
):
    words, *expected = case
    arguments = _places(files, words, small_screen, tmp_path)
    before = sorted(tmp_path.iterdir())

    def learned(*args, **options):
        raise AssertionError

    monkeypatch.setattr("nextpert.tl.learn_dag", learned, raising=False)
    out = tmp_path / "out" / "below"
    assert main(["design", *arguments, "--out", str(out), "--quiet"]) == 2
    line = _one_error(capsys)
    assert all(word in line for word in expected), line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.bad_input
@pytest.mark.parametrize("case", LATE, ids=lambda case: " ".join(case[0][-3:]))
def test_errors_of_the_functions_name_options(case, files, small_screen, tmp_path, capsys):
    words, *expected = case
    arguments = _places(files, words, small_screen, tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["design", *arguments, "--out", str(tmp_path / "out"), "--quiet"]) == 2
    line = _one_error(capsys)
    assert all(word in line for word in expected), line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.bad_input
@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=lambda value: str(value)[-40:])
def test_wrong_usage_takes_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert message in printed


def test_the_acquisitions_are_those_of_the_function():
    from nextpert.tl._design_interventions.design_interventions import ACQUISITIONS as KNOWN

    assert KNOWN == ACQUISITIONS


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            'Use method="boss", or more runs (n_runs).',
            "Use --method boss, or more runs (--n-runs).",
        ),
        ("use fewer genes (genes=[...])", "use fewer genes (--genes NAME ...)"),
        ("shift must be 'knockout'.", "--shift must be 'knockout'."),
        ("use shift='activation', or", "use --shift activation, or"),
        ("adata.obs['control'] of control cells", "adata.obs['control'] of control cells"),
        ("the target genes of a shift", "the target genes of a shift"),
        ("Name it with perturbation_key.", "Name it with --perturbation-key."),
        ("The column of labels with layer.", "The column of labels with --layer."),
    ],
)
def test_messages_name_options(message, expected):
    assert as_options(message) == expected
