"""Every message that the page of troubles shows is one that the package gives."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import nextpert as npt

pytestmark = pytest.mark.docs

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "what_can_go_wrong.md"
ROW = re.compile(r"^\| `([^`]*…[^`]*)` \|", re.MULTILINE)
FIRST, SECOND, THIRD = "CD58", "CD59", "CDH19"


def screen(**columns):
    """Return a small screen, with further columns."""
    adata = npt.datasets.simulated_screen(
        n_genes=5, n_control=60, n_perturbed=25, perturbed=3, expected_degree=2, rng=0
    )
    label = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = label
    for name, make in columns.items():
        adata.obs[name] = make(label)
    return adata


def fit(adata):
    """Learn and fit."""
    npt.tl.learn_dag(adata, method="boss", environments="all", search_options={"n_runs": 1})
    npt.tl.fit_dag_blr(adata)
    return adata


def all_cells(options):
    """Learn from all cells."""
    npt.tl.learn_dag(screen(), method="boss", environments="all", search_options=options)


@pytest.fixture(scope="module")
def fitted():
    return fit(screen())


def changed(adata, change):
    """Return a copy that was changed."""
    adata = adata.copy()
    change(adata)
    return adata


def set_x(cells, gene, value):
    """Return what sets one gene in some cells."""

    def change(adata):
        adata.X[adata.obs["perturbation"].to_numpy() == cells, gene] = value

    return change


def counts():
    """Return a screen of counts."""
    adata = screen()
    adata.X = np.round(np.abs(adata.X) * 3).astype(np.float32)
    return adata


def scaled_counts(logarithms):
    """Return a screen of counts, scaled to 500 in each cell, and ``log1p`` of them."""
    adata = screen()
    adata.X = np.random.default_rng(0).poisson(5, adata.shape) + 1.0
    adata.X[:, 0] = 1  # the smallest count of a cell shows its unit
    adata.X = adata.X / adata.X.sum(axis=1, keepdims=True) * 500
    for _ in range(logarithms):
        adata.X = np.log1p(adata.X)
    return adata


def square(adata):
    """Replace values by large ones."""
    adata.X = (10 + adata.X) ** 2


def rename(**names):
    """Return a screen with other labels."""
    return screen(perturbation=lambda label: label.replace(names))


def copied():
    """Return a screen in which a gene is there twice."""
    adata = screen()
    adata.X[:, 1] = adata.X[:, 0]
    return adata


def one_name_twice():
    """Return a screen in which two genes have one name."""
    adata = screen()
    adata.var_names = ["B2M", "B2M", "CCR10", "CD58", "CD59"]
    return adata


def in_a_batch_of_its_own():
    """Return a screen in which a batch has no control cells."""
    adata = screen(batch=lambda label: np.where(label == FIRST, "B", "A"))
    npt.pp.setup_screen(adata, batch_key="batch")
    return adata


def campaign():
    """Return a campaign, and cells that it has not seen."""
    adata = screen()
    new = (adata.obs["perturbation"] == THIRD).to_numpy()
    plan = {"candidates": [FIRST, SECOND, THIRD]}
    learn = {"method": "boss", "environments": "all", "search_options": {"n_runs": 1}}
    return npt.Campaign(adata[~new].copy(), FIRST, learn=learn, plan=plan), adata[new].copy()


def saved_by_another(folder):
    """Save a campaign that somebody else has saved since."""
    mine, _ = campaign()
    mine.save(folder / "campaign.h5ad")
    theirs = npt.Campaign.load(folder / "campaign.h5ad")
    theirs.mark_failed([FIRST])
    theirs.save(folder / "campaign.h5ad")
    mine.save(folder / "campaign.h5ad")


def fitted_anew(adata):
    """Fit another model after effects were stored."""
    npt.tl.perturbation_effects(adata)
    npt.tl.fit_dag_blr(adata, shift="activation")


def troubles(fitted, folder):
    """Return calls that go wrong, in the order of the page."""
    plan = {"candidates": [FIRST, SECOND, THIRD]}
    lacking = campaign()
    effects = pd.DataFrame(np.ones((1, 2)), ["CD58"], ["CD58", "CD59"])
    return [
        lambda: npt.pp.setup_screen(screen(), control="NT"),
        lambda: npt.pp.setup_screen(screen(), perturbation_key="gene"),
        lambda: npt.tl.design_interventions(fitted, "TP53"),
        lambda: npt.pp.setup_screen(
            screen(batch=lambda label: label.where(label == FIRST)), batch_key="batch"
        ),
        lambda: npt.pp.setup_screen(
            screen(score=lambda label: np.linspace(0, 1, len(label))), batch_key="score"
        ),
        lambda: npt.pp.setup_screen(rename(CD58="Doublet")),
        lambda: npt.pp.assign_guides(
            screen(guide=lambda label: label + "_1"), guides="guide", target_of=lambda guide: None
        ),
        lambda: fit(
            screen(guide=lambda label: label + np.where(np.arange(len(label)) % 2, "", "2"))
        ),
        lambda: fit(rename(CD58="CD58+CD59", CDH19="CD59+CD58")),
        lambda: npt.tl.learn_dag(screen(), genes=["CD5", "B2M"]),
        lambda: fit(rename(CD58="HS2")),
        lambda: npt.tl.learn_dag(changed(screen(), set_x("control", 0, 0))),
        lambda: npt.tl.learn_dag(copied()),
        lambda: npt.tl.learn_dag(one_name_twice()),
        lambda: npt.tl.design_interventions(fitted, FIRST, candidates=["TP53"]),
        lambda: npt.tl.learn_dag(counts()),
        lambda: npt.tl.learn_dag(scaled_counts(0)),
        lambda: npt.tl.learn_dag(scaled_counts(2)),
        lambda: npt.tl.learn_dag(changed(screen(), square)),
        lambda: npt.tl.learn_dag(changed(screen(), set_x("control", 1, np.nan))),
        lambda: npt.tl.learn_dag(screen()[:6].copy()),
        lambda: npt.tl.fit_dag_blr(screen()),
        lambda: npt.tl.design_interventions(screen(), FIRST),
        lambda: npt.tl.design_interventions(fitted[5:].copy(), FIRST),
        lambda: npt.tl.design_interventions(
            changed(fitted, lambda adata: npt.pp.setup_screen(adata, control=FIRST)), SECOND
        ),
        lambda: npt.pl.perturbation_effects(changed(fitted, fitted_anew), show=False),
        lambda: npt.tl.learn_dag(
            npt.pp.effect_table(effects, effects**0, control_se="conservative")
        ),
        lambda: npt.tl.design_interventions(
            changed(fitted, lambda adata: npt.tl.learn_dag(adata, method="given", dag=[])), FIRST
        ),
        lambda: npt.tl.design_interventions(fitted[:, 1:].copy(), FIRST),
        lambda: npt.tl.learn_dag(screen(), environments="all"),
        lambda: npt.tl.plan_screen(
            fitted, FIRST, constraints={"exclude": plan["candidates"]}, **plan
        ),
        lambda: npt.tl.plan_screen(fitted, FIRST, n_cells=10, **plan),
        lambda: lacking[0].observe(lacking[1]),
        lambda: lacking[0].observe(lacking[1][:, 1:].copy(), batch="same"),
        lambda: saved_by_another(folder),
        lambda: npt.report(screen(), folder / "page.html"),
        lambda: fit(in_a_batch_of_its_own()),  # the fit warns, as the search did
        lambda: fit(in_a_batch_of_its_own()),
    ]


def said(call, caplog):
    """Return all that a call says: error, warnings, log."""
    caplog.clear()
    words = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except ValueError as error:
            words.append(str(error))
    return (
        words + [str(one.message) for one in caught] + [one.getMessage() for one in caplog.records]
    )


def test_all_messages_are_those_of_the_package(fitted, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="nextpert")
    shown = ROW.findall(PAGE.read_text(encoding="utf-8"))
    calls = troubles(fitted, tmp_path)
    assert len(shown) == len(calls)
    for pattern, call in zip(shown, calls, strict=True):
        expected = ".*".join(re.escape(part.strip(" ")) for part in pattern.split("…"))
        words = said(call, caplog)
        assert any(re.fullmatch(f"{expected}.*", one, re.DOTALL) for one in words), (pattern, words)
