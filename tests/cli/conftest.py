"""A screen in a file, as the command reads it."""

from __future__ import annotations

import pytest


@pytest.fixture
def screen(small_screen, tmp_path):
    """The small screen in a file, labels as in an h5ad from elsewhere."""
    path = tmp_path / "screen.h5ad"
    small_screen.write_h5ad(path)
    return path
