"""What plates are chosen by, against the posterior it stands for."""

import numpy as np
import pytest

from nextpert.core import Dag, ScreenMoments
from nextpert.core.effects.shift_prior import TAU2, UNSEEN_WEIGHTS
from nextpert.core.loop import strategies
from nextpert.core.loop.strategies import build_strategy

P, J = 30, 6


@pytest.fixture
def run():
    """A strategy that has seen 3 of 6 candidates; that of number 4 knocks out gene 4, as all do."""
    rng, group = np.random.default_rng(0), np.repeat([0, 1, 2, 3], [100, 20, 20, 20])
    mean = np.full(P, 2.0)
    x = rng.normal(mean, 0.5, (len(group), P))
    for j in (1, 2, 3):
        x[group == j, j - 1] -= 1.5
    target = mean - 1.5 * (np.arange(P) == 4)
    full = np.where(np.arange(P) == np.arange(J)[:, None], -2.0, 0.0)
    found = build_strategy("best", target, full, Dag.from_edges(P, []), 10, rng)
    found.see(ScreenMoments.from_array(x, group, J + 1))
    return found


def test_draws_have_the_variance_of_the_states_along_the_gap(run, monkeypatch):
    monkeypatch.setattr(strategies, "_DRAWS", 20_000)
    _, draws = run._distances()
    known, posterior = run.known, run.posterior
    gap = known.states(posterior) - run.target.states[0]
    np.testing.assert_allclose(run._centre(), (gap**2).sum(axis=1))
    # No arcs: a state is what the cells' mean, the intercept and the shift's rest add up to.
    intercept = posterior.blocks["cov"] * posterior.noise_var
    variance = known.spare * posterior.noise_var + (1 - known.share) ** 2 * intercept
    np.testing.assert_allclose(draws.var(axis=0), 4 * (gap**2 * variance).sum(axis=1), rtol=0.1)
    error = 5 * np.sqrt(draws.var(axis=0) / len(draws))
    assert (np.abs(draws.mean(axis=0) - run._centre()) < error).all()


def test_an_own_gene_of_the_learned_efficacy_puts_a_candidate_first(run):
    plate = run.plate(np.arange(J), 2)
    assert plate[0] == run.recommend() == 4


def test_nothing_seen_expects_effects_of_the_usual_size():
    assert UNSEEN_WEIGHTS.sum() == pytest.approx(1)
    assert 0.05 < UNSEEN_WEIGHTS @ TAU2 < 0.2
    assert (np.diff(UNSEEN_WEIGHTS) <= 0).all()


def test_a_gene_that_is_hardly_there_says_nothing_of_the_efficacy():
    rng, group = np.random.default_rng(0), np.repeat([0, 1, 2], [100, 20, 20])
    x = rng.normal(np.where(np.arange(P) == 1, 0.01, 2.0), 0.5, (140, P))
    x[group == 1, 0] -= 1.6
    full = np.zeros((2, P))
    full[0, 0], full[1, 1] = -2.0, -0.01

    def expected(drop):
        cells = x - drop * (group == 2)[:, None] * (np.arange(P) == 1)
        found = build_strategy("best", np.zeros(P), full, Dag.from_edges(P, []), 10, rng)
        found.see(ScreenMoments.from_array(cells, group, 3))
        return found.prior

    one, other = expected(0.0), expected(3.0)
    np.testing.assert_allclose(one.shift[0, 0], other.shift[0, 0])
    assert np.isnan(one.own[1, 1])
    assert one.own[0, 0] > 0
