"""Screens with their graph, for the tools."""

from __future__ import annotations

import pytest

from tests._screens import with_graph


@pytest.fixture
def screen(small_screen, edges):
    """``small_screen`` with the graph behind it; a new copy for every test."""
    return with_graph(small_screen, edges)
