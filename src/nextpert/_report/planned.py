"""Sections on the target and what to do next: target, steps, plan, ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import core
from nextpert._adata import list_names
from nextpert._report.page import Section
from nextpert._report.results import advice_of, contains_best, orders_plan
from nextpert._report.tables import Slider, Table, number, ratio
from nextpert.core.design.goal import DISTANCES
from nextpert.core.design.stopping import MEASURE, ORDER
from nextpert.study.advice import chosen_of, name_of
from nextpert.study.constructs import digest_of_plan, noun_of
from nextpert.study.plate import ADVISED
from nextpert.study.ranking import candidates_of, not_admitted_in_words, nothing_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nextpert._report.results import Results

CELLS = (MEASURE, ORDER)  # kinds of advice after which a further round is planned
# Columns on untested combinations.
_OF_COMBINATIONS = "probability_nearer_than_members", "probability_nearer_than_measured"


def target_section(results: Results) -> Section | None:
    """Describe the target, gene by gene if means are known."""
    names = ("plan", "design", "plan_cells")
    params_of = {x: results[x]["params"] for x in names if x in results}
    params_of = {x: params for x, params in params_of.items() if "target" in params}
    if not params_of:
        return None
    first, params = next(iter(params_of.items()))
    words = [f"Target: {params['target']}. Distances to it are {_unit(params)}."]
    left_out = [str(x["genes_left_out"]) for x in params_of.values() if x.get("genes_left_out")]
    if left_out:
        words.append(
            f"Distances are measured {left_out[0]}, and scaled to the control's distance on the "
            f"same genes."
        )
    stored = results[first]
    fit = results.get("dag_blr", {})
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
        "target-means",
        caption,
        table[table["change"] != 0],
        [*map(str, table)],
        max_rows=8,
        download=table,
        in_print=4,
    )
    return Section("target", "Target", words, tables=[shown])


def _unit(params: Mapping[str, Any]) -> str:
    return DISTANCES[str(params.get("distance", "squared"))].axis


def steps_section(results: Results) -> Section | None:
    """List the advice and, if it is to order the plan, the numbers of guides and cells."""
    advice = advice_of(results)
    is_ordered = orders_plan(results)
    steps = [str(advice["words"])] if advice else []
    if is_ordered:
        summary = results["plan"]["summary"]
        chosen = chosen_of(results["plan"])
        steps += [
            f"{_orders(results['plan']['constructs'])} (see the table).",
            f"Profile {number(summary['n_cells'])} cells: {_range(chosen['n_cells'])} of each "
            f"perturbation and {number(summary['n_controls'])} controls, counted after guides are "
            f"assigned and cells are filtered.",
        ]
        if loading := loading_of(results):
            steps.append(str(loading["words"]))
        if not results["plan"]["summary"]["is_diagnosed"]:
            steps.append("Guides were not checked: run tl.diagnose before ordering guides again.")
    elif "plan" not in results and "design" in results and advice.get("kind") in CELLS:
        steps.append(
            "Plan the cells and controls of the next round: run tl.plan_screen, and write this "
            "report again."
        )
    if is_ordered or advice.get("kind") in CELLS:
        steps.append(
            "Add the new cells to this screen, fit again (Campaign.observe, or tl.fit_dag_blr on "
            "all cells), and write this report again: it states whether a further round is "
            "worthwhile."
        )
    return Section("steps", "Next steps", steps=steps) if steps else None


def _orders(constructs: pd.DataFrame) -> str:
    """Return how many guides, compounds or constructs are to be designed, cloned and reused."""
    n_of = constructs.loc[constructs["kind"].astype(str) != "control", "status"].astype(str)
    actions = {
        "design": "design and order",
        "clone": "clone from guides of this screen",
        "existing": "reuse",
    }
    parts = [f"{words} {n}" for x, words in actions.items() if (n := (n_of == x).sum())]
    return f"Of {len(n_of)} {noun_of(constructs)}s, {', '.join(parts)}"


def _range(numbers: pd.Series) -> str:
    """Return the minimum and the maximum of some counts, or their common value."""
    return " to ".join(dict.fromkeys([number(numbers.min()), number(numbers.max())]))


def plan_section(results: Results) -> Section | None:
    """List the perturbations of the next round, and what to order for them."""
    if "plan" not in results:
        return None
    plan = results["plan"]
    summary = plan["summary"]
    params = plan["params"]
    if not len(plan["plate"]):
        return Section(
            "plan", "Next round", ["The advice is to profile no cells: the plan is empty."]
        )
    words = [
        f"{number(summary['n_cells'])} cells, {number(summary['n_controls'])} of them controls. "
        f"{contains_best(plan)}. The cells are expected to resolve "
        f"{ratio(summary['variance_reduction'])} of the remaining uncertainty."
    ]
    if not orders_plan(results):
        words.insert(0, f"{_why_planned(plan)}, but is not advised: see the next steps.")
    if "cost" in summary:
        words.append(
            f"The plan costs {number(summary['cost'])} of a budget of {number(params['budget'])}."
        )
    if summary["n_not_admitted"]:
        words.append(not_admitted_in_words(int(summary["n_not_admitted"])))
    if len(plan["pending"]):
        pairs = plan["pending"][["perturbation", "n_cells"]].itertuples(index=False)
        words.append(f"In progress: {', '.join(f'{x} ({number(n)} cells)' for x, n in pairs)}.")
    tables = [_plate_table(plan), _construct_table(plan)]
    if loading := loading_of(results):
        steps = loading["steps"]
        tables.append(
            Table("loading", "From the plan to the instrument", steps, list(steps), in_print=20)
        )
    return Section("plan", "Next round", words, tables=tables)


def _plate_table(plan: Mapping[str, Any]) -> Table:
    """Return the perturbations of a plan in the order chosen."""
    table = plan["plate"]
    params = plan["params"]
    is_control = table["strategy"].astype(str).to_numpy() == "control"
    used = dict.fromkeys(table["strategy"].astype(str))
    strategies = [strategy for strategy in used if strategy != "control"]
    by_strategy = params["strategy"] != ADVISED and len(strategies) == 1
    chosen_by = f" by strategy '{strategies[0]}'" if by_strategy else ""
    return Table(
        "plate",
        f"Perturbations of the next round, in the order chosen{chosen_by}, with distances to "
        f"{params['target']} ({_unit(params)}) and 90% intervals; the dashed line marks the "
        f"control",
        table,
        [
            "perturbation",
            *_target_genes(table),
            "n_guides",
            "n_cells",
            "n_cells_seen",
            *(["cost"] if "cost" in table else []),
            *(["strategy"] if len(strategies) > 1 else []),
            *([] if table["is_advised"].all() else ["is_advised"]),
            "probability_best",
            *_OF_COMBINATIONS,
            "state_distance",
            "predicted_distance",
            "why",
        ],
        marks={"predicted_distance": table.loc[is_control, "predicted_distance"].mean()},
        download=table,
        in_print=14,
    )


def _construct_table(plan: Mapping[str, Any]) -> Table:
    """Return what to order for a plan, without controls; the file to download has all."""
    perturbing = plan["constructs"][plan["constructs"]["kind"].astype(str) != "control"]
    caption = (
        f"{noun_of(perturbing).capitalize()}s of the next round, which exist in this screen, are "
        f"cloned from its guides, or have to be designed"
    )
    names = [
        "perturbation",
        "construct",
        "kind",
        "status",
        "guides",
        "new_guides_of",
        "target_genes",
        "n_cells",
    ]
    return Table("constructs", caption, perturbing, names, download=plan["constructs"], in_print=14)


def _why_planned(plan: Mapping[str, Any]) -> str:
    """Return why a plan that is not advised was made."""
    strategy = str(plan["params"]["strategy"])
    if strategy == ADVISED:
        return "This round contains what was included on request"
    return f"This round was planned by strategy '{strategy}'"


def loading_of(results: Results) -> Mapping[str, Any] | None:
    """Return what to load for the plan; ``None`` if it was not computed for this plan."""
    loading = results.get("loading")
    is_of_plan = loading is not None and loading.get("plan") == digest_of_plan(results["plan"])
    return loading if is_of_plan else None


def ranking_section(results: Results) -> Section | None:
    """List all candidates, best first."""
    if "design" not in results:
        return None
    design = results["design"]
    params = design["params"]
    ranking = candidates_of(design["ranking"])
    control = nothing_of(design["ranking"])
    target = name_of(params["target"])
    name = str(params["acquisition"])
    # A result may come from a session that registered its own acquisition.
    by = (core.find_acquisition(name).in_words if name in core.acquisitions() else "") or name
    words = [
        f"{number(len(ranking))} candidates for the target {target}, ranked by {by}. The "
        f"distance of the control to the target is {number(control['predicted_distance'])}."
    ]
    as_near = _as_near_slider(design)
    if as_near is not None:
        tolerance = as_near.positions[as_near.start]
        words.append(
            f"P(within {tolerance} of nearest) is the probability that neither another candidate "
            f"nor the control is nearer by more than {tolerance} of the control's distance, the "
            f"tolerance of the advice."
        )
        shown = as_near.numbers[:, as_near.start]
        ranking = ranking.assign(**{as_near.column: shown})
    if len(design["not_ranked"]):
        pairs = design["not_ranked"][["perturbation", "why"]].itertuples(index=False)
        words.append(f"Not ranked: {list_names(f'{label} ({why})' for label, why in pairs)}.")
    names = [
        "rank",
        "perturbation",
        *_target_genes(ranking),
        "predicted_distance",
        "relative_distance",
        "probability_best",
        "probability_as_near",
        "probability_better",
        *_OF_COMBINATIONS,
        "measured_distance",
        "n_cells_seen",
    ]
    caption = (
        f"Candidates, best first, with distances to {target} ({_unit(params)}) and 90% intervals; "
        f"the dashed line marks the control"
    )
    marks = {"predicted_distance": float(control["predicted_distance"])}
    table = Table(
        "ranking",
        caption,
        ranking,
        names,
        marks=marks,
        download=design["ranking"],
        slider=as_near,
    )
    return Section("ranking", "Ranking", words, tables=[table])


def _as_near_slider(design: Mapping[str, Any]) -> Slider | None:
    """Return the slider that ranks by the probability of being as near, up to a tolerance."""
    if "as_near" not in design:  # stored by an earlier version
        return None
    tolerances = np.asarray(design["as_near"]["tolerances"], np.float64)
    is_candidate = ~design["ranking"]["is_control"].to_numpy(bool)
    advised = float(design["advice"]["tolerance"])
    return Slider(
        column="probability_as_near",
        head="P(within {} of nearest)",
        label="Rank these rows by a tolerance of",
        unit="of the control's distance",
        positions=[f"{100 * x:g}%" for x in tolerances],
        start=int(np.abs(tolerances - advised).argmin()),
        numbers=np.asarray(design["as_near"]["probabilities"])[is_candidate],
    )


def _target_genes(table: pd.DataFrame) -> list[str]:
    """Return the column of target genes, unless the labels name all of them."""
    pairs = table[["perturbation", "target_genes"]].astype(str).itertuples(index=False)
    is_named = [not genes or set(genes.split(", ")) <= set(x.split("+")) for x, genes in pairs]
    return [] if all(is_named) else ["target_genes"]
