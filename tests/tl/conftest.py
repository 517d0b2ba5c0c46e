"""Screens with their graph, for the tools."""

from __future__ import annotations

import pytest

import nextpert as npt


@pytest.fixture
def screen(small_screen, edges):
    """``small_screen`` with the graph behind it; a new copy for every test."""
    npt.tl.learn_dag(small_screen, method="given", dag=edges, genes=list(small_screen.var_names))
    return small_screen
