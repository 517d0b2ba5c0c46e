"""The log evidence against predictive densities, multivariate densities and quadrature."""

import numpy as np
from scipy import stats

from nextpert.core import Dag, DagBlr
from tests.core.causal.test_dag_blr import environments, feed


def test_evidence_is_the_product_of_predictive_densities(parents, intercept, known, dense, cells):
    rng = np.random.default_rng(8)
    p = len(parents)
    noise = rng.uniform(0.3, 1.4, p) if known else None
    data = environments(parents, cells, intercept, rng)
    settings = {"intercept": intercept, "noise_var": noise}
    blr = feed(
        DagBlr(
            Dag.from_parents(parents),
            prior_scale=0.8,
            prior_shape=2.5,
            prior_rate=0.3,
            **settings,
        ),
        data,
    )
    total = 0.0
    model = dense(parents, scale=0.8, shape=2.5, rate=0.3, **settings)
    for i, (x, y) in enumerate(model.regressions(data)):
        precision, cross = model.prior[i].copy(), np.zeros(x.shape[1])
        alpha, beta = 2.5, 0.3
        for row, answer in zip(x, y, strict=True):
            cov = np.linalg.inv(precision)
            mean = cov @ cross
            spread, error = 1 + row @ cov @ row, answer - row @ mean
            if known:
                total += stats.norm.logpdf(error, scale=np.sqrt(noise[i] * spread))
            else:
                scale = np.sqrt(beta / alpha * spread)
                total += stats.t.logpdf(error, df=2 * alpha, scale=scale)
            precision += np.outer(row, row)
            cross += row * answer
            alpha, beta = alpha + 0.5, beta + error**2 / spread / 2
    np.testing.assert_allclose(blr.log_evidence(), total, rtol=1e-8)
