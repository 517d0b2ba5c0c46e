"""What pages define stays with them."""

import pytest

from nextpert.core.acquisition import registry as acquisitions
from nextpert.core.search import registry as searches


@pytest.fixture(autouse=True)
def _what_pages_register_is_forgotten(monkeypatch):
    known = acquisitions._ACQUISITIONS
    monkeypatch.setattr(known, "_known", known.every())
    monkeypatch.setattr(searches, "_SEARCHES", dict(searches.searches()))
