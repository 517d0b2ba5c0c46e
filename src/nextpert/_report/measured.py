"""Sections on what was measured and learned, how reliable it is, and how the page was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import pl
from nextpert._adata import eager, list_names, read_graph
from nextpert._adata.guides import COLUMNS
from nextpert._adata.guides import KEY as GUIDES
from nextpert._adata.table import is_table, not_told
from nextpert._report.page import Figure, Section, draw
from nextpert._report.results import FIT, LEVELS, SOURCES, advice_of
from nextpert._report.tables import MAX_FILE_ROWS, MAX_ROWS, NOTHING, Table, above_0, number
from nextpert.core.design.goal import DISTANCES
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.study.advice import name_of
from nextpert.study.quantities import GRAPH_PART

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert._report.results import Keys, Results

_NUMBERS = ("mean", "lower", "upper", "lfsr", "direct", "raw_mean")


def distances_section(results: Results) -> Section | None:
    """List the distance of the cells of every perturbation to the target."""
    if "target_distances" not in results:
        return None
    stored = results["target_distances"]
    table = stored["table"]
    params = stored["params"]
    left_out = str(params["genes_left_out"])
    words = (
        f"Unbiased estimates of the distance of each perturbation to {name_of(stored['target'])} "
        f"({DISTANCES[str(params['distance'])].axis}), computed from its cells without a model, "
        f"over {number(len(stored['genes']))} genes"
    )
    words += f", {left_out}, and scaled to the control's distance." if left_out else "."
    caption = (
        f"Measured distances, nearest first, with {100 * float(params['confidence']):g}% "
        f"intervals; dashed lines mark the distance of the control, and a difference of 0 from it"
    )
    is_control = table["perturbation"].astype(str) == str(params["control"])
    shown = Table(
        "distances",
        caption,
        above_0(table),
        ["perturbation", "n_cells", "distance", "relative_distance", "difference"],
        marks={"distance": table.loc[is_control, "distance"].mean(), "difference": 0.0},
        download=table,
        in_print=6,
    )
    return Section("distances", "Measured distances", [words], tables=[shown])


def effects_section(adata: AnnData, results: Results, keys: Keys) -> Section | None:
    """List the strongest effects, and draw the map of them."""
    if "perturbation_effects" not in results:
        return None
    stored = results["perturbation_effects"]
    is_significant = np.asarray(stored["lfsr"]) < SIGNIFICANCE
    n = int(is_significant.sum())
    words = (
        f"An effect is the mean of perturbed cells minus that of {stored['params']['control']}. "
        f"Its direction is significant if the local false sign rate is below {SIGNIFICANCE:g}. "
        f"{number(n)} of {number(is_significant.size)} effects of {len(is_significant)} "
        f"perturbations on {number(len(stored['genes']))} genes are significant."
    )
    words += f" The {MAX_ROWS} strongest are listed." * (n > MAX_ROWS)
    largest_effects = _largest(stored, np.ones_like(is_significant), MAX_FILE_ROWS)
    figures, tables = [], []
    if len(largest_effects):
        first = largest_effects.head().itertuples()
        largest = ", ".join(f"{x.perturbation} on {x.gene} {x.mean:+.2g}" for x in first)
        alt = f"Map of the strongest effects. The largest: {largest}."
        about = "The strongest effects, ordered by clustering."
        tables = [_by_perturbation(stored, is_significant)]
        key = keys["perturbation_effects"]
        figures = [draw(pl.perturbation_effects, adata, alt, about, key=key)]
    caption = (
        f"Effects whose direction is significant, strongest first, with "
        f"{100 * float(stored['params']['level']):g}% intervals (log-normalised expression); the "
        f"dashed line marks zero effect"
    )
    strongest = Table(
        "effects",
        caption,
        _largest(stored, is_significant, MAX_ROWS),
        ["perturbation", "gene", "mean", "lfsr", "direct", "raw_mean", "n_cells"],
        marks={"mean": 0.0},
        n_all=n,
        download=largest_effects,
        n_file=is_significant.size,
        in_print=0,
    )
    tables.append(strongest)
    return Section("effects", "Effects", [words], figures=figures, tables=tables)


def _largest(stored: Mapping[str, Any], among: NDArray[np.bool_], n_rows: int) -> pd.DataFrame:
    """Return the ``n_rows`` largest effects in ``among``, one per row, the largest first."""
    mean = np.asarray(stored["mean"], float).ravel()
    places = np.flatnonzero(among)
    places = places[np.argsort(-np.abs(mean[places]), kind="stable")[:n_rows]]
    row, column = np.divmod(places, max(len(stored["genes"]), 1))
    return pd.DataFrame(
        {
            "perturbation": np.asarray(stored["perturbations"])[row].astype(str),
            "gene": np.asarray(stored["genes"])[column].astype(str),
            **{name: np.asarray(stored[name], float)[row, column] for name in _NUMBERS},
            "n_cells": np.asarray(stored["n_cells"])[row],
        }
    )


def _by_perturbation(stored: Mapping[str, Any], is_significant: NDArray[np.bool_]) -> Table:
    """Return the number of effects of each perturbation, and the largest in either direction."""
    names, genes = (np.asarray(stored[x]).astype(str) for x in ("perturbations", "genes"))
    mean = pd.DataFrame(np.where(is_significant, stored["mean"], 0.0), names, genes)

    def largest(sign: int) -> pd.Series:
        gene, size = (sign * mean).idxmax(axis=1), (sign * mean).max(axis=1)
        return (gene + (sign * size).map(" ({:+.2g})".format)).where(size > 0, "")

    columns = {
        "n_cells": np.asarray(stored["n_cells"]),
        "n_significant_effects": is_significant.sum(axis=1),
        "most_raised": largest(1),
        "most_lowered": largest(-1),
    }
    frame = pd.DataFrame(columns).rename_axis("perturbation").reset_index()
    frame = frame.sort_values("n_significant_effects", ascending=False, kind="stable")
    caption = "Perturbations, with the number and the largest of their significant effects"
    return Table("perturbations", caption, frame, [*map(str, frame)], download=frame, in_print=7)


def programs_section(adata: AnnData, results: Results, keys: Keys) -> Section | None:
    """List the programs that perturbations share."""
    stored = results.get("perturbation_effects", {})
    if "programs" not in stored or (np.asarray(stored["n_cells"]) > 0).sum() < 2:
        return None
    shares, genes, scores = (stored["programs"][name] for name in ("shares", "genes", "scores"))
    words = ["No program is shared by two or more perturbations."]
    tables, figures = list[Table](), list[Figure]()
    if len(shares):
        words = [
            "A program is a set of genes whose expression changes in concert in two or more "
            "perturbations. The score of a perturbation is the strength and direction of the "
            "change. The target genes of a perturbation do not count in its score."
        ]
        on_program = scores[scores["takes_part"].astype(bool)]
        in_words = {
            "perturbations": _in_words(on_program, "perturbation", "score"),
            "genes": _in_words(genes.groupby("program").head(8), "gene", "effect"),
        }
        shown = shares.set_index("program")[["share"]].assign(**in_words).reset_index()
        caption = "Programs, by their share of the effects, with the genes that change most"
        program_genes = genes.merge(shares[["program", "share"]], on="program")
        names = [*map(str, shown)]
        tables = [Table("programs", caption, shown, names, download=program_genes, in_print=3)]
        alt = (
            f"Scores of perturbations and effects on genes, for each program. In the largest "
            f"program, the perturbations with the highest scores are "
            f"{shown['perturbations'].iloc[0]}, and the genes with the strongest effects are "
            f"{shown['genes'].iloc[0]}."
        )
        about = "Scores of perturbations on programs, and effects on genes, with 90% intervals."
        figures = [draw(pl.programs, adata, alt, about, key=keys["perturbation_effects"])]
    return Section("programs", "Programs", words, figures=figures, tables=tables)


def _in_words(table: pd.DataFrame, name: str, value: str) -> pd.Series:
    """Return the names and values of each program as one text."""
    words = table[name].astype(str) + table[value].map(" {:+.2f}".format)
    return words.groupby(table["program"]).agg(lambda x: list_names(x, 8))


def graph_section(adata: AnnData, results: Results, keys: Keys) -> Section | None:
    """Draw the graph, and list its edges; as associations, unless its directions are trusted."""
    if "dag" not in results or keys["dag"] not in adata.varp:
        return None
    key = keys["dag"]
    method = str(results["dag"]["params"]["method"])
    genes, columns, graph = read_graph(adata, key)
    caveat = _caveat(results, method)
    title, edges = ("Associations", "associations") if caveat else ("Graph", "edges")
    how = "It was given." if method == "given" else f"It was learned by {method}."
    words = [f"The graph has {number(len(genes))} genes and {number(graph.n_edges)} {edges}. {how}"]
    if not graph.n_edges:
        words.append("The graph has no edges, so it predicts no effect of one gene on another.")
        return Section("graph", title, words)
    words += [caveat] if caveat else []
    is_fitted = "dag_blr" in results and str(results["dag_blr"]["params"]["dag_key"]) == key
    posterior = keys["dag_blr"] if is_fitted else None
    parent, child = sp.csr_array(graph.to_matrix()).nonzero()
    table = pd.DataFrame({"parent": [genes[i] for i in parent], "child": [genes[i] for i in child]})
    caption = edges.capitalize()
    if f"{posterior}_mean" in adata.varp:
        weights = sp.csr_array(eager(adata.varp[f"{posterior}_mean"]))
        table["weight"] = np.asarray(weights[columns[parent], columns[child]]).ravel()
        table = table.sort_values("weight", key=lambda x: -x.abs(), kind="stable")
        per = "" if caveat else " (weight: change of the effect per unit of the cause)"
        caption += f", the strongest first{per}"
    if "edges" in results["dag"]:
        table = table.merge(results["dag"]["edges"], how="left", on=["parent", "child"])
    names = ["parent", "child", "weight", "oriented_by", "frequency"]
    about = "Genes in topological order: causes left, effects right."
    shown = table
    if caveat:
        names = ["gene", "associated_gene", "weight", "frequency"]
        about = "Edges are associations: their directions are not known."
        shown = table.rename(columns={"parent": "gene", "child": "associated_gene"})
    figure = draw(
        pl.dag,
        adata,
        f"Edge diagram of the {edges} between genes: {words[0]} See the table.",
        about,
        key=key,
        posterior_key=posterior,
        directed=not caveat,
    )
    listed = Table("edges", caption, shown, names, download=table, in_print=0)
    return Section("graph", title, words, figures=[figure], tables=[listed])


def _caveat(results: Results, method: str) -> str:
    """Return why edges are not read as causal; empty if they are trusted, or were given."""
    if "diagnosis" not in results:
        if method == "given":
            return ""
        return (
            "Whether these edges are causal was not checked (run tl.diagnose): read them as "
            "associations without a direction."
        )
    parts = results["diagnosis"]["parts"]
    verdicts = parts.loc[
        (parts["part"] == GRAPH_PART) & (parts["level"] == "do not trust"), "verdict"
    ]
    if not len(verdicts):
        return ""
    return (
        f"The graph is not trusted on this screen, so its edges are associations: either gene may "
        f"act on the other, or neither. Diagnosis: {str(verdicts.iloc[0]).split(': ', 1)[-1]}"
    )


def cells_section(results: Results) -> Section | None:
    """Report how many cells the next perturbations need."""
    if "plan_cells" not in results:
        return None
    advice = advice_of(results).get("words")  # shown above
    verdict = str(results["plan_cells"]["verdict"]).splitlines()
    return Section("cells", "Number of cells", [line for line in verdict if line != advice])


def replay_section(results: Results) -> Section | None:
    """Compare strategies on the cells of this screen."""
    if "replay" not in results:
        return None
    stored = results["replay"]
    overall = stored["overall"]
    names = ["strategy", "plates", "plates_difference", "share_good_last", "relative_last"]
    names += ["relative_difference", "verdict"]
    caption = (
        "Strategies, replayed on the cells of this screen; differences from the baseline are "
        "paired by target, with 95% intervals over targets"
    )
    marks = {"plates_difference": 0.0, "relative_difference": 0.0}
    table = Table("replay", caption, overall, names, marks, download=overall, in_print=6)
    return Section("replay", "Replay", [str(stored["summary"])], tables=[table])


def diagnosis_section(adata: AnnData, results: Results, keys: Keys) -> Section | None:
    """Report which parts of the analysis are reliable, and the evidence from the screen."""
    if "diagnosis" not in results:
        return None
    parts, checks = (results["diagnosis"][name] for name in ("parts", "summary"))
    values = checks.set_index(["part", "quantity"])["value"]
    why = parts["verdict"].astype(str).str.split(": ", n=1).str[-1]  # without the name of the part
    signs = {level: f"{sign} {name}" for level, (name, sign) in LEVELS.items()}
    levels = parts["level"].astype(str).replace(signs).str.replace(" ", "\N{NO-BREAK SPACE}")
    shown = parts.assign(level=levels, why=why.str[:1].str.upper() + why.str[1:])
    caption = (
        "Every part of the model, tested on cells, guides or perturbations to which it was not "
        "fitted"
    )
    first = Table("parts", caption, shown, ["part", "level", "why"], in_print=8)
    caption = (
        "Measured quantities and the rule for each; a quantity other than a count passes its rule "
        "only if it has a standard error"
    )
    names = ["part", "quantity", "value", "standard_error", "rule", "passed"]
    second = Table("checks", caption, checks, names, download=checks, in_print=0)
    width = values[("negative controls", "null_width")]
    figures = []
    if np.isfinite(width):
        alt = (
            f"Quantiles of the z-scores of negative controls against those of a standard normal "
            f"distribution. Their width (1 if standard errors are correct) is {width:.2f}."
        )
        about = (
            "Control cells were analysed as perturbations. Points on the dashed diagonal show that "
            "standard errors are correct; points on a steeper line show that they are too small."
        )
        key = keys["diagnosis"]
        figures = [draw(pl.diagnose, adata, alt, about, key=key, panel="negative controls")]
    return Section("diagnostics", "Diagnostics", figures=figures, tables=[first, second])


def made_section(adata: AnnData, results: Results, keys: Keys, command: str | None) -> Section:
    """Report how the page was made: cells, options, versions, command."""
    source = f"{number(adata.n_obs)} cells"
    if is_table(adata):
        source = "a table of effects and standard errors (no single cells)"
    words = [f"The data are {source}, with {number(adata.n_vars)} genes."]
    tables = []
    if FIT in results:
        fit = results[FIT]
        cells = ""
        table = fit["environments"]
        n_genes = number(len(fit["genes"]))
        if not is_table(adata):
            cells = (
                f"{number(fit['n_control_cells'])} control cells ({fit['params']['control']}) and "
                f"{number(table['n_cells'].sum())} cells of "
            )
        words[0] += (
            f" The model was fitted to {cells}{len(table)} perturbations, over {n_genes} genes."
        )
        if len(left_out := fit.get("left_out", [])):
            caption = "Labels left out of the fit"
            names = ["perturbation", "n_cells", "reason"]
            tables = [Table("left-out", caption, left_out, names, in_print=3)]
    guides = adata.uns.get(GUIDES)
    if isinstance(guides, pd.DataFrame) and {*COLUMNS} <= {*guides.columns}:
        caption = "Guides, their targets and how these were decided"
        frame = guides.rename_axis("guide").reset_index()
        tables.append(Table("guides", caption, frame, list(frame.columns), in_print=0))
    if is_table(adata) and not_told(adata):
        words.append(not_told(adata))
    rows = []
    for name in filter(results.__contains__, SOURCES):
        params = dict(results[name].get("params", {}))
        seed = str(params.pop("rng", NOTHING))
        options = "; ".join(f"{key} = {_plain(params[key])}" for key in sorted(params))
        made_by = str(results[name].get("version", NOTHING))
        rows.append((SOURCES[name].function, f'uns["{keys[name]}"]', made_by, seed, options))
    names = ["function", "stored_in", "nextpert", "seed", "options"]
    caption = "Version, seed and options of every result on this page"
    frame = pd.DataFrame(rows, columns=names)
    tables.append(Table("options", caption, frame, names, in_print=0))
    return Section("made", "How this was made", words, tables=tables, code=command or "")


def _plain(value: Any) -> str:
    """Return a parameter's value as text: lists with commas, numbers in a few digits."""
    if isinstance(value, (np.ndarray, list, tuple)):
        return ", ".join(_plain(item) for item in np.asarray(value).ravel().tolist())
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)
