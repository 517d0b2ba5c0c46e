"""Sections on what was measured and learned: distances, graph, densities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import pl
from nextpert._adata import eager, list_names, read_graph
from nextpert._adata.target import DISTANCES
from nextpert._report.blocks import Section
from nextpert._report.figures import MOST_ARCS, MOST_GENES, MOST_PANELS, busiest, draw
from nextpert._report.numbers import count, number, share
from nextpert._report.tables import Column, Table, make_table
from nextpert._report.verdict import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    Found = Mapping[str, dict[str, Any]]
    Keys = Mapping[str, str]


def distances_section(found: Found) -> Section | None:
    """List how far the cells of every perturbation lie from the target."""
    if "target_distances" not in found:
        return None
    stored = found["target_distances"]
    table, params = stored["table"], stored["params"]
    control = table.loc[table["perturbation"].astype(str) == str(params["control"]), "distance"]
    unit = DISTANCES[str(params["distance"])]
    words = [
        f"Distances of the cells themselves to {name_of(stored['target'])} ({unit}), without a "
        f"model and without bias, over {count(len(stored['genes']))} genes."
    ]
    level = f"{100 * float(params['confidence']):g} %"
    columns = [
        Column("Perturbation", "perturbation", is_head=True),
        Column("Cells", "n_cells", count),
        Column(
            "Distance",
            ("distance", "low", "high"),
            reference=float(control.iloc[0]) if len(control) else float("nan"),
        ),
        Column("Of control cells", "relative_distance", share),
        Column(
            "Less that of controls",
            ("difference", "difference_low", "difference_high"),
            reference=0.0,
        ),
    ]
    shown = make_table(
        "distances",
        f"Measured distances, nearest first, with {level} intervals; the dashed line is control "
        f"cells, or no difference to them",
        table,
        columns,
        download=table,
        in_print=6,
    )
    return Section("distances", "Measured distances", words, tables=[shown])


def graph_section(adata: AnnData, found: Found, keys: Keys) -> Section | None:
    """Draw the graph, and list its arcs."""
    if "dag" not in found or keys["dag"] not in adata.varp:
        return None
    key, stored = keys["dag"], found["dag"]
    names, columns, graph = read_graph(adata, key)
    adjacency = sp.csr_array(graph.to_matrix())
    method = str(stored["params"]["method"])
    how = "given" if method == "given" else f"learned by {method}"
    words = [f"{count(len(names))} genes, {count(graph.n_edges)} arcs, {how}."]
    if not graph.n_edges:
        words.append("A graph without arcs says nothing of how genes act on one another.")
        return Section("graph", "Graph", words)
    is_fitted = "dag_blr" in found and str(found["dag_blr"]["params"]["dag_key"]) == key
    posterior = keys["dag_blr"] if is_fitted else None
    arcs = _arcs(adata, stored, names, columns, adjacency, posterior)
    genes, least = None, 0.0
    if "weight" in arcs and len(arcs) > MOST_ARCS:
        first = arcs.head(MOST_ARCS)
        least = float(first["weight"].abs().min())
        ends = set(first["parent"]) | set(first["child"])
        genes = [name for name in names if name in ends]
        words.append(f"Drawn are the {MOST_ARCS} strongest arcs, and the genes that they join.")
    elif len(names) > MOST_GENES:
        genes = busiest(names, adjacency)
        words.append(f"Drawn are the {len(genes)} genes with most arcs.")
    figure = draw(
        lambda: pl.dag(
            adata, key=key, posterior_key=posterior, genes=genes, min_weight=least, show=False,
            return_fig=True,
        ),
        f"Arc diagram of the graph, causes left of effects: {words[0]} The table of arcs lists "
        f"what it shows.",
        "Genes in topological order: causes left, effects right.",
    )  # fmt: skip
    tables = [_arcs_table(arcs)]
    return Section("graph", "Graph", words, figures=[figure], tables=tables)


def _arcs(
    adata: AnnData,
    stored: Mapping[str, Any],
    names: list[str],
    columns: Any,
    adjacency: Any,
    posterior: str | None,
) -> pd.DataFrame:
    """Return one row an arc, the strongest first where there is a posterior."""
    parent, child = adjacency.nonzero()
    table = pd.DataFrame({"parent": [names[i] for i in parent], "child": [names[i] for i in child]})
    if posterior is not None and f"{posterior}_mean" in adata.varp:
        weights = sp.csr_array(eager(adata.varp[f"{posterior}_mean"]))
        table["weight"] = np.asarray(weights[columns[parent], columns[child]]).ravel()
        table = table.iloc[np.argsort(-table["weight"].abs().to_numpy(), kind="stable")]
    if "arcs" in stored:
        table = table.merge(stored["arcs"], how="left", on=["parent", "child"])
    return table


def _arcs_table(arcs: pd.DataFrame) -> Table:
    shown = [
        Column("Cause", "parent", is_head=True),
        Column("Effect", "child"),
        Column("Weight", "weight", number),
        Column("Direction settled by", "settled_by"),
        Column("In resamples", "frequency", share),
    ]
    caption = "Arcs, the strongest first (weight: change of the effect a unit of the cause)"
    return make_table(
        "arcs",
        caption if "weight" in arcs else "Arcs",
        arcs,
        [column for column in shown if column.name in arcs],
        download=arcs,
        in_print=0,
    )


def densities_section(adata: AnnData, found: Found, keys: Keys) -> Section | None:
    """Draw where perturbed cells lie beside controls."""
    key = keys["cpca"]
    if "cpca" not in found or f"X_{key}" not in adata.obsm:
        return None
    stored = found["cpca"]
    column = str(stored["params"]["perturbation_key"])
    if column not in adata.obs or np.shape(adata.obsm[f"X_{key}"])[1] < 2:
        return None
    groups = _groups([str(name) for name in stored["groups"]], found)
    n_all = len(stored["groups"])
    which = "all groups" if len(groups) == n_all else f"{len(groups)} of {n_all} groups"
    figure = draw(
        lambda: pl.cpca_density(
            adata, groups=groups, key=key, ncols=3, show=False, return_fig=True
        ),
        f"Densities of cells in two contrastive components, one panel a perturbation, beside "
        f"those of control cells: {list_names(groups)}.",
        "Control cells are grey areas, perturbed cells blue lines.",
    )
    words = [f"Where cells lie in two contrastive components, {which}: {list_names(groups)}."]
    return Section("densities", "Densities", words, figures=[figure])


def _groups(names: list[str], found: Found) -> list[str]:
    """Return the groups to draw: those on the plate, then the best ranked, then any."""
    first: list[str] = []
    if "plan" in found:
        first += found["plan"]["plate"]["perturbation"].astype(str).tolist()
    if "design" in found:
        first += found["design"]["ranking"]["perturbation"].astype(str).tolist()
    order = [name for name in dict.fromkeys([*first, *names]) if name in names]
    return order[:MOST_PANELS]
