"""Draws from the posterior against its moments."""

import numpy as np


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
