import numpy as np
import pytest

from nextpert.core.design.reads import noise_of_reads


def test_noise_of_fewer_reads_is_that_of_poisson_counts():
    """Where counts are Poisson and large, noise doubles with half of the reads."""
    counts = np.random.default_rng(0).poisson(50.0, (4000, 2))
    found = noise_of_reads(counts, np.full(4000, 0.2), 0.5)
    np.testing.assert_allclose(found, 2.0, rtol=0.1)


def test_cells_that_differ_anyway_need_fewer_reads():
    rng = np.random.default_rng(0)
    mean = np.array([[20.0, 20.0]]) * np.exp(rng.normal(size=(4000, 2)) * [1.0, 0.0])
    alike = noise_of_reads(rng.poisson(mean), np.ones(4000), 0.25)
    assert alike[0] < 1.5 < 3 < alike[1]


def test_all_reads_and_genes_without_counts():
    counts = np.zeros((100, 2), int)
    counts[:, 0] = np.arange(100) % 3
    assert noise_of_reads(counts, np.ones(100), 1.0)[0] == pytest.approx(1.0, abs=0.25)
    assert np.isfinite(noise_of_reads(counts, np.ones(100), 0.1)).all()
    assert noise_of_reads(counts, np.ones(100), 0.1)[1] == 1.0
