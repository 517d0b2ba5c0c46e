"""The pages' code runs in the session of the tests: what it registers is taken out again."""

from __future__ import annotations

import pytest

from nextpert.core.acquisition import registry


@pytest.fixture(autouse=True)
def the_registry_as_it_was(monkeypatch):
    monkeypatch.setattr(registry, "_CLASSES", registry._CLASSES.copy())
