"""Plots of the data and the results, with scanpy's conventions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextpert.pl._cpca_density import cpca_density
    from nextpert.pl._dag import dag
    from nextpert.pl._dag_fit import dag_fit
    from nextpert.pl._design import design
    from nextpert.pl._diagnose import diagnose
    from nextpert.pl._effects_heatmap import effects_heatmap
    from nextpert.pl._expression_shift import expression_shift
    from nextpert.pl._perturbation_counts import perturbation_counts
    from nextpert.pl._perturbation_effects import perturbation_effects
    from nextpert.pl._plan_cells import plan_cells
    from nextpert.pl._plan_screen import plan_screen
    from nextpert.pl._programs import programs
    from nextpert.pl._replay import replay
    from nextpert.pl._state_map import state_map
    from nextpert.pl._target_distances import target_distances
    from nextpert.pl._volcano import volcano

__all__ = [
    "cpca_density",
    "dag",
    "dag_fit",
    "design",
    "diagnose",
    "effects_heatmap",
    "expression_shift",
    "perturbation_counts",
    "perturbation_effects",
    "plan_cells",
    "plan_screen",
    "programs",
    "replay",
    "state_map",
    "target_distances",
    "volcano",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"nextpert.pl._{name}"), name)
    message = f"module 'nextpert.pl' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
