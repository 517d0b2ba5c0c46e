"""API: one page a public function or class, listed from the packages' own tables of names."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import array_types
import nextpert

if TYPE_CHECKING:
    from collections.abc import Iterable

# A page each: its title, what it says, and its functions in groups, in the order of use.
PACKAGES = {
    "pp": (
        "Preprocessing",
        "Make a screen that the tools can read, from counts and guides or from a table of effects.",
        {
            "From cells": ("perturbation_screen", "assign_guides", "perturb_cite_seq"),
            "From a table": ("effect_table",),
            "Roles of columns": ("setup_screen",),
        },
    ),
    "tl": (
        "Tools",
        "Learn the graph, fit the model, estimate effects, check them, rank and plan.",
        {
            "Learn and fit": ("learn_dag", "fit_dag_blr"),
            "Effects": ("perturbation_effects", "target_distances", "cpca"),
            "Checks": ("diagnose", "dag_fit", "replay_design"),
            "The next round": (
                "design_interventions",
                "plan_screen",
                "plan_loading",
                "plan_cells",
            ),
        },
    ),
    "pl": (
        "Plots",
        "One for each result; the [gallery](../gallery.md) shows all of them.",
        {
            "The screen": ("perturbation_counts", "expression_shift", "cpca_density"),
            "The graph": ("dag", "dag_fit"),
            "Effects": (
                "perturbation_effects",
                "effects_heatmap",
                "volcano",
                "programs",
                "state_map",
                "target_distances",
            ),
            "Checks": ("diagnose", "replay"),
            "The next round": ("design", "plan_screen", "plan_cells"),
        },
    ),
    "get": ("Results as tables", "Tables of what is stored in `uns`.", {}),
    "datasets": ("Data sets", "Real screens, downloaded once, and simulated ones.", {}),
}
ROOMS = {
    "screen": "Screens",
    "graph": "Graphs",
    "search": "Searches",
    "causal": "The paper: posterior, acquisitions, domains, design loop, structural models",
    "model": "Effects and predictors",
    "design": "Targets, candidates and plans",
    "evaluate": "Campaigns over the cells of a screen",
}
# Beneath them, told of in what is said of the names above.
PARTS = (
    "screen.mean_distance.distance_difference",
    "screen.mean_distance.mean_distance",
    "screen.guides.spread_within",
    "causal.scm.matched_random_dag",
    "design.stopping.draw_plate",
    "design.stopping.knowledge_gradient",
    "design.stopping.stopping",
    "design.distances.states_of",
)
TOP = """# API

{module}Import as `import nextpert as npt`. Functions take an AnnData first, write their results
into it, and return nothing, unless `copy=True`; an error leaves it unchanged. The page of each
function shows a picture of the result, the parameters with their defaults, a table of what is
stored, the [kinds of arrays](array_types.md) that can be read, the formulas, and a link to the
source.

"""
CAMPAIGN = (
    "Campaigns, targets, report",
    "Several rounds of a lab, the state that cells should reach, and one page for the wet lab.",
)
CORE = """# The array core

`nextpert.core` has the mathematics on plain arrays: no AnnData, no pandas, no plots. Use it for
methods that the tools do not offer; for screens, the [tools](index.md) are easier.

"""


def module(name: str) -> str:
    """Return the place that links to a package lead to."""
    return f"```{{eval-rst}}\n.. module:: {name}\n```\n\n"


def listing(package: str, names: Iterable[str], pages: bool = True) -> str:
    """Return an autosummary of some names, with a page for each if asked for."""
    rows = "\n".join(f"   {name}" for name in names)
    options = "   :toctree: generated\n   :nosignatures:" if pages else "   :nosignatures:"
    return (
        f"```{{eval-rst}}\n.. currentmodule:: {package}\n\n"
        f".. autosummary::\n{options}\n\n{rows}\n```\n\n"
    )


def pages() -> dict[str, str]:
    """Return the pages that list all public names, a page for each package."""
    packages = {name for name in nextpert.__all__ if inspect.ismodule(getattr(nextpert, name))}
    at_the_top = sorted(set(nextpert.__all__) - packages)
    title, words = CAMPAIGN
    made = {"campaign.md": f"# {title}\n\n{words}\n\n" + listing("nextpert", at_the_top)}
    index = f"## {title}\n\n{words}\n\n"
    index += listing("nextpert", at_the_top, pages=False)
    for name, (title, words, groups) in PACKAGES.items():
        package = f"nextpert.{name}"
        every = list(getattr(nextpert, name).__all__)
        rest = [each for each in every if not any(each in names for names in groups.values())]
        groups = {**groups, "More": rest} if groups and rest else groups
        parts = [f"## {group}\n\n{listing(package, names)}" for group, names in groups.items()]
        made[f"{name}.md"] = f"# {title}: `{name}`\n\n{module(package)}{words}\n\n" + (
            "".join(parts) or listing(package, every)
        )
        in_order = [each for names in groups.values() for each in names] or every
        topics = f" ([By topic]({name}.md).)" if groups else ""
        index += f"## {title}: `{name}`\n\n{words}{topics}\n\n"
        index += listing(package, in_order, pages=False)
    index += "## More\n\n- [The array core](core.md): the mathematics on plain arrays\n"
    index += "- [Array types](array_types.md): dense, sparse, backed and lazy cells\n\n"
    listed = "\n".join(["campaign", *PACKAGES, "core", "array_types"])
    index += f"```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    return {
        "index.md": TOP.format(module=module("nextpert")) + index,
        **made,
        "core.md": CORE + module("nextpert.core") + core(),
        "array_types.md": array_types.page(),
    }


def core() -> str:
    """Return the core's names, room by room."""
    rooms: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name in nextpert.core.__all__:
        rooms[getattr(nextpert.core, name).__module__.split(".")[2]].append(name)
    text = "".join(
        f"## {ROOMS[room]}\n\n" + listing("nextpert.core", names)
        for room, names in rooms.items()
        if names
    )
    return text + "## Parts beneath\n\n" + listing("nextpert.core", list(PARTS))
