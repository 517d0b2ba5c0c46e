"""Sections on the target and what to do next: target, steps, plan, ranking."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import core
from nextpert._adata import list_names
from nextpert._adata.target import DISTANCES
from nextpert._report.page import Plate, Section, Well
from nextpert._report.tables import Column, Table, count, number, share, signed
from nextpert._report.verdict import advice_of, contains_best, orders_plan
from nextpert.core._shown import percent
from nextpert.core.design.stopping import MEASURE, ORDER
from nextpert.tl._advice import name_of
from nextpert.tl._design_interventions.combinations import not_admitted_in_words
from nextpert.tl._design_interventions.tables import candidates_of, nothing_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    Found = Mapping[str, dict[str, Any]]

PREDICTED = ("predicted_distance", "predicted_low", "predicted_high")
# Rows and columns of standard plates, by their number of wells.
SHAPES = {8: (8, 1), 96: (8, 12), 384: (16, 24)}
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
_JOINT = re.compile(r"(?<=[+_\-.,;:/|])")
_WELL = re.compile(r"(?:(\d+)-)?([A-P])(\d+)")


def target_section(found: Found) -> Section | None:
    """Describe the target, gene by gene if means are known."""
    asked = {
        name: found[name]["params"]
        for name in ("plan", "design", "plan_cells")
        if name in found and "target" in found[name]["params"]
    }
    if not asked:
        return None
    params = next(iter(asked.values()))
    words = [f"Target: {params['target']}. Distances to it are {_unit(params)}."]
    without = next(
        (str(x["genes_left_out"]) for x in asked.values() if x.get("genes_left_out")), ""
    )
    if without:
        words.append(
            f"They are measured {without}, because a perturbation's effect on its own targets does "
            f"not say whether it does what {name_of(params['target'])} does, and scaled to the "
            f"control's distance on the same genes."
        )
    if any(int(other.get("target_is_candidate", 0)) for other in asked.values()):
        words.append("The perturbation that defines this state was allowed as a candidate.")
    titles = {"design": "ranking", "plan_cells": "number of cells"}
    words += [
        f"The {titles.get(name, name)} has another target: {other['target']}."
        for name, other in asked.items()
        if str(other["target"]) != str(params["target"])
    ]
    stored, fit = found[next(iter(asked))], found.get("dag_blr")
    genes = [str(gene) for gene in stored.get("genes", [])]
    if fit is None or "target_mean" not in stored or genes != [str(x) for x in fit["genes"]]:
        return Section("target", "Target", words)
    control, wanted = (np.asarray(x, float) for x in (fit["control_mean"], stored["target_mean"]))
    table = pd.DataFrame(
        {"gene": genes, "control": control, "target": wanted, "change": wanted - control}
    )
    table = table.iloc[np.argsort(-np.abs(wanted - control), kind="stable")]
    columns = [
        Column("Gene", "gene", is_head=True),
        Column("Control cells", "control", number),
        Column("Target", "target", number),
        Column("Change", "change", signed),
    ]
    caption = (
        "Means of genes in control cells and in the target state (log-normalised expression), the "
        "largest change first"
    )
    changed = table[table["change"] != 0]
    shown = Table("target-means", caption, changed, columns, most=8, download=table, in_print=4)
    return Section("target", "Target", words, tables=[shown])


def _unit(params: Mapping[str, Any]) -> str:
    return DISTANCES.get(str(params.get("distance", "squared")), "squared")


def steps_section(found: Found) -> Section | None:
    """List the advice and, if it is to order the plan, how many guides and cells."""
    advice = advice_of(found)
    steps = [str(advice["words"])] if advice else []
    if orders_plan(found):
        steps += _steps_of_plan(found)
    elif "plan" not in found and "design" in found and advice.get("kind") == ORDER:
        steps.append(
            "Plan the cells and controls of the next round: run tl.plan_screen, and write this "
            "report again."
        )
    if advice.get("kind") == MEASURE or orders_plan(found):
        steps.append(
            "Add the new cells to this screen, fit again (Campaign.observe, or tl.fit_dag_blr on "
            "all cells), and write this report again: it states whether a further round is "
            "worthwhile."
        )
    return Section("steps", "Next steps", steps=steps) if steps else None


def _steps_of_plan(found: Found) -> list[str]:
    """List what to order for the next round, how many cells, and what to do with them."""
    plan = found["plan"]
    table, summary = plan["plate"], plan["summary"]
    chosen = table[table["strategy"].astype(str) != "control"]
    orders = _orders(plan["constructs"])
    further = _further_guides(found, chosen[chosen["n_cells_seen"] > 0])
    if further:
        orders = [further, *orders]
    elif all(each.startswith("Reuse") for each in orders):
        orders[0] = f"Order no guides: {orders[0][0].lower()}{orders[0][1:]}"
    order = " ".join(orders)
    profile = (
        f"Profile {count(summary['n_cells'])} cells: {_range(chosen['n_cells'])} of each "
        f"perturbation and {count(summary['n_controls'])} controls, counted after guides are "
        f"assigned and cells are filtered."
    )
    return [order, profile]


def _orders(constructs: pd.DataFrame) -> list[str]:
    """Return a sentence per status and kind of constructs: how many, and of which perturbations."""
    said, kinds = [], constructs["kind"].astype(str)
    for status, doing, of in _STATUS:
        mine = constructs[(constructs["status"].astype(str) == status) & (kinds != "control")]
        for kind, rows in mine.groupby(kinds, sort=False):
            what = str(kind).rstrip("s").replace(" ", "-").replace("single-", "single ")
            what += "" if kind == "single guide" else " construct"
            new = dict.fromkeys(", ".join(rows["new_guides_of"].astype(str)).split(", "))
            is_new = status == "design" and kind != "single guide"
            parts = f" with new guides of {', '.join(new)}" if is_new else of
            each = rows.groupby(rows["perturbation"].astype(str), sort=False).size()
            number = f": {_range(each)} for each of" if len(each) > 1 else ", for"
            said.append(
                f"{doing} {_several(len(rows), what)}{parts}{number} {', '.join(each.index)}."
            )
    return said


def _further_guides(found: Found, known: pd.DataFrame) -> str:
    """Return how many more guides distinguish the two nearest, if no number of cells does."""
    table = found.get("plan_cells", {}).get("distances", [])
    if len(table) < 2:
        return ""
    now, first = int(found["plan_cells"]["noise"]["n_guides"]), table.iloc[0]
    cells, needed = (
        float(first[name]) for name in ("cells_to_distinguish", "guides_to_distinguish")
    )
    pair = table["perturbation"].astype(str).tolist()[:2]
    is_asked = set(pair) <= set(known["perturbation"].astype(str))
    if not is_asked or np.isfinite(cells) or not now < needed < np.inf:
        return ""
    return (
        f"Order {_several(int(needed) - now, 'further guide')} for each of {' and '.join(pair)}: "
        f"with {_several(now, 'guide')}, no number of cells distinguishes them; "
        f"{_several(int(needed), 'guide')} suffice."
    )


def _several(n: int, noun: str) -> str:
    return f"{count(n)} {noun}" + ("" if n == 1 else "s")


def _range(numbers: pd.Series) -> str:
    """Return the minimum and the maximum of some counts, or their common value."""
    low, high = numbers.min(), numbers.max()
    return count(high) if low == high else f"{count(low)} to {count(high)}"


def plan_section(found: Found) -> Section | None:
    """List the perturbations of the next round; for an arrayed screen, draw its plates."""
    if "plan" not in found:
        return None
    plan = found["plan"]
    table, summary, params = plan["plate"], plan["summary"], plan["params"]
    is_control = table["strategy"].astype(str).to_numpy() == "control"
    control = table.loc[is_control, "predicted_distance"]
    words = [
        f"{count(summary['n_cells'])} cells, {count(summary['n_controls'])} of them controls. "
        f"W{contains_best(plan)[1:]}. They are expected to resolve "
        f"{share(summary['variance_reduction'])} of the remaining uncertainty."
    ]
    if not orders_plan(found):
        words.append("This plan is not what is advised: see the next steps.")
    if summary["n_not_admitted"]:
        words.append(not_admitted_in_words(int(summary["n_not_admitted"])))
    pending = plan["pending"]
    if len(pending):
        pairs = zip(pending["perturbation"], pending["n_cells"], strict=True)
        names = ", ".join(f"{name} ({count(n)} cells)" for name, n in pairs)
        words.append(f"In progress: {names}.")
    plate_format = int(params["plate_format"]) if "well" in table else 0
    there = set(table["strategy"].astype(str))
    chose = there - {"control"}
    columns = [
        *([Column("Well", "well")] if plate_format else []),
        Column("Perturbation", "perturbation", is_head=True),
        *_target_genes(table),
        Column("Guides", "n_guides", count),
        Column("Cells", "n_cells", count),
        Column("Cells so far", "n_cells_seen", count),
        *([Column("Strategy", "strategy", on_paper=False)] if len(chose) > 1 else []),
        Column("P(nearest)", "probability_best", percent, on_paper=False),
        *_of_combinations(table),
        Column("State distance", "state_distance", number, on_paper=False),
        Column(
            "Predicted distance", PREDICTED,
            reference=float(control.iloc[0]) if len(control) else float("nan"),
        ),
        Column("Why", "why", is_long=True),
    ]  # fmt: skip
    chosen_by = f" by strategy '{next(iter(chose))}'" if len(chose) == 1 else ""
    shown = Table(
        "plate",
        f"Perturbations of the next round, in the order chosen{chosen_by}. Distance to "
        f"{params['target']}, {_unit(params)}, with 90% interval; the dashed line is the control",
        table, columns, download=table, in_print=14,
        kept=int(np.flatnonzero(is_control)[-1]) if is_control.any() else -1,
    )  # fmt: skip
    legend = [
        (strategy, sign, words)
        for strategy, (sign, words) in STRATEGIES.items()
        if strategy in there
    ]
    plates = plates_of(table, plate_format) if plate_format else []
    tables = [shown, _constructs(plan["constructs"])]
    return Section(
        "plan", "Next round", words, plates=plates, legend=legend if plates else (), tables=tables
    )


def _constructs(table: pd.DataFrame) -> Table:
    """List what to make: the constructs of every perturbation, and the cells of each."""
    made = table[table["kind"].astype(str) != "control"]
    optional = [
        Column(head, name)
        for head, name in (("Guides", "guides"), ("New guides of", "new_guides_of"))
        if made[name].astype(str).any()
    ]
    columns = [
        Column("Perturbation", "perturbation", is_head=True),
        Column("Construct", "construct", count),
        Column("Kind", "kind"),
        Column("Status", "status"),
        *optional,
        Column("Target genes", "target_genes"),
        Column("Cells", "n_cells", count),
    ]
    caption = (
        "Constructs of the next round: existing in this screen, to clone from its guides, or with "
        "guides to design"
    )
    return Table("constructs", caption, made, columns, download=table, in_print=14)


def plates_of(table: pd.DataFrame, plate_format: int) -> list[Plate]:
    """Return the maps of all plates of a plan.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextpert._report.planned import plates_of
    >>> row = {"well": "2-B1", "perturbation": "MYC+STK3_2", "n_cells": 9, "strategy": "exploit"}
    >>> plate = plates_of(pd.DataFrame([row]), 8)[0]
    >>> plate.number, plate.rows[1][0], plate.rows[1][1][0].parts
    (2, 'B', ['MYC+', 'STK3_', '2'])
    """
    n_rows, n_columns = SHAPES[plate_format]
    wells: dict[int, dict[tuple[str, int], Well]] = {}
    for row in table.to_dict("records"):
        at, label, strategy = (str(row[name]) for name in ("well", "perturbation", "strategy"))
        found = _WELL.fullmatch(at)
        if found is None:
            message = f"The plan names a well {at!r}: run tl.plan_screen again."
            raise ValueError(message)
        parts = [part for part in _JOINT.split(label) if part]
        well = Well(
            at, label, int(row["n_cells"]), strategy, STRATEGIES.get(strategy, ("", ""))[0], parts
        )
        wells.setdefault(int(found[1] or 1), {})[found[2], int(found[3])] = well
    columns = list(range(1, n_columns + 1))
    names = [chr(ord("A") + i) for i in range(n_rows)]
    return [
        Plate(plate, columns, [(name, [held.get((name, c)) for c in columns]) for name in names])
        for plate, held in sorted(wells.items())
    ]


def ranking_section(found: Found) -> Section | None:
    """List all candidates, best first."""
    if "design" not in found:
        return None
    design = found["design"]
    ranking, control = candidates_of(design["ranking"]), nothing_of(design["ranking"])
    params = design["params"]
    target, name = name_of(params["target"]), str(params["acquisition"])
    # A result may come from a session that has registered an acquisition of its own.
    by = (core.find_acquisition(name).in_words if name in core.acquisitions() else "") or name
    words = [
        f"{count(len(ranking))} candidates towards {target}, ranked by {by}. The control has a "
        f"distance of {number(control['predicted_distance'])}."
    ]
    if len(design["not_ranked"]):
        pairs = zip(design["not_ranked"]["perturbation"], design["not_ranked"]["why"], strict=True)
        words.append(f"Not ranked: {list_names(f'{label} ({why})' for label, why in pairs)}.")
    if params["first_on_other_genes"]:
        words.append(
            f"On the genes that neither {target} nor any candidate targets, "
            f"{params['first_on_other_genes']} would be first."
        )
    columns = [
        Column("Rank", "rank", count),
        Column("Perturbation", "perturbation", is_head=True),
        *_target_genes(ranking),
        Column("Predicted distance", PREDICTED, reference=float(control["predicted_distance"])),
        Column("Relative to control", "relative_distance", share),
        Column("P(nearest)", "probability_best", percent),
        Column("P(nearer than control)", "probability_better", percent),
        *_of_combinations(ranking),
        Column("Measured distance", "measured_distance", number),
        Column("Cells so far", "n_cells_seen", count),
    ]
    caption = (
        f"Candidates, best first. Distance to {target}, {_unit(params)}, with 90% interval; the "
        f"dashed line is the control"
    )
    tables = [Table("ranking", caption, ranking, columns, download=design["ranking"])]
    if len(design["trace"]) > 1:
        columns = [
            Column("Round", "round", count, is_head=True),
            Column("First choice", "chosen"),
            Column("Acquisition", "acquisition"),
            Column("Target", "target"),
            Column("Predicted distance", "predicted_distance", number),
            Column("Perturbed cells", "n_perturbed_cells", count),
        ]
        caption = "First choice of every round, target and acquisition so far"
        tables.append(Table("rounds", caption, design["trace"], columns, in_print=5))
    return Section("ranking", "Ranking", words, tables=tables)


def _target_genes(table: pd.DataFrame) -> list[Column]:
    """Return the column of target genes, unless the labels name all of them."""
    labels, targets = (table[name].astype(str) for name in ("perturbation", "target_genes"))
    is_named = [
        not genes or set(genes.split(", ")) <= set(label.split("+"))
        for label, genes in zip(labels, targets, strict=True)
    ]
    return [] if all(is_named) else [Column("Target genes", "target_genes")]


def _of_combinations(table: pd.DataFrame) -> list[Column]:
    """Return the columns on untested combinations, if there are some."""
    if table["probability_nearer_than_members"].isna().all():
        return []
    columns = [
        Column("P(nearer than members)", "probability_nearer_than_members", percent),
        Column("P(nearer than measured)", "probability_nearer_than_measured", percent),
    ]
    if (table["members_without_effect"].astype(str) != "").any():
        columns.append(Column("Members without effect", "members_without_effect"))
    return columns
