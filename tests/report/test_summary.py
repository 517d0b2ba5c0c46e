"""The verdict in a terminal and in a notebook."""

from __future__ import annotations

import re

import pytest

import nextpert as npt
from nextpert._report.results import KINDS, keys_of, read_all, verdict_of
from nextpert._report.tables import _signed


def test_it_says_what_the_report_says(adata):
    before = list(adata.uns)
    found = npt.summary(adata)
    verdict = verdict_of(read_all(adata, keys_of({}), {}))
    assert found.facts["Next"] == verdict.next
    assert found.facts["Reliability"] == verdict.trust
    assert all(note in found.facts["Notes"] for note in verdict.notes)
    assert list(adata.uns) == before
    for kind in KINDS.values():  # each result is named once
        facts = found.facts
        assert (kind.function in facts["Results"]) != (kind.function in facts["Not computed"])
    del adata.uns["replay"]
    assert "tl.replay_design" in npt.summary(adata).facts["Not computed"]
    adata.uns["second"] = adata.uns.pop("plan")
    facts = npt.summary(adata, keys={"plan": "second"}).facts
    assert 'uns["second"] (tl.plan_screen)' in facts["Results"]
    adata.uns = {}
    with pytest.raises(ValueError, match="no result to report"):
        npt.summary(adata)


def test_it_is_printed_in_short_lines_and_shown_in_a_notebook(adata):
    said = str(npt.summary(adata)).splitlines()
    assert said[0] == "Results in adata"
    assert max(map(len, said)) <= 100
    heads = [line.split()[0] for line in said if re.match(r"  \w", line)]
    assert heads[:2] == ["Next", "Reliability"]
    adata.uns["plan"]["plate"].loc[0, "perturbation"] = "<b>x</b>"
    page = npt.summary(adata)._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page


def test_methods_state_the_options_that_are_stored(adata):
    assert "Methods" not in npt.summary(adata).facts
    words = npt.summary(adata, methods=True).facts["Methods"]
    assert npt.__version__ in words
    dag, fit, plan = (adata.uns[name] for name in ("dag", "dag_blr", "plan"))
    assert f"over {len(dag['genes'])} genes ({dag['n_edges']} edges)" in words
    assert f"{len(fit['environments'])} perturbations" in words
    assert f"by the strategy {plan['params']['strategy']} (seed {plan['params']['rng']})" in words
    candidates = adata.uns["design"]["ranking"]["perturbation"].ne("control").sum()
    assert f"{candidates} candidates were ranked" in words


def test_only_a_gain_has_a_plus():
    assert _signed(0.5).startswith("+0.5")
    assert not _signed(0.0).startswith("+")
    assert _signed(-0.5).startswith(("-", "−"))
