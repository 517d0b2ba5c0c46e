"""All steps in one: on the simulated screen, and on one of one's own."""

from __future__ import annotations

import json
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.cli import main
from nextpert.cli._demo import unseen_target
from nextpert.core import LinearScm
from nextpert.study.ranking import candidates_of

pytestmark = [pytest.mark.slow, pytest.mark.brief_chain]

FILES = {"annotated.h5ad", "demo.toml", "effects.csv", "ranking.csv", "report.html"}


def run(path, *options, out="out"):
    words = ["demo", "--data", path, "--target", "MYC", "--out", path.parent / out, "--quiet"]
    fast = ["--n-runs", 2, "--n-graphs", 2, "--n-samples", 20]
    assert main([str(word) for word in (*words, *fast, *options)]) == 0
    return ad.read_h5ad(path.parent / out / "annotated.h5ad")


@pytest.mark.full_chain
def test_demo_finds_the_unseen_knockout_and_writes_everything(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--n-runs", "3"]) == 0
    printed = capsys.readouterr()
    assert {p.name for p in out.iterdir()} == FILES
    adata = ad.read_h5ad(out / "annotated.h5ad")
    ranking = candidates_of(adata.uns["design"]["ranking"])
    hidden = re.search(r"knockout of (\S+), which the screen does not contain", printed.out)[1]
    assert hidden not in set(adata.obs["perturbation"])
    assert ranking.loc[ranking["state_distance"].idxmin(), "perturbation"] == hidden
    lines = printed.out.splitlines()
    assert adata.uns["design"]["advice"]["words"] in lines
    for step in ("Learning", "Fitting", "Ranking", "Testing", "Writing"):
        assert step in printed.err
    assert adata.uns["dag"]["params"]["method"] == "boss"
    # A knockout is modelled as the loss of the measured control mean.
    truth = adata.uns["truth"]
    scm = LinearScm(truth["weights"], truth["noise_var"], truth["intercept"])
    means = [scm.mean(shift) for shift in -np.diag(truth["control_mean"])]
    goal = means[list(adata.var_names).index(hidden)]
    distance = pd.Series([((mean - goal) ** 2).sum() for mean in means], adata.var_names)
    own = distance[ranking["perturbation"]].to_numpy()
    n_within = ((ranking["predicted_low"] <= own) & (own <= ranking["predicted_high"])).sum()
    assert f"The candidate that is truly closest is {hidden}." in printed.out
    assert abs(n_within - 35) <= 1
    assert f" {n_within} true distances" in printed.out
    table = pd.read_csv(out / "ranking.csv")
    assert table["is_control"].tolist() == [False] * 36 + [True]
    np.testing.assert_allclose(table["predicted_distance"][:36], ranking["predicted_distance"])
    page = (out / "report.html").read_text()
    assert 'id="graph"' in page


def test_the_target_of_the_demo_is_the_truth():
    adata = npt.datasets.simulated_screen(n_control=20, n_perturbed=2)
    target, hidden = unseen_target(adata)
    truth = adata.uns["truth"]
    scm = LinearScm(truth["weights"], truth["noise_var"], truth["intercept"])
    shift = np.where(adata.var_names == hidden, -truth["control_mean"], 0.0)
    np.testing.assert_allclose([target[g] for g in adata.var_names], scm.mean(shift), atol=1e-9)


def test_demo_equals_the_functions_and_repeats_itself(screen, small_screen, assert_same, capsys):
    out = screen.parent / "out"
    options = ("--seed", 4, "--acquisition", "greedy", "--combinations", "keep", "--json")
    result = run(screen, *options, "--batch-key", "batch")
    npt.pp.perturbation_screen(small_screen, combinations="keep", batch_key="batch")
    npt.tl.learn_dag(
        small_screen,
        method="boss",
        environments="all",
        search_options={"n_runs": 2},
        rng=4,
        n_graphs=2,
    )
    npt.tl.fit_dag_blr(small_screen)
    npt.tl.perturbation_effects(small_screen)
    npt.tl.design_interventions(small_screen, "MYC", acquisition="greedy", n_samples=20, rng=4)
    small_screen.strings_to_categoricals()
    small_screen.write_h5ad(screen.parent / "expected.h5ad")
    expected = ad.read_h5ad(screen.parent / "expected.h5ad")
    for key in ("screen", "dag", "dag_blr", "perturbation_effects", "design"):
        assert_same(result.uns[key], expected.uns[key])
    printed = capsys.readouterr().out
    assert json.loads(printed)["summary"]["perturbation"] != "MYC"  # the target itself
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "demo.toml").rename(screen.parent / "again.toml")
    again = ["demo", "--config", str(screen.parent / "again.toml"), "--json", "--quiet"]
    assert main([*again, "--overwrite"]) == 0
    assert capsys.readouterr().out == printed
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
