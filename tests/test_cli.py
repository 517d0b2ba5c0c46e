import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.cli import main
from nextpert.cli._report import format_ranking
from nextpert.tl._design_interventions.tables import candidates_of, nothing_of

FILES = {
    "annotated.h5ad", "cpca_density.png", "dag.png", "design.png", "ranking.csv", "trace.csv",
}  # fmt: skip
FAST = ["--quiet", "--n-runs", "2", "--n-samples", "20", "--no-figures"]


@pytest.fixture
def screen(small_screen, tmp_path):
    """The small screen in a file, labels as in an h5ad from elsewhere."""
    path = tmp_path / "screen.h5ad"
    small_screen.write_h5ad(path)
    return path


def _design(path, *options, out=None, target=("--target", "MYC")):
    out = path.parent / "out" if out is None else out
    return main(["design", str(path), *target, "--out", str(out), *FAST, *map(str, options)])


def _result(path):
    return ad.read_h5ad(path.parent / "out" / "annotated.h5ad")


def test_version_and_help(capsys):
    for option, expected in (("--version", npt.__version__), ("--help", "demo")):
        with pytest.raises(SystemExit) as stop:
            main([option])
        assert stop.value.code == 0
        assert expected in capsys.readouterr().out


def test_demo_finds_the_unseen_knockout_and_writes_everything(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--n-runs", "3", "--show", "36"]) == 0
    printed = capsys.readouterr()
    assert {p.name for p in out.iterdir()} == FILES
    adata = ad.read_h5ad(out / "annotated.h5ad")
    ranking = candidates_of(adata.uns["design"]["ranking"])
    hidden = re.search(r"knockout of (\S+) \(never seen\)", printed.out).group(1)
    assert hidden not in set(adata.obs["perturbation"])
    nearest = ranking.loc[ranking["state_distance"].idxmin(), "perturbation"]
    assert nearest == hidden
    assert f"Predicted closest to the target: {hidden}" in printed.out
    assert f"Try next: {ranking['perturbation'].iloc[0]} " in printed.out
    for step in ("Learning", "Fitting", "Ranking", "Drawing"):
        assert step in printed.err
    assert len(ranking) == 36
    assert adata.uns["dag"]["params"]["method"] == "boss"
    assert f"In truth closest (the screen is simulated): {hidden}, distance " in printed.out
    header, *rows = printed.out[printed.out.index("rank  ") :].splitlines()[:37]
    assert header.count("distance") == 2
    place = header.index("true distance") + len("true distance")
    truth = _true_distances(adata, hidden)
    for line, (_, row) in zip(rows, ranking.iterrows(), strict=True):
        shown = float(line[:place].split()[-1])
        # A knockout is modelled as the loss of the measured control mean.
        np.testing.assert_allclose(shown, truth[row["perturbation"]], rtol=0.01, atol=0.01)
    for name in ("dag.png", "design.png", "cpca_density.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(out / "ranking.csv")
    assert table["is_control"].tolist() == [False] * 36 + [True]
    np.testing.assert_allclose(table["predicted_distance"][:36], ranking["predicted_distance"])


def _true_distances(adata, hidden):
    """Distance of the true mean under every knockout to that under the hidden one."""
    from nextpert.core import LinearScm

    truth = adata.uns["truth"]
    scm = LinearScm(truth["weights"], truth["noise_var"], truth["intercept"])
    shifts = pd.DataFrame(-np.diag(truth["control_mean"]), adata.var_names, adata.var_names)
    means = pd.DataFrame({gene: scm.mean(shift) for gene, shift in shifts.items()})
    return ((means.T - means[hidden].to_numpy()) ** 2).sum(axis=1)


def test_the_target_of_the_demo_is_the_truth():
    from nextpert.cli._simulated import unseen_target
    from nextpert.core import LinearScm

    adata = npt.datasets.simulated_screen(n_control=20, n_perturbed=2)
    target, hidden = unseen_target(adata)
    truth = adata.uns["truth"]
    scm = LinearScm(truth["weights"], truth["noise_var"], truth["intercept"])
    shift = np.zeros(36)
    shift[adata.var_names.get_loc(hidden)] = -truth["control_mean"][adata.var_names == hidden][0]
    np.testing.assert_allclose([target[g] for g in adata.var_names], scm.mean(shift), atol=1e-9)


def test_design_equals_the_functions(screen, small_screen):
    assert _design(screen, "--seed", 4, "--acquisition", "greedy", "--penalty", 1.5) == 0
    npt.tl.learn_dag(
        small_screen, method="boss", environments="all", penalty=1.5, n_runs=2, rng=4, n_graphs=25
    )
    npt.tl.fit_dag_blr(small_screen)
    npt.tl.design_interventions(small_screen, "MYC", acquisition="greedy", n_samples=20, rng=4)
    result = _result(screen)
    expected = small_screen.uns["design"]["ranking"]
    pd.testing.assert_frame_equal(
        result.uns["design"]["ranking"].reset_index(drop=True),
        expected.reset_index(drop=True),
        check_dtype=False,
        check_column_type=False,
    )
    assert (result.varp["dag"] != small_screen.varp["dag"]).nnz == 0


@pytest.mark.parametrize("method", ["boss", "gsp"])
def test_every_option_reaches_its_function(method, screen, tmp_path, monkeypatch):
    calls = {}
    for name in ("learn_dag", "fit_dag_blr", "design_interventions"):
        real = getattr(npt.tl, name)

        def record(adata, *args, name=name, real=real, **options):
            calls[name] = options | {"args": args}
            return real(adata, *args, **options)

        monkeypatch.setattr(f"nextpert.tl.{name}", record, raising=False)
    pairs = {
        "before": "earlier,later\nMYC,STK3\n", "required": "parent,child\nMYC,GATA1\n",
        "forbidden": "parent,child\nSTK3,MYC\n", "tiers": "gene,tier\nMYC,0\nSTK3,1.5\n",
    }  # fmt: skip
    files = []
    for name, text in pairs.items():
        (tmp_path / f"{name}.csv").write_text(text)
        files += [f"--{name}", tmp_path / f"{name}.csv"]
    (tmp_path / "shift.csv").write_text("perturbation,MYC,STK3\nMYC,-1,\nSTK3,,-0.5\n")
    given = {
        "gsp": ("--alpha", 0.02), "boss": ("--penalty", 1.5),
    }  # fmt: skip
    code = _design(
        screen,
        *files, "--genes", "MYC", "STK3", "GATA1", "OXR1",
        "--method", method, *given[method], "--n-runs", 4, "--n-graphs", 3,
        "--n-jobs", 1, "--seed", 9,
        "--shift", tmp_path / "shift.csv", "--perturbations", "MYC", "STK3", "--separator", "+",
        "--prior-scale", 2, "--prior-units", "noise", "--noise-var", 0.5, "--no-intercept",
        "--acquisition", "cv", "--candidates", "MYC", "MYC+STK3", "--candidate-shift", "knockout",
        "--n-cells", 7, "--n-samples", 11,
        target=("--target-mean", "MYC=1.5", "STK3=0"),
    )  # fmt: skip
    assert code == 0
    learn, fit, design = (calls[n] for n in ("learn_dag", "fit_dag_blr", "design_interventions"))
    expected = {
        "genes": ["MYC", "STK3", "GATA1", "OXR1"], "n_runs": 4, "n_graphs": 3,
        "rng": 9, "n_jobs": 1, "method": method, "dag": None, "targets_first": False,
        "environments": {"boss": "all", "gsp": "control"}[method],
        "prior": {
            "before": [("MYC", "STK3")], "required": [("MYC", "GATA1")],
            "forbidden": [("STK3", "MYC")], "tiers": {"MYC": 0.0, "STK3": 1.5},
        },
        given[method][0][2:]: given[method][1],
    }  # fmt: skip
    assert {key: learn[key] for key in expected} == expected
    assert fit["perturbations"] == ["MYC", "STK3"]
    assert fit["shift"].loc["STK3"].tolist() == [0.0, -0.5]
    assert (fit["prior_scale"], fit["prior_units"]) == (2.0, "noise")
    assert (fit["noise_var"], fit["intercept"]) == (0.5, False)
    assert design["args"] == ({"MYC": 1.5, "STK3": 0.0},)
    assert design["candidates"] == ["MYC", "MYC+STK3"]
    assert (design["acquisition"], design["shift"]) == ("cv", "knockout")
    assert (design["n_cells"], design["n_samples"], design["rng"]) == (7, 11, 9)


def test_every_parameter_of_the_functions_has_an_option():
    """A new parameter of a function must not be forgotten here."""
    import inspect

    source = (Path(npt.__file__).parent / "cli" / "_run.py").read_text()
    keys = {"key_added", "dag_key", "posterior_key", "copy", "adata", "target"}
    for name in ("learn_dag", "fit_dag_blr", "design_interventions"):
        for parameter in set(inspect.signature(getattr(npt.tl, name)).parameters) - keys:
            shared = parameter in {"perturbation_key", "control", "layer"}
            assert shared or f"{parameter}=" in source, f"{name}: {parameter}"


def test_boss_and_frequencies(screen, small_screen):
    """BOSS is the default, and the number of runs, left to itself, depends on the method."""
    out = screen.parent / "out"
    options = ["--n-graphs", "4", "--n-samples", "20", "--no-figures"]
    command = ["design", str(screen), "--target", "MYC", "--out", str(out), "--quiet", *options]
    assert main(command) == 0
    npt.tl.learn_dag(small_screen, method="boss", environments="all", n_graphs=4)
    result = _result(screen)
    assert result.uns["dag"]["params"]["n_runs"] == 10
    for key in ("dag", "dag_frequency"):
        assert (result.varp[key] != small_screen.varp[key]).nnz == 0


def test_targets_given_as_group_and_file(screen, tmp_path):
    assert _design(screen, target=("--target-group", "batch", "a")) == 0
    grouped = _result(screen).uns["design"]
    assert "batch" in grouped["params"]["target"]
    (tmp_path / "means.csv").write_text("gene,mean\nMYC,0.5\n")
    assert _design(screen, target=("--target-file", str(tmp_path / "means.csv"))) == 0
    stored = _result(screen).uns["design"]
    wanted = dict(zip(stored["genes"], stored["target_mean"], strict=True))
    assert wanted["MYC"] == 0.5


def test_a_given_graph_and_names_from_a_file(screen, tmp_path):
    (tmp_path / "dag.csv").write_text("parent,child\nMYC,STK3\nSTK3,OXR1\n")
    (tmp_path / "genes.txt").write_text("MYC\nSTK3\nOXR1\n")
    options = ("--method", "given", "--dag", tmp_path / "dag.csv", "--genes")
    assert _design(screen, *options, f"@{tmp_path / 'genes.txt'}") == 0
    graph = _result(screen).uns["dag"]
    assert graph["genes"].tolist() == ["MYC", "STK3", "OXR1"]
    assert graph["n_edges"] == 2


def test_figures_of_a_screen_of_ones_own(screen):
    out = screen.parent / "out"
    options = ["--quiet", "--n-runs", "2", "--out", str(out)]
    assert main(["demo", "--data", str(screen), "--target", "STK3", *options]) == 0
    assert {p.name for p in out.iterdir()} == FILES


def test_debug_shows_where_an_error_comes_from(screen):
    with pytest.raises(ValueError, match="MYCC"):
        _design(screen, "--debug", target=("--target", "MYCC"))


def test_warnings_take_one_line(screen, capsys):
    assert _design(screen, "--shift-sd", "0") == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("nextpert: warning: ") and "HS2" in line for line in lines)
    assert all(line.startswith("nextpert: ") for line in lines)


def test_table_of_the_ranking(screen):
    assert _design(screen, "--acquisition", "civ") == 0
    table = _result(screen).uns["design"]["ranking"]
    ranking, nothing = candidates_of(table), nothing_of(table)
    lines = format_ranking(ranking, "civ", nothing=nothing).splitlines()
    assert lines.pop().split()[0] == "(nothing)"
    assert len(lines) == len(ranking) + 1
    assert lines[0].split() == [
        "rank", "perturbation", "targets", "shift", "uncertainty", "removed", "predicted",
        "distance", "of", "doing", "nothing", "best", "cells", "seen",
    ]  # fmt: skip
    for line, (_, row) in zip(lines[1:], ranking.iterrows(), strict=True):
        assert line.split()[:2] == [str(row["rank"]), row["perturbation"]]
        assert f"{row['predicted_distance']:.3g} ± {row['predicted_distance_sd']:.1g}" in line
        assert f" {100 * row['uncertainty_removed']:.3g} % " in line
        assert line.endswith(f" {row['n_cells_seen']}")


def test_the_report_says_what_speaks_for_the_first(screen, capsys):
    from nextpert.cli._report import _why

    for name, expected in (("greedy", "nearest to the estimated optimum"), ("random", "at random")):
        assert _design(screen, "--acquisition", name) == 0
        assert expected in capsys.readouterr().out
    for removed, expected in (
        ([0.5, 0.2], "expected to remove 50 % of the uncertainty left (civ)"),
        ([0.5, 0.495], "no candidate differs by 1 %"),
    ):
        ranking = pd.DataFrame({"uncertainty_removed": removed})
        assert expected in _why(ranking, {"acquisition": "civ"})


def test_what_functions_log_takes_one_line(screen, monkeypatch, capsys):
    import logging

    real = npt.tl.fit_dag_blr

    def log(*args, **options):
        logging.getLogger("nextpert.tl.anything").warning("two\nlines of %s", "it")
        return real(*args, **options)

    monkeypatch.setattr("nextpert.tl.fit_dag_blr", log, raising=False)
    assert _design(screen) == 0
    assert "nextpert: note: two lines of it" in capsys.readouterr().err.splitlines()
    assert not logging.getLogger("nextpert").handlers


def test_rows_shown(screen, capsys):
    assert _design(screen, "--show", 1) == 0
    assert "... and 4 more in ranking.csv" in capsys.readouterr().out
    assert _design(screen, "--show", 0) == 0
    assert "rank  perturbation" not in capsys.readouterr().out.split("Written")[0]


def test_the_installed_command_runs():
    command = [sys.executable, "-m", "nextpert.cli", "design", "a", "--target", "b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "nextpert: error: There is no file 'a'."


@pytest.mark.screen
def test_on_the_tap_seq_screen(screen_path, tmp_path, capsys):
    path = screen_path / "schraivogel_tapseq" / "schraivogel_tapseq_umi5.h5ad"
    code = main(
        [
            "design", str(path), "--target", "RIPK2", "--control", "non-targeting",
            "--log-normalise", "--min-fraction", "0.1", "--out", str(tmp_path / "out"), *FAST,
        ]
    )  # fmt: skip
    assert code == 0
    adata = ad.read_h5ad(tmp_path / "out" / "annotated.h5ad")
    assert len(adata.uns["dag"]["genes"]) == 62
    ranking = candidates_of(adata.uns["design"]["ranking"])
    assert len(ranking) == 14
    assert ranking.loc[ranking["state_distance"].idxmin(), "perturbation"] == "RIPK2"
    assert "closest to the target: RIPK2" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_a_candidate_that_cells_alone_tell_of(screen):
    assert _design(screen, "--candidates", "MYC", "HS2", "HS2+STK3") == 0
    ranking = candidates_of(_result(screen).uns["design"]["ranking"])
    assert set(ranking["perturbation"]) == {"MYC", "HS2", "HS2+STK3"}
