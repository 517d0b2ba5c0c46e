"""Preprocessing of screens: labels from guides, and the cells and genes of the analysis."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextpert.pp._assign_guides import assign_guides
    from nextpert.pp._effect_table import effect_table
    from nextpert.pp._perturb_cite_seq import perturb_cite_seq
    from nextpert.pp._perturbation_screen import perturbation_screen
    from nextpert.pp._setup_screen import setup_screen

__all__ = [
    "assign_guides",
    "effect_table",
    "perturb_cite_seq",
    "perturbation_screen",
    "setup_screen",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"nextpert.pp._{name}"), name)
    message = f"module 'nextpert.pp' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
