"""What pages define stays with them."""

import pytest

from nextpert.core.causal import registry as acquisitions
from nextpert.core.model.predictors import base as predictors
from nextpert.core.search import registry as searches


@pytest.fixture(autouse=True)
def _what_pages_register_is_forgotten(monkeypatch):
    for known in (acquisitions._ACQUISITIONS, predictors._PREDICTORS):
        monkeypatch.setattr(known, "_known", known.every())
    monkeypatch.setattr(searches._SEARCHES, "_known", dict(searches.searches()))
