"""Screens with their graph, for the tools."""

from __future__ import annotations

import pytest

from tests._screens import small_fit, with_graph


@pytest.fixture
def screen(small_screen, edges):
    """``small_screen`` with the graph behind it; a new copy for every test."""
    return with_graph(small_screen, edges)


@pytest.fixture
def fitted():
    """``small_screen`` of MYC, STK3, OXR1, MYC+OXR1 and an enhancer HS2, fitted on its graph."""
    return small_fit()
