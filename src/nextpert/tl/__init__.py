"""Tools: learn the graph, fit effects and weights, diagnose the fit, and plan the next screen."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextpert.tl._cpca import cpca
    from nextpert.tl._dag_fit import dag_fit
    from nextpert.tl._design_interventions import design_interventions
    from nextpert.tl._diagnose import diagnose
    from nextpert.tl._fit_dag_blr import fit_dag_blr
    from nextpert.tl._learn_dag import learn_dag
    from nextpert.tl._perturbation_effects import perturbation_effects
    from nextpert.tl._plan_cells import plan_cells
    from nextpert.tl._plan_loading import plan_loading
    from nextpert.tl._plan_screen import plan_screen
    from nextpert.tl._replay_design import replay_design
    from nextpert.tl._target_distances import target_distances

__all__ = [
    "cpca",
    "dag_fit",
    "design_interventions",
    "diagnose",
    "fit_dag_blr",
    "learn_dag",
    "perturbation_effects",
    "plan_cells",
    "plan_loading",
    "plan_screen",
    "replay_design",
    "target_distances",
]


def __getattr__(name: str) -> Any:
    # Modules are loaded on first use: learning a graph does not load contrastive PCA.
    if name in __all__:
        function = getattr(importlib.import_module(f"nextpert.tl._{name}"), name)
        globals()[name] = function
        return function
    message = f"module 'nextpert.tl' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
