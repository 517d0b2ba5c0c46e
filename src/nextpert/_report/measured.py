"""Sections on what was measured and learned: distances, effects, graph, densities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import pl
from nextpert._adata import eager, list_names, read_graph
from nextpert._adata.effects import CLEAR_SIGN
from nextpert._adata.target import DISTANCES
from nextpert._report.page import Section, draw
from nextpert._report.tables import (
    MOST_ROWS,
    Column,
    Table,
    above_0,
    count,
    number,
    rate,
    share,
)
from nextpert.core._shown import percent
from nextpert.tl._advice import name_of
from nextpert.tl._perturbation_effects.programs import ALIKE, CORRELATED, groups_alike

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    Found = Mapping[str, dict[str, Any]]
    Keys = Mapping[str, str]
    Index = NDArray[np.int64]

MOST_PANELS = 6  # of densities
_MOST_GROUPS = 5  # of perturbations that are alike, in words
_FEWEST = 20  # effects of a size, to state their coverage
_MOST_IN_FILE = 5000  # effects; more than a file on the page may hold


def distances_section(found: Found) -> Section | None:
    """List the distance of the cells of every perturbation to the target."""
    if "target_distances" not in found:
        return None
    stored = found["target_distances"]
    table, params = stored["table"], stored["params"]
    control = table.loc[table["perturbation"].astype(str) == str(params["control"]), "distance"]
    unit = DISTANCES[str(params["distance"])]
    words = [
        f"Unbiased distances of the cells to {name_of(stored['target'])} ({unit}), without a "
        f"model, over all {count(len(stored['genes']))} genes, own target genes among them."
    ]
    of_control = float(control.iloc[0]) if len(control) else float("nan")
    less = ("difference", "difference_low", "difference_high")
    columns = [
        Column("Perturbation", "perturbation", is_head=True),
        Column("Cells", "n_cells", count),
        Column("Distance", ("distance", "low", "high"), reference=of_control),
        Column("Relative to control", "relative_distance", share),
        Column("Minus control", less, reference=0.0),
    ]
    caption = (
        f"Measured distances, nearest first, with {100 * float(params['confidence']):g}% "
        f"intervals; the dashed lines are the control, and no difference from it"
    )
    shown = Table("distances", caption, above_0(table), columns, download=table, in_print=6)
    return Section("distances", "Measured distances", words, tables=[shown])


def effects_section(adata: AnnData, found: Found, keys: Keys) -> Section | None:
    """List the strongest effects, and draw the map of them."""
    if "perturbation_effects" not in found:
        return None
    stored = found["perturbation_effects"]
    control, names = str(stored["params"]["control"]), stored["perturbations"]
    significant = np.asarray(stored["lfsr"]) < CLEAR_SIGN
    n = int(significant.sum())
    words = (
        f"An effect is the mean of perturbed cells minus that of {control}. Its direction is "
        f"significant if the local false sign rate is below {CLEAR_SIGN:g}. "
        f"{count(n)} of {count(significant.size)} effects of {len(names)} perturbations on "
        f"{count(len(stored['genes']))} genes are significant."
    )
    if n > MOST_ROWS:
        words += f" The {MOST_ROWS} strongest are listed."
    words += _coverage(found)
    every = np.ones_like(significant)
    figures = []
    if significant.size:
        first = _rows(stored, _largest(stored, every, 5)).itertuples()
        told = ", ".join(f"{r.perturbation} on {r.gene} {r.mean:+.2g}" for r in first)
        key = keys["perturbation_effects"]
        figure = draw(
            lambda: pl.perturbation_effects(adata, key=key, show=False, return_fig=True),
            f"Map of the strongest effects. The largest: {told}.",
            "The strongest effects, ordered by clustering.",
        )
        figures.append(figure)
    columns = [
        Column("Perturbation", "perturbation", is_head=True),
        Column("Gene", "gene"),
        Column("Effect", ("mean", "lower", "upper"), reference=0.0),
        Column("False sign rate", "lfsr", rate),
        Column("Direct part", "direct", number),
        Column("Difference of means", "raw_mean", number),
        Column("Cells", "n_cells", count),
    ]
    caption = (
        f"Effects of significant direction, the strongest first, with "
        f"{100 * float(stored['params']['level']):g}% intervals (log-normalised expression); the "
        f"dashed line is no effect"
    )
    shown, held = (
        _rows(stored, _largest(stored, among, most))
        for among, most in ((significant, MOST_ROWS), (every, _MOST_IN_FILE))
    )
    strongest = Table(
        "effects", caption, shown, columns, n_all=n, download=held, n_file=significant.size,
        in_print=0,
    )  # fmt: skip
    tables = [_summary(stored, significant), strongest]
    return Section("effects", "Effects", [words], figures=figures, tables=tables)


def _coverage(found: Found) -> str:
    """Return how many intervals cover, by the size of the estimate, as the halves show."""
    if "diagnosis" not in found:
        return ""
    table = found["diagnosis"]["coverage_by_size"]
    table = table[table["n"] >= _FEWEST]
    told = [
        f"{share(row.coverage)} beyond {row.size_from:g}"
        if np.isinf(row.size_to)
        else f"{share(row.coverage)} at {row.size_from:g} to {row.size_to:g}"
        for row in table.itertuples()
    ]
    if not told:
        return ""
    return (
        f" Effects learned from one half of this screen and tested on the other: 90% intervals "
        f"cover, by the distance of the estimate from 0 in standard deviations, {list_names(told)}."
    )


def programs_section(adata: AnnData, found: Found, keys: Keys) -> Section | None:
    """List the programs that perturbations share, and the perturbations that are alike."""
    stored = found.get("perturbation_effects", {})
    seen = [
        str(name)
        for name, n in zip(stored.get("perturbations", []), stored.get("n_cells", []), strict=True)
        if n > 0
    ]
    if "programs" not in stored or len(seen) < 2:
        return None
    shares, genes, scores = (stored["programs"][name] for name in ("shares", "genes", "scores"))
    pairs, n = stored["alike"], len(shares)
    if n:
        words = [
            "A program is a set of genes that two or more perturbations change together; the score "
            "of a perturbation says how strongly, and in which direction. What perturbations do to "
            "their own target genes is left out."
        ]
    else:
        words = ["No program is shared by two or more perturbations."]
    groups = groups_alike(pairs)
    for names, least in groups[:_MOST_GROUPS]:
        each = "with" if len(names) == 2 else "each pair with"
        certain = (
            percent(least) if least > 0.99 or len(names) == 2 else f"at least {percent(least)}"
        )
        words.append(f"{list_names(names, 12)} do the same, {each} probability {certain}.")
    if len(groups) > _MOST_GROUPS:
        words.append(f"{len(groups) - _MOST_GROUPS} more groups do the same: see the table.")
    if not groups:
        words.append(f"No two perturbations do the same with a probability above {share(ALIKE)}.")

    def told(table: pd.DataFrame, names: str, value: str) -> str:
        rows = zip(table[names], table[value], strict=True)
        return list_names([f"{name} {x:+.2f}" for name, x in rows], 8)

    rows = []
    for each in shares.itertuples():
        on = scores[(scores["program"] == each.program) & scores["takes_part"].astype(bool)]
        of = genes[genes["program"] == each.program].head(8)
        rows.append((each.program, each.share, told(on, "perturbation", "score"),
                     told(of, "gene", "effect")))  # fmt: skip
    tables, figures = [], []
    if n:
        frame = pd.DataFrame(rows, columns=["program", "share", "perturbations", "genes"])
        columns = [
            Column("Program", "program", count, is_head=True),
            Column("Share of the effects", "share", share),
            Column("Perturbations and scores", "perturbations", is_long=True),
            Column("Genes and effects of a score of 1", "genes", is_long=True),
        ]
        caption = (
            "Programs, the largest share of the effects first, with the genes that change most"
        )
        every = genes.merge(shares[["program", "share"]], on="program")
        tables.append(Table("programs", caption, frame, columns, download=every, in_print=3))
        key = keys["perturbation_effects"]
        figures.append(
            draw(
                lambda: pl.programs(adata, key=key, show=False, return_fig=True),
                "Scores of perturbations and effects on genes, program by program. "
                f"The largest: {rows[0][2]}; {rows[0][3]}.",
                "Scores of perturbations on each program, and its genes, with 90% intervals.",
            )
        )
    if len(pairs):
        columns = [
            Column("Perturbation", "perturbation", is_head=True),
            Column("Does the same as", "other"),
            Column("Probability", "probability", percent),
            Column("Correlation of effects", "correlation", number),
        ]
        caption = (
            f"Pairs of perturbations whose effects have a correlation above {CORRELATED:g} with a "
            f"probability above {share(ALIKE)}, without their target genes"
        )
        tables.append(Table("alike", caption, pairs, columns, download=pairs, in_print=3))
    return Section("programs", "Programs", words, figures=figures, tables=tables)


def _largest(stored: Mapping[str, Any], among: NDArray[np.bool_], most: int) -> Index:
    """Return the flat places of the largest effects among some, the largest first."""
    places = np.flatnonzero(among.ravel())
    size = np.abs(np.asarray(stored["mean"], float).ravel()[places])
    return places[np.argsort(-size, kind="stable")[:most]]


def _rows(stored: Mapping[str, Any], places: Index) -> pd.DataFrame:
    """Return one row per effect."""
    row, column = np.divmod(places, max(len(stored["genes"]), 1))
    parts = ("mean", "lower", "upper", "lfsr", "direct", "raw_mean")
    return pd.DataFrame(
        {
            "perturbation": np.asarray(stored["perturbations"])[row].astype(str),
            "gene": np.asarray(stored["genes"])[column].astype(str),
            **{part: np.asarray(stored[part], float)[row, column] for part in parts},
            "n_cells": np.asarray(stored["n_cells"])[row],
        }
    )


def _summary(stored: Mapping[str, Any], significant: NDArray[np.bool_]) -> Table:
    genes, mean = stored["genes"], np.asarray(stored["mean"], float)

    def largest(sign: int) -> list[str]:
        signed = np.where(significant, sign * mean, 0.0)
        best = signed.argmax(axis=1) if len(genes) else []
        return [
            f"{genes[j]} ({mean[i, j]:+.2g})" if signed[i, j] > 0 else ""
            for i, j in enumerate(best)
        ]

    frame = pd.DataFrame(
        {
            "perturbation": np.asarray(stored["perturbations"]).astype(str),
            "n_cells": stored["n_cells"],
            "n_significant": significant.sum(axis=1),
            "raised": largest(1),
            "lowered": largest(-1),
        }
    ).sort_values("n_significant", ascending=False, kind="stable")
    columns = [
        Column("Perturbation", "perturbation", is_head=True),
        Column("Cells", "n_cells", count),
        Column("Significant effects", "n_significant", count),
        Column("Most raised", "raised"),
        Column("Most lowered", "lowered"),
    ]
    caption = (
        "Perturbations: genes with an effect of significant direction, and the largest of them"
    )
    return Table("perturbations", caption, frame, columns, download=frame, in_print=7)


def graph_section(adata: AnnData, found: Found, keys: Keys) -> Section | None:
    """Draw the graph, and list its edges; as associations, unless its directions are trusted."""
    if "dag" not in found or keys["dag"] not in adata.varp:
        return None
    key, stored = keys["dag"], found["dag"]
    names, columns, graph = read_graph(adata, key)
    method = str(stored["params"]["method"])
    caveat = _caveat(found, method)
    title, what = ("Associations", "associations") if caveat else ("Graph", "edges")
    how = "given" if method == "given" else f"learned by {method}"
    words = [f"{count(len(names))} genes, {count(graph.n_edges)} {what}, {how}."]
    if not graph.n_edges:
        words.append("A graph without edges predicts no effect of one gene on another.")
        return Section("graph", title, words)
    words += [caveat] if caveat else []
    is_fitted = "dag_blr" in found and str(found["dag_blr"]["params"]["dag_key"]) == key
    posterior = keys["dag_blr"] if is_fitted else None
    edges = _edges(adata, stored, names, columns, sp.csr_array(graph.to_matrix()), posterior)
    figure = draw(
        lambda: pl.dag(
            adata, key=key, posterior_key=posterior, directed=not caveat, show=False,
            return_fig=True,
        ),
        f"Edge diagram of the {what} between genes: {words[0]} The table lists them.",
        "Associations; which of two genes acts on the other is not known." if caveat
        else "Genes in topological order: causes left, effects right.",
    )  # fmt: skip
    shown = [
        Column("Gene" if caveat else "Cause", "parent", is_head=True),
        Column("Associated gene" if caveat else "Effect", "child"),
        Column("Weight", "weight", number),
        *([] if caveat else [Column("Oriented by", "oriented_by")]),
        Column("In bootstrap graphs", "frequency", share),
    ]
    caption = what.capitalize()
    if "weight" in edges:
        per = "" if caveat else " (weight: change of the effect per unit of the cause)"
        caption += f", the strongest first{per}"
    shown = [column for column in shown if column.name in edges]
    table = Table("edges", caption, edges, shown, download=edges, in_print=0)
    return Section("graph", title, words, figures=[figure], tables=[table])


def _caveat(found: Found, method: str) -> str:
    """Return why edges are no causes and effects; empty where they are trusted, or were given."""
    if "diagnosis" not in found:
        if method == "given":
            return ""
        return (
            "Whether these edges are causal was not checked (run tl.diagnose): read them as "
            "associations, in either direction."
        )
    parts = found["diagnosis"]["parts"]
    rows = parts[(parts["part"] == "graph") & (parts["level"] == "do not trust")]
    if not len(rows):
        return ""
    why = str(rows["verdict"].iloc[0]).split(": ", 1)[-1]
    return (
        f"The graph is not trusted on this screen, so these are associations, not causes and "
        f"effects: of two genes joined, either may act on the other, or neither. Diagnosis: {why}"
    )


def _edges(
    adata: AnnData,
    stored: Mapping[str, Any],
    names: list[str],
    columns: Any,
    adjacency: Any,
    posterior: str | None,
) -> pd.DataFrame:
    """Return one row per edge, the strongest first if there is a posterior."""
    parent, child = adjacency.nonzero()
    table = pd.DataFrame({"parent": [names[i] for i in parent], "child": [names[i] for i in child]})
    if posterior is not None and f"{posterior}_mean" in adata.varp:
        weights = sp.csr_array(eager(adata.varp[f"{posterior}_mean"]))
        table["weight"] = np.asarray(weights[columns[parent], columns[child]]).ravel()
        table = table.iloc[np.argsort(-table["weight"].abs().to_numpy(), kind="stable")]
    if "edges" in stored:
        table = table.merge(stored["edges"], how="left", on=["parent", "child"])
    return table


def densities_section(adata: AnnData, found: Found, keys: Keys) -> Section | None:
    """Plot the densities of perturbed cells and of controls."""
    key = keys["cpca"]
    if "cpca" not in found or f"X_{key}" not in adata.obsm:
        return None
    stored = found["cpca"]
    column = str(stored["params"]["perturbation_key"])
    if column not in adata.obs or np.shape(adata.obsm[f"X_{key}"])[1] < 2:
        return None
    # Those of the next round, then the best ranked, then any.
    first: list[str] = []
    if "plan" in found:
        first += found["plan"]["plate"]["perturbation"].astype(str).tolist()
    if "design" in found:
        first += found["design"]["ranking"]["perturbation"].astype(str).tolist()
    there = [str(name) for name in stored["groups"]]
    groups = [name for name in dict.fromkeys([*first, *there]) if name in there][:MOST_PANELS]
    n_all = len(stored["groups"])
    which = "all groups" if len(groups) == n_all else f"{len(groups)} of {n_all} groups"
    figure = draw(
        lambda: pl.cpca_density(
            adata, groups=groups, key=key, ncols=3, show=False, return_fig=True
        ),
        f"Densities of cells in two contrastive components, one panel per perturbation, with "
        f"those of control cells: {list_names(groups)}.",
        "Grey areas: control cells. Blue lines: perturbed cells.",
    )
    words = [f"Densities of cells in two contrastive components, {which}: {list_names(groups)}."]
    return Section("densities", "Densities", words, figures=[figure])
