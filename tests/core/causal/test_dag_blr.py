"""The posterior against dense updates from cells, Student-t densities, quadrature and draws."""

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, Moments, random_scm


def environments(parents, cells, intercept, rng):
    p = len(parents)
    first, second = rng.normal(size=p), rng.normal(size=p)
    return [
        (cells(parents, rng, 25, intercept=intercept), np.zeros(p)),
        (cells(parents, rng, 12, first, intercept=intercept), first),
        (cells(parents, rng, 1, second, intercept=intercept), second),
    ]


def feed(blr, batches):
    for x, shift in batches:
        blr = blr.update(Moments.from_array(x), shift)
    return blr


def assert_same_posterior(one, two, rtol):
    for name in ("cov", "weights", "residual", "logdet"):
        a, b = one.blocks[name], two.blocks[name]
        scale = np.abs(b).max(initial=1e-300)
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=rtol, err_msg=name)
    np.testing.assert_allclose(one.log_evidence(), two.log_evidence(), rtol=rtol)
    np.testing.assert_allclose(one.rate, two.rate, rtol=rtol)
    np.testing.assert_array_equal(one.shape, two.shape)


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_posterior_equals_the_dense_update_from_cells(
    parents, intercept, known, scale, dense, cells
):
    rng = np.random.default_rng(5)
    p = len(parents)
    noise = rng.uniform(0.2, 2, p) if known else None
    data = environments(parents, cells, intercept, rng)
    settings = {"intercept": intercept, "noise_var": noise}
    plain = dense(parents, scale=scale, shape=3.5, rate=0.2, **settings).fit(data)
    blr = feed(
        DagBlr(
            Dag.from_parents(parents),
            prior_scale=scale,
            prior_shape=3.5,
            prior_rate=0.2,
            **settings,
        ),
        data,
    )
    for i in range(p):
        d = blr.vptr[i + 1] - blr.vptr[i]
        cov = blr.blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]].reshape(d, d)
        np.testing.assert_allclose(cov, plain.cov[i], rtol=1e-9, atol=1e-12)
        weights = blr.blocks["weights"][blr.vptr[i] : blr.vptr[i + 1]]
        np.testing.assert_allclose(weights, plain.mean[i], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(blr.mean().toarray(), plain.weights, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(blr.intercept_mean, plain.offset, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(blr.rate, plain.rate, rtol=1e-9)
    np.testing.assert_allclose(blr.shape, plain.shape, rtol=1e-15)
    mean, variance = plain.noise_moments()
    np.testing.assert_allclose(blr.noise_var, mean, rtol=1e-9)
    e, kappa = blr.spread()
    np.testing.assert_allclose(e, mean, rtol=1e-9)
    # Var(sigma^2 s z^2) over sigma^2 and z: 2 E sigma^4 + Var sigma^2
    np.testing.assert_allclose(kappa, 2 * (mean**2 + variance) + variance, rtol=1e-9)
    targets = rng.normal(size=(3, p))
    np.testing.assert_allclose(
        blr.predict_mean(targets), [plain.reached(a) for a in targets], rtol=1e-8, atol=1e-10
    )
    np.testing.assert_allclose(
        blr.predict_mean(targets[0]), plain.reached(targets[0]), rtol=1e-8, atol=1e-10
    )
    np.testing.assert_allclose(
        blr.ideal_shift(targets[0]), plain.ideal(targets[0]), rtol=1e-8, atol=1e-10
    )


def test_many_updates_equal_one_batch(parents, intercept, known, cells):
    rng = np.random.default_rng(2)
    p = len(parents)
    shift = rng.normal(size=p)
    x = cells(parents, rng, 60, shift, intercept=intercept)
    fresh = DagBlr(
        Dag.from_parents(parents),
        intercept=intercept,
        noise_var=0.8 if known else None,
        prior_scale=0.5,
    )
    batch = fresh.update(Moments.from_array(x), shift)
    parts = fresh
    for chunk in np.array_split(x, 7):
        parts = parts.update(Moments.from_array(chunk), shift)
    one_by_one, ranked = fresh, 0
    for row in x:
        _ = one_by_one.blocks  # so that the cell takes the rank-one path
        one_by_one = one_by_one.update(Moments.from_array(row[None]), shift)
        ranked += one_by_one._blocks is not None
    assert ranked >= 59
    assert_same_posterior(parts, batch, 1e-10)
    assert_same_posterior(one_by_one, batch, 1e-10)
    again = one_by_one.solve_blocks(one_by_one.blocks["precision"])
    np.testing.assert_allclose(one_by_one.blocks["cov"], again["cov"], rtol=0, atol=1e-10)


def test_the_first_cell_under_an_intercept_keeps_its_digits(cells, graphs):
    # The prior variance of an intercept is 1e6: a rank-one update would leave 1e-10 of it.
    parents = graphs["complete"]
    x = cells(parents, np.random.default_rng(0), 4, intercept=True)
    blr = DagBlr(Dag.from_parents(parents), prior_scale=1.0)
    for row in x:
        _ = blr.blocks
        blr = blr.update(Moments.from_array(row[None]))
        plain = blr.solve_blocks(blr.blocks["precision"])
        for name in ("cov", "weights"):
            np.testing.assert_allclose(blr.blocks[name], plain[name], rtol=0, atol=1e-11)


def test_a_stored_posterior_comes_back_bit_for_bit(parents, intercept, known, cells):
    rng = np.random.default_rng(6)
    for scale in ("evidence", 0.7):
        blr = DagBlr(
            Dag.from_parents(parents),
            intercept=intercept,
            noise_var=0.9 if known else None,
            prior_scale=scale,
            prior_shape=2.2,
            prior_rate=0.02,
        )
        blr = feed(blr, environments(parents, cells, intercept, rng))
        stored = blr.to_dict()
        assert all(isinstance(v, np.ndarray | int | float | str) for v in stored.values())
        back = DagBlr.from_dict(stored)
        assert back.dag == blr.dag
        again = back.to_dict()
        assert stored.keys() == again.keys()
        for name, value in stored.items():
            np.testing.assert_array_equal(again[name], value, strict=isinstance(value, np.ndarray))
        cell = Moments.from_array(rng.normal(size=(1, len(parents))))
        more, also = blr.update(cell), back.update(cell)
        for name, block in more.blocks.items():
            np.testing.assert_array_equal(also.blocks[name], block)
        assert more.log_evidence() == also.log_evidence()


def test_an_infinite_variance_is_refused_until_cells_arrive():
    blr = DagBlr(Dag.from_edges(2, [(0, 1)]), prior_scale=1.0, prior_shape=1.0)
    with pytest.raises(ValueError, match="shape <= 1"):
        _ = blr.noise_var
    with pytest.raises(ValueError, match="control cells"):
        blr.spread()
    with pytest.raises(ValueError, match="shape <= 2"):
        DagBlr(blr.dag, prior_scale=1.0, prior_shape=2.0).spread()
    with pytest.raises(ValueError, match="improper"):
        DagBlr(blr.dag, prior_scale=1.0, prior_rate=0.0).log_evidence()


def z_scores(sample, expected):
    """Errors of the sample means in standard errors, columns apart."""
    return (sample.mean(axis=0) - expected) / (sample.std(axis=0) / np.sqrt(len(sample)))


def test_draws_have_the_moments_of_the_posterior(intercept, known, fit_twice, graphs):
    plain, blr = fit_twice(graphs["complete"], intercept, known)
    weights, noise = blr.sample(40_000, 11)
    mean, variance = plain.noise_moments()
    if known:
        np.testing.assert_array_equal(noise, np.tile(mean, (40_000, 1)))
    else:
        assert np.abs(z_scores(noise, mean)).max() < 5
        assert np.abs(z_scores((noise - mean) ** 2, variance)).max() < 5
    centred = weights - np.concatenate(plain.mean)
    assert np.abs(z_scores(centred, 0)).max() < 5
    owner = np.repeat(np.arange(5), np.diff(blr.vptr))
    scaled = centred / np.sqrt(noise[:, owner])
    wanted = np.zeros((len(owner), len(owner)))
    for i in range(5):
        wanted[blr.vptr[i] : blr.vptr[i + 1], blr.vptr[i] : blr.vptr[i + 1]] = plain.cov[i]
    # given the noise variances, weights are N(m, sigma^2 M), and nodes are independent
    for j in range(len(owner)):
        assert np.abs(z_scores(scaled * scaled[:, j : j + 1], wanted[j])).max() < 5
        plainly = centred[:, owner == owner[j]] * centred[:, j : j + 1]
        expected = wanted[j, owner == owner[j]] * mean[owner[j]]
        assert np.abs(z_scores(plainly, expected)).max() < 5


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("prior_scale", [1.0, "evidence"])
@pytest.mark.parametrize("n_cells", [1, 3])
def test_updates_in_place_equal_those_that_copy(intercept, prior_scale, n_cells):
    scm = random_scm(6, rng=0)
    start = DagBlr(scm.dag, intercept=intercept, prior_scale=prior_scale)
    start = start.update(Moments.from_array(scm.sample(20, rng=1)))
    before = start.to_dict()
    changed = start.update(Moments.from_array(scm.sample(1, rng=2)))
    copied = changed
    for r in range(5):
        moments = Moments.from_array(scm.sample(n_cells, rng=10 + r))
        shift = np.full(6, 0.1 * r)
        copied = copied.update(moments, shift)
        same = changed.update(moments, shift, inplace=True)
        assert same is changed
    for name, value in copied.to_dict().items():
        np.testing.assert_array_equal(changed.to_dict()[name], value, err_msg=name)
    for name, value in start.to_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
