"""Bad usage and bad input of the command: one line that names the option, and nothing written."""

from __future__ import annotations

import numpy as np
import pytest

import nextpert as npt
from nextpert.cli import main
from nextpert.cli._words import in_options

# Arguments, and what the one line must hold. A word in capitals stands for a file.
LONG = "x" * 300 + ".h5ad"
DEMO = ("demo", "--data", "SCREEN", "--combinations", "keep")
PREPARE = ("preprocess", "SCREEN")
LEARN = ("learn", "SCREEN")
FIT = ("fit", "FITTED", "--out", "NEW.h5ad")
DESIGN = ("design", "FITTED", "--target", "MYC")
PLAN = ("plan", "FITTED", "--target", "MYC")
# Found before the graph is learned.
EARLY = [
    (("demo", "--data", "absent.h5ad", "--target", "MYC"), "no file 'absent.h5ad'"),
    (("fit", LONG, "--out", "NEW.h5ad"), f"no file '{LONG}'"),
    (("fit", "FITTED", "--out", LONG), f"Cannot write to '{LONG}' (File name too long): name"),
    (("fit", "FITTED", "--out", "a\0.h5ad"), r"Cannot write to 'a\x00.h5ad' (embedded null byte)"),
    (("fit", "FITTED", "--out", "LOOP"), "loop.h5ad' (Too many levels of symbolic links): name"),
    (
        ("effects", "EMPTY", "--out", "NEW.h5ad"),
        "error: '",
        "empty.csv' is no csv file with a header",
    ),
    (("demo", "--data", ".", "--target", "MYC"), "'.' is a folder"),
    (("demo", "--data", "THREE", "--target", "MYC"), "is a table", "nextpert effects"),
    (("demo", "--data", "CUT", "--target", "MYC"), "is it whole?"),
    (("demo", "--data", "TWICE", "--target", "MYC"), "are not unique"),
    (("demo", "--target", "MYC"), "--data"),
    ((*DEMO,), "--target NAME"),
    ((*DEMO, "--target", "MYC", "--target-group", "a", "b"), "not allowed"),
    ((*DEMO, "--target", "MYCC"), "--target not found", "MYCC", "matches: MYC"),
    ((*DEMO, "--target", "control"), "--target control is the control state"),
    ((*DEMO, "--target-group", "bach", "a"), "--target-group", "'bach'", "batch"),
    ((*DEMO, "--target-group", "batch", "c"), "--target-group", "c", "a, b"),
    ((*DEMO, "--target-mean", "MYC"), "NAME=MEAN"),
    ((*DEMO, "--target-mean", "=1"), "NAME=MEAN"),
    ((*DEMO, "--target-mean", "MYC=high"), "--target-mean MYC", "'high' is not a number"),
    ((*DEMO, "--target-mean", "MYC=inf"), "--target-mean MYC", "'inf' is not a number"),
    ((*DEMO, "--target-mean", "MYC=1", "MYC=2"), "--target-mean names MYC more than once"),
    ((*DEMO, "--target-mean", "MYD=1"), "--target-mean", "MYD", "matches: MYC"),
    ((*DEMO, "--target-mean", "CPQ=1", "--panel", "MYC", "STK3"), "--target-mean", "CPQ"),
    ((*DEMO, "--target-file", "absent.csv"), "--target-file", "no file 'absent.csv'"),
    ((*DEMO, "--target-file", "THREE"), "--target-file", "two columns, but has 3"),
    ((*DEMO, "--target-file", "EMPTY"), "--target-file", "header and two columns"),
    ((*DEMO, "--target-file", "HEADER"), "--target-file", "names no gene"),
    ((*DEMO, "--target-file", "PAIRS"), "--target-file MYC", "'STK3' is not a number"),
    ((*DEMO, "--target-file", "AGAIN"), "--target-file names MYC more than once"),
    ((*DEMO, "--target-file", "ABSENT"), "--target-file", "NOPE"),
    ((*DEMO, "--target-file", "TOMLOUTSIDE"), "--target-file", "NOPE"),
    ((*DEMO, "--target-file", "TOMLLABEL"), "--target-file", "MYCC", "matches: MYC"),
    ((*DEMO, "--target", "MYC", "--control", "ctrl"), "No control cells", "'ctrl'"),
    ((*DEMO, "--target", "MYC", "--perturbation-key", "guide"), "'guide'", "--perturbation-key"),
    ((*DEMO, "--target", "MYC", "--layer", "lognrom"), "'lognrom'", "matches: lognorm"),
    ((*DEMO, "--target", "MYC", "--panel", "MYC", "NOPE"), "NOPE"),
    ((*DEMO, "--target", "MYC", "--candidates", "absent.csv"), "--candidates", "no file"),
    ((*DEMO, "--target", "MYC", "--show", "-1"), "--show"),
    (("demo", "--data", "READY", "--target", "MYC", "--panel", "MYC"), "leave out --panel"),
    (("preprocess", "absent.h5ad"), "no file 'absent.h5ad'"),
    (("preprocess", "absent.zarr"), "no file 'absent.zarr'"),
    ((*PREPARE, "--panel", "@absent.txt"), "--panel", "absent.txt"),
    ((*PREPARE, "--normalise", "counts"), "counts"),
    ((*PREPARE, "--aliases", "MYC"), "--aliases takes NAME=GENE"),
    ((*PREPARE, "--min-seen", "2"), "--min-seen"),
    (("preprocess", "COUNTS", "--depth-key", "x"), "'x'", "--depth-key."),
    (("preprocess", "COUNTS", "--depth-key", "batch"), "counts"),
    (("preprocess", "ZEROS"), "No control cells", "depth"),
    ((*LEARN, "--control", "ctrl"), "No control cells", "with --control.", "'ctrl'"),
    ((*LEARN, "--perturbation-key", "guide"), "'guide'", "with --perturbation-key"),
    ((*LEARN, "--layer", "lognrom"), "'lognrom'", "matches: lognorm"),
    ((*LEARN, "--genes", "MYC", "NOPE"), "--genes: ", "NOPE", "leave these genes out"),
    ((*LEARN, "--genes", "MYC", "MYC"), "--genes: ", "more than once: MYC"),
    ((*LEARN, "--genes", "@NAMES"), "--genes: ", "NOPE"),
    ((*LEARN, "--genes", "@CUT"), "--genes: ", "no text with a name a line"),
    ((*LEARN, "--genes", "MYC"), "at least 2"),
    ((*LEARN, "--method", "given"), "--dag"),
    ((*LEARN, "--dag", "PAIRS"), "--method given"),
    ((*LEARN, "--dag", "absent.csv", "--method", "given"), "--dag", "no file 'absent.csv'"),
    ((*LEARN, "--method", "boss", "--alpha", "0.1"), "--alpha is for --method causaldag or gsp"),
    ((*LEARN, "--method", "gsp", "--penalty", "3"), "--penalty is for --method boss"),
    (
        (*LEARN, "--perturbation-targets", "knwn", "--method", "boss"),
        "--perturbation-targets must",
        "matches: known",
    ),
    ((*LEARN, "--perturbation-targets", "absent.csv", "--method", "boss"), "no file"),
    (
        (*LEARN, "--method", "boss", "--perturbation-targets", "known"),
        '--perturbation-targets needs --environments="all"',
    ),
    ((*LEARN, "--before", "THREE"), "--before", "two columns, but has 3"),
    ((*LEARN, "--before", "absent.csv"), "--before", "no file 'absent.csv'"),
    ((*LEARN, "--required", "absent.csv"), "--required", "no file"),
    ((*LEARN, "--forbidden", "EMPTY"), "--forbidden", "header and two columns"),
    ((*LEARN, "--tiers", "absent.csv"), "--tiers", "no file"),
    ((*LEARN, "--tiers", "PAIRS"), "--tiers MYC", "'STK3' is not a number"),
    ((*LEARN, "--tiers", "AGAIN"), "--tiers names MYC more than once"),
    ((*LEARN, "--before", "FOREIGNPAIRS"), "--before names genes outside the panel: NOPE"),
    ((*LEARN, "--required", "FOREIGNPAIRS"), "--required names genes outside the panel: NOPE"),
    ((*LEARN, "--tiers", "ABSENT"), "--tiers names genes outside the panel: NOPE"),
    ((*LEARN, "--required", "PAIRS", "--forbidden", "PAIRS"), "MYC -> STK3", "drop one"),
    ((*LEARN, "--before", "CIRCLE"), "MYC", "STK3", "->"),
    ((*LEARN, "--method", "given", "--dag", "FOREIGNPAIRS"), "NOPE"),
    ((*LEARN, "--method", "given", "--dag", "CIRCLE"), "MYC", "STK3", "->"),
    (("learn", "CONSTANT"), "constant", "UBR5"),
    (("learn", "NAN"), "NaN", "UBR5"),
    ((*LEARN, "--config", "absent.toml"), "--config", "no file 'absent.toml'"),
    ((*LEARN, "--config", "THREE"), "TOML"),
    ((*LEARN, "--out", "SCREEN"), "is the screen itself", "--out"),
    ((*LEARN, "--out", "x.csv"), "--out must end in .h5ad or .zarr"),
    ((*LEARN, "--table", "x.txt"), "--table must end in .csv or .parquet"),
    (("fit", "SCREEN"), "nextpert learn first"),
    ((*FIT, "--perturbations", "MYC", "NOPE"), "--perturbations: Perturbations not found", "NOPE"),
    ((*FIT, "--shift", "absent.csv"), "--shift", "no file 'absent.csv'"),
    ((*FIT, "--shift", "WORDS"), "--shift", "no table of shifts"),
    ((*FIT, "--shift", "FOREIGN"), "--shift: ", "table of shifts", "NOPE"),
    ((*FIT, "--shift", "INFINITE"), "table of shifts", "infinite", "STK3"),
    ((*FIT, "--shift", "ROWTWICE"), "table of shifts", "more than once", "STK3"),
    ((*FIT, "--features", "absent.h5ad"), "--features", "no file"),
    ((*FIT, "--features", "THREE"), "--features", "real numbers"),
    (("design", "SCREEN", "--target", "MYC"), "nextpert fit first"),
    (("design", "FITTED"), "--target NAME"),
    (
        ("design", "FITTED", "--target", "MYCC"),
        "--target: Target not found",
        "MYCC",
        "matches: MYC",
    ),
    (("design", "FITTED", "--target-mean", "MYD=1"), "--target-mean names", "MYD", "matches: MYC"),
    (("design", "FITTED", "--target-group", "bach", "a"), "--target-group or", "'bach'", "batch"),
    (("design", "FITTED", "--target-file", "absent.toml"), "--target-file", "no file"),
    (("design", "FITTED", "--target-file", "TOMLBROKEN"), "--target-file", "no TOML file"),
    (("design", "FITTED", "--target-file", "TOMLKEY"), "--target-file", "wieghts", "weights"),
    (("design", "FITTED", "--target-file", "TOMLMARGIN"), "as margin is the distance", "away_from"),
    (("design", "FITTED", "--target-file", "TOMLOUTSIDE"), "--target-file: signature of", "NOPE"),
    (
        ("plan", "FITTED", "--target-file", "TOMLLABEL"),
        "--target-file: Target",
        "MYCC",
        "matches: MYC",
    ),
    (("distances", "FITTED", "--target-file", "ABSENT"), "--target-file: Genes not in", "NOPE"),
    (("distances", "FITTED", "--target-file", "TOMLOUTSIDE"), "--target-file: ", "one state"),
    (("replay", "FITTED", "--targets", "TOMLKEY"), "--targets", "wieghts", "weights"),
    (("replay", "FITTED", "--targets", "absent.toml"), "--targets", "no file"),
    (("replay", "FITTED", "--candidates", "MYC", "control"), "--candidates names the controls"),
    ((*LEARN, "--genes", "@EMPTY"), "--genes", "is empty", "a name a line"),
    ((*DESIGN, "--candidates", "NOPE"), "--candidates", "'NOPE'", "panel"),
    ((*DESIGN, "--candidates", "MYC", "HS3"), "--candidates", "'HS3'"),
    ((*DESIGN, "--candidates", "MYC+NOPE"), "--candidates", "'MYC+NOPE'", "panel"),
    ((*DESIGN, "--candidates", "control"), "--candidates", "'control'"),
    ((*DESIGN, "--candidates", "absent.csv"), "--candidates", "no file 'absent.csv'"),
    ((*DESIGN, "--candidates", "WORDS"), "--candidates", "no table of shifts"),
    ((*DESIGN, "--candidates", "FOREIGN"), "NOPE"),
    ((*DESIGN, "--shift", "absent.csv"), "--shift", "no file"),
    ((*DESIGN, "--shift", "FOREIGN"), "--shift: ", "table of shifts", "NOPE"),
    (("design", "ROUNDS", "--target", "MYC", "--out", "NEW.h5ad"), "uns['design']"),
    ((*PLAN, "--include", "NOPE"), "--include", "NOPE"),
    ((*PLAN, "--include", "MYC"), "--include names MYC", "or give --target-is-candidate."),
    ((*DESIGN, "--candidates", "MYC"), "No candidate is left", "or --target-is-candidate to keep"),
    (("cells", *DESIGN[1:], "--candidates", "MYC"), "or --target-is-candidate to keep"),
    ((*PLAN, "--pending", "MYC=few"), "--pending MYC", "'few' is not a number"),
    ((*PLAN, "--pending", "MYC=20", "STK3"), "--pending takes NAME=CELLS"),
    ((*PLAN, "--costs", "budget"), "--costs takes NAME=COST"),
    ((*PLAN, "--costs", "budget=10", "rent=1"), "--costs", "rent"),
    ((*PLAN, "--costs", "budget=10", "perturbation=absent.csv"), "--costs", "absent.csv"),
]
USAGE = [
    (["dessign"], "(see nextpert --help)"),
    (["design"], "--screen requires an argument. (see nextpert design --help)"),
    (["design", "x.h5ad", "--nope", "1"], "--nope"),
    (["design", "x.h5ad", "y.h5ad"], "y.h5ad"),
    (["learn", "x.h5ad", "--genes"], "--genes"),
    (["replay", "x.h5ad", "--held-out", "maybe"], "--held-out"),
    *(
        ([step, "FITTED", "--out", "NEW.h5ad", *more, option, value], option)
        for step, more, options in (
            ("preprocess", [], {"--min-cells": ("-1", "2.5"), "--normalise": ("tpm",)}),
            (
                "learn",
                [],
                {
                    "--alpha": ("nan", "x"), "--penalty": ("0", "inf"), "--n-runs": ("0", "many"),
                    "--n-graphs": ("0",), "--n-jobs": ("0", "-2.5", "two"), "--method": ("pc",),
                    "--rng": ("-1", "now"), "--show": ("-1", "x"),
                },
            ),
            ("learn", ["--method", "gsp"], {"--alpha": ("0", "1")}),
            (
                "fit",
                [],
                {
                    "--prior-scale": ("0", "-1", "learned"), "--prior-units": ("cells",),
                    "--noise-var": ("0", "nan"), "--shift": ("half",), "--shift-sd": ("-1", "x"),
                },
            ),
            (
                "design",
                ["--target", "MYC"],
                {
                    "--acquisition": ("best",), "--n-cells": ("0", "2.5"),
                    "--n-samples": ("1", "x"), "--shift": ("half",),
                },
            ),
        )
        for option, values in options.items()
        for value in values
    ),
]  # fmt: skip


TEXTS = {
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
    "NAMES": "MYC\nNOPE\n",
    "TOMLBROKEN": "state = MYC\n",
    "TOMLKEY": 'state = "MYC"\nwieghts = ["MYC"]\n',
    "TOMLMARGIN": 'state = "MYC"\nmargin = 1\n',
    "TOMLOUTSIDE": "[signature]\nNOPE = 1\n",
    "TOMLLABEL": 'state = ["MYC", ["MYCC"], "STK3"]\n',
}
SCREENS = {"SCREEN", "TWICE", "CONSTANT", "NAN", "ROUNDS", "READY", "COUNTS", "ZEROS"}


@pytest.fixture(scope="module")
def places(_small_screen, _fitted, tmp_path_factory):
    """What takes words for files, which are made once, as few are needed by many cases."""
    folder = tmp_path_factory.mktemp("errors")
    made = {"FITTED": _fitted, "NEW.h5ad": folder / "new.h5ad"}

    def make(word):
        if word in TEXTS:
            path = folder / f"{word.lower()}.{'toml' if word.startswith('TOML') else 'csv'}"
            path.write_text(TEXTS[word])
        elif word == "LOOP":
            path = folder / "loop.h5ad"
            path.symlink_to(path)
        elif word == "CUT":
            path = folder / "cut.h5ad"
            path.write_bytes(_fitted.read_bytes()[:3000])
        else:
            path = _write(word, _small_screen.copy(), folder / f"{word.lower()}.h5ad")
        return path

    def find(words):
        for word in (word.removeprefix("@") for word in words):
            if word not in made and word in {*TEXTS, *SCREENS, "CUT", "LOOP"}:
                made[word] = make(word)
        return [
            f"@{made[word[1:]]}"
            if word[:1] == "@" and word[1:] in made
            else str(made.get(word, word))
            for word in words
        ]

    find.folders = (folder, _fitted.parent)
    return find


def _write(word, adata, path):
    """Write a screen."""
    if word == "TWICE":
        adata.var_names = ["MYC", *adata.var_names[:-1]]
    elif word == "CONSTANT":
        adata.X[:, list(adata.var_names).index("UBR5")] = 1.5
    elif word in ("COUNTS", "ZEROS"):
        adata.X = np.round(np.abs(adata.X)) * (word == "COUNTS")
    elif word == "NAN":
        adata.X[3, list(adata.var_names).index("UBR5")] = np.nan
    elif word == "READY":
        npt.pp.perturbation_screen(adata, min_cells=5)
    elif word == "ROUNDS":
        npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STK3"), ("STK3", "GATA1")])
        npt.tl.fit_dag_blr(adata)
        npt.tl.design_interventions(adata, "MYC", acquisition="random", n_samples=2)
        npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STK3")])
        npt.tl.fit_dag_blr(adata)
    adata.strings_to_categoricals()
    adata.write_h5ad(path)
    return path


def _there(places, tmp_path):
    return [sorted(folder.iterdir()) for folder in (*places.folders, tmp_path)]


def _one_error(capsys):
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert errors[0].startswith("nextpert: error: ")
    assert "Traceback" not in printed.err
    assert printed.out == ""
    return errors[0]


def _never(*args, **options):
    raise AssertionError


@pytest.mark.filterwarnings("ignore:Variable names are not unique", "ignore:Constant genes")
@pytest.mark.filterwarnings("ignore:.*hardly express")
@pytest.mark.parametrize("case", EARLY, ids=lambda case: " ".join(case[0][-4:]))
def test_errors_take_one_line_before_the_work(case, places, tmp_path, capsys, monkeypatch):
    words, *expected = case
    arguments = places(words)
    monkeypatch.chdir(tmp_path)
    if words[0] == "demo":
        monkeypatch.setattr("nextpert.tl.learn_dag", _never, raising=False)
        arguments += ["--out", str(tmp_path / "out" / "below")]
    before = _there(places, tmp_path)
    assert main([*arguments, "--quiet"]) == 2
    line = _one_error(capsys)
    assert all(word in line for word in expected), line
    assert _there(places, tmp_path) == before


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=lambda value: str(value)[-40:])
def test_wrong_usage_takes_one_line(capsys, arguments, message, places, tmp_path):
    words = places(arguments)
    before = _there(places, tmp_path)
    assert main([*words, "--quiet"]) == 2
    printed = capsys.readouterr().err
    assert len([line for line in printed.splitlines() if "error:" in line]) == 1
    assert message in printed
    assert _there(places, tmp_path) == before


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            'Use method="boss", or more runs (n_runs).',
            'Use --method="boss", or more runs (--n-runs).',
        ),
        ("use fewer genes (genes=[...])", "use fewer genes (--genes=[...])"),
        ("shift must be 'knockout'.", "--shift must be 'knockout'."),
        ("use shift='activation', or", "use --shift='activation', or"),
        ("adata.obs['control'] of control cells", "adata.obs['control'] of control cells"),
        ("the target genes of a shift", "the target genes of a shift"),
        ("Name it with perturbation_key.", "Name it with --perturbation-key."),
        ("The column of labels with layer.", "The column of labels with --layer."),
        ("run tl.learn_dag again with", "run nextpert learn again with"),
        ("Normalise first (pp.perturbation_screen).", "Normalise first (nextpert preprocess)."),
        ("as tl.cpca does", "as tl.cpca does"),
    ],
)
def test_messages_name_options(message, expected):
    assert in_options(message) == expected
