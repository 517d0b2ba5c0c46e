"""What the ranking goes by, and what is said where no candidate is worth trying."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.study.ranking import candidates_of, rank
from tests._screens import small_fit

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")


@pytest.fixture
def fitted():
    return small_fit(genes=None, shift_sd=0)


def designed(adata, target, **options):
    genes = posterior_from(adata).genes if options.pop("candidates", None) else []
    names = list(dict.fromkeys([*posterior_from(adata).names, *genes]))
    npt.tl.design_interventions(adata, target, candidates=names, **options)
    return candidates_of(adata.uns["design"]["ranking"])


def test_the_most_probably_nearest_comes_first(fitted, caplog, capsys):
    with caplog.at_level(logging.INFO, "nextpert"):
        table = designed(fitted, "STK3", candidates="genes", n_cells=10, acquisition="probability")
    assert table["acquisition"].tolist() == (-table["probability_best"]).tolist()
    assert table["acquisition"].is_monotonic_increasing
    never = table[table["probability_best"] == 0]
    assert len(never) > 2
    assert never["state_distance"].is_monotonic_increasing
    assert table["perturbation"].iloc[0] == "STK3"
    assert table["relative_distance"].iloc[0] < 1
    assert "STK3 ranks first of" in caplog.text


def test_a_flat_acquisition_does_not_sort(fitted, caplog, capsys):
    with caplog.at_level(logging.WARNING, "nextpert"):
        table = designed(fitted, "MYC", acquisition="civ", n_cells=1, candidates="genes")
    assert "ranked by state_distance" in caplog.text
    assert np.ptp(table["variance_reduction"]) < 0.01
    assert table["state_distance"].is_monotonic_increasing
    assert not table["acquisition"].is_monotonic_increasing
    stored = fitted.uns["design"]
    assert stored["trace"]["chosen"].iloc[-1] == table["perturbation"].iloc[0]
    # The rows of the other parts follow the ranking.
    myc = table.index[table["perturbation"] == "MYC"][0]
    shift = stored["shifts"].toarray()[myc]
    assert np.flatnonzero(shift).tolist() == [list(stored["genes"]).index("MYC")]


def as_near_by_hand(draws, counted, share):
    """The share of draws in which no counted column is nearer by more than a tolerance."""
    tolerance = share * max(draws[:, -1].mean(), 0.0)
    found = np.zeros(draws.shape[1])
    for j in counted:
        is_near = [all(row[j] - row[k] <= tolerance for k in counted) for row in draws]
        found[j] = np.mean(is_near)
    return found


@pytest.mark.parametrize("tolerance", [0.1, 0.125])
def test_being_as_near_is_stored_by_tolerance(fitted, monkeypatch, tolerance):
    rankings = []

    def kept(*args, **options):
        ranking = rank(*args, **options)
        ranking.admitted[-1] = False
        rankings.append(ranking)
        return ranking

    monkeypatch.setattr("nextpert.tl._design_interventions.rank", kept)
    options = {"n_samples": 40, "stopping": {"tolerance": tolerance}}
    designed(fitted, {"GATA1": 0.2, "STK3": 0.1}, candidates="genes", **options)
    stored, (ranking,) = fitted.uns["design"], rankings
    tolerances = stored["as_near"]["tolerances"]
    np.testing.assert_allclose(tolerances, sorted({*np.arange(51) / 100, tolerance}))
    names = [*ranking.pool.candidates.names, fitted.uns["dag_blr"]["params"]["control"]]
    rows = [names.index(name) for name in stored["ranking"]["perturbation"]]
    counted = [j for j in range(len(names)) if j != len(names) - 2]
    for share in (0.0, tolerance, 0.5):
        by_hand = as_near_by_hand(ranking.draws.distances.draws, counted, share)
        column = int(np.argmin(np.abs(tolerances - share)))
        found = stored["as_near"]["probabilities"][:, column]
        np.testing.assert_array_equal(found, by_hand[rows])
    assert ((by_hand > 0) & (by_hand < 1)).any()
    assert (np.diff(stored["as_near"]["probabilities"], axis=1) >= 0).all()
