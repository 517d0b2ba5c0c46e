"""The scale of the prior that is learned where shifts are free."""

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, ScreenMoments
from nextpert.core.causal.weights import fit_weights
from nextpert.core.screen.guides import pool_guides


@pytest.mark.parametrize("n_perturbations", [1, 6])
def test_it_is_the_mode_of_the_evidence_of_given_scales(n_perturbations):
    rng, p = np.random.default_rng(4), 6
    weights = np.tril(rng.normal(size=(p, p)), -1)
    group = np.repeat(np.arange(1 + n_perturbations), 60)
    shift = np.where(group[:, None] > 0, rng.normal(size=(1 + n_perturbations, p))[group], 0.0)
    x = (5 + shift + rng.normal(size=(len(group), p))) @ np.linalg.inv(np.eye(p) - weights).T
    screen = ScreenMoments.from_array(x, group, 1 + n_perturbations)
    cells = pool_guides(screen, np.arange(1 + n_perturbations), 1 + n_perturbations)
    dag = Dag.from_edges(p, [(k, i) for i in range(p) for k in range(i)])

    def fitted(scale):
        options = {"prior_scale": scale, "prior_units": "data", "pooled": True}
        return fit_weights(DagBlr(dag, **options), cells)

    def posterior(log_precision):  # log lambda ~ N(0, 3^2)
        evidence = fitted(float(np.exp(-log_precision))).log_evidence()
        return evidence - 0.5 * (log_precision / 3.0) ** 2

    learned = fitted("evidence")
    mode = np.log(learned.blocks["precision"][learned.is_weight][0])
    away = posterior(mode) - np.array([posterior(mode - 0.05), posterior(mode + 0.05)])
    assert (away > 0).all()
    assert away[0] == pytest.approx(away[1], rel=0.2)  # a parabola about its top
