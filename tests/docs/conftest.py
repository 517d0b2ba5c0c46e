"""What pages define stays with them."""

import pytest

from nextpert.core.acquisition import registry as acquisitions
from nextpert.core.search import registry as searches


@pytest.fixture(autouse=True)
def _what_pages_register_is_forgotten(monkeypatch):
    monkeypatch.setattr(acquisitions, "_CLASSES", acquisitions._CLASSES.copy())
    monkeypatch.setattr(searches, "_SEARCHES", dict(searches.searches()))
