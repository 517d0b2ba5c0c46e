"""Settings of published methods, by the name of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

# Each preset: the arguments of the calls that take it, which `checked` adds. Those of `pp` are
# defaults there, and arguments take precedence.
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "zhang2023": {
        "pp.perturb_cite_seq": {
            "controls": "no_guide",
            "panel": "zhang2023",
            "min_cells": 1,
            "combinations": "drop",
            "max_guides": 1,
            "target_sum": 1e6,
        },
        "learn_dag": {
            "method": "gsp",
            "environments": "control",
            "search_options": {"n_runs": 1000},
        },
        "fit_dag_blr": {
            "shift_sd": 0,
            "prior_options": {
                "prior_scale": 1,
                "noise_var": "controls",
                "intercept": "centred",
            },
        },
        "design_interventions": {"acquisition": "civ", "n_cells": 10, "noise_aware": False},
    }
}


def joined(
    given: Mapping[str, Any], settings: Mapping[str, Any], preset: str, inside: str = ""
) -> dict[str, Any]:
    """Return arguments, or the options of one (``inside``), with the settings of a preset.

    Raises
    ------
    ValueError
        If an argument is given with another value than the preset has.

    Examples
    --------
    >>> from nextpert._adata.presets import PRESETS, joined
    >>> settings = PRESETS["zhang2023"]["design_interventions"]
    >>> joined({"n_samples": 20}, settings, "zhang2023")["n_cells"]
    10
    >>> joined({"n_cells": 100}, settings, "zhang2023")
    Traceback (most recent call last):
        ...
    ValueError: preset='zhang2023' has n_cells=10, but n_cells=100 was given: leave one of them out.
    """
    out = {**given}
    for name, value in settings.items():
        if isinstance(value, Mapping) and isinstance(given.get(name) or {}, Mapping):
            out[name] = joined(given.get(name) or {}, value, preset, name)
        elif name not in given:
            out[name] = value
        elif not (isinstance(given[name], (str, Real)) and given[name] == value):
            where = f" of {inside}" if inside else ""
            message = (
                f"preset={preset!r} has {name}={value!r}{where}, but {name}={given[name]!r} was "
                f"given: leave one of them out."
            )
            raise ValueError(message)
    return out
