"""CIV with uncertain shifts: dense regressions, exact shifts, draws, graphs, large pools."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nextpert.core.design.uncertain_civ import UncertainCiv
from nextpert.core.model.shift_posterior import ShiftPosterior

from nextpert.core import Civ, CivOw, Dag, DagBlr, Greedy, Pool

TARGET = np.array([0.5, -0.3, 1.0, 0.2])


def terms(model, covs, target, n):
    """``s`` and the expected terms of every gap, (n_perturbations, p), by dense algebra."""
    s, off = np.empty((2, len(model.n), model.p))
    for i in range(model.p):
        for j in range(len(model.n)):
            h = model.row(target, i, j)
            s[j, i] = 1 / n + h @ covs[i] @ h
            wanted = target[i] - model.effect[j, i]
            off[j, i] = model.prior[j, i] + h @ model.mean[i] - wanted
    return s, off


def states(model):
    """Expected means of every perturbation by a dense inverse."""
    b, source = np.zeros((model.p, model.p)), model.prior.copy()
    for i, k in enumerate(model.parents):
        b[i, k] = model.mean[i][1 : 1 + len(k)]
        source[:, i] += model.mean[i][0] + model.mean[i][1 + len(k) :]
    return source @ np.linalg.inv(np.eye(model.p) - b).T + model.effect, b


def ahead(model, j, n, noise_aware):
    """Covariances of weights and shifts after ``n`` cells of perturbation ``j``."""
    return told(model, settled(model, n, noise_aware), j, n)


def settled(model, n, noise_aware):
    """Covariances of weights and shifts after the scatter of ``n`` cells, if it is to count."""
    _, b = states(model)
    effects = np.linalg.inv(np.eye(model.p) - b)
    scatter = effects @ np.diag(model.rate / (model.shape - 1)) @ effects.T
    covs = []
    for i, k in enumerate(model.parents):
        cov, noise = model.cov[i], np.zeros_like(model.cov[i])
        if noise_aware:
            noise[1 : 1 + len(k), 1 : 1 + len(k)] = n * scatter[np.ix_(k, k)]
            cov = np.linalg.solve(np.eye(len(cov)) + cov @ noise, cov)
        covs.append(cov)
    return covs


def told(model, before, j, n):
    """Covariances of weights and shifts after the mean of ``n`` cells of perturbation ``j``."""
    x, _ = states(model)
    covs = []
    for i, cov in enumerate(before):
        row = model.row(x[j], i, j)
        covs.append(cov - np.outer(cov @ row, row @ cov) / (1 / n + row @ cov @ row))
    return covs


def noise_terms(model, n, noise_aware):
    """``e`` and ``kappa`` after ``n`` cells, by the moments of an inverse gamma."""
    shape = model.shape + n / 2
    rate = model.rate + (n / 2 * model.rate / (model.shape - 1) if noise_aware else 0)
    e = rate / (shape - 1)
    variance = e**2 / (shape - 2)
    return e, 2 * (e**2 + variance) + variance


def dense_gaps(model, target, n, noise_aware, j=None):
    """Mean and variance of every candidate's gap after cells of ``j``; now, for ``None``."""
    covs = model.cov if j is None else ahead(model, j, n, noise_aware)
    e, kappa = noise_terms(model, n, noise_aware)
    s, off = terms(model, covs, target, n)
    return (e * s + off**2).sum(axis=1), (kappa * s**2 + 4 * e * s * off**2).sum(axis=1)


@pytest.mark.parametrize("n", [3, 100])
@pytest.mark.parametrize("noise_aware", [False, True])
@pytest.mark.parametrize("effects", [False, True])
def test_values_by_dense_regressions(n, noise_aware, effects, uncertain):
    model = uncertain(2, effects=effects)
    found = UncertainCiv(model.blr, model.known, TARGET, n_cells=n, noise_aware=noise_aware)
    wanted = [dense_gaps(model, TARGET, n, noise_aware, j)[1].mean() for j in range(5)]
    np.testing.assert_allclose(found.values(), wanted, rtol=1e-8)
    now = dense_gaps(model, TARGET, n, noise_aware)[1].mean()
    removed = (now - np.array(wanted)) / (now - found.floor)
    np.testing.assert_allclose(found.variance_reduction(), removed, rtol=1e-7)
    assert (removed > 0).all()
    assert np.ptp(removed) > 0.01


def test_weights_of_candidates(uncertain):
    model = uncertain(2)
    weights = np.array([0.0, 2.0, 0.0, 1.0, 1.0])
    found = UncertainCiv(model.blr, model.known, TARGET, n_cells=3, weights=weights)
    gaps = [dense_gaps(model, TARGET, 3, False, j)[1] for j in range(5)]
    np.testing.assert_allclose(found.values(), np.array(gaps) @ weights / 4, rtol=1e-8)
    few = UncertainCiv(
        model.blr, model.known, TARGET, n_cells=3, weights=weights, n_average=3, rng=0
    )
    np.testing.assert_allclose(few.values(), found.values(), rtol=1e-8)
    for bad in ([0.0] * 5, [-1.0, 1, 1, 1, 1]):
        with pytest.raises(ValueError, match="weights of candidates must be 0 or more"):
            UncertainCiv(model.blr, model.known, TARGET, weights=bad)


def test_output_weights_are_those_of_the_expected_gaps(uncertain):
    model = uncertain(2)
    _, off = terms(model, model.cov, TARGET, 1)
    weights = Pool(off).output_weights(np.zeros(4))
    found = UncertainCiv(model.blr, model.known, TARGET, n_cells=5, output_weighted=True)
    wanted = [weights @ dense_gaps(model, TARGET, 5, False, j)[1] for j in range(5)]
    np.testing.assert_allclose(found.values(), wanted, rtol=1e-8)


def test_moments_of_gaps_by_draws(uncertain):
    model = uncertain(0)
    n, count, rng = 4, 200_000, np.random.default_rng(0)
    noise = 1 / rng.gamma(model.shape, 1 / model.rate, size=(count, 4))
    gaps = np.zeros((count, 5))
    for i in range(4):
        draws = rng.multivariate_normal(np.zeros(len(model.mean[i])), model.cov[i], size=count)
        draws = model.mean[i] + np.sqrt(noise[:, i : i + 1]) * draws
        for j in range(5):
            cells = np.sqrt(noise[:, i] / n) * rng.normal(size=count)
            term = model.prior[j, i] - TARGET[i] + draws @ model.row(TARGET, i, j) + cells
            gaps[:, j] += term**2
    mean, variance = UncertainCiv(model.blr, model.known, TARGET, n_cells=n).gap_moments()
    assert (np.abs(gaps.mean(axis=0) - mean) < 5 * gaps.std(axis=0) / np.sqrt(count)).all()
    square = (gaps - gaps.mean(axis=0)) ** 2
    error = square.std(axis=0) / np.sqrt(count)
    assert (np.abs(square.mean(axis=0) - variance) < 5 * error).all()
    assert (error < 0.05 * variance).all()


@pytest.mark.parametrize("noise_aware", [False, True])
@pytest.mark.parametrize("measured", [False, True])
def test_exact_shifts_are_civ_over_a_pool(noise_aware, measured, fitted):
    plain, blr = fitted
    rng = np.random.default_rng(4)
    pool, target = rng.normal(size=(6, plain.p)), rng.normal(size=plain.p)
    known = ShiftPosterior.exact(pool)
    if measured:  # cells of exact shifts say nothing of them
        known = ShiftPosterior(np.full(6, 9.0), rng.normal(size=pool.shape), *_rest(known))
    options = {"n_cells": 20, "noise_aware": noise_aware}
    for weighted, kind in ((False, Civ), (True, CivOw)):
        found = UncertainCiv(blr, known, target, output_weighted=weighted, **options)
        wanted = kind(blr, target, domain=Pool(pool), **options)
        np.testing.assert_allclose(found.values(), wanted.values(pool), rtol=1e-10)
        np.testing.assert_allclose(
            found.variance_reduction(), wanted.variance_reduction(pool), rtol=1e-7, atol=1e-10
        )
        assert found.floor == pytest.approx(wanted.floor, rel=1e-10)
    gap = UncertainCiv(blr, known, target).gap_moments()[0]
    greedy = Greedy(blr, target).values(pool)
    np.testing.assert_allclose(gap - gap[0], greedy - greedy[0], rtol=1e-8, atol=1e-10)


def _rest(known):
    return known.prior, known.share, known.spare


def several(uncertain, exact=False):
    """The same candidates under three graphs, with shifts of their own."""
    graphs = ([[], [0], [0, 1], [2]], [[1], [], [1], [0, 2]], [[3], [2], [], [2]])
    return [uncertain(0, exact=exact, parents=parents) for parents in graphs]


@pytest.mark.parametrize("weighted", [False, True])
def test_between_graphs_by_dense_regressions(weighted, uncertain):
    models, n = several(uncertain), 6
    found = UncertainCiv(
        [m.blr for m in models], [m.known for m in models], TARGET, n_cells=n,
        output_weighted=weighted,
    )  # fmt: skip
    off = np.mean([terms(m, m.cov, TARGET, n)[1] for m in models], axis=0)
    weights = Pool(off).output_weights(np.zeros(4)) if weighted else np.full(5, 0.2)
    for j, value in enumerate(found.values()):
        means, variances = zip(*[dense_gaps(m, TARGET, n, False, j) for m in models], strict=True)
        within, between = weights @ np.mean(variances, axis=0), weights @ np.var(means, axis=0)
        assert value == pytest.approx(within + between, rel=1e-8)
        assert between > 0.1 * value  # so that it cannot be left out unseen
    moments = [UncertainCiv(m.blr, m.known, TARGET, n_cells=n).gap_moments() for m in models]
    mean, variance = found.gap_moments()
    np.testing.assert_allclose(mean, np.mean([m for m, _ in moments], axis=0))
    between = np.var([m for m, _ in moments], axis=0)
    np.testing.assert_allclose(variance, np.mean([v for _, v in moments], axis=0) + between)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_average", [1000, 2])
def test_a_weight_of_two_is_a_graph_that_comes_twice(weighted, n_average, uncertain):
    first, second = several(uncertain)[:2]
    heavy = replace(first.known, weight=2.0)
    options = {"n_cells": 6, "output_weighted": weighted, "n_average": n_average, "rng": 0}
    found = UncertainCiv([first.blr, second.blr], [heavy, second.known], TARGET, **options)
    twice = UncertainCiv(
        [m.blr for m in (first, first, second)], [m.known for m in (first, first, second)],
        TARGET, **options,
    )  # fmt: skip
    np.testing.assert_allclose(found.values(), twice.values(), rtol=1e-10)
    np.testing.assert_allclose(found.variance_reduction(), twice.variance_reduction(), rtol=1e-8)
    for mine, other in zip(found.gap_moments(), twice.gap_moments(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-10)
    np.testing.assert_array_equal(found.plate(3)[0], twice.plate(3)[0])


def test_gaps_of_other_groups_are_not_compared(uncertain):
    first, second = several(uncertain)[:2]
    empty = DagBlr(Dag.from_edges(4, []), noise_var=1.0)
    alone = replace(first.known, effect=None, weight=0.5, group=1)
    both = UncertainCiv([first.blr, second.blr], [first.known, second.known], TARGET, n_cells=6)
    found = UncertainCiv(
        [first.blr, second.blr, empty],
        [replace(m.known, weight=0.25) for m in (first, second)] + [alone], TARGET, n_cells=6,
    )  # fmt: skip
    single = UncertainCiv(empty, alone, TARGET, n_cells=6)
    expected = (both.values() + single.values()) / 2
    np.testing.assert_allclose(found.values(), expected, rtol=1e-10)


def test_measuring_a_candidate_again_is_worth_what_its_shift_is_unknown(uncertain):
    blr = uncertain().blr
    prior, zero = np.zeros((3, 4)), np.zeros((3, 4))
    spare = zero.copy()
    spare[1] = 5.0
    known = ShiftPosterior(np.zeros(3), zero, prior, zero, spare)
    removed = UncertainCiv(blr, known, TARGET, n_cells=50).variance_reduction()
    assert removed.argmax() == 1
    assert removed[1] > 0.5 > 3 * removed[0]


@pytest.mark.parametrize("noise_aware", [False, True])
@pytest.mark.parametrize("effects", [False, True])
def test_a_plate_by_dense_regressions(noise_aware, effects, uncertain):
    models, n = [uncertain(seed, effects=effects) for seed in (3, 4)], 15
    civ = UncertainCiv(
        [m.blr for m in models], [m.known for m in models], TARGET, n_cells=n,
        noise_aware=noise_aware,
    )  # fmt: skip
    chosen, removed = civ.plate(4)
    assert len(set(chosen.tolist())) == 4
    for k in range(4):
        values, left = np.full(5, np.inf), np.empty(5)
        total = n * (k + 1)
        for j in set(range(5)) - set(chosen[:k].tolist()):
            means, variances = [], []
            for m in models:
                covs = settled(m, total, noise_aware)
                for old in [*chosen[:k], j]:
                    covs = told(m, covs, old, n)
                e, kappa = noise_terms(m, total, noise_aware)
                s, off = terms(m, covs, TARGET, n)
                means.append((e * s + off**2).sum(axis=1))
                variances.append((kappa * s**2 + 4 * e * s * off**2).sum(axis=1))
            values[j] = np.mean(np.mean(variances, axis=0) + np.var(means, axis=0))
            left[j] = np.mean(variances)
        assert values.argmin() == chosen[k]
        now, floor = 0.0, 0.0
        for m in models:
            e, kappa = noise_terms(m, total, noise_aware)
            s, off = terms(m, m.cov, TARGET, n)
            now += (kappa * s**2 + 4 * e * s * off**2).sum(axis=1).mean() / 2
            floor += (kappa / n**2 + 4 * e / n * off**2).sum(axis=1).mean() / 2
        wanted = (now - left[chosen[k]]) / (now - floor)
        assert removed[k] == pytest.approx(wanted, rel=1e-7)
    assert (np.diff(removed) > 0).all()
    assert civ.plate(9)[0].tolist()[:4] == chosen.tolist()
    np.testing.assert_array_equal(civ.values(), civ.values())  # the plate left nothing behind


@pytest.mark.parametrize("effects", [False, True])
def test_any_cells_of_any_candidates_by_dense_regressions(effects, uncertain):
    models, n = [uncertain(seed, effects=effects) for seed in (3, 4)], 15
    blrs, known = [m.blr for m in models], [m.known for m in models]
    weights = np.array([1.0, 0.0, 2.0, 1.0, 0.5])
    civ = UncertainCiv(blrs, known, TARGET, n_cells=n, noise_aware=True, weights=weights)

    def left(cells, total):
        """The average variance of the gaps after the cells, mean over graphs, by dense algebra."""
        found = []
        for model in models:
            covs = settled(model, total, True)
            for j in np.flatnonzero(cells):
                covs = told(model, covs, j, cells[j])
            e, kappa = noise_terms(model, total, True)
            s, off = terms(model, covs, TARGET, n)
            found.append(weights @ (kappa * s**2 + 4 * e * s * off**2).sum(axis=1) / 4.5)
        return np.mean(found)

    plates = np.array([[0, 0, 0, 0, 0], [7, 0, 30, 0, 0], [0, 2, 0, 9, 9], [5, 5, 5, 5, 5]])
    for cells in plates:
        total = max(cells.sum(), 4)
        after = civ.after(cells, total)
        assert after.before - after.value == pytest.approx(after.variance_reduction * after.before)
        more = [left(cells + 6 * np.eye(5)[j], total) - left(cells, total) for j in (3, 0)]
        np.testing.assert_allclose(after.changes([3, 0], 6), more, rtol=1e-6)
        slopes = after.slopes([3, 0])
        few = [left(cells + 1e-3 * np.eye(5)[j], total) - left(cells, total) for j in (3, 0)]
        np.testing.assert_allclose(slopes, np.array(few) / 1e-3, rtol=1e-2)
    one, two = (civ.after(cells, 40).value for cells in plates[1:3])
    assert one - two == pytest.approx(left(plates[1], 40) - left(plates[2], 40), rel=1e-8)
    with pytest.raises(ValueError, match="0 or more"):
        civ.after([-1.0, 0, 0, 0, 0])
    far = UncertainCiv(blrs, known, 1e80 * TARGET, n_cells=n)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="lie too far apart"):
        _ = far.after(np.ones(5)).value


def test_cells_assumed_of_a_sole_candidate_leave_the_shifts_as_they_were(uncertain):
    model = uncertain()
    spare = np.full((1, 4), 0.5)
    known = ShiftPosterior(np.zeros(1), np.zeros((1, 4)), np.ones((1, 4)), 0 * spare, spare)
    removed = UncertainCiv(model.blr, known, TARGET, n_cells=5).variance_reduction_after([0])
    assert (spare == 0.5).all()
    assert removed[0] > 0


def test_the_order_of_candidates_does_not_matter(uncertain):
    model, order = uncertain(), [3, 4, 2, 1, 0]
    known = model.known
    back = ShiftPosterior(
        *(getattr(known, name)[order] for name in ("n", "mean", "prior", "share", "spare"))
    )
    civ, other = (UncertainCiv(model.blr, k, TARGET, n_cells=15) for k in (known, back))
    np.testing.assert_allclose(other.values(), civ.values()[order], rtol=1e-12)
    (chosen, removed), (there, again) = civ.plate(5), other.plate(5)
    assert there[0] == 0  # it stood for all without cells
    assert [order[j] for j in there] == chosen.tolist()
    np.testing.assert_allclose(again, removed, rtol=1e-10)


def _large(seed, n_measured=60, n_other=20):
    """A posterior and a pool of candidates with cells and without."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(100, 3)) @ np.array([[1, 0.8, 0.3], [0, 1, 0.9], [0, 0, 1]])
    from nextpert.core import Moments

    blr = DagBlr(Dag.from_edges(3, [(0, 1), (0, 2), (1, 2)])).update(Moments.from_array(x))
    m, n = n_measured + n_other, np.repeat([20.0, 0.0], [n_measured, n_other])[:, None]
    tau2 = rng.uniform(0, 0.3, size=(m, 3))
    spare = tau2 / (1 + n * tau2)
    known = ShiftPosterior(
        n[:, 0], rng.normal(size=(m, 3)), rng.normal(size=(m, 3)), n * spare, spare
    )
    return blr, known


@pytest.mark.parametrize("several", [False, True])
def test_of_a_large_pool_a_part_stands_for_the_rest_without_bias(several):
    pairs = [_large(seed) for seed in range(2 if several else 1)]
    blrs, known = [b for b, _ in pairs], [k for _, k in pairs]
    target = np.array([0.3, 0.0, -0.5])
    whole = UncertainCiv(blrs, known, target, n_cells=10)
    parts = [
        UncertainCiv(blrs, known, target, n_cells=10, n_average=15, rng=seed) for seed in range(300)
    ]
    values = np.array([part.values() for part in parts])
    error = values.std(axis=0) / np.sqrt(len(values))
    assert (np.abs(values.mean(axis=0) - whole.values()) < 5 * error).all()
    assert (values.std(axis=0) > 0).all()
    # what is left out shifts all candidates alike: the order is nearly that of the whole pool
    order = [np.corrcoef(v, whole.values())[0, 1] for v in values]
    assert np.mean(order) > 0.95
    again = UncertainCiv(blrs, known, target, n_cells=10, n_average=15, rng=3).values()
    np.testing.assert_array_equal(again, values[3])


def test_bad_input_is_refused(uncertain):
    model = uncertain()
    none = ShiftPosterior.exact(np.empty((0, 4)))
    for shifts, options, message in (
        (none, {}, "at least one"),
        (model.known, {"n_cells": 0}, "n_cells"),
        (model.known, {"n_average": 1}, "n_average"),
        (ShiftPosterior.exact(np.ones((1, 3))), {}, "has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            UncertainCiv(model.blr, shifts, TARGET, **options)
    with pytest.raises(ValueError, match="target_mean"):
        UncertainCiv(model.blr, model.known, TARGET[:2])
    fresh = DagBlr(Dag.from_edges(4, []), prior_scale=1.0, prior_rate=1.0)
    with pytest.raises(ValueError, match="infinite"):
        UncertainCiv(fresh, model.known, TARGET).gap_moments()
