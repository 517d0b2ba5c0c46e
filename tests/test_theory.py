"""Theorem 2 of Zhang et al. 2023: in a campaign by CIV, h falls as 1/t, its gradient as 1/t^2."""

import numpy as np
import pytest

from nextpert.core import Civ, DagBlr, design_loop, random_scm, random_target

pytestmark = pytest.mark.benchmarks


def test_h_and_its_gradient_fall_as_they_should():
    scm, rounds = random_scm(6, rng=[0, 0]), (30, 300)
    ideal, target = random_target(scm, 3, where="downstream", rng=[0, 1])
    posterior = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=1.0)
    found, done = [], 0
    for t in rounds:
        result = design_loop(scm, posterior, target, n_rounds=t - done, rng=[0, 2, done])
        posterior, done = result.posterior, t
        civ = Civ(posterior, target)
        gradient = np.linalg.norm(civ.value_and_grad(ideal)[1])
        found.append([civ.excess(ideal[None])[0], gradient])  # h less what noise alone makes
    slope = np.diff(np.log(found), axis=0)[0] / np.log(10)
    assert abs(slope[0] + 1) < 0.3
    assert abs(slope[1] + 2) < 0.6
