"""Data sets: real screens, downloaded from their origin, and simulated screens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextpert.datasets._hill_2018 import hill_2018
    from nextpert.datasets._norman_2019 import norman_2019
    from nextpert.datasets._papalexi_2021 import papalexi_2021
    from nextpert.datasets._perturb_cite_seq import perturb_cite_seq
    from nextpert.datasets._perturb_cite_seq_standin import perturb_cite_seq_standin
    from nextpert.datasets._replogle_2022 import replogle_2022
    from nextpert.datasets._schraivogel_2020 import schraivogel_2020
    from nextpert.datasets._simulated_controls import simulated_controls
    from nextpert.datasets._simulated_screen import simulated_screen

__all__ = [
    "hill_2018",
    "norman_2019",
    "papalexi_2021",
    "perturb_cite_seq",
    "perturb_cite_seq_standin",
    "replogle_2022",
    "schraivogel_2020",
    "simulated_controls",
    "simulated_screen",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"nextpert.datasets._{name}"), name)
    message = f"module 'nextpert.datasets' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
