"""The section on effects: those of every perturbation, and the strongest of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import pl
from nextpert._adata.effects import CLEAR_SIGN
from nextpert._report.blocks import Section
from nextpert._report.figures import draw
from nextpert._report.numbers import count, number, rate
from nextpert._report.tables import MOST_ROWS, Column, make_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert._report.tables import Table

    Found = Mapping[str, dict[str, Any]]
    Index = NDArray[np.int64]

_MOST_IN_FILE = 5000  # more than a file on the page may hold


def effects_section(adata: AnnData, found: Found, keys: Mapping[str, str]) -> Section | None:
    """List the strongest effects, and draw the map of them."""
    if "perturbation_effects" not in found:
        return None
    stored = found["perturbation_effects"]
    control, names = str(stored["params"]["control"]), stored["perturbations"]
    is_clear = np.asarray(stored["lfsr"]) < CLEAR_SIGN
    n = int(is_clear.sum())
    words = (
        f"An effect is the mean of perturbed cells less that of {control}. Its sign is called "
        f"clear where it is another one with a probability (local false sign rate) below "
        f"{CLEAR_SIGN:g}. {count(n)} of {count(is_clear.size)} effects of {len(names)} "
        f"perturbations on {count(len(stored['genes']))} genes are clear."
    )
    if n > MOST_ROWS:
        words += f" The {MOST_ROWS} strongest are listed."
    figures = []
    if is_clear.size:
        figures = [
            draw(
                lambda: pl.perturbation_effects(
                    adata, key=keys["perturbation_effects"], show=False, return_fig=True
                ),
                f"Map of the strongest effects. {_strongest_in_words(stored)}",
                "The strongest effects, in the order of a clustering.",
            )
        ]
    tables = [_summary(stored, is_clear), _strongest(stored, is_clear)]
    return Section("effects", "Effects", [words], figures=figures, tables=tables)


def _strongest(stored: Mapping[str, Any], is_clear: NDArray[np.bool_]) -> Table:
    level = f"{100 * float(stored['params']['level']):g} %"
    return make_table(
        "effects",
        f"Effects of clear sign, the strongest first, with {level} intervals "
        f"(log-normalised expression); the dashed line is no effect",
        _rows(stored, _largest(stored, is_clear, MOST_ROWS)),
        [
            Column("Perturbation", "perturbation", is_head=True),
            Column("Gene", "gene"),
            Column("Effect", ("mean", "lower", "upper"), reference=0.0),
            Column("False sign rate", "lfsr", rate),
            Column("Direct part", "direct", number),
            Column("Difference of means", "cells_mean", number),
            Column("Cells", "n_cells", count),
        ],
        n_all=int(is_clear.sum()),
        download=_rows(stored, _largest(stored, np.ones_like(is_clear), _MOST_IN_FILE)),
        n_file=is_clear.size,
        in_print=0,
    )


def _largest(stored: Mapping[str, Any], among: NDArray[np.bool_], most: int) -> Index:
    """Return the flat places of the largest effects among some, the largest first."""
    places = np.flatnonzero(among.ravel())
    size = np.abs(np.asarray(stored["mean"], float).ravel()[places])
    return places[np.argsort(-size, kind="stable")[:most]]


def _rows(stored: Mapping[str, Any], places: Index) -> pd.DataFrame:
    """Return one row an effect."""
    row, column = np.divmod(places, max(len(stored["genes"]), 1))
    parts = ("mean", "lower", "upper", "lfsr", "direct", "cells_mean")
    return pd.DataFrame(
        {
            "perturbation": np.asarray(stored["perturbations"])[row].astype(str),
            "gene": np.asarray(stored["genes"])[column].astype(str),
            **{part: np.asarray(stored[part], float)[row, column] for part in parts},
            "n_cells": np.asarray(stored["n_cells"])[row],
        }
    )


def _summary(stored: Mapping[str, Any], is_clear: NDArray[np.bool_]) -> Table:
    genes, mean = stored["genes"], np.asarray(stored["mean"], float)

    def largest(sign: int) -> list[str]:
        signed = np.where(is_clear, sign * mean, 0.0)
        best = signed.argmax(axis=1) if len(genes) else []
        return [
            f"{genes[j]} ({mean[i, j]:+.2g})" if signed[i, j] > 0 else ""
            for i, j in enumerate(best)
        ]

    frame = pd.DataFrame(
        {
            "perturbation": np.asarray(stored["perturbations"]).astype(str),
            "n_cells": stored["n_cells"],
            "n_clear": is_clear.sum(axis=1),
            "raised": largest(1),
            "lowered": largest(-1),
        }
    ).sort_values("n_clear", ascending=False, kind="stable")
    return make_table(
        "perturbations",
        "Perturbations: genes with an effect of clear sign, and the largest of them",
        frame,
        [
            Column("Perturbation", "perturbation", is_head=True),
            Column("Cells", "n_cells", count),
            Column("Clear effects", "n_clear", count),
            Column("Most raised", "raised"),
            Column("Most lowered", "lowered"),
        ],
        download=frame,
        in_print=7,
    )


def _strongest_in_words(stored: Mapping[str, Any]) -> str:
    every = np.ones(np.shape(stored["mean"]), bool)
    rows = _rows(stored, _largest(stored, every, 5)).itertuples()
    return f"The largest: {', '.join(f'{r.perturbation} on {r.gene} {r.mean:+.2g}' for r in rows)}."
