"""The campaigns: advice followed to the letter, on few cells of small pools."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks import campaigns
from benchmarks._campaign_pools import simulated
from nextpert.core.design.stopping import KINDS

pytestmark = pytest.mark.benchmarks


@pytest.fixture(scope="module")
def pool():
    return simulated("among", 0)


def test_a_campaign_follows_the_advice_until_it_is_to_stop(pool, monkeypatch):
    monkeypatch.setattr(campaigns, "PLATES", 2)
    end = campaigns.advised(pool, 0)
    assert end.kind in (*KINDS, campaigns.LIMIT, campaigns.EXHAUSTED)
    assert 0 <= end.plates <= 2
    assert (end.cells == 0) == (end.plates == 0)
    assert end.cells <= end.plates * campaigns.CELLS
    truth = campaigns.judged(pool, end.recommended)
    best = int(np.argmin(pool.truth.relative))
    assert campaigns.judged(pool, best)["right"] == 1
    assert truth["distance"] >= campaigns.judged(pool, best)["distance"]


def test_others_see_the_same_first_cells_and_no_more_than_they_ask_for(pool):
    start = pool.start()
    assert min(start[name] for name in pool.candidates) == 10
    spread = campaigns.even(pool, 400)
    assert campaigns.n_new(pool, spread) <= 400
    plates = campaigns.randomly(pool, np.random.default_rng(0))
    cells = [campaigns.n_new(pool, seen) for seen in plates]
    assert cells == sorted(cells)
    assert plates[0] == start


def test_targets_are_the_unit():
    rows = [
        {"world": "w", "target": str(target), "strategy": name, "end": end, "cells": 10,
         "distance": 0.1 * target - 0.1 * (name == campaigns.OURS), "right": 1.0}
        for target in range(6) for name in (campaigns.OURS, *campaigns.OTHERS)
        for end in (campaigns.SAME, campaigns.MEAN, campaigns.WHOLE)
        for _ in range(3)  # repeats
    ]  # fmt: skip
    text = campaigns.compared(pd.DataFrame(rows))
    assert text.count("-0.100 (-0.100 to -0.100)") == 3 * len(campaigns.OTHERS)
    few = pd.DataFrame([row for row in rows if row["target"] < "5"])
    assert " to " not in campaigns.compared(few)  # five targets have no interval


def test_a_picture_has_a_panel_for_each_world(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(campaigns, "PLATES", 1)
    found = campaigns.run("among", [("0", 0, pool)])
    campaigns.draw(found, str(tmp_path / "x.png"))
    assert (tmp_path / "x.png").stat().st_size > 5000
    assert campaigns.section("among", found).startswith("## among: 1 targets, 1 campaigns")
