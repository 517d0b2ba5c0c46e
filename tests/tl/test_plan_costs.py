"""Plans in money: the budget is respected, gain per cost chooses, and the plate shows the cost."""

from __future__ import annotations

import numpy as np
import pytest

import nextpert as npt
from nextpert.core.design.plate import dunnett_controls
from nextpert.core.design.remaining_variance import RemainingVariance
from tests._screens import simulated_fit


@pytest.fixture
def fitted():
    """Five knockouts, fitted on their true graph."""
    return simulated_fit(
        n_control=600, n_perturbed=40, perturbed=["MYC", "FOS", "CDK4", "B2M", "CD58"], rng=1
    )


TARGET = {"STAT1": 0.5, "B2M": 1.0}


def planned(adata, costs=None, **options):
    constraints = options.pop("constraints", {}) | ({} if costs is None else {"costs": costs})
    given = {"candidates": "genes", "n_perturbations": 6, "n_cells": 1200, **options}
    npt.tl.plan_screen(adata, TARGET, constraints=constraints, **given)
    return adata.uns["plan"]


@pytest.mark.parametrize(
    ("strategy", "cell", "budget"),
    [
        ("exploit", 0.0, 150.0),
        ("exploit", 0.5, 400.0),
        ("exploit", 0.5, 1e6),
        ("explore", 0.0, 150.0),
        ("explore", 0.5, 400.0),
        ("both", 0.5, 400.0),
        ("ei", 0.5, 400.0),
        ("advised", 0.0, 150.0),
        ("advised", 0.5, 400.0),
    ],
)
def test_the_budget_is_respected_and_costs_add_up(fitted, strategy, cell, budget):
    price = {gene: 20.0 + 5.0 * (i % 7) for i, gene in enumerate(fitted.var_names)}
    costs = {"budget": budget, "perturbation": price, "cell": cell}
    stored = planned(fitted, costs, strategy=strategy)
    plate = stored["plate"]
    names = plate["perturbation"].astype(str)
    wanted = names.map(lambda name: price.get(name, 0.0)) + cell * plate["n_cells"]
    np.testing.assert_allclose(plate["cost"], wanted)
    assert stored["summary"]["cost"] == pytest.approx(plate["cost"].sum())
    assert stored["summary"]["cost"] <= budget
    assert stored["params"]["budget"] == budget
    rows = plate[plate["strategy"] != "control"]
    assert (rows["n_cells"] >= 20).all()
    assert plate["n_cells"].sum() <= 1200
    if strategy in ("exploit", "explore", "ei"):
        assert len(rows) == (6 if budget == 1e6 else min(len(rows), 6))
        assert len(rows) > 0
        # nothing more could have been paid: not even the cheapest that is left
        if budget < 1e6 and strategy != "exploit" and len(rows) < 6:
            left = min(p for gene, p in price.items() if gene not in set(names))
            spare = budget - rows["perturbation"].astype(str).map(price).sum() - left
            k = len(rows) + 1
            total = 1200 if cell == 0 else spare / cell
            each = (total - round(dunnett_controls(max(total, 0), k))) // k
            assert spare < 0 or each < 20


def test_equal_prices_do_not_change_what_is_explored(fitted):
    columns = ["perturbation", "n_cells", "strategy"]
    plain = planned(fitted, strategy="explore")["plate"]
    assert "cost" not in plain
    equal = planned(fitted, {"budget": 1e9, "perturbation": 3.0}, strategy="explore")["plate"]
    assert plain[columns].equals(equal[columns])


def test_gain_per_cost_chooses(fitted):
    price = dict.fromkeys(fitted.var_names, 10.0)
    costs = {"budget": 1e6, "perturbation": price}
    plate = planned(fitted, costs, strategy="exploit")["plate"]
    chosen = plate[plate["strategy"] == "exploit"]
    best = str(chosen["perturbation"].iloc[0])
    worth = chosen["probability_best"].to_numpy() / 10.0
    assert (np.diff(worth) <= 1e-12).all()
    # the best becomes dear: others of more gain per cost come before it
    costs["perturbation"] = price | {best: 1e5}
    plate = planned(fitted, costs, strategy="exploit")["plate"]
    assert str(plate["perturbation"].iloc[0]) != best
    costs["budget"] = 100.0
    names = planned(fitted, costs, strategy="exploit")["plate"]["perturbation"].astype(str)
    assert best not in set(names)


def test_the_most_informative_plate_per_price_is_full():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    left, noise = RemainingVariance(draws, np.ones(5)), np.full(5, 0.5)
    price = np.array([1.0, 4.0, 2.0, 0.5, 3.0])
    allowed = np.ones(5, bool)
    found = left.most_informative(1, noise, allowed=allowed, price=price)
    assert found == [int((left.gains(noise) / price).argmax())]
    budget = 3.0

    def fits(some):
        return price[some].sum() <= budget

    found = left.most_informative(5, noise, allowed=allowed, price=price, fits=fits)
    assert fits(found)
    for more in set(range(5)) - set(found):
        assert not fits([*found, more])
    same = left.most_informative(3, noise, allowed=allowed, price=np.full(5, 7.0))
    assert same == left.most_informative(3, noise, allowed=allowed)


def test_included_perturbations_have_to_be_paid(fitted):
    costs = {"budget": 100.0, "perturbation": 60.0}
    given = {"constraints": {"include": ["MYC"]}, "strategy": "exploit"}
    names = planned(fitted, costs, **given)["plate"]["perturbation"].astype(str)
    assert names.iloc[0] == "MYC"
    assert len(names) == 2  # and the controls
    given["constraints"] = {"include": ["MYC", "FOS"]}
    with pytest.raises(ValueError, match="include cost more"):
        planned(fitted, costs, **given)
    given["constraints"] = {"include": ["MYC"]}
    with pytest.raises(ValueError, match="include cost more"):
        planned(fitted, costs | {"budget": 59.5}, **given)


def test_the_report_shows_the_cost(fitted, tmp_path):
    costs = {"budget": 900.0, "perturbation": 60.0, "cell": 0.25}
    planned(fitted, costs, strategy="exploit")
    npt.report(fitted, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "of a budget of 900" in text
    assert ">cost<" in text.lower()


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"perturbation": 1.0}, "needs a budget"),
        ({"budget": 1.0, "cells": 1.0}, "unknown keys"),
        ({"budget": 0.0}, "budget"),
        ({"budget": 10.0, "cell": -1.0}, "cell"),
        ({"budget": 10.0, "perturbation": -1.0}, "perturbation"),
        ({"budget": 10.0, "perturbation": {"MYC": 1.0}}, "no cost of"),
        ({"budget": 10.0, "perturbation": 11.0}, "pays for no perturbation"),
        ({"budget": 10.0, "cell": 1.0}, "lower min_cells"),
    ],
)
def test_costs_that_cannot_be_used_are_refused(fitted, costs, message):
    with pytest.raises(ValueError, match=message):
        planned(fitted, costs)
    assert "plan" not in fitted.uns
