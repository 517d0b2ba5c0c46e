"""The pictures of the model are those that the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import draw_model
from _figures import draw

pytestmark = pytest.mark.docs

DOCS = Path(__file__).parents[2] / "docs"


def test_pictures_are_those_of_the_page(tmp_path):
    names = draw(draw_model.FIGURES, {}, tmp_path)
    page = (DOCS / "model" / "in_pictures.md").read_text(encoding="utf-8")
    assert sorted(names) == sorted(re.findall(r"\{image\} \.\./_static/model/(\S+)", page))
    assert sorted(path.name for path in (DOCS / "_static" / "model").iterdir()) == sorted(names)
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)


def test_the_posterior_mean_is_that_given_the_difference():
    # By quadrature over the effect, with the point at nothing apart.
    variances, n, seen = 2.0 ** np.arange(-9, 3), 10, 0.9
    effect = np.linspace(-12, 12, 200_001)
    step = effect[1] - effect[0]
    prior = 0.3 / len(variances) * np.exp(-(effect**2) / (2 * variances[:, None]))
    prior = (prior / np.sqrt(2 * np.pi * variances[:, None])).sum(0)
    likelihood = np.exp(-n * (seen - effect) ** 2 / 2)
    total = 0.7 * np.exp(-n * seen**2 / 2) + (prior * likelihood).sum() * step
    mean = (effect * prior * likelihood).sum() * step / total
    np.testing.assert_allclose(draw_model.posterior_mean(np.array([seen]), n), mean, rtol=1e-6)
