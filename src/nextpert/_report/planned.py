"""Sections on the target and what to do next: target, steps, plan, ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import core
from nextpert._adata import list_names
from nextpert._adata.target import DISTANCES
from nextpert._report.page import Plate, Section
from nextpert._report.tables import Table, number, ratio
from nextpert._report.verdict import advice_of, chosen_of, contains_best, orders_plan
from nextpert.core.design.stopping import MEASURE, ORDER
from nextpert.pl._figure import counted
from nextpert.tl._advice import name_of
from nextpert.tl._design_interventions.combinations import not_admitted_in_words
from nextpert.tl._design_interventions.tables import candidates_of, nothing_of
from nextpert.tl._plan_screen.constructs import digest_of_plan
from nextpert.tl._plan_screen.wells import FORMATS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nextpert._report.results import Results

# Sign and words of every strategy, in the order of the legend.
STRATEGIES = {
    "exploit": ("●", "to find the best"),
    "explore": ("■", "to reduce uncertainty"),
    "acquisition": ("▲", "by the acquisition"),
    "include": ("◆", "included on request"),
    "control": ("|", "controls"),
}
# What is done with constructs, and of what they are made, in the order of the steps.
_STATUS = (
    ("design", "Design and order", ""),
    ("clone", "Clone", " of guides of this screen"),
    ("existing", "Reuse", " of this screen"),
)
# What is known of untested combinations.
_OF_COMBINATIONS = (
    "probability_nearer_than_members",
    "probability_nearer_than_measured",
    "members_without_effect",
)


def target_section(results: Results) -> Section | None:
    """Describe the target, gene by gene if means are known."""
    names = ("plan", "design", "plan_cells")
    every = {x: results[x]["params"] for x in names if x in results}
    every = {x: params for x, params in every.items() if "target" in params}
    if not every:
        return None
    first, params = next(iter(every.items()))
    words = [f"Target: {params['target']}. Distances to it are {_unit(params)}."]
    left_out = [str(x["genes_left_out"]) for x in every.values() if x.get("genes_left_out")]
    if left_out:
        words.append(
            f"They are measured {left_out[0]}, because a perturbation's effect on its own targets "
            f"does not say whether it does what {name_of(params['target'])} does, and scaled to "
            f"the control's distance on the same genes."
        )
    if any(int(x.get("target_is_candidate", 0)) for x in every.values()):
        words.append("The perturbation that defines this state was allowed as a candidate.")
    stored, fit = results[first], results.get("dag_blr", {})
    genes = list(map(str, stored.get("genes", [])))
    if "target_mean" not in stored or genes != list(map(str, fit.get("genes", []))):
        return Section("target", "Target", words)
    table = pd.DataFrame(
        {"gene": genes, "control": fit["control_mean"], "target": stored["target_mean"]}
    )
    table["change"] = table["target"] - table["control"]
    table = table.sort_values("change", key=lambda x: -x.abs(), kind="stable")
    caption = (
        "Means of genes in control cells and in the target state (log-normalised expression), the "
        "largest change first"
    )
    shown = Table(
        "target-means", caption, table[table["change"] != 0], [*map(str, table)], most=8,
        download=table, in_print=4,
    )  # fmt: skip
    return Section("target", "Target", words, tables=[shown])


def _unit(params: Mapping[str, Any]) -> str:
    return DISTANCES.get(str(params.get("distance", "squared")), "squared")


def steps_section(results: Results) -> Section | None:
    """List the advice and, if it is to order the plan, how many guides and cells."""
    advice, is_ordered = advice_of(results), orders_plan(results)
    steps = [str(advice["words"])] if advice else []
    if is_ordered:
        summary, chosen = results["plan"]["summary"], chosen_of(results["plan"])
        steps += [
            _orders(results["plan"]["constructs"]),
            f"Profile {number(summary['n_cells'])} cells: {_range(chosen['n_cells'])} of each "
            f"perturbation and {number(summary['n_controls'])} controls, counted after guides are "
            f"assigned and cells are filtered.",
        ]
        if loading := loading_of(results):
            steps.append(str(loading["words"]))
    elif "plan" not in results and "design" in results and advice.get("kind") == ORDER:
        steps.append(
            "Plan the cells and controls of the next round: run tl.plan_screen, and write this "
            "report again."
        )
    if is_ordered or advice.get("kind") == MEASURE:
        steps.append(
            "Add the new cells to this screen, fit again (Campaign.observe, or tl.fit_dag_blr on "
            "all cells), and write this report again: it states whether a further round is "
            "worthwhile."
        )
    return Section("steps", "Next steps", steps=steps) if steps else None


def _orders(constructs: pd.DataFrame) -> str:
    """Return what to order: a sentence per status and kind of constructs."""
    constructs = constructs.astype({"status": str, "kind": str})
    orders = []
    for status, doing, source in _STATUS:
        mine = constructs[(constructs["status"] == status) & (constructs["kind"] != "control")]
        for kind, rows in mine.groupby("kind", sort=False):
            noun, parts = "single guide", source
            if kind != noun:
                noun = f"{str(kind).rstrip('s').replace(' ', '-')} construct"
                new = dict.fromkeys(", ".join(rows["new_guides_of"].astype(str)).split(", "))
                parts = f" with new guides of {', '.join(new)}" if status == "design" else source
            n_of_each = rows["perturbation"].astype(str).value_counts(sort=False)
            n = f": {_range(n_of_each)} for each of" if len(n_of_each) > 1 else ", for"
            orders.append(
                f"{doing} {counted(len(rows), noun)}{parts}{n} {', '.join(n_of_each.index)}."
            )
    text = " ".join(orders)
    is_reuse = all(order.startswith("Reuse") for order in orders)
    return f"Order no guides: {text[:1].lower()}{text[1:]}" if is_reuse else text


def _range(numbers: pd.Series) -> str:
    """Return the minimum and the maximum of some counts, or their common value."""
    return " to ".join(dict.fromkeys([number(numbers.min()), number(numbers.max())]))


def plan_section(results: Results) -> Section | None:
    """List the perturbations of the next round; for an arrayed screen, draw its plates."""
    if "plan" not in results:
        return None
    plan = results["plan"]
    table, summary, params = plan["plate"], plan["summary"], plan["params"]
    is_control = table["strategy"].astype(str).to_numpy() == "control"
    words = [
        f"{number(summary['n_cells'])} cells, {number(summary['n_controls'])} of them controls. "
        f"W{contains_best(plan)[1:]}. They are expected to resolve "
        f"{ratio(summary['variance_reduction'])} of the remaining uncertainty."
    ]
    if not orders_plan(results):
        words.append("This plan is not what is advised: see the next steps.")
    if summary["n_not_admitted"]:
        words.append(not_admitted_in_words(int(summary["n_not_admitted"])))
    if len(plan["pending"]):
        pairs = plan["pending"][["perturbation", "n_cells"]].itertuples(index=False)
        words.append(f"In progress: {', '.join(f'{x} ({number(n)} cells)' for x, n in pairs)}.")
    used = dict.fromkeys(table["strategy"].astype(str))
    strategies = [strategy for strategy in used if strategy != "control"]
    chosen_by = f" by strategy '{strategies[0]}'" if len(strategies) == 1 else ""
    shown = Table(
        "plate",
        f"Perturbations of the next round, in the order chosen{chosen_by}. Distance to "
        f"{params['target']}, {_unit(params)}, with 90% interval; the dashed line is the control",
        table,
        [
            "well", "perturbation", *_target_genes(table), "n_guides", "n_cells", "n_cells_seen",
            *(["strategy"] if len(strategies) > 1 else []), "probability_best", *_OF_COMBINATIONS,
            "state_distance", "predicted_distance", "why",
        ],
        marks={"predicted_distance": table.loc[is_control, "predicted_distance"].mean()},
        download=table, in_print=14, kept=int(np.flatnonzero(is_control)[-1:].max(initial=-1)),
        on_screen=("strategy", "probability_best", "state_distance"),
    )  # fmt: skip
    made = plan["constructs"][plan["constructs"]["kind"].astype(str) != "control"]
    caption = (
        "Constructs of the next round: existing in this screen, to clone from its guides, or with "
        "guides to design"
    )
    names = ["perturbation", "construct", "kind", "status", "guides", "new_guides_of",
             "target_genes", "n_cells"]  # fmt: skip
    constructs = Table("constructs", caption, made, names, download=plan["constructs"], in_print=14)
    tables = [shown, constructs]
    if loading := loading_of(results):
        steps = loading["steps"]
        tables.append(
            Table("loading", "From the plan to the instrument", steps, list(steps), in_print=20)
        )
    plates = plates_of(table, int(params["plate_format"])) if "well" in table else []
    legend = {name: STRATEGIES[name] for name in STRATEGIES if plates and name in used}
    return Section("plan", "Next round", words, plates=plates, legend=legend, tables=tables)


def loading_of(results: Results) -> Mapping[str, Any] | None:
    """Return what to load for the plan; ``None`` where it was computed for another one, or not."""
    loading = results.get("loading")
    is_of_plan = loading is not None and loading.get("plan") == digest_of_plan(results["plan"])
    return loading if is_of_plan else None


def plates_of(table: pd.DataFrame, plate_format: int) -> list[Plate]:
    """Return the maps of all plates of a plan.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextpert._report.planned import plates_of
    >>> row = {"well": "2-B1", "perturbation": "MYC", "n_cells": 9, "strategy": "exploit"}
    >>> plate = plates_of(pd.DataFrame([row]), 8)[0]
    >>> plate.number, plate.rows, plate.wells["B1"]["perturbation"]
    (2, 'ABCDEFGH', 'MYC')
    """
    plates: dict[int, dict[str, Any]] = {}
    for row in table.to_dict("records"):
        plate, _, place = str(row["well"]).rpartition("-")
        plates.setdefault(int(plate or 1), {})[place] = row
    n_rows = FORMATS[plate_format]
    shape = "ABCDEFGHIJKLMNOP"[:n_rows], range(1, 1 + plate_format // n_rows)
    return [Plate(plate, *shape, wells) for plate, wells in sorted(plates.items())]


def ranking_section(results: Results) -> Section | None:
    """List all candidates, best first."""
    if "design" not in results:
        return None
    design, params = results["design"], results["design"]["params"]
    ranking, control = candidates_of(design["ranking"]), nothing_of(design["ranking"])
    target, name = name_of(params["target"]), str(params["acquisition"])
    # A result may come from a session that has registered an acquisition of its own.
    by = (core.find_acquisition(name).in_words if name in core.acquisitions() else "") or name
    words = [
        f"{number(len(ranking))} candidates towards {target}, ranked by {by}. The control has a "
        f"distance of {number(control['predicted_distance'])}."
    ]
    if len(design["not_ranked"]):
        pairs = design["not_ranked"][["perturbation", "why"]].itertuples(index=False)
        words.append(f"Not ranked: {list_names(f'{label} ({why})' for label, why in pairs)}.")
    names = [
        "rank", "perturbation", *_target_genes(ranking), "predicted_distance",
        "relative_distance", "probability_best", "probability_better", *_OF_COMBINATIONS,
        "measured_distance", "n_cells_seen",
    ]  # fmt: skip
    caption = (
        f"Candidates, best first. Distance to {target}, {_unit(params)}, with 90% interval; the "
        f"dashed line is the control"
    )
    marks = {"predicted_distance": float(control["predicted_distance"])}
    tables = [Table("ranking", caption, ranking, names, marks=marks, download=design["ranking"])]
    if len(design["trace"]) > 1:
        caption = "First choice of every round, target and acquisition so far"
        names = ["round", "chosen", "acquisition", "target", "predicted_distance",
                 "n_perturbed_cells"]  # fmt: skip
        tables.append(Table("rounds", caption, design["trace"], names, in_print=5))
    return Section("ranking", "Ranking", words, tables=tables)


def _target_genes(table: pd.DataFrame) -> list[str]:
    """Return the column of target genes, unless the labels name all of them."""
    pairs = table[["perturbation", "target_genes"]].astype(str).itertuples(index=False)
    is_named = [not genes or set(genes.split(", ")) <= set(x.split("+")) for x, genes in pairs]
    return [] if all(is_named) else ["target_genes"]
