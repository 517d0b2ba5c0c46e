"""Sections on what was measured and learned: distances, effects, programs, graph, densities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import pl
from nextpert._adata import eager, list_names, read_graph
from nextpert._adata.effects import CLEAR_SIGN
from nextpert._adata.target import DISTANCES
from nextpert._report.page import Figure, Section, draw
from nextpert._report.tables import MOST_ROWS, Table, above_0, number, ratio
from nextpert.core._shown import percent
from nextpert.tl._advice import name_of
from nextpert.tl._perturbation_effects.programs import ALIKE, CORRELATED, groups_alike

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert._report.results import Keys, Results

MOST_PANELS = 6  # of densities
_MOST_GROUPS = 5  # of perturbations that are alike, in words
_FEWEST = 20  # effects of a size, to state their coverage
_MOST_IN_FILE = 5000  # effects; more than a file on the page may hold
_NUMBERS = ("mean", "lower", "upper", "lfsr", "direct", "raw_mean")


def distances_section(results: Results) -> Section | None:
    """List the distance of the cells of every perturbation to the target."""
    if "target_distances" not in results:
        return None
    stored = results["target_distances"]
    table, params = stored["table"], stored["params"]
    words = (
        f"Unbiased distances of the cells to {name_of(stored['target'])} "
        f"({DISTANCES[str(params['distance'])]}), without a model, over all "
        f"{number(len(stored['genes']))} genes, own target genes among them."
    )
    caption = (
        f"Measured distances, nearest first, with {100 * float(params['confidence']):g}% "
        f"intervals; the dashed lines are the control, and no difference from it"
    )
    is_control = table["perturbation"].astype(str) == str(params["control"])
    shown = Table(
        "distances", caption, above_0(table),
        ["perturbation", "n_cells", "distance", "relative_distance", "difference"],
        marks={"distance": table.loc[is_control, "distance"].mean(), "difference": 0.0},
        download=table, in_print=6,
    )  # fmt: skip
    return Section("distances", "Measured distances", [words], tables=[shown])


def effects_section(adata: AnnData, results: Results, keys: Keys) -> Section | None:
    """List the strongest effects, and draw the map of them."""
    if "perturbation_effects" not in results:
        return None
    stored = results["perturbation_effects"]
    is_significant = np.asarray(stored["lfsr"]) < CLEAR_SIGN
    n = int(is_significant.sum())
    words = (
        f"An effect is the mean of perturbed cells minus that of {stored['params']['control']}. "
        f"Its direction is significant if the local false sign rate is below {CLEAR_SIGN:g}. "
        f"{number(n)} of {number(is_significant.size)} effects of {len(is_significant)} "
        f"perturbations on {number(len(stored['genes']))} genes are significant."
    )
    words += f" The {MOST_ROWS} strongest are listed." * (n > MOST_ROWS) + _coverage(results)
    every = _largest(stored, np.ones_like(is_significant), _MOST_IN_FILE)
    figures, tables = [], []
    if len(every):
        first = every.head().itertuples()
        largest = ", ".join(f"{x.perturbation} on {x.gene} {x.mean:+.2g}" for x in first)
        alt = f"Map of the strongest effects. The largest: {largest}."
        about = "The strongest effects, ordered by clustering."
        tables = [_by_perturbation(stored, is_significant)]
        key = keys["perturbation_effects"]
        figures = [draw(pl.perturbation_effects, adata, alt, about, key=key)]
    caption = (
        f"Effects of significant direction, the strongest first, with "
        f"{100 * float(stored['params']['level']):g}% intervals (log-normalised expression); the "
        f"dashed line is no effect"
    )
    strongest = Table(
        "effects", caption, _largest(stored, is_significant, MOST_ROWS),
        ["perturbation", "gene", "mean", "lfsr", "direct", "raw_mean", "n_cells"],
        marks={"mean": 0.0}, n_all=n, download=every, n_file=is_significant.size, in_print=0,
    )  # fmt: skip
    tables.append(strongest)
    return Section("effects", "Effects", [words], figures=figures, tables=tables)


def _coverage(results: Results) -> str:
    """Return how many intervals cover, by the size of the estimate, as the halves show."""
    if "diagnosis" not in results:
        return ""
    table = results["diagnosis"]["coverage_by_size"]
    sizes = [
        f"{ratio(row.coverage)} beyond {row.size_from:g}"
        if np.isinf(row.size_to)
        else f"{ratio(row.coverage)} at {row.size_from:g} to {row.size_to:g}"
        for row in table[table["n"] >= _FEWEST].itertuples()
    ]
    if not sizes:
        return ""
    return (
        f" Effects learned from one half of this screen and tested on the other: 90% intervals "
        f"cover, by the distance of the estimate from 0 in standard deviations, "
        f"{list_names(sizes)}."
    )


def _largest(stored: Mapping[str, Any], among: NDArray[np.bool_], most: int) -> pd.DataFrame:
    """Return a row for each of the largest effects among some, the largest first."""
    mean, places = np.asarray(stored["mean"], float).ravel(), np.flatnonzero(among)
    places = places[np.argsort(-np.abs(mean[places]), kind="stable")[:most]]
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
    """Return how many effects a perturbation has, and the largest of them in either direction."""
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
    caption = "Perturbations, the number of their significant effects, and the largest of these"
    return Table("perturbations", caption, frame, [*map(str, frame)], download=frame, in_print=7)


def programs_section(adata: AnnData, results: Results, keys: Keys) -> Section | None:
    """List the programs that perturbations share, and the perturbations that are alike."""
    stored = results.get("perturbation_effects", {})
    if "programs" not in stored or (np.asarray(stored["n_cells"]) > 0).sum() < 2:
        return None
    shares, genes, scores = (stored["programs"][name] for name in ("shares", "genes", "scores"))
    words = ["No program is shared by two or more perturbations."]
    tables, figures = list[Table](), list[Figure]()
    if len(shares):
        words = [
            "A program is a set of genes that two or more perturbations change together; the score "
            "of a perturbation says how strongly, and in which direction. What perturbations do to "
            "their own target genes is left out."
        ]
        on = scores[scores["takes_part"].astype(bool)]
        in_words = {
            "perturbations": _in_words(on, "perturbation", "score"),
            "genes": _in_words(genes.groupby("program").head(8), "gene", "effect"),
        }
        shown = shares.set_index("program")[["share"]].assign(**in_words).reset_index()
        caption = "Programs with the genes that change most, the largest share of the effects first"
        every, names = genes.merge(shares[["program", "share"]], on="program"), [*map(str, shown)]
        tables = [Table("programs", caption, shown, names, download=every, in_print=3)]
        alt = (
            f"Scores of perturbations and effects on genes, program by program. The largest: "
            f"{shown['perturbations'].iloc[0]}; {shown['genes'].iloc[0]}."
        )
        about = "Scores of perturbations on each program, and its genes, with 90% intervals."
        figures = [draw(pl.programs, adata, alt, about, key=keys["perturbation_effects"])]
    words += _alike_in_words(stored["alike"])
    if len(alike := stored["alike"]):
        caption = (
            f"Pairs of perturbations whose effects have a correlation above {CORRELATED:g} with a "
            f"probability above {ratio(ALIKE)}, without their target genes"
        )
        names = ["perturbation", "other", "probability", "correlation"]
        tables.append(Table("alike", caption, alike, names, download=alike, in_print=3))
    return Section("programs", "Programs", words, figures=figures, tables=tables)


def _in_words(table: pd.DataFrame, name: str, value: str) -> pd.Series:
    """Return names and values of each program as one text."""
    words = table[name].astype(str) + table[value].map(" {:+.2f}".format)
    return words.groupby(table["program"]).agg(lambda x: list_names(x, 8))


def _alike_in_words(pairs: pd.DataFrame) -> list[str]:
    """Return a sentence for each of the first groups of perturbations that do the same."""
    groups = groups_alike(pairs)
    words = [
        f"{list_names(names, 12)} do the same, with probability {percent(least)}"
        f"{' for the least likely pair' * (len(names) > 2)}."
        for names, least in groups[:_MOST_GROUPS]
    ]
    if len(groups) > _MOST_GROUPS:
        words.append(f"{len(groups) - _MOST_GROUPS} more groups do the same: see the table.")
    if not groups:
        words.append(f"No two perturbations do the same with a probability above {ratio(ALIKE)}.")
    return words


def graph_section(adata: AnnData, results: Results, keys: Keys) -> Section | None:
    """Draw the graph, and list its edges; as associations, unless its directions are trusted."""
    if "dag" not in results or keys["dag"] not in adata.varp:
        return None
    key, method = keys["dag"], str(results["dag"]["params"]["method"])
    genes, columns, graph = read_graph(adata, key)
    caveat = _caveat(results, method)
    title, edges = ("Associations", "associations") if caveat else ("Graph", "edges")
    how = "given" if method == "given" else f"learned by {method}"
    words = [f"{number(len(genes))} genes, {number(graph.n_edges)} {edges}, {how}."]
    if not graph.n_edges:
        words.append("A graph without edges predicts no effect of one gene on another.")
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
    about, shown = "Genes in topological order: causes left, effects right.", table
    if caveat:
        names = ["gene", "associated_gene", "weight", "frequency"]
        about = "Associations; which of two genes acts on the other is not known."
        shown = table.rename(columns={"parent": "gene", "child": "associated_gene"})
    figure = draw(
        pl.dag, adata, f"Edge diagram of the {edges} between genes: {words[0]} See the table.",
        about, key=key, posterior_key=posterior, directed=not caveat,
    )  # fmt: skip
    listed = Table("edges", caption, shown, names, download=table, in_print=0)
    return Section("graph", title, words, figures=[figure], tables=[listed])


def _caveat(results: Results, method: str) -> str:
    """Return why edges are no causes and effects; empty where they are trusted, or were given."""
    if "diagnosis" not in results:
        return "" if method == "given" else (
            "Whether these edges are causal was not checked (run tl.diagnose): read them as "
            "associations, in either direction."
        )  # fmt: skip
    parts = results["diagnosis"]["parts"]
    verdicts = parts.loc[(parts["part"] == "graph") & (parts["level"] == "do not trust"), "verdict"]
    if not len(verdicts):
        return ""
    return (
        f"The graph is not trusted on this screen, so these are associations, not causes and "
        f"effects: of two genes joined, either may act on the other, or neither. Diagnosis: "
        f"{str(verdicts.iloc[0]).split(': ', 1)[-1]}"
    )


def densities_section(adata: AnnData, results: Results, keys: Keys) -> Section | None:
    """Plot the densities of perturbed cells and of controls."""
    key = keys["cpca"]
    if "cpca" not in results or np.shape(adata.obsm.get(f"X_{key}", ()))[1:] < (2,):
        return None
    stored = results["cpca"]
    if str(stored["params"]["perturbation_key"]) not in adata.obs:
        return None
    # Those of the next round, then the best ranked, then any.
    every, first = list(map(str, stored["groups"])), list[str]()
    for name, part in (("plan", "plate"), ("design", "ranking")):
        if name in results:
            first += results[name][part]["perturbation"].astype(str).tolist()
    groups = [name for name in dict.fromkeys([*first, *every]) if name in every][:MOST_PANELS]
    which = f"{len(groups)} of {len(every)} groups" if len(groups) < len(every) else "all groups"
    alt = (
        f"Densities of cells in two contrastive components, one panel per perturbation, with "
        f"those of control cells: {list_names(groups)}."
    )
    about = "Grey areas: control cells. Blue lines: perturbed cells."
    figure = draw(pl.cpca_density, adata, alt, about, groups=groups, key=key, ncols=3)
    words = [f"Densities of cells in two contrastive components, {which}: {list_names(groups)}."]
    return Section("densities", "Densities", words, figures=[figure])
