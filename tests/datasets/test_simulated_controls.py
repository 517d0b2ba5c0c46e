"""Simulated control cells: means, dispersion and depth are those asked for."""

import numpy as np
import pytest

import nextpert as npt


def test_counts_have_the_mean_and_dispersion_that_were_given():
    mean = {"A": 0.3, "B": 4.0, "C": 50.0}
    adata = npt.datasets.simulated_controls(n_cells=40_000, mean=mean, dispersion=0.5)
    x = adata.X.toarray()
    assert list(adata.var_names) == list(mean)
    np.testing.assert_allclose(x.mean(axis=0), list(mean.values()), rtol=0.04)
    # Depth and gene multiply: (1 + a) (1 + c^2) - 1 of the squared mean beyond counting.
    beyond = (x.var(axis=0) - x.mean(axis=0)) / x.mean(axis=0) ** 2
    np.testing.assert_allclose(beyond[1:], 1.5 * 1.36 - 1, rtol=0.1)
    # Two genes of one cell share its depth alone.
    a, b = x[:, 1], x[:, 2]
    np.testing.assert_allclose(np.cov(a, b)[0, 1] / (a.mean() * b.mean()), 0.36, rtol=0.15)


def test_normalised_they_are_controls_of_a_screen():
    adata = npt.datasets.simulated_controls(n_cells=300, n_genes=60)
    with pytest.warns(UserWarning, match="No perturbed cells"):
        npt.pp.perturbation_screen(adata)
    assert (adata.obs["perturbation"] == "control").all()
    assert 30 < adata.n_vars <= 60
    # On 162 genes of Papalexi's controls they are 0.24, 0.38 and 0.60.
    low, median, high = np.quantile(adata.to_df().std(), (0.1, 0.5, 0.9))
    assert 0.2 < low < 0.3 < median < 0.45 < high < 0.75


@pytest.mark.parametrize("mean", [{"A": 0.0}, {"A": -1.0}, {"A": 1.0, "B": 0}])
def test_a_mean_has_to_be_above_zero(mean):
    with pytest.raises(ValueError, match="mean must be above 0"):
        npt.datasets.simulated_controls(mean=mean)
