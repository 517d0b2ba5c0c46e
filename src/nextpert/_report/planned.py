"""Sections on what is wanted and what to try: target, plate, ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import core
from nextpert._adata.target import DISTANCES
from nextpert._report.blocks import Section
from nextpert._report.numbers import chance, count, number, percent, share
from nextpert._report.plate import legend_of, plates_of
from nextpert._report.tables import Column, make_table
from nextpert._report.verdict import name_of
from nextpert.tl._design_interventions.tables import candidates_of, nothing_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    Found = Mapping[str, dict[str, Any]]

PREDICTED = ("predicted_distance", "predicted_low", "predicted_high")


def target_section(found: Found) -> Section | None:
    """Say what is wanted of cells, gene by gene where that is known."""
    asked = {
        name: found[name]["params"]
        for name in ("plan", "design", "plan_cells")
        if name in found and "target" in found[name]["params"]
    }
    if not asked:
        return None
    params = next(iter(asked.values()))
    words = [f"Wanted: {params['target']}. Distances to it: {_unit(params)}."]
    if any(int(other.get("target_is_candidate", 0)) for other in asked.values()):
        words.append("The perturbation whose state this is was allowed as a candidate.")
    words += [
        f"The {what} is towards another target: {other['target']}."
        for name, other in asked.items()
        for what in [{"design": "ranking", "plan_cells": "number of cells"}.get(name, name)]
        if str(other["target"]) != str(params["target"])
    ]
    stored = found[next(iter(asked))]
    table = _wanted_table(stored, found.get("dag_blr"))
    tables = []
    if table is not None:
        tables = [
            make_table(
                "wanted",
                "Means of genes: of control cells, and wanted (log-normalised expression), the "
                "largest change first",
                table[table["change"] != 0],
                [
                    Column("Gene", "gene", is_head=True),
                    Column("Control cells", "control", number),
                    Column("Wanted", "wanted", number),
                    Column("Change", "change", _signed),
                ],
                most=8,
                download=table,
                in_print=4,
            )
        ]
    return Section("target", "Target", words, tables=tables)


def _wanted_table(stored: Mapping[str, Any], fit: Mapping[str, Any] | None) -> pd.DataFrame | None:
    if fit is None or "target_mean" not in stored:
        return None
    genes = [str(gene) for gene in stored["genes"]]
    if genes != [str(gene) for gene in fit["genes"]]:
        return None
    control, wanted = (np.asarray(x, float) for x in (fit["control_mean"], stored["target_mean"]))
    table = pd.DataFrame(
        {"gene": genes, "control": control, "wanted": wanted, "change": wanted - control}
    )
    order = np.argsort(-np.abs(wanted - control), kind="stable")
    return table.iloc[order]


def _unit(params: Mapping[str, Any]) -> str:
    return DISTANCES.get(str(params.get("distance", "squared")), "squared")


def _signed(value: Any) -> str:
    text = number(value)
    return f"+{text}" if float(value) > 0 else text


def plan_section(found: Found) -> Section | None:
    """Draw the plate and list its wells."""
    if "plan" not in found:
        return None
    plan = found["plan"]
    table, summary, params = plan["plate"], plan["summary"], plan["params"]
    controls = table[table["aim"].astype(str) == "control"]
    nothing = float(controls["predicted_distance"].iloc[0]) if len(controls) else float("nan")
    words = [
        f"{count(summary['n_cells'])} cells, {count(summary['n_controls'])} of them controls. "
        f"This plate holds the nearest of {count(params['n_candidates'])} candidates with "
        f"probability {percent(summary['probability_covered'])}, and is expected to resolve "
        f"{share(summary['uncertainty_removed'])} of the remaining uncertainty."
    ]
    known = str(summary["best_known"])
    if known:
        words.append(
            f"Best measured so far: {known}, the nearest of all candidates with probability "
            f"{percent(summary['probability_known'])}."
        )
    pending = plan["pending"]
    if len(pending):
        names = [
            f"{name} ({count(n)} cells)"
            for name, n in zip(pending["perturbation"], pending["n_cells"], strict=True)
        ]
        words.append(f"Counted as under way: {', '.join(names)}.")
    columns = [
        Column("Well", "well"),
        Column("Perturbation", "perturbation", is_head=True),
        *_target_genes(table),
        Column("Guides", "n_guides", count),
        Column("Cells", "n_cells", count),
        Column("Cells seen", "n_cells_seen", count),
        Column("Aim", "aim", on_paper=False),
        Column("Chance to be nearest", "probability_best", chance, on_paper=False),
        Column("State distance", "state_distance", number, on_paper=False),
        Column("Predicted distance", PREDICTED, reference=nothing),
        Column("Why", "why", is_long=True),
    ]
    wells = make_table(
        "plate",
        f"Wells of the plate in the order chosen. Distance to {params['target']}, "
        f"{_unit(params)}, with 90 % interval; the dashed line is doing nothing",
        table,
        columns,
        download=table,
        in_print=14,
    )
    plates = plates_of(table, int(params["plate_format"]))
    return Section("plan", "Next plate", words, plates, legend_of(table), tables=[wells])


def ranking_section(found: Found) -> Section | None:
    """List all candidates, best first."""
    if "design" not in found:
        return None
    design = found["design"]
    ranking, nothing = candidates_of(design["ranking"]), nothing_of(design["ranking"])
    params = design["params"]
    words = [
        f"{count(len(ranking))} candidates towards {name_of(params['target'])}, ranked by "
        f"{_criterion(str(params['acquisition']))}. Doing nothing leaves a distance of "
        f"{number(nothing['predicted_distance'])}."
    ]
    table = make_table(
        "ranking",
        f"Candidates, best first. Distance to {name_of(params['target'])}, {_unit(params)}, with "
        f"90 % interval; the dashed line is doing nothing",
        ranking,
        [
            Column("Rank", "rank", count),
            Column("Perturbation", "perturbation", is_head=True),
            *_target_genes(ranking),
            Column("Predicted distance", PREDICTED, reference=float(nothing["predicted_distance"])),
            Column("Of doing nothing", "relative_distance", share),
            Column("Chance to be nearest", "probability_best", chance),
            Column("Chance to help at all", "probability_better", chance),
            Column("Measured distance", "measured_distance", number),
            Column("Cells seen", "n_cells_seen", count),
        ],
        download=design["ranking"],
        in_print=10,
    )
    tables = [table]
    trace = design["trace"]
    if len(trace) > 1:
        tables.append(_trace_table(trace))
    return Section("ranking", "Ranking", words, tables=tables)


def _target_genes(table: pd.DataFrame) -> list[Column]:
    """Return the column of target genes, where labels do not say them already."""
    labels, targets = (table[name].astype(str) for name in ("perturbation", "target_genes"))
    told = [
        not genes or sorted(label.split("+")) == sorted(genes.split(", "))
        for label, genes in zip(labels, targets, strict=True)
    ]
    return [] if all(told) else [Column("Target genes", "target_genes")]


def _trace_table(trace: pd.DataFrame) -> Any:
    return make_table(
        "rounds",
        "First choices so far: of every round, target and criterion",
        trace,
        [
            Column("Round", "round", count, is_head=True),
            Column("First choice", "chosen"),
            Column("Criterion", "criterion"),
            Column("Target", "target"),
            Column("Predicted distance", "predicted_distance", number),
            Column("Perturbed cells", "n_perturbed_cells", count),
        ],
        in_print=5,
    )


def _criterion(name: str) -> str:
    # A result may come from a session that has registered an acquisition of its own.
    return (core.find_acquisition(name).in_words if name in core.acquisitions() else "") or name
