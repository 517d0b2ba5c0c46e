"""Draws given a target's numbers, if perturbations make the target (equation 31)."""

from types import SimpleNamespace

import numpy as np
import pytest

import nextpert.core.design.given_target as module
from nextpert.core.design.given_target import given_target
from nextpert.core.design.joint_draws import states_by_effects
from nextpert.core.model.effect_draws import VARIANCE, EffectDraws

N, P, DRAWS = 6, 40, 200
SD, OF_CONTROL, OF_TARGET = 0.3, 0.08, 0.05  # of states, of the controls' mean, of remainders


class World:
    """A posterior that is right: the truth is one more draw of it."""

    def __init__(self, seed, coefficients=None):
        rng = np.random.default_rng([seed, 31])
        self.expected = (rng.random((N, P)) < 0.2) * rng.normal(size=(N, P))
        centre = self.expected[:, :, None] + 0.6 * SD * rng.normal(size=(N, P, DRAWS))
        place = np.full((N, P, DRAWS), len(VARIANCE) - 1, np.int8)  # adds nothing
        precision = np.full((N, P), (0.8 * SD) ** -2, np.float32)
        self.effects = EffectDraws(
            np.ones(P), np.zeros((N, P)), precision, place, centre.astype(np.float32)
        )
        self.control = OF_CONTROL * rng.normal(size=(DRAWS, P))
        self.true_control = OF_CONTROL * rng.normal(size=P)
        effect = self.expected + SD * rng.normal(size=(N, P))
        self.states = self.true_control + effect
        change = (rng.random(P) < 0.2) * rng.normal(size=P)  # unrelated
        if coefficients is not None:
            change = coefficients @ effect
        self.target = self.true_control + change + OF_TARGET * rng.normal(size=P)

    def given(self):
        return given_target(self.target, self.effects, self.control, np.ones(P))

    def distances(self, given):
        """Return the mean over draws of squared distances, and those of expected states."""
        states = states_by_effects(self.effects, self.control, given_target=given)
        rng, total = np.random.default_rng(0), []
        for some in states.draws(DRAWS, rng):
            total += [((one.states - self.target) ** 2).sum(axis=1) for one in some.sampled(rng)]
        centre = ((states.mean - self.target) ** 2).sum(axis=1)
        return np.mean(total, axis=0)[:-1], centre[:-1]


@pytest.mark.parametrize("a", [[0, 0.8, 0, 0, 0, 0], [0.9, 0, 0, 0.6, 0, 0], [0, -0.5, 0, 0, 0, 0]])
def test_distances_to_a_target_that_perturbations_make_are_right(a):
    """Without the numbers, those of a target equal to a state were twice its variance."""
    a, off, before, found = np.array(a, float), [], [], []
    for seed in range(12):
        world = World(seed, a)
        given, true = world.given(), ((world.states - world.target) ** 2).sum(axis=1)
        off.append(world.distances(given)[0] - true)
        before.append(world.distances(None)[0] - true)
        found.append(given.coefficients.mean(axis=0))
    made, off, before = a != 0, np.array(off), np.array(before)
    np.testing.assert_allclose(np.mean(found, axis=0), a, atol=0.12)
    error = off.std(axis=0, ddof=1) / np.sqrt(len(off))
    assert (np.abs(off.mean(axis=0)) < 3.5 * error + 0.1).all()
    if (a >= 0).all():
        assert (before.mean(axis=0)[made] > 4 * np.abs(off.mean(axis=0)[made])).all()


def test_no_perturbation_makes_an_unrelated_target():
    some = [World(seed).given().coefficients != 0 for seed in range(12)]
    assert np.mean(some) < 0.1


def test_expected_states_and_own_parts_follow_the_draws():
    world = World(0, np.array([0, 0.8, 0, 0, 0, 0]))
    given = world.given()
    states = states_by_effects(world.effects, world.control, [1, 0], given_target=given)
    drawn = list(states.draws(DRAWS, np.random.default_rng(0)))
    assert len(drawn) == DRAWS
    mean = np.mean([one.states[0] for one in drawn], axis=0)
    np.testing.assert_allclose(states.mean[0], mean, atol=5 * SD / np.sqrt(DRAWS))
    # Complete in draws in which it makes the target, so that nothing of it remains to be drawn.
    makes = np.array([1 in one for one in given.states])
    assert makes.mean() > 0.9
    np.testing.assert_array_equal([not one.spread[0].any() for one in drawn], makes)
    assert all(one.spread[1].all() for k, one in enumerate(drawn) if 0 not in given.states[k])


def test_few_genes_say_nothing():
    world = World(0)
    numbers = np.where(np.arange(P) < 9, world.target, np.nan)
    assert given_target(numbers, world.effects, world.control, np.ones(P)) is None


def test_a_perturbation_that_others_make_is_estimated_from_them_too():
    """Its distance to the perturbation that makes it contained the errors of both."""
    off, before, errors = [], [], []
    for seed in range(16):
        world = World(seed)
        rng, row = np.random.default_rng([seed, 7]), N - 1
        true = world.true_control + 0.9 * (world.states[1] - world.true_control)
        cells = true + SD * rng.normal(size=P)  # the row's posterior has this mean and variance
        centre = np.array(world.effects.centre)
        centre[row] += (cells - centre[row].mean(axis=1))[:, None]
        effects = EffectDraws(
            np.ones(P), np.zeros((N, P)), world.effects.precision, world.effects.place, centre
        )
        given = given_target(
            cells, effects, world.control, np.ones(P), noise=np.full(P, SD**2), row=row
        )
        distance = ((world.states[1] - true) ** 2).sum()
        for found, out in ((given, off), (None, before)):
            states = states_by_effects(effects, world.control, given_target=found)
            drawn = [
                one.states
                for some in states.draws(DRAWS, rng)
                for one in some.sampled(np.random.default_rng(0))
            ]
            out.append(np.mean([((x[1] - x[row]) ** 2).sum() for x in drawn]) - distance)
            if found is not None:
                mean = np.mean(drawn, axis=0)[row]
                np.testing.assert_allclose(states.mean[row], mean, atol=6 * SD / np.sqrt(DRAWS))
                errors.append(((states.mean[row] - true) ** 2).mean())
        assert not given.coefficients[:, row].any()
        departure = world.control - world.control.mean(axis=0)
        assert set(given.slope) == set(given.change)
        for j, slope in given.slope.items():
            along = (centre[j].T * departure).sum(axis=0) / (departure**2).sum(axis=0)
            np.testing.assert_allclose(slope, 1 + along, rtol=1e-5, atol=1e-6)
    assert np.mean(before) > 2
    assert abs(np.mean(off)) < 0.25 * np.mean(before)
    assert np.mean(errors) < 0.8 * SD**2  # both kinds of cells


def test_of_many_perturbations_those_most_alike_to_the_target_may_make_it(monkeypatch):
    monkeypatch.setattr(module, "_MAX_PERTURBATIONS", 2)
    rng = np.random.default_rng(0)
    mean, control, unit = rng.normal(size=(6, 4)), rng.normal(size=(3, 4)), rng.uniform(1, 2, 4)
    blocks = [(slice(0, 4), np.arange(4)), (slice(4, 6), np.arange(4, 6))]
    effects = SimpleNamespace(
        expected=mean, blocks=lambda: blocks, posterior_mean=lambda index: mean[index].copy()
    )
    numbers = control.mean(axis=0) + mean[5] + 0.1 * mean[1]
    numbers[2] = np.nan
    change = np.where(np.isnan(numbers), 0.0, numbers - control.mean(axis=0)) / unit
    alike = [np.dot(change, row) ** 2 / np.dot(row, row) for row in mean / unit]
    wanted = sorted(np.argsort(alike)[-2:].tolist())
    assert module._most_similar(numbers, effects, control, unit).tolist() == wanted
    monkeypatch.setattr(module, "_MAX_PERTURBATIONS", 6)
    assert module._most_similar(numbers, effects, control, unit).tolist() == list(range(6))
