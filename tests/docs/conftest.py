"""What pages define stays with them."""

import pytest

from nextpert.core.search import registry


@pytest.fixture(autouse=True)
def _searches_of_pages_are_forgotten(monkeypatch):
    monkeypatch.setattr(registry, "_SEARCHES", dict(registry.searches()))
